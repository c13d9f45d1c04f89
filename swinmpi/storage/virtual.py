"""Whether all that a dataset shows of other files is there: HDF5 reads what is missing as zeros."""
import os
from pathlib import Path

import h5py

from swinmpi.errors import StackError

ADVICE = "and would be read as zeros; put it back"
UNLIMITED = 2**62  # and more: to the end of the source, however long


def check_source(dataset: h5py.Dataset, path: Path, name: str, source) -> None:
    """StackError unless `source`, what lies at `name` of the file `path`, holds all that the
    virtual `dataset` shows of it. A name with a pattern (%b) is not looked at."""
    place = f"{dataset.file.filename}::{dataset.name}: its source {path}::{name}"
    if "%" in name:
        return
    if not isinstance(source, h5py.Dataset):
        raise StackError(f"{place} is missing, {ADVICE}")
    for shown in dataset.virtual_sources():
        ours = shown.dset_name == name and Path(shown.file_name).name in (path.name, ".")
        if ours and not holds(source, shown):
            raise StackError(f"{place} has the shape {source.shape}, less than is shown of it: the "
                             f"rest is missing, {ADVICE}")


def holds(source: h5py.Dataset, shown) -> bool:
    """Whether a source has all the pixels that a virtual dataset shows of it."""
    if shown.src_space.get_select_type() != h5py.h5s.SEL_HYPERSLABS:  # all of it
        return source.size >= shown.vspace.get_select_npoints()
    ends = shown.src_space.get_select_bounds()[1]
    return len(ends) == source.ndim and all(
        end < size or end >= UNLIMITED for end, size in zip(ends, source.shape, strict=True))


def check_images_shown(dataset: h5py.Dataset) -> None:
    """StackError where some image of a virtual dataset is in none of its sources."""
    shown: set[int] = set()
    for source in dataset.virtual_sources():
        starts, ends = source.vspace.get_select_bounds()
        shown.update(range(starts[0], min(ends[0] + 1, len(dataset))))
    missing = sorted(set(range(len(dataset))) - shown)
    if missing:
        raise StackError(f"{dataset.file.filename}::{dataset.name}: {len(missing)} of its "
                         f"{len(dataset)} images, the first is {missing[0]}, are in none of its "
                         "sources and would be read as zeros; write it again")


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
