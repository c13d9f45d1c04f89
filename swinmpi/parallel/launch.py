"""Who am I: from a launcher's environment to a World, its device and threads, signals,
and torch.distributed.

Nothing here imports MPI or torch before it is needed, so that the command line
answers without either.
"""
import os
import signal
import socket
import sys
import time
import warnings
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from swinmpi.errors import LaunchError
from swinmpi.parallel.comm import Group, Node, World
from swinmpi.parallel.failure import HEAD_START_S, die_with_parent

SIZE_VARIABLES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE")
RANK_VARIABLES = ("PMI_RANK", "OMPI_COMM_WORLD_RANK")
OWN_LAUNCHERS = ("MPI_LOCALNRANKS", "OMPI_COMM_WORLD_SIZE")  # an mpirun inside of a step sets them
STEP_VARIABLES = ("PMI_", "PMIX_", "PMI2_", "SLURM_STEP", "SLURM_PROCID", "SLURM_LOCALID",
                  "SLURM_TASK_PID", "SLURM_PTY_", "SLURM_MPI_TYPE", "SLURM_PMI")


def start_mpi(allow_torchrun: bool = False) -> World:
    """Join the other ranks. Collective; use it as `with start_mpi() as world:`, around
    everything that may fail.

    Without launcher and without MPI library: a serial World. `allow_torchrun`: also where torchrun
    started the processes, which `init_torch_distributed` then connects. LaunchError where the ranks
    cannot find each other.
    """
    if tasks := tasks_of_shell():
        leave_step()
        if tasks > 1:
            print(f"swinmpi: this shell is one task of {tasks} (srun --pty): working as one "
                  f"process; for all of them leave it, salloc -n {tasks}, then srun swinmpi-...",
                  file=sys.stderr, flush=True)
    if launcher_size() is not None or launched_by_torchrun():
        die_with_parent()
    if launched_by_torchrun():
        return torchrun_world(allow_torchrun)
    MPI = initialised_mpi(launcher_size() or 1)
    if MPI is None:
        return World(node=Node(0, 1, cores_of(allowed_cpus())))
    world = World(MPI.COMM_WORLD.Dup())
    if world.size > 1:
        # A rank that is ended by another has no time to flush.
        sys.stdout.reconfigure(line_buffering=True)
        sys.excepthook = lambda kind, error, trace: world.fail(error)
    world.node = find_node(world.comm)
    world.polite = world.comm.allreduce(world.node.ranks > world.node.cores, op=MPI.LOR)
    return world


def library_version() -> str | None:
    """Name and version of the MPI library in this process; None when it runs without MPI."""
    if "mpi4py.MPI" not in sys.modules:
        return None
    return sys.modules["mpi4py.MPI"].Get_library_version().splitlines()[0].strip(" \0")


def launcher_size(environ: Mapping[str, str] = os.environ) -> int | None:
    """Number of processes that an MPI launcher says it started; None without launcher."""
    return launcher_value(environ, SIZE_VARIABLES, "SLURM_STEP_NUM_TASKS")


def launcher_rank(environ: Mapping[str, str] = os.environ) -> int | None:
    """Rank by the launcher's word, good enough to choose who prints before MPI is up;
    None without launcher."""
    return launcher_value(environ, RANK_VARIABLES, "SLURM_PROCID")


def launched_by_torchrun(environ: Mapping[str, str] = os.environ) -> bool:
    """True in a process that torchrun started."""
    return "TORCHELASTIC_RUN_ID" in environ and "RANK" in environ


def init_torch_distributed(backend: str, world: World) -> tuple[int, int]:
    """Collective; connect torch.distributed (`gloo` on the CPU, `nccl` on CUDA) and
    return (rank, size).

    The same under torchrun (its own rendezvous), mpirun and srun (rank 0's store, its address sent
    by MPI), and alone (a group of one). End with `torch.distributed.destroy_process_group()`.
    """
    import torch.distributed as dist
    if launched_by_torchrun():
        dist.init_process_group(backend, init_method="env://")
    elif world.size == 1:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    else:
        dist.init_process_group(backend, store=shared_store(world), rank=world.rank,
                                world_size=world.size)
    return dist.get_rank(), dist.get_world_size()


class StopFlag:
    """`with StopFlag() as stop:` USR2 and TERM only set a flag; ranks agree on it where they all
    are (promise 9)."""

    signals = (signal.SIGUSR2, signal.SIGTERM)

    def __init__(self):
        self.is_set = False

    def agreed(self, group: Group) -> bool:
        """Collective; True as soon as any rank of the group was told to stop."""
        return group.any(self.is_set)

    def __enter__(self) -> "StopFlag":
        self._before = [signal.signal(number, self._set) for number in self.signals]
        return self

    def __exit__(self, *_) -> None:
        for number, handler in zip(self.signals, self._before, strict=True):
            signal.signal(number, handler)

    def _set(self, number, frame) -> None:
        self.is_set = True


def tasks_of_shell(environ: Mapping[str, str] = os.environ) -> int | None:
    """How many tasks the step has in whose interactive shell this process was started by hand
    (`srun -n 8 --pty bash`): they are no ranks, the others have ended. None elsewhere."""
    tasks = environ.get("SLURM_STEP_NUM_TASKS", environ.get("SLURM_NTASKS", "1"))
    if (not any(name.startswith("SLURM_PTY_") for name in environ) or not tasks.isdigit()
            or environ.get("SLURM_PROCID", "0") != "0"
            or any(name in environ for name in OWN_LAUNCHERS) or launched_by_torchrun(environ)):
        return None
    is_shell = is_interactive(environ.get("SLURM_TASK_PID", ""))
    return int(tasks) if is_shell else None


def is_interactive(pid: str) -> bool:
    """Whether a process is a shell that was given no script, as far as the system tells."""
    if pid == str(os.getpid()):
        return False
    try:
        name, *words = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
    except OSError:
        return True
    is_shell = Path(name).name.lstrip("-").endswith("sh")
    return is_shell and all(not word or word.startswith("-") and word != "-c" for word in words)


def leave_step(environ: MutableMapping[str, str] = os.environ) -> None:
    """Let the MPI library of this process forget the step whose tasks will not come."""
    for name in [name for name in environ if name.startswith(STEP_VARIABLES)]:
        del environ[name]


def launcher_value(environ: Mapping[str, str], names: tuple[str, ...],
                   slurm_name: str) -> int | None:
    """The launcher's own variable; Slurm's only in a step without mpirun, whose daemons are
    a step as well."""
    if tasks_of_shell(environ) is not None:
        return None
    values = [int(environ[name]) for name in names if environ.get(name, "").isdigit()]
    if values:
        return max(values)
    in_step = "SLURM_STEP_ID" in environ and "SLURM_PROCID" in environ
    return int(environ[slurm_name]) if in_step and environ.get(slurm_name, "").isdigit() else None


def initialised_mpi(expected_ranks: int):
    """The module mpi4py.MPI, ready; None where no library can be loaded and no other
    ranks are expected."""
    try:
        import mpi4py
        mpi4py.rc(initialize=False, finalize=True)
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        if expected_ranks == 1:
            return None
        reason = str(error).splitlines()[0]
        raise told_once(f"a launcher started {expected_ranks} processes, but no "
                        f"MPI library can be loaded ({reason}); "
                        "pip install 'swinmpi[mpi]' or load the MPI module") from None
    library = MPI.Get_library_version()
    # MPICH under Open MPI's launcher ends the process inside MPI_Init, so this is found out before.
    doomed = "MPICH" in library and "OMPI_COMM_WORLD_SIZE" in os.environ
    if not doomed and not MPI.Is_initialized():
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="suspicious MPI execution environment")
            MPI.Init_thread()
    if expected_ranks > 1 and (doomed or MPI.COMM_WORLD.size == 1):
        name = "MPICH" if "MPICH" in library else library.split(",")[0]
        raise told_once(f"a launcher started {expected_ranks} processes, but each is alone: "
                        f"it does not fit the MPI library ({name}); use the mpirun of "
                        "that library (beside python for pip install 'swinmpi[mpi]'), "
                        "or srun --mpi=pmix for Open MPI, srun --mpi=pmi2 for MPICH")
    return MPI


def told_once(message: str) -> LaunchError:
    """An error that every process meets on its own; the launcher's first process gets a head
    start to print it."""
    error = LaunchError(message)
    if launcher_rank():
        time.sleep(HEAD_START_S)
        error.echo = True
    return error


def torchrun_world(allowed: bool) -> World:
    if not allowed:
        raise told_once("torchrun is for swinmpi-train only; start this with mpirun -n N or srun")
    node = Node(int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"]),
                cores_of(allowed_cpus()))
    return World(node=node)


def find_node(comm) -> Node:
    """Collective; this rank's place on its machine."""
    from mpi4py import MPI
    on_node = comm.Split_type(MPI.COMM_TYPE_SHARED, comm.rank)
    # A launcher that binds ranks to cores shows each rank only its own: the node's are
    # all of them together.
    cpus = set().union(*on_node.allgather(allowed_cpus()))
    node = Node(on_node.rank, on_node.size, cores_of(cpus))
    on_node.Free()
    return node


def allowed_cpus() -> set[int]:
    """The CPUs this process may run on."""
    return (os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity")
            else set(range(os.cpu_count() or 1)))


def cores_of(cpus: set[int]) -> int:
    """How many cores' worth of time those CPUs give under the container's quota; at least 1."""
    return max(1, int(min(len(cpus), quota_cores())))


def quota_cores(cgroups: Path = Path("/sys/fs/cgroup"),
                membership: Path = Path("/proc/self/cgroup")) -> float:
    """CPU quota of this process's control group and those above it, in cores;
    infinite without one."""
    quotas = [float("inf")]
    for line in membership.read_text().splitlines() if membership.exists() else []:
        _, controllers, group = line.split(":", 2)
        mount = (cgroups if not controllers else cgroups / "cpu" if "cpu" in controllers.split(",")
                 else None)
        if mount is None:
            continue
        own = mount / group.lstrip("/")
        quotas += [quota_of(folder) for folder in (own, *own.parents)
                   if folder.is_relative_to(mount)]
    return min(quotas)


def quota_of(folder: Path) -> float:
    """Quota of one control group: `cpu.max` (version 2) or `cpu.cfs_quota_us` (version 1)."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text().strip()
                             for name in ("quota", "period"))
        except OSError:
            return float("inf")
    return float("inf") if quota in ("max", "-1") else int(quota) / int(period)


def shared_store(world: World):
    """Collective; a TCPStore that rank 0 holds on a free port, known to the others through MPI."""
    import torch.distributed as dist
    store = None
    if world.is_root:
        store = dist.TCPStore("127.0.0.1", 0, world.size, is_master=True, wait_for_workers=False)
    names = world.comm.gather(socket.gethostname(), root=0)
    host, port = world.on_root(lambda: (address_for(names), store.port))
    return store if world.is_root else dist.TCPStore(host, port, world.size, is_master=False)


def address_for(hostnames: list[str]) -> str:
    """The address under which this host, the first, is seen by the others; loopback when
    they are all on it."""
    elsewhere = [name for name in hostnames if name != hostnames[0]]
    if not elsewhere:
        return "127.0.0.1"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # No packet leaves: connecting only asks the routing table, where our own name
            # may mean loopback.
            probe.connect((elsewhere[0], 9))
            return probe.getsockname()[0]
        except OSError:
            return hostnames[0]
