"""How the file of training pairs, see pairs.py, is written, and a stack of LR images alone."""
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import h5py
import numpy as np

from swinmpi.storage.attributes import escaped
from swinmpi.storage.files import (
    as_output_error,
    beside,
    check_place,
    discarding,
    make_folder_of,
    put_in_place,
    remove,
    system_reason,
)
from swinmpi.storage.locking import begin, open_locked
from swinmpi.storage.pairs import DATASETS, DEGRADATIONS, SPLITS

PLACE = {"other kind": "would be an HDF5 file under the name of another format; name it .h5",
         "no folder": "{folder} is no folder; choose another --output",
         "not writable": "its folder is not writable; choose another --output",
         "is a folder": "expected a file name, got a folder",
         "exists": "exists already; give --overwrite to replace it"}


def check_output(path: Path, overwrite: bool) -> None:
    """OutputError where a PairWriter would raise it, as far as can be told; makes nothing."""
    check_place(path, PLACE, overwrite)
    partial = beside(path, ".partial")
    with as_output_error(partial, "cannot write: {reason}", "choose another --output",
                         reason=system_reason):
        sink = open_locked(partial)
        if sink is not None:
            sink.close()


class PairWriter:
    """Append pairs to FILE.partial, which the end of the block renames to FILE.

    An exception in the block deletes it. Memory does not grow with the number of pairs: shapes and
    dtype come from the first one, each is written at once.
    """

    def __init__(self, path: Path | str, attributes: Mapping[str, str | float | list[float]],
                 overwrite: bool = False):
        self.path = Path(path)
        self.partial = beside(self.path, ".partial")
        self.attributes = dict(attributes)
        check_place(self.path, PLACE, overwrite)

    def __enter__(self) -> "PairWriter":
        make_folder_of(self.path)
        with self.writing(), ExitStack() as stack:
            self.sink = begin(self.partial, stack)
            self.sink.truncate(0)  # what a killed run may have left
            # Uncached: a full disk shows at once, not at the end.
            self.file = h5py.File(self.sink, "w", rdcc_nbytes=0)
            self.file.attrs.update(self.attributes)
            stack.pop_all()  # the rest is for __exit__
        return self

    def __exit__(self, kind, error: BaseException | None, trace) -> None:
        try:
            with self.writing(), discarding(self.partial):
                self.file.close()
                if error is None:
                    self.sink.sync()
                    put_in_place(self.partial, self.path)
            if error is not None:
                error.left = remove(self.partial) or "nothing was written"
        finally:
            self.sink.close()

    def note(self, attributes: Mapping[str, str | float | list[float]]) -> None:
        """Further attributes of the file, on what is known only now."""
        with self.writing():
            self.file.attrs.update(attributes)

    @property
    def num_images(self) -> int:
        return len(self.file["hr"]) if "hr" in self.file else 0

    def append(self, hr: np.ndarray, lr: np.ndarray, split: int, source: str,
               drawn: Mapping[str, float] | None = None) -> None:
        """Write one pair, (H, W, C) and (h, w, C) of the first pair's shapes and dtype; drawn: what
        LR was degraded by, the same names for every pair."""
        with self.writing():
            if "hr" not in self.file:
                self.create(hr, lr)
            values = dict(zip(DATASETS, (hr, lr, split, escaped(source)), strict=True))
            self.append_values(values | dict(drawn or {}), self.num_images)

    def append_values(self, values: Mapping[str, object], index: int) -> None:
        """One row of every data set; those of DEGRADATIONS are made where they are missing."""
        for name, value in values.items():
            if name in DEGRADATIONS:
                self.file.require_dataset(name, (index,), np.float64, chunks=(4096,),
                                          maxshape=(None,))
            self.file[name].resize(index + 1, axis=0)
            self.file[name][index] = value
        self.sink.check()

    def create(self, hr: np.ndarray, lr: np.ndarray) -> None:
        for name, image in (("hr", hr), ("lr", lr)):
            self.file.create_dataset(name, (0, *image.shape), image.dtype,
                                     chunks=(1, *image.shape), maxshape=(None, *image.shape))
        self.file.create_dataset("split", (0,), np.uint8, chunks=(4096,), maxshape=(None,))
        self.file["split"].attrs["meaning"] = ", ".join(
            f"{number}: {name}" for name, number in SPLITS.items())
        self.file.create_dataset("source", (0,), h5py.string_dtype(), chunks=(1024,),
                                 maxshape=(None,))
        link_nexus(self.file, "hr", "lr")

    def writing(self) -> AbstractContextManager[None]:
        """See `as_output_error`."""
        return as_output_error(self.partial, "cannot write: {reason}",
                               "free space or choose another --output", reason=system_reason)


class LrWriter(PairWriter):
    """The same for a stack of LR images alone, /lr (N, h, w) or (N, h, w, C) and /source."""

    @property
    def num_images(self) -> int:
        return len(self.file["lr"]) if "lr" in self.file else 0

    def append(self, lr: np.ndarray, source: str, drawn: Mapping[str, float] | None = None) -> None:
        """Write one image, (h, w) or (h, w, C) of the first one's shape and dtype; drawn: as of
        PairWriter."""
        with self.writing():
            if "lr" not in self.file:
                self.create(lr)
            self.append_values({"lr": lr, "source": escaped(source), **(drawn or {})},
                               self.num_images)

    def create(self, lr: np.ndarray) -> None:
        self.file.create_dataset("lr", (0, *lr.shape), lr.dtype, chunks=(1, *lr.shape),
                                 maxshape=(None, *lr.shape))
        self.file.create_dataset("source", (0,), h5py.string_dtype(), chunks=(1024,),
                                 maxshape=(None,))
        link_nexus(self.file, "lr")


def link_nexus(file: h5py.File, *names: str) -> None:
    """/entry/data shows the first of the names as the file's default image and the others beside
    it, without copies."""
    file.attrs.update({"NX_class": "NXroot", "default": "entry"})
    entry = file.create_group("entry")
    entry.attrs.update({"NX_class": "NXentry", "default": "data"})
    data = entry.create_group("data")
    data.attrs.update({"NX_class": "NXdata", "signal": names[0]})
    for name in names:
        data[name] = file[name]
