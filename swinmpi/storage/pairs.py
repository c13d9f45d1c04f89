"""Training pairs: the file that swinmpi-prepare writes image by image and swinmpi-train reads.

It holds /hr (N, H, W, C) and /lr (N, h, w, C), uint8 or uint16, chunk = one image; /split (N,)
uint8 (0 train, 1 validate, 2 test); /source (N,) strings. Attributes: scale, kernel, seed,
data_config (JSON), creator; value_range, value_dtype: the raw values that are 0 and the type's
highest here. Where LR is not only shrunk: /psf_px, /photons, /read_noise (N,) float64, what was
drawn for each pair, as far as they were asked for, and attributes of these names, [low, high].
"""
import os
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from swinmpi.errors import StackError
from swinmpi.storage.address import (
    DAMAGE,
    find_object,
    is_being_written,
    open_for_reading,
    reason_of,
    refuse_external_storage,
    why_unopened,
)
from swinmpi.storage.attributes import text_attribute
from swinmpi.storage.kinds import what_is
from swinmpi.storage.stack import check_extent

TRAIN, VALIDATE, TEST = 0, 1, 2
SPLITS = {"train": TRAIN, "validate": VALIDATE, "test": TEST}
DATASETS = ("hr", "lr", "split", "source")
DEGRADATIONS = ("psf_px", "photons", "read_noise")


class PairReader:
    """Open a file of pairs (context manager).

    Every problem is a StackError before the first pixel is read.

    num_images; scale = HR size / LR size; size_px, channels of the HR images; value_max of the
    stored dtype (255 or 65535); value_range, value_dtype: the raw values that are 0 and that, and
    their dtype, None and "" where the file does not tell; degradation: (low, high) by the names of
    DEGRADATIONS, of what LR was made with beside shrinking; kernel: what it was shrunk by, bicubic
    where the file does not tell; splits (N,) uint8; train_indices and
    validate_indices, int64 image indices.
    """

    def __init__(self, path: Path | str):
        self.path = str(path)
        self.file = open_pairs(self.path)
        try:
            self.check()
        except DAMAGE as error:
            self.file.close()
            raise StackError(f"{self.path}: the HDF5 file is damaged ({reason_of(error)}); "
                             "make it again with swinmpi-prepare") from None
        except StackError:
            self.file.close()
            raise

    def __enter__(self) -> "PairReader":
        return self

    def __exit__(self, *exception) -> None:
        self.file.close()

    def read_pair(self, image_index: int) -> tuple[np.ndarray, np.ndarray]:
        """(hr, lr) as stored: (H, W, C) and (h, w, C)."""
        return self.read(self.hr, image_index, ...), self.read(self.lr, image_index, ...)

    def read_crop(self, image_index: int, y_lr: int, x_lr: int,
                  lr_size: int) -> tuple[np.ndarray, np.ndarray]:
        """(hr, lr): the LR square at (y_lr, x_lr) of side lr_size and the HR square over it.

        Positions and size in LR pixels.
        """
        y_hr, x_hr, hr_size = (self.to_hr(length) for length in (y_lr, x_lr, lr_size))
        height, width = self.lr.shape[1:3]
        if min(y_lr, x_lr) < 0 or y_lr + lr_size > height or x_lr + lr_size > width:
            raise ValueError(f"crop at ({y_lr}, {x_lr}) of {lr_size} px leaves the LR image of "
                             f"{height} x {width}")
        hr = self.read(self.hr, image_index, np.s_[y_hr:y_hr + hr_size, x_hr:x_hr + hr_size])
        lr = self.read(self.lr, image_index, np.s_[y_lr:y_lr + lr_size, x_lr:x_lr + lr_size])
        return hr, lr

    def read(self, dataset: h5py.Dataset, image_index: int, part) -> np.ndarray:
        try:
            return dataset[(int(image_index), *(part if isinstance(part, tuple) else (part,)))]
        except DAMAGE as error:
            raise StackError(f"{self.path}: {dataset.name}[{image_index}] is damaged "
                             f"({reason_of(error)}); make the file again with swinmpi-prepare"
                             ) from None

    def to_hr(self, length_lr: int) -> int:
        length_hr = round(length_lr * self.scale)
        if abs(length_hr - length_lr * self.scale) > 1e-6:
            raise ValueError(f"{length_lr} LR pixels are not a whole number of HR pixels at scale "
                             f"{self.scale:g}")
        return length_hr

    def check(self) -> None:
        """Refuse anything that swinmpi-prepare could not have written; set the attributes."""
        self.hr, self.lr, split = (self.dataset(name) for name in DATASETS[:3])
        scale = self.file.attrs.get("scale")
        is_number = np.isscalar(scale) and isinstance(scale, (int, float, np.number))
        if not is_number or not scale > 1:
            self.refuse(f"attribute scale above 1, got {scale!r}")
        self.scale = float(scale)
        if self.hr.dtype not in (np.uint8, np.uint16) or self.hr.dtype != self.lr.dtype:
            self.refuse("hr and lr of one type, uint8 or uint16, got "
                        f"{self.hr.dtype} and {self.lr.dtype}")
        if (self.hr.ndim != 4 or self.lr.ndim != 4 or self.hr.shape[3] not in (1, 3)
                or 0 in self.lr.shape):
            self.refuse(f"hr and lr of (N, H, W, 1 or 3), got {self.hr.shape} and {self.lr.shape}")
        self.num_images, height, width, self.channels = self.hr.shape
        expected = (self.num_images, round(height / self.scale), round(width / self.scale),
                    self.channels)
        if self.lr.shape != expected or split.shape != (self.num_images,):
            self.refuse(f"lr of {expected} and split of ({self.num_images},), got {self.lr.shape} "
                        f"and {split.shape}")
        self.size_px = height
        self.value_max = int(np.iinfo(self.hr.dtype).max)
        self.value_range = self.two_numbers("value_range")
        if self.value_range and not self.value_range[0] < self.value_range[1]:
            self.refuse(f"attribute value_range of low < high, got {self.value_range}")
        self.value_dtype = (text_attribute(self.file, "value_dtype") or ""
                            if self.value_range else "")
        self.kernel = text_attribute(self.file, "kernel") or "bicubic"
        told = {name: self.two_numbers(name) for name in DEGRADATIONS}
        self.degradation = {name: both for name, both in told.items() if both is not None}
        self.splits = split[:]
        self.train_indices, self.validate_indices = map(self.indices, ("train", "validate"))

    def indices(self, name: str) -> np.ndarray:
        """Of the images of one of SPLITS, int64."""
        return np.flatnonzero(self.splits == SPLITS[name])

    def count_sources(self, image_indices: Sequence[int]) -> int:
        """From how many photographs or frames these images were cut; StackError where the file
        does not say."""
        source = self.dataset("source")
        if source.shape != (self.num_images,) or h5py.check_string_dtype(source.dtype) is None:
            self.refuse(f"source of ({self.num_images},) strings, got {source.shape} of "
                        f"{source.dtype}")
        return len({self.read(source, index, ()) for index in image_indices})

    def two_numbers(self, name: str) -> tuple[float, float] | None:
        """An attribute [low, high]; None where there is none."""
        told = self.file.attrs.get(name)
        if told is None:
            return None
        values = np.asarray(told)
        if (values.shape != (2,) or values.dtype.kind != "f" or not np.isfinite(values).all()
                or values[0] > values[1]):
            self.refuse(f"attribute {name} of two numbers low < high, got {told!r:.60}")
        return float(values[0]), float(values[1])

    def dataset(self, name: str) -> h5py.Dataset:
        found = find_object(self.file, f"/{name}")
        if not isinstance(found, h5py.Dataset):
            there = ", ".join(sorted(self.file)[:8]) or "an empty file"
            self.refuse(f"a dataset /{name}, got {there}")
        refuse_external_storage(found, allow_external=False)
        check_extent(self.path, found, found.shape[1:])
        return found

    def refuse(self, text: str) -> None:
        raise StackError(f"{self.path}: expected {text}; make the file with swinmpi-prepare")


def holds_pairs(path: Path | str) -> bool:
    """Whether a file that can be opened looks like one of pairs, which PairReader then checks."""
    try:
        with open_for_reading(path) as file:
            return all(name in file for name in DATASETS)
    except DAMAGE:
        return False


def open_pairs(path: str) -> h5py.File:
    if not os.path.isfile(path):
        raise StackError(f"{path}: expected a file of swinmpi-prepare, got {what_is(Path(path))}")
    try:
        return open_for_reading(path)
    except DAMAGE as error:
        if is_being_written(error):
            raise StackError(f"{path}: {why_unopened(error)}") from None
        raise StackError(f"{path}: not a complete HDF5 file ({reason_of(error)}); "
                         "make it with swinmpi-prepare") from None
