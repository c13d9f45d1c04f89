"""OUT.partial written by all ranks together, through an HDF5 library that is built with MPI."""
from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np

from swinmpi.errors import ConfigError
from swinmpi.storage.files import as_output_error
from swinmpi.storage.outputs.carrying import DATA
from swinmpi.storage.outputs.output import ADVICE
from swinmpi.storage.outputs.partial import PER_IMAGE
from swinmpi.storage.outputs.placing import check_figures, checked_part

StoredPart = tuple[int, int, int, Mapping[str, np.ndarray]]


def check_backend(backend: str) -> None:
    """ConfigError when `output.backend` is mpio and this h5py cannot do it."""
    if backend == "mpio" and not h5py.get_config().mpi:
        raise ConfigError(
            "output.backend: mpio needs an h5py that is built with MPI, got h5py "
            f"{h5py.__version__} without; build it (HDF5_MPI=ON CC=mpicc pip install "
            "--no-binary=h5py h5py; docs/cluster.md says how), or use output.backend=gather")


class SharedPartial:
    """An OUT.partial that its `StackOutput` has handed over, open on every rank of a communicator.

    Making it and all its methods are collective. Every write is a collective call of MPI, in which
    ranks that have nothing to write take part. No metadata change, so a kill at any moment leaves
    OUT.partial resumable.
    """

    def __init__(self, partial: Path, layout: str, names: Sequence[str], comm):
        """names: the datasets that hold images.

        comm: of all ranks, from mpi4py, which must be imported before h5py.
        """
        self.partial, self.layout, self.comm = partial, layout, comm
        with as_output_error(partial, "cannot be opened by all ranks ({reason})", "it must lie "
                             "where every node sees it, or use output.backend=gather"):
            self._file = h5py.File(partial, "r+", driver="mpio", comm=comm)
        self._data = {name: self._file[DATA][name] for name in names}
        self._per_image = self._file[PER_IMAGE]
        # In one order on all ranks, which write them together.
        self.figures = tuple(sorted(name for name in self._per_image if name != "done"))
        self._together = h5py.h5p.create(h5py.h5p.DATASET_XFER)
        self._together.set_dxpl_mpio(h5py.h5fd.MPIO_COLLECTIVE)

    def write_part(self, part: StoredPart | None) -> None:
        """This rank's part, the arguments of `StackOutput.write_part`, or None if none is left."""
        placed = checked_part(self._data, self.layout, *part) if part else {}
        what = f"image {part[0]}" if part else "images"
        with as_output_error(self.partial, f"{what} cannot be written ({{reason}})", ADVICE):
            for name, dataset in self._data.items():
                place, values = placed.get(name, (None, np.empty(0, dataset.dtype)))
                self._write(dataset, [place] if place else [], values)

    def complete(self, figures: Mapping[int, Mapping[str, float]]) -> None:
        """Mark images done that all ranks have written.

        Returns when they would survive a kill or a power cut. figures: by image index, as for
        `StackOutput.complete`; the first rank's are written.
        """
        mine = dict(sorted(figures.items())) if self.comm.rank == 0 else {}
        for named in mine.values():
            check_figures(named, self.figures)
        with as_output_error(self.partial, "images cannot be written ({reason})", ADVICE):
            for name in self.figures:
                values = {index: named.get(name, np.nan) for index, named in mine.items()}
                self._write_values(name, values)
            self._flush()
            self._write_values("done", dict.fromkeys(mine, 1))
            self._flush()

    def close(self) -> None:
        self._file.close()

    def _write_values(self, name: str, values: Mapping[int, float]) -> None:
        dataset = self._per_image[name]
        places = [(slice(index, index + 1),) for index in values]
        self._write(dataset, places, np.array([*values.values()], dataset.dtype))

    def _write(self, dataset: h5py.Dataset, places: Sequence[tuple[slice, ...]],
               values: np.ndarray) -> None:
        """Values in the dataset's dtype to `places`, which ascend.

        A rank that only takes part has none of them.
        """
        in_file, in_memory = dataset.id.get_space(), h5py.h5s.create_simple((max(1, values.size),))
        in_file.select_none()
        for place in places:
            starts = tuple(span.start for span in place)
            sizes = tuple(span.stop - span.start for span in place)
            in_file.select_hyperslab(starts, sizes, op=h5py.h5s.SELECT_OR)
        if not places:
            in_memory.select_none()
            values = np.empty(1, dataset.dtype)
        dataset.id.write(in_memory, in_file, np.ascontiguousarray(values), dxpl=self._together)

    def _flush(self) -> None:
        """What any rank wrote before is on the disk when a rank writes after."""
        self._file.flush()
        self.comm.Barrier()
