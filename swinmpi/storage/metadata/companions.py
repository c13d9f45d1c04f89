"""What lies beside a stack and still holds for its finer images: values per image, small ones.

Beside it: angles, keys, counters of its group. Around it: sample, instrument, monitors and users
of its NXentry; of a tomogram (NXtomo) its definition too.
"""
import posixpath
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import h5py
import numpy as np

from swinmpi.storage.address import DAMAGE, open_object
from swinmpi.storage.attributes import names_of, text_attribute
from swinmpi.storage.axes import TAKEN_NAMES
from swinmpi.storage.metadata.names import letter_of
from swinmpi.storage.metadata.pixel_size import finer
from swinmpi.storage.metadata.said import is_no_variable
from swinmpi.storage.metadata.tomography import definition, entry_of
from swinmpi.storage.stack import Stack

GROUPS = ("NXsample", "NXinstrument", "NXmonitor", "NXuser", "NXsource", "NXbeam")
TEXTS = ("title", "start_time", "end_time", "experiment_identifier", "run_number", "definition")
OURS = ("data", "per_image", "process")
MOST_LEVELS, MOST_BYTES, MOST_ITEMS, FEW_VALUES = 6, 64 << 20, 2000, 16


@dataclass(frozen=True)
class Companion:
    """A group (no values) or a dataset to write below /entry.

    is_stack: the stack itself lies there. along_images: one value per image, which parts have
    their own of.
    """

    place: str
    source: h5py.Group | h5py.Dataset
    values: np.ndarray | None = None
    along_images: bool = False
    is_stack: bool = False


def find_companions(stack: Stack, scale: int) -> list[Companion]:
    """All of a stack, in the order in which they can be written; nothing twice."""
    beside = posixpath.dirname(stack.address.dataset)
    entry = entry_of(stack.file, stack.address.dataset, stack.described.allow_external)
    found: dict[str, Companion] = {}
    tomogram = is_tomogram(stack, entry)
    for companion in (*siblings(stack, beside, scale), *surroundings(stack, entry, scale)):
        if companion.is_stack and not tomogram:
            continue
        found.setdefault(companion.place, companion)
        if len(found) > MOST_ITEMS:
            break
    if tomogram:
        found.setdefault("data/data", Companion("data/data", stack.dataset, is_stack=True))
        for name, source in (("image_key", "instrument"), ("rotation_angle", "sample")):
            for place, companion in list(found.items()):
                if place.startswith(source) and posixpath.basename(place) == name:
                    found.setdefault(f"data/{name}", Companion(
                        f"data/{name}", companion.source, companion.values,
                        companion.along_images))
    return list(found.values())


def is_tomogram(stack: Stack, entry: str) -> bool:
    """Whether the stack is the one of an NXtomo."""
    described = stack.described
    return (described.image_key is not None
            and definition(stack.file, entry, described.allow_external) == "NXtomo")


def siblings(stack: Stack, folder: str, scale: int) -> Iterator[Companion]:
    """Values per image and single ones of the stack's own group."""
    group = open_object(stack.file, folder, stack.described.allow_external)
    names = {axis.name for axis in stack.axes if axis} | {*TAKEN_NAMES, "data"}
    for name, item in hard_linked(group):
        if isinstance(item, h5py.Dataset) and name not in names and item != stack.dataset:
            yield from kept(f"data/{name}", item, stack, scale)


def surroundings(stack: Stack, entry: str, scale: int) -> Iterator[Companion]:
    """Of the entry: what it is called, and its groups that describe the experiment."""
    group = open_object(stack.file, entry, stack.described.allow_external)
    if text_attribute(group, "NX_class") not in ("NXentry", "NXsubentry"):
        return
    for name, item in hard_linked(group):
        if name in OURS:
            continue
        if isinstance(item, h5py.Group) and text_attribute(item, "NX_class") in GROUPS:
            yield from tree(name, item, stack, scale, [])
        elif (isinstance(item, h5py.Dataset) and name in TEXTS
              and (name != "definition" or is_tomogram(stack, entry))):
            yield from kept(name, item, stack, scale)


def tree(place: str, group: h5py.Group, stack: Stack, scale: int,
         above: list[h5py.Group]) -> Iterator[Companion]:
    """A group and what is kept of all below it; groups in groups that lead back are passed over."""
    yield Companion(place, group)
    for name, item in hard_linked(group):
        below = f"{place}/{name}"
        if isinstance(item, h5py.Dataset):
            yield from kept(below, item, stack, scale)
        elif (isinstance(item, h5py.Group) and len(above) < MOST_LEVELS
              and item not in (*above, group) and text_attribute(item, "NX_class") != "NXdata"):
            yield from tree(below, item, stack, scale, [*above, group])


def hard_linked(group: h5py.Group) -> Iterator[tuple[str, h5py.HLObject]]:
    """What lies in a group itself; what is damaged is passed over."""
    for name in names_of(group):
        item = None
        with suppress(*DAMAGE):
            if isinstance(group.get(name, getlink=True), h5py.HardLink):
                item = group[name]
        if item is not None:
            yield name, item


def kept(place: str, item: h5py.Dataset, stack: Stack, scale: int) -> Iterator[Companion]:
    """The dataset as it holds for the finer images, if it does and can be read."""
    with suppress(*DAMAGE):
        yield from held(place, item, stack, scale)


def held(place: str, item: h5py.Dataset, stack: Stack, scale: int) -> Iterator[Companion]:
    if item == stack.dataset:
        yield Companion(place, item, is_stack=True)
        return
    if (is_no_variable(item) or item.shape is None or item.external or item.is_virtual
            or item.size * max(item.dtype.itemsize, 16) > MOST_BYTES or item.dtype.kind == "V"
            or h5py.check_ref_dtype(item.dtype) or is_list(item)):
        return
    name, arrangement = posixpath.basename(place), stack.arrangement
    if is_per_image(name, item, stack):
        values = item[()]
        frames = arrangement.frames
        values = values if frames is None else values[np.asarray(frames)]
        if arrangement.is_plain:
            values = values[stack.images.start:stack.images.stop]
        yield Companion(place, item, values, along_images=arrangement.is_plain)
    elif item.size <= FEW_VALUES and item.ndim <= 2 and not is_per_pixel(item, stack):
        values = item[()]
        text = values.decode("utf-8", "replace") if isinstance(values, bytes) else values
        better = (finer(name, text, arrangement.layout, scale, dict(item.attrs))
                  if isinstance(text, str | np.ndarray | np.generic) else None)
        yield Companion(place, item, values if better is None else better)


def is_list(item: h5py.Dataset) -> bool:
    """Whether its elements are lists of different lengths."""
    return item.dtype.kind == "O" and h5py.check_string_dtype(item.dtype) is None


def is_per_image(name: str, item: h5py.Dataset, stack: Stack) -> bool:
    """One value, or a few, for each index along the first axis that images follow along.

    Where as many pixels lie along a side, only if the name says so.
    """
    sizes = stack.arrangement.shape
    layout = stack.arrangement.layout
    if "N" not in layout or item.ndim not in (1, 2) or (item.ndim == 2 and item.shape[1] > 16):
        return False
    first = sizes[layout.index("N")]
    others = [size for axis, size in enumerate(sizes) if axis != layout.index("N")]
    clear = first not in others and first > 3 or letter_of(name) == "N" or "key" in name
    is_known = stack.described.image_key is not None and first not in others
    return item.shape[0] == first and (clear or is_known)


def is_per_pixel(item: h5py.Dataset, stack: Stack) -> bool:
    """Whether it has as many values as pixels lie along a side of the images, or one more."""
    sides = {stack.height, stack.width}
    return item.ndim >= 1 and any(size in sides or size - 1 in sides for size in item.shape)
