"""The machine that a figure was measured on, by name."""
import os
import platform
from pathlib import Path

import torch

from swinmpi.parallel.comm import World
from swinmpi.parallel.launch import library_version


def machine_facts(world: World, threads: int, device: str) -> dict[str, object]:
    """What figures depend on beside the program; `load` is the machine's over the last minute.

    device: `cpu` or `cuda:i`.
    """
    return {"cpu": cpu_model(), "cores": world.node.cores, "load": os.getloadavg()[0],
            "ranks": world.size, "threads": threads,
            "device": device if device == "cpu" else torch.cuda.get_device_name(device),
            "torch": torch.__version__, "python": platform.python_version(),
            "system": platform.platform(), "mpi": " ".join((library_version() or "no MPI").split())}


def made_on(device: str) -> dict[str, object]:
    """What decides the last bits of a result beside the program, its input and settings, by name.

    device: `cpu`, `cuda` or `cuda:i`.
    """
    facts = {"torch": torch.__version__, "cpu": cpu_model(), "threads": torch.get_num_threads()}
    return facts if device == "cpu" else {**facts, "gpu": torch.cuda.get_device_name(device)}


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name as the system gives it."""
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
