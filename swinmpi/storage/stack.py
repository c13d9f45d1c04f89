"""A stack: the images of one HDF5 dataset, validated before any of them is read."""
import hashlib
import math
import os
from pathlib import Path

import h5py
import numpy as np

from swinmpi.errors import StackError, SwinmpiError
from swinmpi.storage.address import (
    DAMAGE,
    Address,
    find_dataset,
    open_file,
    open_object,
    parse_address,
    reason_of,
    refuse_external_storage,
)
from swinmpi.storage.attributes import readable_attributes
from swinmpi.storage.axes import Axis, find_axes
from swinmpi.storage.layout import decide_layout, find_problem, to_chw
from swinmpi.storage.values import ValueRange, measure_range

HASHED_IMAGES, HASHED_BYTES = 16, 256 << 20  # at least that many; all of a stack that is not larger
UNSAFE_FILTERS = {h5py.h5z.FILTER_NBIT: "nbit", h5py.h5z.FILTER_SCALEOFFSET: "scaleoffset"}
IMAGE_BYTES_PER_PIXEL = 8  # at least: as stored (up to 4) and as float32
CREDIBLE_BYTES, CREDIBLE_RATIO = 64 << 20, 2000  # gzip shrinks a block of zeros 1030 times


class Stack:
    """An open, readable stack; made by `Stack.open`, a context manager.

    Not collective: any rank may open its own. It may be narrowed to some of its images: image
    indices, `shape` and `axes` are then those of the part.
    """

    def __init__(self, address: Address, file: h5py.File, dataset: h5py.Dataset,
                 axes: tuple[Axis | None, ...], images: range | None = None):
        self.address = address
        self.file = file
        self.dataset = dataset
        self.images = range(len(dataset)) if images is None else images
        first = axes[0] and axes[0].cut(self.images, len(dataset))
        self._all_axes, self.axes = axes, (first, *axes[1:])
        self.layout = decide_layout(dataset)
        self.attributes = readable_attributes(dataset)
        self._stamp = stamp(file)

    @classmethod
    def open(cls, address: Address | str, allow_external: bool = False) -> "Stack":
        """Open and validate.

        StackError for everything that could fail later, except damaged pixels. allow_external: also
        follow external links, external storage and virtual datasets into other files.
        """
        if isinstance(address, str):
            address = parse_address(address)
        file = open_file(address.path)
        try:
            name = find_dataset(file, address.dataset, allow_external)
            address = Address(address.path, name)
            dataset = open_object(file, name, allow_external)
            check_stack(address, dataset, allow_external)
            return cls(address, file, dataset, find_axes(file, name, allow_external))
        except StackError:
            file.close()
            raise
        except DAMAGE as error:
            file.close()
            raise StackError(f"{address}: the HDF5 file is damaged ({reason_of(error)}); "
                             "write it again") from None

    def narrowed(self, images: range) -> "Stack":
        """The part with these image indices of the whole stack, maybe none; of the same file."""
        return Stack(self.address, self.file, self.dataset, self._all_axes, images)

    @property
    def whole(self) -> "Stack":
        """The stack with all images of the dataset."""
        return self.narrowed(range(len(self.dataset)))

    @property
    def first_image(self) -> int:
        """Image index in the whole stack of this stack's image 0."""
        return self.images.start

    def noise_index(self, image_index: int) -> int:
        """Which image's noise it gets: its index in the whole stack."""
        return self.first_image + image_index

    def name_of(self, image_index: int) -> str:
        """For people."""
        return f"{self.address}: image {self.noise_index(image_index)}"

    @property
    def shape(self) -> tuple[int, ...]:
        """As stored."""
        return (len(self.images), *self.dataset.shape[1:])

    @property
    def dtype(self) -> np.dtype:
        """As stored, with its byte order."""
        return self.dataset.dtype

    @property
    def num_images(self) -> int:
        return self.shape[0]

    @property
    def height(self) -> int:
        return self.shape[self.layout.index("H")]

    @property
    def width(self) -> int:
        return self.shape[self.layout.index("W")]

    @property
    def channels(self) -> int:
        return self.shape[self.layout.index("C")] if "C" in self.layout else 1

    def read(self, image_index: int) -> np.ndarray:
        """One image as (C, H, W) float32: raw values, not scaled, NaNs kept."""
        stored = self.read_stored(image_index)
        return np.ascontiguousarray(to_chw(stored, self.layout), dtype=np.float32)

    def read_rows(self, image_index: int, rows: range) -> np.ndarray:
        """Some rows that follow each other, of what `read` returns."""
        stored = self.read_stored(image_index, slice(rows.start, rows.stop))
        return np.ascontiguousarray(to_chw(stored, self.layout), dtype=np.float32)

    def range(self) -> ValueRange:
        """See `measure_range`; of the whole stack, which is read unless it is uint8."""
        return measure_range(self.whole)

    def identity(self) -> dict:
        """What distinguishes this stack, as JSON values: a resumed run must find the same.

        Not the path or date of the file, so a copy on another disk is still the same stack. Images
        that cannot be read count as damaged. A part has the whole stack's identity and its own
        `images`.
        """
        if len(self.images) != len(self.dataset):
            return self.whole.identity() | {"images": [self.images.start, self.images.stop]}
        digest, image_bytes = hashlib.sha256(), math.prod(self.shape[1:]) * self.dtype.itemsize
        hashed = min(self.num_images, max(HASHED_IMAGES, HASHED_BYTES // image_bytes))
        for image_index in sorted({round(i) for i in np.linspace(0, self.num_images - 1, hashed)}):
            try:
                digest.update(self.read_stored(image_index).tobytes())
            except StackError:
                digest.update(b"damaged")
        return {"dataset": self.address.dataset, "shape": list(self.shape), "dtype": self.dtype.str,
                "layout": self.layout, "sha256_of_some_images": digest.hexdigest()}

    def read_stored(self, image_index: int, rows: slice = slice(None)) -> np.ndarray:
        """One image, or some of its rows, in the stack's own layout and dtype.

        SwinmpiError when the file was written to since it was opened: beyond a new end HDF5 would
        read zeros. Putting another file in its place does no harm, the old one stays open.
        """
        if not 0 <= image_index < self.num_images:
            raise IndexError(f"{self.address}: image index {image_index} is not in "
                             f"0..{self.num_images - 1}")
        try:
            within = [slice(None)] * (self.layout.index("H") - 1)
            image = self.dataset[(self.first_image + image_index, *within, rows)]
        except DAMAGE as error:
            self._check_unchanged()
            raise StackError(f"{self.address}: image {self.first_image + image_index} cannot be "
                             f"read ({reason_of(error)}); the file is damaged, write it again"
                             ) from None
        self._check_unchanged()
        return image

    def _check_unchanged(self) -> None:
        if stamp(self.file) != self._stamp:
            raise SwinmpiError(f"{self.address}: the file was changed while it was being read; "
                               "put it back and start again, finished images are kept, or start "
                               "afresh with another --output")

    def close(self) -> None:
        self.file.close()

    def __enter__(self) -> "Stack":
        return self

    def __exit__(self, *_) -> None:
        self.close()


def stamp(file: h5py.File) -> tuple[int, int]:
    """Size and date of an open file."""
    status = os.fstat(file.id.get_vfd_handle())
    return status.st_size, status.st_mtime_ns


def check_stack(address: Address, dataset, allow_external: bool) -> None:
    """StackError when `dataset` is not a readable stack with at least one pixel."""
    problem = (find_problem(dataset) if isinstance(dataset, h5py.Dataset)
               else "expected a dataset, got a named datatype")
    if problem is not None:
        raise StackError(f"{address}: {problem}; name the dataset as file.h5::/path/to/images")
    if 0 in dataset.shape:
        raise StackError(f"{address}: expected at least one image of at least one pixel, got shape "
                         f"{dataset.shape}")
    refuse_external_storage(dataset, allow_external)
    virtual_sources(dataset)
    check_extent(address, dataset)
    creation = dataset.id.get_create_plist()
    for position in range(creation.get_nfilters()):
        code, _, _, name = creation.get_filter(position)
        if code in UNSAFE_FILTERS:
            raise StackError(f"{address}: compressed with {UNSAFE_FILTERS[code]}, which HDF5 "
                             "unpacks unchecked, so that damaged data can crash it; "
                             "h5repack -f GZIP=4 OLD NEW")
        if not h5py.h5z.filter_avail(code):
            raise StackError(f"{address}: compressed with filter {code} "
                             f"({name.decode(errors='replace')}), which is not installed; "
                             "pip install 'swinmpi[filters]'")


def check_extent(address: Address | str, dataset: h5py.Dataset) -> None:
    """StackError when the shape claims more than can be true, or than one process can hold."""
    pixels, gib, memory = math.prod(dataset.shape[1:]), 2**30, memory_bytes()
    chunk_bytes = math.prod(dataset.chunks or (0,)) * dataset.dtype.itemsize
    needed = pixels * IMAGE_BYTES_PER_PIXEL + chunk_bytes
    claimed = len(dataset) * pixels * dataset.dtype.itemsize
    if needed > memory:
        raise StackError(f"{address}: an image of its shape {dataset.shape} needs "
                         f"{needed / gib:.3g} GiB of memory, this machine has "
                         f"{memory / gib:.3g} GiB; cut the images into smaller ones")
    stored = os.path.getsize(dataset.file.filename)
    in_this_file = not (dataset.is_virtual or dataset.external)
    if claimed > max(CREDIBLE_BYTES, CREDIBLE_RATIO * stored) and in_this_file:
        raise StackError(f"{address}: its shape {dataset.shape} claims {claimed / gib:.3g} GiB in "
                         f"a file of {stored / gib:.3g} GiB; the file is damaged or almost empty, "
                         "write it again")


def memory_bytes() -> int:
    """Of this machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def virtual_sources(dataset: h5py.Dataset) -> set[tuple[Path, str]]:
    """(file, dataset) of all that a virtual dataset shows, but for names with a pattern (%b).

    StackError when a file is gone: HDF5 would read zeros in its place, silently.
    """
    found, path = set(), Path(dataset.file.filename)
    for source in dataset.virtual_sources() if dataset.is_virtual else ():
        name = source.file_name
        somewhere = ([path] if name == "." else
                     [path.parent / name, Path(name), path.parent / Path(name).name])
        there = [place for place in somewhere if place.exists()]
        if not there and "%" not in name:
            raise StackError(f"{path}::{dataset.name}: its source file {name} is missing; "
                             "put it beside the file")
        found |= {(place, source.dset_name) for place in there[:1]}
    return found
