"""Whether all that a dataset shows of other files is there: HDF5 reads what is missing as zeros."""
import math
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py

from swinmpi.errors import StackError

ADVICE = "and would be read as zeros; put it back"
UNLIMITED = 2**62  # and more: to the end of the source, however long


def virtual_sources(dataset: h5py.Dataset) -> set[tuple[Path, str]]:
    """(file, dataset) of all that a virtual dataset shows.

    StackError when a file is gone: HDF5 would read zeros in its place, silently.
    """
    found, path = set(), Path(dataset.file.filename)
    for name, place, _ in shown_sources(dataset):
        somewhere = ([path] if name == "." else
                     [path.parent / name, Path(name), path.parent / Path(name).name])
        there = [file for file in somewhere if file.exists()]
        if not there:
            raise StackError(f"{path}::{dataset.name}: its source file {name} is missing; "
                             "put it beside the file")
        found.add((there[0], place))
    return found


def shown_sources(dataset: h5py.Dataset) -> Iterator[tuple[str, str, Any]]:
    """(file, dataset, how it is shown) of each source; a name with a pattern (%b) stands for one
    source for each of its blocks."""
    for shown in dataset.virtual_sources() if dataset.is_virtual else ():
        names = shown.file_name, shown.dset_name
        is_pattern = any("%b" in name.replace("%%", "") for name in names)
        for number in range(len(blocks(shown.vspace, dataset.shape)) if is_pattern else 1):
            yield *(re.sub("%[%b]", lambda match, block=number: "%" if match[0] == "%%"
                           else str(block), name) for name in names), shown


def blocks(space: h5py.h5s.SpaceID, shape: Sequence[int]) -> list[range]:
    """Where along the first dimension a selection of `shape` has its blocks, one after another."""
    if space.get_select_type() != h5py.h5s.SEL_HYPERSLABS:
        return [range(shape[0])]
    if not space.is_regular_hyperslab():
        starts, ends = space.get_select_bounds()
        return [range(starts[0], ends[0] + 1)]
    start, stride, count, size = (values[0] for values in space.get_regular_hyperslab())
    count = min(count, -(-max(0, shape[0] - start) // stride))
    return [range(first, min(first + size, shape[0]))
            for first in range(start, start + count * stride, stride)]


def check_source(dataset: h5py.Dataset, path: Path, name: str, source) -> None:
    """StackError unless `source`, what lies at `name` of the file `path`, holds all that the
    virtual `dataset` shows of it."""
    place = f"{dataset.file.filename}::{dataset.name}: its source {path}::{name}"
    if not isinstance(source, h5py.Dataset):
        raise StackError(f"{place} is missing, {ADVICE}")
    for file_name, dataset_name, shown in shown_sources(dataset):
        ours = dataset_name == name and Path(file_name).name in (path.name, ".")
        if ours and not holds(source, shown):
            raise StackError(f"{place} has the shape {source.shape}, less than is shown of it: the "
                             f"rest is missing, {ADVICE}")


def holds(source: h5py.Dataset, shown) -> bool:
    """Whether a source has all the pixels that a virtual dataset shows of it."""
    space = shown.src_space
    if space.get_select_type() != h5py.h5s.SEL_HYPERSLABS:  # all of it
        endless = h5py.h5s.UNLIMITED in shown.vspace.get_simple_extent_dims(maxdims=True)
        return source.size >= (math.prod(space.get_simple_extent_dims()) if endless
                               else shown.vspace.get_select_npoints())
    if not space.is_regular_hyperslab():
        ends = space.get_select_bounds()[1]
    else:
        ends = [start + (count - 1) * stride + size - 1 for start, stride, count, size in
                zip(*space.get_regular_hyperslab(), strict=True)]
    return len(ends) == source.ndim and all(
        end < size or end >= UNLIMITED for end, size in zip(ends, source.shape, strict=True))


def check_images_shown(dataset: h5py.Dataset) -> None:
    """StackError where some image of a virtual dataset is in none of its sources."""
    shown: set[int] = set()
    for source in dataset.virtual_sources():
        shown.update(*blocks(source.vspace, dataset.shape))
    missing = sorted(set(range(len(dataset))) - shown)
    if missing:
        raise StackError(f"{dataset.file.filename}::{dataset.name}: {len(missing)} of its "
                         f"{len(dataset)} images, the first is {missing[0]}, are in none of its "
                         "sources and would be read as zeros; write it again")


def find_unwritten(dataset: h5py.Dataset) -> str | None:
    """A line on pixels that nobody wrote: parts that no source of a virtual dataset has, chunks
    that are not there, or all. None where there are none, or where that is not known."""
    creation, storage = dataset.id.get_create_plist(), dataset.id.get_storage_size()
    problem = None
    if dataset.is_virtual:
        with suppress(RuntimeError, ValueError):  # of unlimited ones it is not known
            shown = sum(source.vspace.get_select_npoints() for source in dataset.virtual_sources())
            if shown < dataset.size:
                problem = f"{dataset.size - shown} of its pixels are in none of its sources"
    elif not dataset.external and creation.get_layout() == h5py.h5d.CONTIGUOUS:
        problem = None if storage else "none of its pixels was ever written"
    elif dataset.chunks:
        wanted = math.prod(-(-size // chunk) for size, chunk in
                           zip(dataset.shape, dataset.chunks, strict=True))
        missing = wanted - dataset.id.get_num_chunks()
        if missing > 0:
            problem = f"{missing} of its {wanted} chunks were never written"
    return problem and f"{problem}, and are read as {dataset.fillvalue}"


def check_raw_files(dataset: h5py.Dataset) -> None:
    """StackError where external storage is missing or too short."""
    left = dataset.size * dataset.dtype.itemsize
    for name, offset, size in dataset.external or ():
        used, path = min(size, left), Path(os.fsdecode(name))
        left -= used
        place = f"{dataset.file.filename}::{dataset.name}: its file {path}"
        if "HDF5_EXTFILE_PREFIX" in os.environ:
            return
        if not path.exists():
            raise StackError(f"{place} is missing; put it back, or start in its folder")
        if path.stat().st_size < offset + used:
            raise StackError(f"{place} has {path.stat().st_size} bytes, {offset + used} are needed;"
                             f" the rest is missing, {ADVICE}")
