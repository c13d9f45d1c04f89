"""What a finished output file says about itself: its process, other stacks, images that failed."""
import posixpath
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from swinmpi.errors import StackError
from swinmpi.storage.address import DAMAGE, Address, find_object, open_file, reason_of
from swinmpi.storage.attributes import names_of, text_attribute
from swinmpi.storage.outputs.carrying import DATA
from swinmpi.storage.outputs.partial import PER_IMAGE
from swinmpi.storage.stack import Stack
from swinmpi.storage.trust import NAME as TRUST

PROCESS = "/entry/process"
# Of one entry, and of mappings in mappings; ours have far fewer.
MOST_VALUES, MOST_LEVELS = 1 << 16, 8


def read_process(stack: Stack) -> dict[str, Any]:
    """The provenance given to `StackOutput.finish`, mappings as dicts.

    Empty when the stack is not our output. StackError, also of the functions below, when what is
    there cannot be read or lies in another file.
    """
    process = ours(stack, PROCESS)
    try:
        entries = read_entries(process) if isinstance(process, h5py.Group) else {}
    except DAMAGE as error:
        raise StackError(f"{stack.address}: {PROCESS} in its file is damaged "
                         f"({reason_of(error)}); make it again") from None
    return entries if entries.get("program") == "swinmpi" else {}


def find_sibling(stack: Stack, name: str) -> Address | None:
    """Where the dataset `name` beside this stack lies; None without it.

    The regression beside an SR stack, for example.
    """
    path = posixpath.join(posixpath.dirname(stack.address.dataset), name)
    return None if find_object(stack.file, path) is None else Address(stack.address.path, path)


def read_promise(path: Path) -> str:
    """What an output says of its mask of trust; StackError where it has none that can be read."""
    with open_file(path) as file:
        marked = find_object(file, f"{DATA}/{TRUST}")
        told = None if marked is None else text_attribute(marked, "promise")
    if told is None:
        raise StackError(f"{path}: expected a mask of trust, got none; make it again with --trust")
    return told


def find_failed(stack: Stack) -> list[int]:
    """Image indices that could not be made; their pixels mean nothing.

    Empty when the stack is not our output.
    """
    done = ours(stack, f"{PER_IMAGE}/done")
    whole = replace(stack.arrangement, frames=None).num_images
    if not isinstance(done, h5py.Dataset) or done.shape != (whole,):
        return []
    flags = done[:]
    return [index for index in range(stack.num_images) if not flags[stack.stack_index(index)]]


def read_figures(stack: Stack) -> dict[str, np.ndarray]:
    """The figures that a run kept of each of its images, by name; none when the stack is not our
    output."""
    per_image = ours(stack, PER_IMAGE)
    if not isinstance(per_image, h5py.Group):
        return {}
    whole = replace(stack.arrangement, frames=None).num_images
    indices = [stack.stack_index(index) for index in range(stack.num_images)]
    return {name: item[:][indices] for name, item in per_image.items()
            if isinstance(item, h5py.Dataset) and item.shape == (whole,) and name != "done"}


def ours(stack: Stack, path: str) -> h5py.Group | h5py.Dataset | None:
    """What lies at `path` of the file itself, if the stack lies where our outputs have theirs."""
    is_ours = posixpath.dirname(stack.address.dataset) == DATA
    return find_object(stack.file, path) if is_ours else None


def read_entries(group: h5py.Group, levels: int = MOST_LEVELS) -> dict[str, Any]:
    """What a group holds itself: no links or data of other files, nothing larger than we write."""
    entries = {}
    for name in names_of(group):
        item = group[name] if isinstance(group.get(name, getlink=True), h5py.HardLink) else None
        if isinstance(item, h5py.Group) and levels:
            entries[name] = read_entries(item, levels - 1)
        elif (isinstance(item, h5py.Dataset) and not (item.external or item.is_virtual)
              and (item.size or 0) <= MOST_VALUES):
            entries[name] = read_value(item)
    return entries


def read_value(item: h5py.Dataset) -> Any:
    """Strings as str, arrays as lists, numbers as Python's."""
    value = item.asstr()[()] if h5py.check_string_dtype(item.dtype) else item[()]
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
