"""What this HDF5 can do: versions, parallel access, compression filters."""
from contextlib import suppress
from dataclasses import dataclass

import h5py

with suppress(ImportError):
    import hdf5plugin  # noqa: F401 - registers the compression filters of the `filters` extra

# Numbers from The HDF Group's registry of filters.
FILTERS = {"gzip": 1, "shuffle": 2, "fletcher32": 3, "szip": 4, "lzf": 32000, "blosc": 32001,
           "lz4": 32004, "bitshuffle": 32008, "zfp": 32013, "zstd": 32015, "sz": 32017,
           "fcidecomp": 32018, "bzip2": 307, "blosc2": 32026}


@dataclass(frozen=True)
class Hdf5Library:
    """parallel: whether h5py was built with MPI, so that many ranks may write one file."""

    version: str
    h5py: str
    parallel: bool
    filters: tuple[str, ...]


def hdf5_library() -> Hdf5Library:
    """The HDF5 in this process."""
    filters = tuple(name for name, number in FILTERS.items() if h5py.h5z.filter_avail(number))
    parallel = bool(h5py.get_config().mpi)
    return Hdf5Library(h5py.version.hdf5_version, h5py.__version__, parallel, filters)
