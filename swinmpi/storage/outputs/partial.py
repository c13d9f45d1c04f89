"""OUT.partial: created complete or not at all, locked while in use, resumed by its own run only."""
import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from swinmpi.errors import OutputError
from swinmpi.storage.address import DAMAGE, reason_of
from swinmpi.storage.files import (
    Sink,
    as_output_error,
    existing_folder,
    put_in_place,
    system_reason,
)
from swinmpi.storage.layout import scaled_shape
from swinmpi.storage.locking import begin, open_locked, raise_busy
from swinmpi.storage.outputs.carrying import (
    DATA,
    LIBRARY,
    carry_attributes,
    carry_axes,
    carry_companions,
    nexus_group,
    tell_no_data,
)
from swinmpi.storage.stack import Stack
from swinmpi.storage.trust import NAME as TRUST

FORMAT = 2  # of OUT.partial; another one as well when the same settings give other pixels
PER_IMAGE = "/entry/per_image"
# Of an ensemble: numbers of their own, in floats. The spread is that of the samples, ddof 1; the
# deviation a calibrated one, in its place.
MOMENTS = ("sr_mean", "sr_spread", "sr_std")
SPREAD_IN_WORDS = "sample standard deviation of the ensemble, not calibrated: no error bar"
AFRESH = "delete it, or start afresh with --overwrite"


def member_name(k: int) -> str:
    """The dataset of member k of an ensemble, from 1 on: member 0 is `sr`."""
    return f"member_{k}"


def exact_name(k: int) -> str:
    """The dataset of member k of an ensemble as it is before it is rounded, around -1..1."""
    return f"exact_{k}"


def is_exact(name: str) -> bool:
    return name.startswith("exact_")


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
                   figures: Sequence[str], attributes: Mapping[str, Any],
                   of_pixels: Mapping[str, Mapping[str, Any]]) -> Sink:
    """A new, locked OUT.partial, filled under another name and renamed when it is whole.

    attributes: of the file, on the run that begins it; of_pixels: of datasets of images, by name.
    """
    check_room(partial, stack, scale, pixels)
    new = partial.with_name(partial.name + ".new")
    with ExitStack() as opened:
        sink = begin(new, opened)
        if partial.exists():  # another run was faster
            raise_busy(partial)
        sink.truncate(0)
        with h5py.File(sink, "w", libver=LIBRARY) as file:
            allocate(file, stack, scale, pixels, figures, of_pixels)
            for name, value in attributes.items():
                file.attrs[name] = value
        sink.sync()
        put_in_place(new, partial)
        opened.pop_all()
        return sink


def allocate(file: h5py.File, stack: Stack, scale: int, pixels: Mapping[str, np.dtype],
             figures: Sequence[str],
             of_pixels: Mapping[str, Mapping[str, Any]]) -> None:
    """Every group, dataset and attribute of the output, in the NeXus form of the finished file."""
    file.attrs["default"] = "entry"
    nexus_group(file, "entry", "NXentry").attrs["default"] = "data"
    data = nexus_group(file, DATA, "NXdata")
    for name, dtype in pixels.items():
        allocate_dataset(data, name, scaled_shape(stack.shape, stack.layout, scale), dtype)
    carry_attributes(stack, data["sr"], scale)
    tell_no_data(stack, [data[name] for name in pixels
                         if name not in (*MOMENTS, TRUST) and not is_exact(name)])
    for name, told in of_pixels.items():
        data[name].attrs.update(told)
    data.attrs["signal"] = "sr"
    beside_sr = [name for name in pixels if name != "sr" and not is_exact(name)]
    if beside_sr:
        data.attrs["auxiliary_signals"] = beside_sr
    carry_axes(data, stack, scale)
    per_image = nexus_group(file, PER_IMAGE, "NXdata")
    allocate_dataset(per_image, "done", (stack.num_images,), np.dtype("uint8"))[:] = 0
    for name in figures:
        allocate_dataset(per_image, name, (stack.num_images,), np.dtype("float32"))[:] = np.nan
    per_image.attrs["signal"], *others = [*figures, "done"]
    per_image.attrs["auxiliary_signals"] = others
    carry_companions(file, stack, scale)


def allocate_dataset(group: h5py.Group, name: str, shape: tuple[int, ...],
                     dtype: np.dtype) -> h5py.Dataset:
    """A contiguous dataset whose place in the file is fixed now: writing changes no metadata."""
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_layout(h5py.h5d.CONTIGUOUS)
    creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    return group.create_dataset(name, shape=shape, dtype=dtype, dcpl=creation)


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
