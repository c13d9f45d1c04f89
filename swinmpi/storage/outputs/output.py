"""The output of a run: `OUT.partial` while it grows, one packed NeXus file at the end.

A kill at any moment leaves a resumable OUT.partial, or the finished OUT, never half of one:
 - OUT.partial appears complete under its name: every dataset allocated, contiguous, and no metadata
   changes after that;
 - an image's pixels are on the disk before its `done` flag is set;
 - OUT is packed under another name and renamed, and only then is OUT.partial removed.
"""
import json
import os
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from swinmpi.errors import ConfigError, OutputError
from swinmpi.images.likeness.usual import SCORES
from swinmpi.interruption import uninterrupted
from swinmpi.storage.address import DAMAGE
from swinmpi.storage.files import (
    Sink,
    as_output_error,
    beside,
    check_place,
    discarding,
    make_folder_of,
    put_in_place,
    remove,
    system_reason,
    tell,
)
from swinmpi.storage.locking import check_in_place
from swinmpi.storage.outputs.carrying import DATA
from swinmpi.storage.outputs.contents import OutputPlan, pixel_datasets
from swinmpi.storage.outputs.extending import check_same_members
from swinmpi.storage.outputs.packing import pack
from swinmpi.storage.outputs.partial import (
    PER_IMAGE,
    check_resumable,
    create_partial,
    describe,
    resume_partial,
)
from swinmpi.storage.outputs.placing import check_figures, checked_part
from swinmpi.storage.outputs.views import link_errors, store_lr
from swinmpi.storage.stack import Stack
from swinmpi.storage.values import ValueRange

PLACE = {
    "other kind": "would be an HDF5 file under the name of another format; name it .h5",
    "too long": "cannot write here (its name, or that of a folder on the way, is too long); choose "
                "a shorter --output",
    "in the way": "a folder lies where a file beside it must (.partial, .partial.new, .packing); "
                  "move that folder away, or choose another --output",
    "is no file": "expected a file name, got a folder or a device; use --output FILE",
    "no folder": "{folder} is no folder; choose another --output",
    "not writable": "the folder {folder} is not writable; choose another --output",
    "is the input": "would overwrite the input {input}; choose another --output",
    "exists": "exists already; choose another --output, or replace it with --overwrite"}
ADVICE = "make room and start again, finished images are kept"


class StackOutput:
    """The one writer of an output file, an `ImageStore`; for one process (rank 0).

    A context manager, made by `StackOutput.open`.
    """

    def __init__(self, path: Path, partial: Path, sink: Sink, stack: Stack, plan: OutputPlan,
                 overwrite: bool):
        self.path = path
        self.partial = partial
        self.plan = plan
        self.overwrite = overwrite
        self.stack, self.layout = stack, stack.layout
        self._sink = sink
        self._file = h5py.File(sink, "r+")

    @classmethod
    def open(cls, path: Path | str, stack: Stack, plan: OutputPlan, fingerprint: Mapping[str, Any],
             overwrite: bool = False, range_is_measured: bool = False) -> "StackOutput":
        """Create OUT.partial, or resume it when it was begun with the same fingerprint.

        fingerprint: JSON values that decide the pixels (input, checkpoint, configuration, seed).
        range_is_measured: its value range is kept for `measured_before`. OutputError when OUT
        exists and not `overwrite`, cannot be written here, is being written by another run, or when
        OUT.partial was begun with another fingerprint; with `overwrite` that one is discarded, a
        matching one is still resumed.
        """
        path = check_output(path, stack.address.path, overwrite or plan.extends > 0)
        make_folder_of(path)
        partial = beside(path, ".partial")
        pixels = pixel_datasets(plan, stack.dtype)
        description = describe(stack, plan.scale, pixels, fingerprint)
        with as_output_error(partial, "cannot write here ({reason})", "choose another --output",
                             reason=system_reason):
            sink = resume_partial(partial, description, plan.per_image, overwrite)
            if sink is None:
                begun = {"fingerprint": json.dumps(description),
                         "range_is_measured": range_is_measured}
                sink = create_partial(partial, stack, plan.scale, pixels, plan.per_image, begun,
                                      plan.attributes)
        return cls(path, partial, sink, stack, plan, overwrite or plan.extends > 0)

    def remaining(self) -> list[int]:
        """Image indices that are not done, ascending."""
        return np.flatnonzero(self._file[PER_IMAGE]["done"][:] == 0).tolist()

    def scores_before(self) -> dict[int, dict[str, float]]:
        """How unlike the images that are done are, by image index, as far as it is kept."""
        per_image = self._file[PER_IMAGE]
        kept = {name: per_image[name][:] for name in SCORES if name in per_image}
        return {index: {name: float(values[index]) for name, values in kept.items()}
                for index in np.flatnonzero(per_image["done"][:]).tolist() if kept}

    def write(self, image_index: int, arrays: Mapping[str, np.ndarray],
              figures: Mapping[str, float]) -> None:
        """Store a whole image and mark it done; see `write_part` and `complete`.

        arrays: (C, H, W).
        """
        sr = self._file[DATA]["sr"]
        whole = tuple(sr.shape[self.layout.index(axis)] for axis in "HW")
        if {image.shape[1:] for image in arrays.values()} - {whole}:
            raise ValueError(f"expected images of {whole}, got "
                             f"{[image.shape for image in arrays.values()]}")
        check_figures(figures, self.plan.per_image)
        self.write_part(image_index, 0, 0, arrays)
        self.complete(image_index, figures)

    def write_part(self, image_index: int, top: int, left: int,
                   arrays: Mapping[str, np.ndarray]) -> None:
        """Store pixels of an image, not yet safe from a kill.

        arrays: (C, h, w) at (top, left) for every dataset of the plan, raw values in the dataset's
        own dtype.
        """
        data = self._file[DATA]
        datasets = {name: data[name] for name in pixel_datasets(self.plan, data["sr"].dtype)}
        placed = checked_part(datasets, self.layout, image_index, top, left, arrays)
        with self._writing(image_index):
            for name, (place, stored) in placed.items():
                data[name][place] = stored
            self._sink.check()

    def complete(self, image_index: int, figures: Mapping[str, float]) -> None:
        """Mark an image done when all of it is written.

        Returns when it would survive a kill or a power cut. figures: by name, any of the plan's;
        those not given stay NaN.
        """
        check_figures(figures, self.plan.per_image)
        self.check_in_place()
        per_image = self._file[PER_IMAGE]
        if self.plan.extends:
            check_same_members(self.path, self._file, self.plan.extends, image_index)
        with self._writing(image_index):
            for name, value in figures.items():
                per_image[name][image_index] = value
            self._flush()
            per_image["done"][image_index] = 1
            self._flush()

    def finish(self, provenance: Mapping[str, Any], failed: Collection[int] = ()) -> Path:
        """Pack OUT.partial into OUT and remove it; returns OUT's path.

        provenance: names to strings, numbers, lists of them, or mappings of those; None is left
        out. failed: images given up; their `done` stays 0 and their pixels are 0 (NaN for floats).
        ValueError when others are missing.
        """
        missing = sorted(set(self.remaining()) - set(failed))
        if missing:
            raise ValueError(f"{self.partial}: {len(missing)} images are not done, the first is "
                             f"{missing[0]}")
        self.check_in_place()
        if self.path.exists() and not self.overwrite:
            raise OutputError(f"{self.path}: was made by somebody else meanwhile; move it away and "
                              f"start again to pack the images, they are safe in {self.partial}")
        self._pack(provenance)
        self.close()
        return self.path

    def check_in_place(self) -> None:
        """OutputError when OUT.partial is no longer the file under its name."""
        check_in_place(self._sink, self.partial)

    def hand_over(self) -> None:
        """Leave the writing of images to `SharedPartial` until `take_back`; the lock stays."""
        self._file.close()

    def take_back(self) -> None:
        """After `hand_over`, when the others have closed the file."""
        self._file = h5py.File(self._sink, "r+")

    def close(self) -> None:
        """Let go of OUT.partial; it stays resumable."""
        self._file.close()
        self._sink.close()

    def _pack(self, provenance: Mapping[str, Any]) -> None:
        packing = beside(self.path, ".packing")
        advice = f"start again to pack the images, they are safe in {self.partial}"
        with as_output_error(self.path, "cannot be packed ({reason})", advice, DAMAGE):
            with discarding(packing):
                is_part = provenance.get("shard") is not None
                pack(self._file, packing, self.plan.compression, provenance,
                     lambda packed: None if is_part else self._add_views(packed))
                self._conclude(packing)

    def _add_views(self, packed: h5py.File) -> None:
        """What NeXus readers find beside the images."""
        link_errors(packed)
        if self.plan.lr:
            done = np.flatnonzero(self._file[PER_IMAGE]["done"][:])
            store_lr(packed, self.stack, self.plan.compression, done)

    @uninterrupted
    def _conclude(self, packing: Path) -> None:
        """Give the packed file its name; OUT.partial goes."""
        put_in_place(packing, self.path)
        if left := remove(self.partial):
            tell(f"{self.path}: is complete, but {left}")

    def _writing(self, image_index: int) -> AbstractContextManager[None]:
        problem = f"image {image_index} cannot be written ({{reason}})"
        return as_output_error(self.partial, problem, ADVICE)

    def _flush(self) -> None:
        self._file.flush()
        self._sink.sync()

    def __enter__(self) -> "StackOutput":
        return self

    def __exit__(self, *_) -> None:
        self.close()


def check_output(path: Path | str, input_path: Path, overwrite: bool = False) -> Path:
    """The path to write, symbolic links resolved.

    OutputError when it cannot or must not be written.
    """
    path = Path(os.path.realpath(path))
    check_place(path, PLACE, overwrite, input_path)
    return path


def check_resuming(path: Path | str, stack: Stack, plan: OutputPlan,
                   fingerprint: Mapping[str, Any], overwrite: bool = False) -> int:
    """How many images of the OUT.partial that is there `StackOutput.open` would find done;
    OutputError where it would not go on from it."""
    partial = beside(Path(os.path.realpath(path)), ".partial")
    description = describe(stack, plan.scale, pixel_datasets(plan, stack.dtype), fingerprint)
    with as_output_error(partial, "cannot be read ({reason})", "choose another --output",
                         reason=system_reason):
        return check_resumable(partial, description, plan.per_image, overwrite)


def measured_before(path: Path | str, identity: Mapping[str, Any],
                    checkpoint: str) -> ValueRange | None:
    """The value range that the run which began OUT.partial found by reading the same stack.

    identity: of the stack; checkpoint: its digest, because the range may be the trained one. None
    without such a run.
    """
    partial = beside(Path(os.path.realpath(path)), ".partial")
    try:
        with h5py.File(partial, locking=False) as file:
            begun = json.loads(file.attrs["fingerprint"])
            is_known = (file.attrs["range_is_measured"] and begun["input"] == identity
                        and begun["checkpoint"] == checkpoint)
            return ValueRange(*begun["value_range"]) if is_known else None
    except (*DAMAGE, ConfigError):
        return None
