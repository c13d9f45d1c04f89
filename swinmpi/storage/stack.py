"""A stack: the images of one HDF5 dataset, validated before any of them is read."""
import hashlib
from pathlib import Path

import h5py
import numpy as np

from swinmpi.errors import StackError
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

HASHED_IMAGES = 16


class Stack:
    """An open, readable stack; made by `Stack.open`, a context manager. Not collective: any rank may open its own."""

    def __init__(self, address: Address, file: h5py.File, dataset: h5py.Dataset, axes: tuple[Axis | None, ...]):
        self.address = address
        self.file = file
        self.dataset = dataset
        self.axes = axes
        self.layout = decide_layout(dataset)
        self.attributes = readable_attributes(dataset)

    @classmethod
    def open(cls, address: Address | str, allow_external: bool = False) -> "Stack":
        """Open and validate. Raises StackError for everything that could fail later, except damaged pixels.

        allow_external: also follow external links, external storage and virtual datasets into other files.
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
            raise StackError(f"{address}: the HDF5 file is damaged ({reason_of(error)}); write it again") from None

    @property
    def shape(self) -> tuple[int, ...]:
        """As stored."""
        return self.dataset.shape

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
        return np.ascontiguousarray(to_chw(self.read_stored(image_index), self.layout), dtype=np.float32)

    def read_rows(self, image_index: int, rows: slice) -> np.ndarray:
        """Some rows of `read`."""
        stored = self.read_stored(image_index, rows)
        return np.ascontiguousarray(to_chw(stored, self.layout), dtype=np.float32)

    def range(self) -> ValueRange:
        """See `measure_range`; reads the whole stack unless it is uint8."""
        return measure_range(self)

    def identity(self) -> dict:
        """What tells this stack from another, as JSON values: a resumed run must find the same. Not the path or date of
        the file, so a copy on another disk is still the same stack. Images that cannot be read count as damaged."""
        digest = hashlib.sha256()
        for image_index in sorted({round(i) for i in np.linspace(0, self.num_images - 1, HASHED_IMAGES)}):
            try:
                digest.update(self.read_stored(image_index).tobytes())
            except StackError:
                digest.update(b"damaged")
        return {"dataset": self.address.dataset, "shape": list(self.shape), "dtype": self.dtype.str,
                "layout": self.layout, "sha256_of_some_images": digest.hexdigest()}

    def read_stored(self, image_index: int, rows: slice = slice(None)) -> np.ndarray:
        """One image, or some rows of it, in the stack's own layout and dtype."""
        if not 0 <= image_index < self.num_images:
            raise IndexError(f"{self.address}: image index {image_index} is not in 0..{self.num_images - 1}")
        try:
            return self.dataset[(image_index, *([slice(None)] * (self.layout.index("H") - 1)), rows)]
        except DAMAGE as error:
            raise StackError(f"{self.address}: image {image_index} cannot be read ({reason_of(error)}); "
                             "the file is damaged, write it again") from None

    def close(self) -> None:
        self.file.close()

    def __enter__(self) -> "Stack":
        return self

    def __exit__(self, *_) -> None:
        self.close()


def check_stack(address: Address, dataset, allow_external: bool) -> None:
    """StackError when `dataset` is not a readable stack with at least one pixel."""
    problem = find_problem(dataset) if isinstance(dataset, h5py.Dataset) else "expected a dataset, got a named datatype"
    if problem is not None:
        raise StackError(f"{address}: {problem}; name the dataset as file.h5::/path/to/images")
    if 0 in dataset.shape:
        raise StackError(f"{address}: expected at least one image of at least one pixel, got shape {dataset.shape}")
    refuse_external_storage(dataset, allow_external)
    check_virtual_sources(address, dataset)
    creation = dataset.id.get_create_plist()
    for position in range(creation.get_nfilters()):
        code, _, _, name = creation.get_filter(position)
        if not h5py.h5z.filter_avail(code):
            raise StackError(f"{address}: compressed with filter {code} ({name.decode(errors='replace')}), which is "
                             "not installed; pip install 'swinmpi[filters]'")


def check_virtual_sources(address: Address, dataset: h5py.Dataset) -> None:
    """StackError when a virtual dataset's source is gone: HDF5 would read zeros in its place, silently."""
    folder = address.path.parent
    for source in dataset.virtual_sources() if dataset.is_virtual else ():
        name = Path(source.file_name)
        somewhere = (folder / name, name, folder / name.name)
        if source.file_name != "." and "%" not in source.file_name and not any(path.exists() for path in somewhere):
            raise StackError(f"{address}: its source file {source.file_name} is missing; put it beside the file")
