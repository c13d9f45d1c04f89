"""What an administrator asks first: versions, MPI, HDF5, GPUs, launcher, job, and
where every rank is."""
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version

import torch

import swinmpi
from swinmpi.parallel.inquiry import (
    Launcher,
    MpiLibrary,
    Place,
    find_job,
    find_launcher,
    loaded_library,
)
from swinmpi.reports.revision import git_revision
from swinmpi.reports.tables import format_table
from swinmpi.storage.library import Hdf5Library, hdf5_library

PACKAGES = ("torch", "numpy", "mpi4py", "h5py", "hdf5plugin")
ANSWERS = {True: "yes", False: "no", None: "unknown"}


@dataclass(frozen=True)
class Info:
    """Of one process, and of all ranks where they found each other. gpus: name and GiB of those
    this process sees."""

    versions: dict[str, str | None]
    mpi: MpiLibrary | None
    hdf5: Hdf5Library
    gpus: tuple[str, ...]
    launcher: Launcher | None
    slurm: dict[str, str]
    ranks: tuple[Place, ...]


def gather_info(places: Sequence[Place] = ()) -> Info:
    """Everything this process knows, with the places of the ranks. On any process."""
    versions = {"swinmpi": swinmpi.__version__, "git": git_revision(),
                "python": sys.version.split()[0],
                "executable": sys.executable, **{name: installed(name) for name in PACKAGES},
                "cuda of torch": torch.version.cuda}
    return Info(versions, loaded_library(), hdf5_library(), gpus(), find_launcher(), find_job(),
                tuple(places))


def as_text(info: Info) -> str:
    """One line per subject, then a table with a line per rank."""
    versions = info.versions
    revision = f", git {versions['git'][:10]}" if versions["git"] else ""
    cuda = f"CUDA {versions['cuda of torch']}" if versions["cuda of torch"] else "no CUDA"
    lines = {"swinmpi": f"{versions['swinmpi']}{revision}",
             "python": f"{versions['python']}, {versions['executable']}",
             "torch": f"{versions['torch']}, {cuda}", "numpy": versions["numpy"],
             "MPI": mpi_words(info.mpi, versions["mpi4py"]),
             "HDF5": hdf5_words(info.hdf5, versions["hdf5plugin"]),
             "GPUs": ", ".join(info.gpus) or "none", "launcher": launcher_words(info.launcher),
             "Slurm": ", ".join(f"{name} {value}" for name, value in info.slurm.items())
             or "not in a job"}
    listed = [f"{name:<10}{words}" for name, words in lines.items()]
    return "\n".join([*listed, "", rank_table(info.ranks)] if info.ranks else listed)


def as_json(info: Info) -> str:
    """All of it; null is what is not known."""
    return json.dumps(asdict(info), indent=1)


def mpi_words(mpi: MpiLibrary | None, mpi4py: str | None) -> str:
    if mpi is None:
        return f"no library loaded, mpi4py {mpi4py or 'not installed'}"
    return (f"{mpi.version.partition(', package')[0]}\n{'':<10}MPI {mpi.standard}, ABI {mpi.abi}, "
            f"threads {mpi.threading or 'unknown'}, CUDA-aware {ANSWERS[mpi.cuda_aware]}, "
            f"mpi4py {mpi4py}, {mpi.file or 'file unknown'}")


def hdf5_words(hdf5: Hdf5Library, plugins: str | None) -> str:
    return (f"{hdf5.version}, h5py {hdf5.h5py} {'with' if hdf5.parallel else 'without'} MPI, "
            f"hdf5plugin {plugins or 'not installed'}\n{'':<10}filters {' '.join(hdf5.filters)}")


def launcher_words(launcher: Launcher | None) -> str:
    if launcher is None:
        return "none"
    return launcher.name + ("" if launcher.size is None else f", {launcher.size} processes")


def rank_table(places: Sequence[Place]) -> str:
    """A line per rank; `own` CPUs are no other rank's."""
    rows = [[str(place.rank), place.host, str(place.local_rank),
             f"{place.cores} ({listed_cpus(place.cpus)})",
             "shared" if shares_cpus(place, places) else "own", str(place.threads), place.device]
            for place in places]
    return format_table(["rank", "host", "local rank", "cores", "bound", "threads", "device"], rows,
                        7)


def shares_cpus(place: Place, places: Sequence[Place]) -> bool:
    """Whether another rank on its host may run on the same CPUs."""
    return any(other.host == place.host and other.rank != place.rank
               and set(other.cpus) & set(place.cpus) for other in places)


def listed_cpus(cpus: Sequence[int]) -> str:
    """(0, 1, 2, 5) -> 0-2,5."""
    starts = [cpu for cpu in cpus if cpu - 1 not in cpus]
    ends = [cpu for cpu in cpus if cpu + 1 not in cpus]
    return ",".join(str(start) if start == end else f"{start}-{end}"
                    for start, end in zip(starts, ends, strict=True))


def gpus() -> tuple[str, ...]:
    if not torch.cuda.is_available():
        return ()
    found = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return tuple(f"{device.name} {device.total_memory / 2**30:.0f} GiB" for device in found)


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
