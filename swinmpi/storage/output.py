"""The output of a run: `OUT.partial` while it grows, one packed NeXus file at the end, resumable in between.

A kill at any moment leaves a resumable OUT.partial, or the finished OUT, never half of one:
 - OUT.partial appears complete under its name: every dataset allocated, contiguous, and no metadata changes after that;
 - an image's pixels are on the disk before its `done` flag is set;
 - OUT is packed under another name and renamed, and only then is OUT.partial removed.
"""
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from swinmpi.errors import OutputError
from swinmpi.storage.address import DAMAGE, reason_of
from swinmpi.storage.layout import from_chw
from swinmpi.storage.packing import pack
from swinmpi.storage.partial import DATA, FIGURES, PER_IMAGE, create_partial, describe, resume_partial, sync_folder
from swinmpi.storage.sink import Sink
from swinmpi.storage.stack import Stack


@dataclass(frozen=True)
class OutputPlan:
    """What an output file holds beside `sr`."""

    scale: int
    ensemble: bool = False  # sr_mean and sr_std, float32
    regression: bool = False  # like sr
    compression: int = 4  # gzip level of the finished file


class StackOutput:
    """The one writer of an output file; made by `StackOutput.open`, a context manager. For one process (rank 0)."""

    def __init__(self, path: Path, partial: Path, sink: Sink, layout: str, plan: OutputPlan):
        self.path = path
        self.partial = partial
        self.plan = plan
        self.layout = layout
        self._sink = sink
        self._file = h5py.File(sink, "r+")

    @classmethod
    def open(cls, path: Path | str, stack: Stack, plan: OutputPlan, fingerprint: Mapping[str, Any],
             overwrite: bool = False) -> "StackOutput":
        """Create OUT.partial, or resume it when it was begun with the same fingerprint.

        fingerprint: JSON values that decide the pixels (input, checkpoint, configuration, seed). OutputError when OUT
        exists and not `overwrite`, cannot be written here, is being written by another run, or when OUT.partial was
        begun with another fingerprint; with `overwrite` that one is discarded, a matching one is still resumed.
        """
        path = check_output(path, stack.address.path, overwrite)
        partial = beside(path, ".partial")
        description = describe(stack, plan.scale, pixel_datasets(plan, stack.dtype), fingerprint)
        try:
            sink = resume_partial(partial, description, overwrite)
            if sink is None:
                sink = create_partial(partial, stack, plan.scale, pixel_datasets(plan, stack.dtype), description)
        except OSError as error:
            raise OutputError(f"{partial}: cannot write here ({error.strerror or reason_of(error)}); "
                              "choose another --output") from None
        return cls(path, partial, sink, stack.layout, plan)

    def remaining(self) -> list[int]:
        """Image indices that are not done, ascending."""
        return np.flatnonzero(self._file[PER_IMAGE]["done"][:] == 0).tolist()

    def write(self, image_index: int, arrays: Mapping[str, np.ndarray], figures: Mapping[str, float]) -> None:
        """Store one image and mark it done; returns when it would survive a kill or a power cut.

        arrays: (C, H, W) for every dataset of the plan, raw values in the dataset's own dtype. figures: any of lr_psnr
        and seam_score; those not given stay NaN.
        """
        data, per_image = self._file[DATA], self._file[PER_IMAGE]
        expected = pixel_datasets(self.plan, data["sr"].dtype)
        if set(arrays) != set(expected) or not set(figures) <= set(FIGURES):
            raise ValueError(f"expected arrays {sorted(expected)} and figures among {FIGURES}, "
                             f"got {sorted(arrays)} and {sorted(figures)}")
        images = {name: checked_image(name, arrays[name], data[name], self.layout) for name in expected}
        try:
            for name, image in images.items():
                data[name][image_index] = image
            for name, value in figures.items():
                per_image[name][image_index] = value
            self._flush()
            per_image["done"][image_index] = 1
            self._flush()
        except OSError as error:
            raise OutputError(f"{self.partial}: image {image_index} cannot be written ({reason_of(error)}); "
                              "make room and start again, finished images are kept") from None

    def finish(self, provenance: Mapping[str, Any], failed: Collection[int] = ()) -> Path:
        """Pack OUT.partial into OUT and remove it; returns OUT's path.

        provenance: names to strings, numbers, lists of them, or mappings of those; None is left out. failed: images
        given up; their `done` stays 0 and their pixels are 0 (NaN for floats). ValueError when others are missing.
        """
        missing = sorted(set(self.remaining()) - set(failed))
        if missing:
            raise ValueError(f"{self.partial}: {len(missing)} images are not done, the first is {missing[0]}")
        packing = beside(self.path, ".packing")
        try:
            pack(self._file, packing, self.plan.compression, provenance)
            os.replace(packing, self.path)
            sync_folder(self.path.parent)
        except DAMAGE as error:
            packing.unlink(missing_ok=True)
            raise OutputError(f"{self.path}: cannot be packed ({reason_of(error)}); start again to pack the images, "
                              f"they are safe in {self.partial}") from None
        self.partial.unlink(missing_ok=True)
        self.close()
        return self.path

    def close(self) -> None:
        """Let go of OUT.partial; it stays resumable."""
        self._file.close()
        self._sink.close()

    def _flush(self) -> None:
        self._file.flush()
        self._sink.sync()

    def __enter__(self) -> "StackOutput":
        return self

    def __exit__(self, *_) -> None:
        self.close()


def check_output(path: Path | str, input_path: Path, overwrite: bool = False) -> Path:
    """The path to write, symbolic links resolved; OutputError when it cannot or must not be written."""
    path = Path(os.path.realpath(path))
    if os.path.exists(path) and not os.path.isfile(path):
        raise OutputError(f"{path}: expected a file name, got a folder or a device; use --output FILE")
    if not os.path.isdir(path.parent):
        raise OutputError(f"{path}: the folder {path.parent} does not exist; create it or choose another --output")
    if not os.access(path.parent, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise OutputError(f"{path}: the folder {path.parent} is not writable; choose another --output")
    for mine in (path, beside(path, ".partial"), beside(path, ".packing")):
        if os.path.exists(mine) and os.path.exists(input_path) and os.path.samefile(mine, input_path):
            raise OutputError(f"{path}: would overwrite the input {input_path}; choose another --output")
    if os.path.exists(path) and not overwrite:
        raise OutputError(f"{path}: exists already; choose another --output, or replace it with --overwrite")
    return path


def pixel_datasets(plan: OutputPlan, dtype: np.dtype) -> dict[str, np.dtype]:
    """Names and dtypes of the datasets that hold images; all have the shape of `sr`."""
    names = {"sr": dtype}
    if plan.regression:
        names["regression"] = dtype
    if plan.ensemble:
        names |= {"sr_mean": np.dtype("float32"), "sr_std": np.dtype("float32")}
    return names


def checked_image(name: str, image: np.ndarray, dataset: h5py.Dataset, layout: str) -> np.ndarray:
    """One (C, H, W) image in the layout of its dataset; ValueError when shape or dtype would have to be changed."""
    fits_layout = image.ndim == 3 and (layout != "NHW" or len(image) == 1)
    stored = from_chw(image, layout) if fits_layout else None
    if stored is None or stored.shape != dataset.shape[1:] or image.dtype.newbyteorder("=") != dataset.dtype.newbyteorder("="):
        raise ValueError(f"{name}: expected (C, H, W) of {dataset.dtype} that fits {layout} {dataset.shape}, "
                         f"got {image.shape} of {image.dtype}")
    return stored


def beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
