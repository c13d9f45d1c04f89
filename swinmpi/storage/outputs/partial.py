"""OUT.partial: created complete or not at all, locked while in use, resumed by its own run only."""
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from swinmpi.errors import OutputError
from swinmpi.images.no_data import as_stored
from swinmpi.storage.address import DAMAGE, reason_of
from swinmpi.storage.attributes import copy_attributes, text_attribute
from swinmpi.storage.axes import sr_coordinates
from swinmpi.storage.files import (
    Sink,
    as_output_error,
    discarding,
    existing_folder,
    put_in_place,
    system_reason,
)
from swinmpi.storage.layout import in_letters, layouts_by_shape, scaled_shape
from swinmpi.storage.locking import open_locked, raise_busy
from swinmpi.storage.metadata.companions import find_companions
from swinmpi.storage.metadata.missing import (
    LIMIT_NAMES,
    PACKING_NAMES,
    fill_value,
    means_no_data,
    no_data_values,
)
from swinmpi.storage.metadata.pixel_size import set_finer
from swinmpi.storage.stack import Stack

FORMAT = 2  # of OUT.partial; another one as well when the same settings give other pixels
# From HDF5 1.8 on: attributes may be large, and the superblock has no mark "open for writing",
# which a kill would leave set; newer features only where the input has them.
LIBRARY = ("v108", "latest")
DATA, PER_IMAGE = "/entry/data", "/entry/per_image"
# Written by whom they concern: the axes by the output itself, dimension scales by HDF5.
AFRESH = "delete it, or start afresh with --overwrite"
STRUCTURE = ("signal", "axes", "CLASS", "NAME", "DIMENSION_LABELS")
# netCDF's numbers of dimensions of the input's file, wrong in any other.
# Texts with names of other variables.
NAMING = ("coordinates", "grid_mapping", "ancillary_variables", "cell_measures", "bounds",
          "formula_terms", "climatology")
FOREIGN = ("_Netcdf4Coordinates", "_Netcdf4Dimid", "_NCProperties")
# What says about an image's axes what the setting data.axes may contradict.
ABOUT_AXES = ("interpretation", "IMAGE_SUBCLASS", "INTERLACE_MODE", "axistags", "DIMENSION_LABELS")
# Attributes for packing and merging: of /entry/data, how a stack is stored whose images do not
# simply come first (JSON); of the file, what else lies where the images do, what has a value for
# each image.
RESTORED, LINKED, ALONG = "restored", "linked_images", "along_images"


def describe(stack: Stack, scale: int, pixels: Mapping[str, np.dtype],
             fingerprint: Mapping[str, Any]) -> dict:
    """The fingerprint with all that decides the file's shape, as JSON keeps it."""
    datasets = {name: np.dtype(dtype).str for name, dtype in pixels.items()}
    output = {"format": FORMAT, "scale": scale, "shape": list(stack.shape),
              "layout": stack.layout, "datasets": datasets}
    return json.loads(json.dumps({**fingerprint, "output_file": output}))


def resume_partial(partial: Path, description: dict, figures: Sequence[str],
                   overwrite: bool) -> Sink | None:
    """The locked OUT.partial that `description` began; None when there is none (any more).

    figures: names of the figures it must hold for every image. OutputError when another run holds
    it, or when it is damaged or another run's and not `overwrite`.
    """
    sink = open_locked(partial)
    if sink is None:
        return None
    problem = why_not_resumable(sink, description, figures)
    if problem is None:
        return sink
    with sink:
        if not overwrite:
            raise OutputError(f"{partial}: {problem}; {AFRESH}")
        with as_output_error(partial, "cannot be replaced ({reason})", "delete it",
                             reason=system_reason):
            partial.unlink()
    return None


def check_resumable(partial: Path, description: dict, figures: Sequence[str],
                    overwrite: bool) -> int:
    """How many images it holds, 0 where it would be begun afresh; raise what `resume_partial`
    would. OUT.partial stays as it is."""
    sink = open_locked(partial)
    if sink is None:
        return 0
    with sink:
        problem = why_not_resumable(sink, description, figures)
        if problem is None:
            with h5py.File(sink, "r") as file:
                return int(np.count_nonzero(file[PER_IMAGE]["done"][:]))
    if not overwrite:
        raise OutputError(f"{partial}: {problem}; {AFRESH}")
    return 0


def why_not_resumable(sink: Sink, description: dict, figures: Sequence[str]) -> str | None:
    """Why an open OUT.partial is not of the run that is described; None if it is."""
    try:
        with h5py.File(sink, "r") as file:
            differing = differing_keys(json.loads(file.attrs["fingerprint"]), description)
            if not differing and set(file[PER_IMAGE]) != {"done", *figures}:
                differing = ["figures"]
    except DAMAGE as error:
        return f"is not a resumable output ({reason_of(error)})"
    return f"was begun with other settings ({shortened(differing)} differ)" if differing else None


def create_partial(partial: Path, stack: Stack, scale: int, pixels: Mapping[str, np.dtype],
                   figures: Sequence[str], attributes: Mapping[str, Any]) -> Sink:
    """A new, locked OUT.partial, filled under another name and renamed when it is whole.

    attributes: of the file, on the run that begins it.
    """
    check_room(partial, stack, scale, pixels)
    new = partial.with_name(partial.name + ".new")
    sink = open_locked(new, create=True)
    try:
        with discarding(new):
            if partial.exists():  # another run was faster
                raise_busy(partial)
            sink.truncate(0)
            with h5py.File(sink, "w", libver=LIBRARY) as file:
                allocate(file, stack, scale, pixels, figures)
                for name, value in attributes.items():
                    file.attrs[name] = value
            sink.sync()
            put_in_place(new, partial)
            return sink
    except BaseException:
        sink.close()
        raise


def allocate(file: h5py.File, stack: Stack, scale: int, pixels: Mapping[str, np.dtype],
             figures: Sequence[str]) -> None:
    """Every group, dataset and attribute of the output, in the NeXus form of the finished file."""
    file.attrs["default"] = "entry"
    nexus_group(file, "entry", "NXentry").attrs["default"] = "data"
    data = nexus_group(file, DATA, "NXdata")
    for name, dtype in pixels.items():
        allocate_dataset(data, name, scaled_shape(stack.shape, stack.layout, scale), dtype)
    carry_attributes(stack, data["sr"], scale)
    tell_no_data(stack, [data[name] for name in pixels if name in ("sr", "regression")])
    data.attrs["signal"] = "sr"
    if len(pixels) > 1:
        data.attrs["auxiliary_signals"] = [name for name in pixels if name != "sr"]
    carry_axes(data, stack, scale)
    per_image = nexus_group(file, PER_IMAGE, "NXcollection")
    allocate_dataset(per_image, "done", (stack.num_images,), np.dtype("uint8"))[:] = 0
    for name in figures:
        allocate_dataset(per_image, name, (stack.num_images,), np.dtype("float32"))[:] = np.nan
    carry_companions(file, stack, scale)


def tell_no_data(stack: Stack, datasets: Sequence[h5py.Dataset]) -> None:
    """Which stored values mean no data: as the input tells it, and what the user told."""
    named = [name for name in stack.attributes
             if means_no_data(name) or name in (*LIMIT_NAMES, *PACKING_NAMES)]
    unsaid = () if no_data_values(stack.dataset) else fill_value(stack.dataset)
    for dataset in datasets:
        copy_attributes(stack.dataset, dataset, skip=(*set(stack.dataset.attrs) - set(named),
                                                      *dataset.attrs))
        told = {one for value in (*stack.told_no_data, *unsaid)
                for one in as_stored(value, dataset.dtype)} - {*no_data_values(dataset)}
        if told:
            named_before = no_data_values(dataset, ["missing_value"])
            listed = np.array(sorted({*told, *named_before}), dataset.dtype)
            dataset.attrs["missing_value"] = listed
            if "_FillValue" not in dataset.attrs:
                dataset.attrs["_FillValue"] = listed[0]


def allocate_dataset(group: h5py.Group, name: str, shape: tuple[int, ...],
                     dtype: np.dtype) -> h5py.Dataset:
    """A contiguous dataset whose place in the file is fixed now: writing changes no metadata."""
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_layout(h5py.h5d.CONTIGUOUS)
    creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    return group.create_dataset(name, shape=shape, dtype=dtype, dcpl=creation)


def carried(stack: Stack, scale: int) -> list[str]:
    """Everything of the stack but its images written to memory, for a first look.

    Returns a line for each attribute that the output has otherwise than the input, or not.
    """
    with h5py.File("unused", "w", driver="core", backing_store=False, libver=LIBRARY) as file:
        data = nexus_group(file, DATA, "NXdata")
        told = carry_attributes(stack, data.create_dataset("sr", shape=(0,), dtype="u1"), scale)
        carry_axes(data, stack, scale)
        carry_companions(file, stack, scale)
    return told


def carry_attributes(stack: Stack, sr: h5py.Dataset, scale: int) -> list[str]:
    """The attributes of the stack as they hold for `sr`; a line for each that others are."""
    skip = {"signal", "axes", *FOREIGN}
    if stack.described.view.axes:
        skip |= set(ABOUT_AXES)
    if not stack.arrangement.is_plain:
        skip.add("DIMENSION_LABELS")
    lost = copy_attributes(stack.dataset, sr, skip)
    arrangement, names = stack.arrangement, stack.described.names
    by_shape = layouts_by_shape(arrangement.shape)[:1] == [arrangement.layout]
    if arrangement.is_plain and names and (stack.described.view.axes or not by_shape):
        sr.attrs["DIMENSION_LABELS"] = list(names)
    return [f"attribute {name} is left out: its type or name cannot be copied" for name in lost] + (
        set_finer(sr, stack.arrangement.layout, scale))


def carry_axes(data: h5py.Group, stack: Stack, scale: int) -> None:
    """Store the stack's axes beside `sr`, pixel axes on the SR grid, and NeXus's `axes`.

    "." stands where there is none. Where images do not simply come first, `axes` are those of
    `sr` as it is here, and `restored` has those of the stack.
    """
    names, arrangement = [], stack.arrangement
    for axis, kind, size in zip(stack.axes, arrangement.layout, arrangement.shape, strict=True):
        values = None
        if axis is not None and axis.name not in data:
            values = axis.values
            if kind in "HW":
                values = sr_coordinates(axis.values, size, scale)
        names.append("." if values is None else axis.name)
        if values is not None:
            dtype = axis.dataset.dtype if kind in "NC" else None
            copied = data.create_dataset(axis.name, data=values, dtype=dtype)
            copy_attributes(axis.dataset, copied, skip=(*STRUCTURE, *FOREIGN))
            if kind in "HW":
                set_finer(copied, kind, scale)
    if not arrangement.is_plain:
        labels = stack.described.names or [*in_letters(arrangement.layout)]
        data.attrs[RESTORED] = json.dumps({
            "layout": arrangement.layout, "sizes": arrangement.image_sizes, "axes": names,
            "labels": list(labels)})
        by_letter = dict(zip(arrangement.layout, names, strict=True))
        names = [".", *(by_letter[letter] for letter in stack.layout[1:])]
    set_axes(data, names)


def set_axes(data: h5py.Group, names: Sequence[str]) -> None:
    """NeXus's `axes` of a group, and where each lies."""
    data.attrs["axes"] = list(names)
    for dimension, name in enumerate(names):
        if name != ".":
            data.attrs[f"{name}_indices"] = dimension


def carry_companions(file: h5py.File, stack: Stack, scale: int) -> None:
    """What lies beside and around the stack and still holds, below /entry."""
    entry, linked, along = file["entry"], [], []
    for companion in find_companions(stack, scale):
        place, source = companion.place, companion.source
        if place in entry:
            continue
        if companion.is_stack:
            linked.append(f"/entry/{place}")
        elif companion.values is None:
            copy_attributes(source, entry.require_group(place), FOREIGN)
        else:
            same = np.asarray(companion.values).dtype == source.dtype
            copied = entry.create_dataset(place, data=companion.values,
                                          dtype=source.dtype if same else None)
            copy_attributes(source, copied, (*STRUCTURE, *FOREIGN))
            set_finer(copied, stack.arrangement.layout, scale)
            if companion.along_images:
                along.append(f"/entry/{place}")
    for item in file[DATA].values():
        drop_dangling(item, file[DATA])
    for name, places in ((LINKED, linked), (ALONG, along)):
        if places:
            file.attrs[name] = places


def drop_dangling(item: h5py.Dataset, data: h5py.Group) -> None:
    """Remove attributes with CF's names of variables that are not here."""
    for name in NAMING:
        text = text_attribute(item, name)
        if text is not None and not all(word in data for word in text.split()
                                        if not word.endswith(":")):
            del item.attrs[name]


def nexus_group(parent: h5py.Group, name: str, nexus_class: str) -> h5py.Group:
    group = parent.create_group(name)
    group.attrs["NX_class"] = nexus_class
    return group


def check_room(partial: Path, stack: Stack, scale: int, pixels: Mapping[str, np.dtype]) -> None:
    """OutputError when the disk cannot even hold OUT.partial."""
    num_pixels = int(np.prod(scaled_shape(stack.shape, stack.layout, scale), dtype=np.int64))
    needed = num_pixels * sum(np.dtype(dtype).itemsize for dtype in pixels.values())
    free = shutil.disk_usage(existing_folder(partial)).free
    if needed > free:
        raise OutputError(f"{partial}: needs {needed / 2**30:.1f} GiB, the disk has "
                          f"{free / 2**30:.1f} GiB free; make room or choose another --output")


def differing_keys(before: Mapping, after: Mapping, prefix: str = "") -> list[str]:
    """Dotted names of all leaves that differ between two nested dicts."""
    names = []
    for key in sorted({*before, *after}):
        old, new = before.get(key), after.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            names += differing_keys(old, new, f"{prefix}{key}.")
        elif old != new or (key in before) != (key in after):
            names.append(prefix + key)
    return names


def shortened(names: list[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
