"""What this machine can compute, to judge a program by: convolutions and a matrix product."""
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

MATRIX_SIDE = 1024


@dataclass(frozen=True)
class Convolution:
    """One 3x3 convolution as a network calls it: input (n, inputs, height, width), stride 1,
    padding 1."""

    n: int
    inputs: int
    outputs: int
    height: int
    width: int

    @property
    def flop(self) -> int:
        return 2 * 9 * self.n * self.inputs * self.outputs * self.height * self.width


@contextmanager
def running_on(cpus: set[int], threads: int) -> Iterator[None]:
    """This process with so many threads, and on these CPUs if its own are fewer than its threads.

    A launcher that binds each rank to one core would else put all threads on it.
    """
    can_move = hasattr(os, "sched_getaffinity")
    cpus_before = os.sched_getaffinity(0) if can_move else cpus
    threads_before, moves = torch.get_num_threads(), len(cpus_before) < threads <= len(cpus)
    if moves:
        os.sched_setaffinity(0, cpus)
    torch.set_num_threads(threads)
    try:
        yield
    finally:
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
        size = output.shape[-2:]
        found.append(Convolution(len(output), conv.in_channels, conv.out_channels, *size))

    hooks = [part.register_forward_hook(note) for part in module.modules()
             if isinstance(part, nn.Conv2d) and part.kernel_size == (3, 3)]
    module(*inputs)
    for hook in hooks:
        hook.remove()
    return found


class MachineRates:
    """Bare convolutions of given shapes (channels_last) and a matrix product, of random numbers."""

    def __init__(self, convolutions: Sequence[Convolution], dtype: torch.dtype,
                 device: torch.device):
        self.convolutions, self.device = convolutions, device
        kind = {"dtype": dtype, "device": device}

        def random(*shape: int) -> Tensor:
            return torch.rand(*shape, **kind).contiguous(memory_format=torch.channels_last)

        self.inputs = [random(c.n, c.inputs, c.height, c.width) for c in convolutions]
        self.weights = [random(c.outputs, c.inputs, 3, 3) for c in convolutions]
        self.matrix = torch.rand(MATRIX_SIDE, MATRIX_SIDE, **kind)

    def measure(self, seconds: float) -> tuple[float, float]:
        """(convolutions, matrix products) in GFLOP/s, each repeated for that long."""
        flop = sum(convolution.flop for convolution in self.convolutions)
        return (self.rate(self.convolve, flop, seconds),
                self.rate(self.multiply, 2 * MATRIX_SIDE**3, seconds))

    def convolve(self) -> None:
        for given, weight in zip(self.inputs, self.weights, strict=True):
            torch.conv2d(given, weight, padding=1)

    def multiply(self) -> None:
        torch.mm(self.matrix, self.matrix)

    def rate(self, action: Callable[[], None], flop: int, seconds: float) -> float:
        """GFLOP/s of an action of `flop`, which is done once before."""
        action()
        calls, started = 0, time.perf_counter()
        while (spent := time.perf_counter() - started) < seconds or not calls:
            action()
            calls += 1
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
        return calls * flop / spent / 1e9
