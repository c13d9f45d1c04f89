"""A stack: the images of one HDF5 dataset, validated before any of them is read."""
import hashlib
import math
import os
import posixpath
from collections.abc import Sequence

import h5py
import numpy as np

from swinmpi.errors import ConfigError, StackError, SwinmpiError
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
from swinmpi.storage.layout import Arrangement, decide_layout, find_problem, in_words, to_chw
from swinmpi.storage.metadata.described import Described, describe_stack
from swinmpi.storage.metadata.frames import AS_STORED, View
from swinmpi.storage.metadata.missing import check_no_data, find_no_data
from swinmpi.storage.values import ValueRange, exact_float, measure_range
from swinmpi.storage.virtual import find_unwritten, virtual_sources

HASHED_IMAGES, HASHED_BYTES = 16, 256 << 20  # at least that many; all of a stack that is not larger
UNSAFE_FILTERS = {h5py.h5z.FILTER_NBIT: "nbit", h5py.h5z.FILTER_SCALEOFFSET: "scaleoffset"}
IMAGE_BYTES_PER_PIXEL = 8  # at least: as stored (up to 4) and as float32, or twice the stored 8
CREDIBLE_BYTES, CREDIBLE_RATIO = 64 << 20, 2000  # gzip shrinks a block of zeros 1030 times


class Stack:
    """An open, readable stack; made by `Stack.open`, a context manager.

    Not collective: any rank may open its own. Seen from outside its images follow each other along
    the first dimension, however they are stored: `shape` and `layout` are so, `arrangement` knows
    the rest. It may be narrowed to some of its images: image indices, `shape` and `axes` are then
    those of the part. no_data: which raw values are no numbers; told_no_data: those of them that
    the file does not tell itself.
    """

    def __init__(self, address: Address, file: h5py.File, dataset: h5py.Dataset,
                 described: Described, images: range | None = None,
                 told_no_data: tuple[float, ...] = ()):
        """images: of those that the description takes; None for all."""
        self.address = address
        self.file = file
        self.dataset = dataset
        self.described = described
        self.arrangement = described.arrangement
        self.images = range(self.arrangement.num_images) if images is None else images
        self.layout = self.arrangement.folded
        self.axes = described.own_axes(self.images)
        self.no_data, self.told_no_data = find_no_data(dataset, told_no_data), told_no_data
        self._stamp = stamp(file)

    @classmethod
    def open(cls, address: Address | str, allow_external: bool = False,
             view: View = AS_STORED, no_data: Sequence[float] = ()) -> "Stack":
        """Open and validate.

        StackError for everything that could fail later, except damaged pixels; ConfigError for a
        view that does not fit. allow_external: also follow external links, external storage and
        virtual datasets into other files. no_data: stored values that mean no data, beside those
        that the file tells.
        """
        if isinstance(address, str):
            address = parse_address(address)
        file = open_file(address.path)
        try:
            name = find_dataset(file, address.dataset, allow_external, view.axes)
            address = Address(address.path, name)
            dataset = open_object(file, name, allow_external)
            group = open_object(file, posixpath.dirname(name), allow_external)
            check_stack(address, dataset, allow_external, view.axes, group)
            check_no_data(address, dataset, no_data)
            described = describe_stack(file, name, dataset, view, allow_external)
            return cls(address, file, dataset, described, told_no_data=tuple(no_data))
        except (StackError, ConfigError):
            file.close()
            raise
        except DAMAGE as error:
            file.close()
            raise StackError(f"{address}: the HDF5 file is damaged ({reason_of(error)}); "
                             "write it again") from None

    def narrowed(self, images: range) -> "Stack":
        """The part with these image indices of the whole stack, maybe none; of the same file."""
        return Stack(self.address, self.file, self.dataset, self.described, images,
                     self.told_no_data)

    @property
    def whole(self) -> "Stack":
        """The stack with all images that were taken of the dataset."""
        return self.narrowed(range(self.arrangement.num_images))

    @property
    def first_image(self) -> int:
        """Image index in the whole stack of this stack's image 0."""
        return self.images.start

    def name_of(self, image_index: int) -> str:
        """For people."""
        return f"{self.address}: {self.short_name_of(image_index)}"

    def short_name_of(self, image_index: int) -> str:
        """For people who know the stack."""
        return f"image {self.stack_index(image_index)}"

    @property
    def shape(self) -> tuple[int, ...]:
        """With the images first, else as stored."""
        return (len(self.images), *self.arrangement.image_shape)

    @property
    def dtype(self) -> np.dtype:
        """As stored, with its byte order."""
        return self.dataset.dtype

    @property
    def attributes(self) -> dict:
        """Of the dataset, as far as they mean something elsewhere."""
        return readable_attributes(self.dataset)

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

    @property
    def words(self) -> str:
        """2 colour images of 48 x 60 px (t 1 x z 2)."""
        return (in_words(self.num_images, self.channels, self.height, self.width)
                + self.described.image_axes())

    @property
    def unwritten(self) -> str | None:
        """A line on pixels that nobody wrote and that do not mean no data, if there are any."""
        fill = np.array([self.dataset.fillvalue])
        is_hole = not np.isfinite(fill).all() or self.no_data.marks(fill).any()
        return None if is_hole else find_unwritten(self.dataset)

    def stack_index(self, image_index: int) -> int:
        """The image's index in the whole dataset, which keys its noise."""
        return self.arrangement.stack_index(self.first_image + image_index)

    def read(self, image_index: int) -> np.ndarray:
        """One image as (C, H, W), float32 or, where that cannot hold the dtype, float64.

        Raw values, not scaled; NaN where they mean no data, infinities kept.
        """
        return self.no_data.hide(self.read_rows(image_index, range(self.height)))

    def read_rows(self, image_index: int, rows: range) -> np.ndarray:
        """Some rows that follow each other, as `read` but for no data: that is as stored."""
        stored = self.read_stored(image_index, slice(rows.start, rows.stop))
        return np.ascontiguousarray(to_chw(stored, self.layout), dtype=exact_float(self.dtype))

    def range(self) -> ValueRange:
        """See `measure_range`; of the whole stack, which is read unless it is uint8."""
        return measure_range(self.whole)

    def identity(self) -> dict:
        """What distinguishes this stack, as JSON values: a resumed run must find the same.

        Not the path or date of the file, so a copy on another disk is still the same stack. Images
        that cannot be read count as damaged. A part has the whole stack's identity and its own
        `images`.
        """
        if len(self.images) != self.arrangement.num_images:
            return self.whole.identity() | {"images": [self.images.start, self.images.stop]}
        digest, image_bytes = hashlib.sha256(), math.prod(self.shape[1:]) * self.dtype.itemsize
        hashed = min(self.num_images, max(HASHED_IMAGES, HASHED_BYTES // image_bytes))
        for image_index in sorted({round(i) for i in np.linspace(0, self.num_images - 1, hashed)}):
            try:
                digest.update(self.read_stored(image_index).tobytes())
            except StackError:
                digest.update(b"damaged")
        known = {"dataset": self.address.dataset, "shape": list(self.dataset.shape),
                 "dtype": self.dtype.str, "layout": self.arrangement.layout,
                 "sha256_of_some_images": digest.hexdigest()}
        known |= self.described.chosen()
        return known | ({"no_data": [str(self.no_data)]} if self.no_data else {})

    def read_stored(self, image_index: int, rows: slice = slice(None)) -> np.ndarray:
        """One image, or some of its rows, in the stack's own layout and dtype.

        SwinmpiError when the file was written to since it was opened: beyond a new end HDF5 would
        read zeros. Putting another file in its place does no harm, the old one stays open.
        """
        if not 0 <= image_index < self.num_images:
            raise IndexError(f"{self.address}: image index {image_index} is not in "
                             f"0..{self.num_images - 1}")
        try:
            image = self.dataset[self._place(image_index, rows)]
        except DAMAGE as error:
            self._check_unchanged()
            raise StackError(f"{self.address}: image {self.stack_index(image_index)} cannot be "
                             f"read ({reason_of(error)}); the file is damaged, write it again"
                             ) from None
        self._check_unchanged()
        return image

    def _place(self, image_index: int, rows: slice) -> tuple:
        arrangement = self.arrangement
        within = [rows if letter == "H" else slice(None) for letter in self.layout[1:]]
        return arrangement.unfolded(arrangement.place(self.first_image + image_index), within)

    def _check_unchanged(self) -> None:
        if stamp(self.file) != self._stamp:
            raise SwinmpiError(f"{self.address}: the file was changed while it was being read; "
                               "put it back and start again, finished images are kept, or start "
                               "afresh with another --output")

    def open_again(self) -> None:
        """After `close`, in a process that was forked. SwinmpiError where the file was changed."""
        self.file = open_file(self.address.path)
        self.dataset = self.file[self.address.dataset]
        self._check_unchanged()

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


def check_stack(address: Address, dataset, allow_external: bool, axes: str | None = None,
                group: h5py.Group | None = None) -> None:
    """StackError when `dataset` is not a readable stack with at least one pixel.

    axes: as the user says. group: where the dataset was found.
    """
    problem = (find_problem(dataset, axes, group) if isinstance(dataset, h5py.Dataset)
               else "expected a dataset, got a named datatype")
    if problem is not None:
        raise StackError(f"{address}: {problem}; name the dataset as file.h5::/path/to/images")
    if 0 in dataset.shape:
        raise StackError(f"{address}: expected at least one image of at least one pixel, got shape "
                         f"{dataset.shape}")
    refuse_external_storage(dataset, allow_external)
    virtual_sources(dataset)
    layout = decide_layout(dataset, axes, group)
    check_extent(address, dataset, Arrangement(layout, dataset.shape).image_shape)
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


def check_extent(address: Address | str, dataset: h5py.Dataset,
                 image_shape: Sequence[int]) -> None:
    """StackError when the shape claims more than can be true, or than one process can hold."""
    pixels, gib, memory = math.prod(image_shape), 2**30, memory_bytes()
    chunk_bytes = math.prod(dataset.chunks or (0,)) * dataset.dtype.itemsize
    needed = pixels * max(IMAGE_BYTES_PER_PIXEL, 2 * dataset.dtype.itemsize) + chunk_bytes
    claimed = dataset.size * dataset.dtype.itemsize
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
