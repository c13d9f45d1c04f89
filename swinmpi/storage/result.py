"""What a finished output file tells about itself: its process, its other stacks, the images that failed."""
import posixpath
from typing import Any

import h5py
import numpy as np

from swinmpi.storage.address import Address
from swinmpi.storage.partial import DATA, PER_IMAGE
from swinmpi.storage.stack import Stack

PROCESS = "/entry/process"


def read_process(stack: Stack) -> dict[str, Any]:
    """The provenance given to `StackOutput.finish`, mappings as dicts; empty when the stack is not our output."""
    process = ours(stack, PROCESS)
    entries = read_entries(process) if isinstance(process, h5py.Group) else {}
    return entries if entries.get("program") == "swinmpi" else {}


def find_sibling(stack: Stack, name: str) -> Address | None:
    """Where the dataset `name` beside this stack lies, for example the regression of an SR stack; None without it."""
    path = posixpath.join(posixpath.dirname(stack.address.dataset), name)
    return Address(stack.address.path, path) if path in stack.file else None


def find_failed(stack: Stack) -> list[int]:
    """Image indices that the run gave up; their pixels mean nothing. Empty when the stack is not our output."""
    done = ours(stack, f"{PER_IMAGE}/done")
    if not isinstance(done, h5py.Dataset) or done.shape != (stack.num_images,):
        return []
    return np.flatnonzero(done[:] == 0).tolist()


def ours(stack: Stack, path: str) -> h5py.Group | h5py.Dataset | None:
    """What lies at `path` of the file, if the stack lies where our outputs have theirs."""
    return stack.file.get(path) if posixpath.dirname(stack.address.dataset) == DATA else None


def read_entries(group: h5py.Group) -> dict[str, Any]:
    return {name: read_entries(item) if isinstance(item, h5py.Group) else read_value(item)
            for name, item in group.items()}


def read_value(item: h5py.Dataset) -> Any:
    """Strings as str, arrays as lists, numbers as Python's."""
    value = item.asstr()[()] if h5py.check_string_dtype(item.dtype) else item[()]
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
