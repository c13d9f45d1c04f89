"""What this machine can do, to judge a program by: its rates of convolutions and matrix products, and its name."""
import os
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from swinmpi.parallel.comm import World
from swinmpi.parallel.launch import library_version

MATRIX_SIDE = 1024


@dataclass(frozen=True)
class Convolution:
    """One 3x3 convolution as a network calls it: input (n, inputs, height, width), stride 1, padding 1."""

    n: int
    inputs: int
    outputs: int
    height: int
    width: int

    @property
    def flop(self) -> int:
        return 2 * 9 * self.n * self.inputs * self.outputs * self.height * self.width


def machine_facts(world: World, threads: int, device: torch.device) -> dict:
    """What the figures depend on beside the program; `load` is the machine's over the last minute."""
    return {"cpu": cpu_model(), "cores": world.node.cores, "load": os.getloadavg()[0], "ranks": world.size, "threads": threads,
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "torch": torch.__version__, "python": platform.python_version(), "system": platform.platform(),
            "mpi": " ".join((library_version() or "no MPI").split())}


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


@contextmanager
def running_on(cpus: set[int], threads: int) -> Iterator[None]:
    """This process with that many threads, on these CPUs when it may use fewer of its own than it has threads; then as
    before. A launcher that binds each rank to one core would else put all threads on it."""
    threads_before, cpus_before = torch.get_num_threads(), os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else cpus
    moves = len(cpus_before) < threads <= len(cpus)
    if moves:
        os.sched_setaffinity(0, cpus)
    torch.set_num_threads(threads)
    yield
    torch.set_num_threads(threads_before)
    if moves:
        os.sched_setaffinity(0, cpus_before)


def count_flop(module: nn.Module, inputs: Sequence[Tensor]) -> int:
    """Multiplications and additions of one call, without those done element by element."""
    with FlopCounterMode(display=False) as counter:
        module(*inputs)
    return counter.get_total_flops()


def convolutions_of(module: nn.Module, inputs: Sequence[Tensor]) -> list[Convolution]:
    """The 3x3 convolutions of one call, in order."""
    found: list[Convolution] = []

    def note(conv: nn.Conv2d, given: tuple[Tensor], output: Tensor) -> None:
        found.append(Convolution(len(output), conv.in_channels, conv.out_channels, *output.shape[-2:]))

    hooks = [part.register_forward_hook(note) for part in module.modules()
             if isinstance(part, nn.Conv2d) and part.kernel_size == (3, 3)]
    module(*inputs)
    for hook in hooks:
        hook.remove()
    return found


class Yardstick:
    """Bare convolutions of given shapes (channels_last) and a matrix product, of random numbers of one type."""

    def __init__(self, convolutions: Sequence[Convolution], dtype: torch.dtype, device: torch.device):
        self.convolutions, self.device = convolutions, device
        kind = {"dtype": dtype, "device": device}
        self.inputs = [torch.rand(c.n, c.inputs, c.height, c.width, **kind).contiguous(memory_format=torch.channels_last)
                       for c in convolutions]
        self.weights = [torch.rand(c.outputs, c.inputs, 3, 3, **kind).contiguous(memory_format=torch.channels_last)
                        for c in convolutions]
        self.matrix = torch.rand(MATRIX_SIDE, MATRIX_SIDE, **kind)

    def rates(self, seconds: float) -> tuple[float, float]:
        """(convolutions, matrix products) in GFLOP/s, each repeated for that long."""
        flop = sum(convolution.flop for convolution in self.convolutions)
        return (self.rate(self.convolve, flop, seconds), self.rate(self.multiply, 2 * MATRIX_SIDE**3, seconds))

    def convolve(self) -> None:
        for given, weight in zip(self.inputs, self.weights, strict=True):
            torch.conv2d(given, weight, padding=1)

    def multiply(self) -> None:
        torch.mm(self.matrix, self.matrix)

    def rate(self, action, flop: int, seconds: float) -> float:
        action()
        calls, started = 0, time.perf_counter()
        while (spent := time.perf_counter() - started) < seconds or not calls:
            action()
            calls += 1
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
        return calls * flop / spent / 1e9
