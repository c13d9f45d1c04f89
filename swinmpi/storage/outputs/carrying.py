"""What an output has of its input beside the pixels: attributes, axes, what lies around."""
import json
from collections.abc import Sequence

import h5py
import numpy as np

from swinmpi.images.no_data import as_stored
from swinmpi.storage.attributes import copy_attributes, text_attribute
from swinmpi.storage.axes import sr_coordinates
from swinmpi.storage.layout import in_letters, layouts_by_shape
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

DATA = "/entry/data"
# From HDF5 1.8 on: attributes may be large, and the superblock has no mark "open for writing",
# which a kill would leave set; newer features only where the input has them.
LIBRARY = ("v108", "latest")
# Written by whom they concern: the axes by the output itself, dimension scales by HDF5.
STRUCTURE = ("signal", "axes", "CLASS", "NAME", "DIMENSION_LABELS")
# Texts with names of other variables.
NAMING = ("coordinates", "grid_mapping", "ancillary_variables", "cell_measures", "bounds",
          "formula_terms", "climatology")
# netCDF's numbers of dimensions of the input's file, wrong in any other.
FOREIGN = ("_Netcdf4Coordinates", "_Netcdf4Dimid", "_NCProperties")
# What says about an image's axes what the setting data.axes may contradict.
ABOUT_AXES = ("interpretation", "IMAGE_SUBCLASS", "INTERLACE_MODE", "axistags", "DIMENSION_LABELS")
# Attributes for packing and merging: of /entry/data, how a stack is stored whose images do not
# simply come first (JSON); of the file, what else lies where the images do, what has a value for
# each image.
RESTORED, LINKED, ALONG = "restored", "linked_images", "along_images"


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
