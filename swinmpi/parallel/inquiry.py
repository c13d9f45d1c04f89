"""What can be found out about the MPI library, the launcher, the job, and the place of every rank.
"""
import ctypes
import os
import re
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from swinmpi.errors import LaunchError
from swinmpi.parallel.comm import World
from swinmpi.parallel.device import choose_device, choose_threads
from swinmpi.parallel.launch import (
    allowed_cpus,
    cores_of,
    launched_by_torchrun,
    launcher_size,
    library_version,
)

# The shared library's name carries its binary interface: libmpi.so.12, libmpi.so.40,
# libmpi_abi.so.0 (MPI 5).
LIBRARY_NAME = re.compile(r"/libmpi(_abi|_\w+)?\.so\.(\d+)[^/]*$")
ABI_BY_NUMBER = {"12": "mpich", "40": "openmpi"}
JOB_VARIABLES = {
    "job": "SLURM_JOB_ID", "array task": "SLURM_ARRAY_TASK_ID", "partition": "SLURM_JOB_PARTITION",
    "nodes": "SLURM_JOB_NODELIST", "tasks": "SLURM_NTASKS", "cpus per task": "SLURM_CPUS_PER_TASK",
    "restarts": "SLURM_RESTART_COUNT"}


@dataclass(frozen=True)
class MpiLibrary:
    """version: its own words; standard: of MPI; abi: mpich, openmpi, standard or unknown;
    file: the shared library; cuda_aware: whether it takes pointers to GPU memory, None where it
    does not say; threading and cuda_aware are None before MPI is initialised."""

    version: str
    standard: str
    abi: str
    file: str | None
    threading: str | None
    cuda_aware: bool | None


@dataclass(frozen=True)
class Launcher:
    """Who started this process. size: number of processes by the launcher's word, None
    where it gives none."""

    name: str
    size: int | None


@dataclass(frozen=True)
class Place:
    """Of one rank. cpus: those it may run on; cores: what they give under a quota;
    threads, device: what a run takes."""

    rank: int
    host: str
    local_rank: int
    cpus: tuple[int, ...]
    cores: int
    threads: int
    device: str


def loaded_library() -> MpiLibrary | None:
    """The MPI library in this process; None without one."""
    version = library_version()
    if version is None:
        return None
    MPI = sys.modules["mpi4py.MPI"]
    levels = {getattr(MPI, f"THREAD_{name}"): name.lower()
              for name in ("SINGLE", "FUNNELED", "SERIALIZED", "MULTIPLE")}
    running = MPI.Is_initialized() and not MPI.Is_finalized()
    file = library_file()
    return MpiLibrary(" ".join(version.split()), ".".join(map(str, MPI.Get_version())),
                      abi_of(version, file), file,
                      levels.get(MPI.Query_thread()) if running else None,
                      cuda_aware(file) if running else None)


def find_launcher(environ: Mapping[str, str] = os.environ) -> Launcher | None:
    """The launcher by what it leaves in the environment of its processes; None for a process
    started by hand."""
    size = launcher_size(environ)
    if "OMPI_COMM_WORLD_SIZE" in environ:
        return Launcher("mpirun of Open MPI", size)
    if "MPI_LOCALNRANKS" in environ:
        return Launcher("mpirun of MPICH or its kin", size)
    if launched_by_torchrun(environ):
        return Launcher("torchrun", int(environ["WORLD_SIZE"])
                        if environ.get("WORLD_SIZE", "").isdigit() else None)
    if "SLURM_STEP_ID" in environ and "SLURM_PROCID" in environ:
        return Launcher(f"srun --mpi={environ.get('SLURM_MPI_TYPE', 'none')}", size)
    return None if size is None else Launcher("a launcher with PMI", size)


def find_job(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What Slurm says about the job, by the names in JOB_VARIABLES; empty outside of Slurm."""
    if "SLURM_JOB_ID" not in environ:
        return {}
    return {
        name: environ[variable] for name, variable in JOB_VARIABLES.items() if variable in environ}


def gather_places(world: World) -> list[Place]:
    """Every rank's place, in rank order; on the other ranks than root an empty list. Collective."""
    cpus = allowed_cpus()
    own = Place(world.rank, socket.gethostname(), world.node.rank, tuple(sorted(cpus)),
                cores_of(cpus), choose_threads("auto", world.node),
                choose_device("auto", world.node.rank))
    return [own] if world.size == 1 else world.comm.gather(own, root=0) or []


def library_file(maps: Path = Path("/proc/self/maps")) -> str | None:
    """Path of the MPI library as the operating system shows it; None where it does not."""
    if not maps.exists():
        return None
    files = {line.split(maxsplit=5)[5] for line in maps.read_text().splitlines()
             if len(line.split(maxsplit=5)) == 6}
    return min((file for file in files if LIBRARY_NAME.search(file)), key=len, default=None)


def abi_of(version: str, file: str | None) -> str:
    """By the number in the shared library's name, else by what the library calls itself."""
    name = LIBRARY_NAME.search(file or "")
    if name is not None and name[1] == "_abi":
        return "standard"
    if name is not None and name[2] in ABI_BY_NUMBER:
        return ABI_BY_NUMBER[name[2]]
    return ("openmpi" if "Open MPI" in version
            else "mpich" if re.search("MPICH|Intel|MVAPICH", version) else "unknown")


def cuda_aware(file: str | None, environ: Mapping[str, str] = os.environ) -> bool | None:
    """What the library itself answers, by the extension that Open MPI and MPICH have; Cray's,
    which lacks it, does as MPICH_GPU_SUPPORT_ENABLED says (its manual, intro_mpi); else None."""
    try:
        return bool(ctypes.CDLL(file).MPIX_Query_cuda_support()) if file else None
    except (OSError, AttributeError):
        told = environ.get("MPICH_GPU_SUPPORT_ENABLED")
        return None if told is None or "cray" not in file else told == "1"


def settle_staging(world: World, staging: str, device: str) -> None:
    """Give MPI the memory of this rank's device itself, in the groups made of `world` from now on,
    or the host's; see `takes_device_memory`. Collective."""
    world.direct = world.size > 1 and world.on_root(lambda: takes_device_memory(staging, device))


def takes_device_memory(staging: str, device: str) -> bool:
    """Whether MPI is given the memory of `device` (`cpu`, `cuda:i`) itself, for the setting
    parallel.staging: auto | host | device. In a process with MPI; LaunchError where its library is
    asked to take what it does not."""
    if staging == "host" or device == "cpu":
        return staging == "device"
    aware = cuda_aware(library_file())
    if staging == "device" and not aware:
        said = "does not say that it does" if aware is None else "says that it does not"
        raise LaunchError("parallel.staging: for device expected an MPI library that takes memory "
                          f"of GPUs, but {library_version()} {said}; load one that does "
                          "(swinmpi-info tells), or set parallel.staging=host")
    return bool(aware)
