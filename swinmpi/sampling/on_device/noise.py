"""Noise by keys on a rank's device.

The generator is the host's (diffusion/noise.py), whatever the device, and so are its numbers. For a
GPU threads draw into pinned memory, ahead of the evaluation that needs it.
"""
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

import torch
from torch import Tensor

from swinmpi.diffusion.noise import draw_window
from swinmpi.parallel.shares import block_range
from swinmpi.parallel.staging import host_room, to_device
from swinmpi.parallel.stopwatch import Stopwatch
from swinmpi.sampling.exchange import Work


@dataclass(frozen=True)
class Wanted:
    """Windows whose noise belongs together. keys: (stack index, window position) of each; number:
    of the evaluation."""

    seed: int
    number: int
    keys: tuple[tuple[int, int], ...]


class NoiseSource:
    """N(0, 1), (len(keys), C, w, w) of each `Wanted`, on the device."""

    def __init__(self, shape: tuple[int, int, int], coherence: float | None, device: torch.device,
                 stopwatch: Stopwatch, threads: int = 0):
        """shape: (C, w, w); coherence: see `draw_window`; threads: that draw; 0: nothing is drawn
        before it is asked for."""
        self.shape, self.coherence, self.device = shape, coherence, device
        self.stopwatch, self.threads = stopwatch, threads
        self.pool = ThreadPoolExecutor(threads, "noise") if threads else None
        self.ahead: dict[Wanted, tuple[Tensor, list[Future]]] = {}

    def soon(self, wanted: Wanted) -> None:
        """Begin to draw what will be asked for next."""
        if self.pool is not None and wanted.keys and wanted not in self.ahead:
            self.ahead[wanted] = self.begin(wanted)

    def windows(self, wanted: Wanted) -> Tensor:
        """What is wanted; what was drawn ahead of another order is dropped."""
        with self.stopwatch.of("noise"):
            if self.pool is None:
                return self.draw(wanted, range(len(wanted.keys)), self.room(wanted))
            room, drawing = self.ahead.pop(wanted, None) or self.begin(wanted)
            for one in wait(drawing).done:
                one.result()
            return to_device(room, self.device)

    def drop(self) -> None:
        """Forget what was drawn ahead: an image was left unfinished, or another one comes."""
        for _, drawing in self.ahead.values():
            for one in drawing:
                one.cancel()
        self.ahead.clear()

    def begin(self, wanted: Wanted) -> tuple[Tensor, list[Future]]:
        room, count = self.room(wanted), len(wanted.keys)
        parts = [block_range(count, self.threads, part) for part in range(self.threads)]
        return room, [self.pool.submit(self.draw, wanted, part, room) for part in parts if part]

    def room(self, wanted: Wanted) -> Tensor:
        return host_room((len(wanted.keys), *self.shape), self.device)

    def draw(self, wanted: Wanted, which: Sequence[int], room: Tensor) -> Tensor:
        """Fill the places `which` of `room`; returns it."""
        values = room.numpy()
        for place in which:
            stack_index, position = wanted.keys[place]
            draw_window(wanted.seed, stack_index, wanted.number, position, values[place],
                        self.coherence)
        return room


def noise_source(work: Work) -> NoiseSource:
    """Of the grid, the process and the device of an exchange."""
    shape = (work.family.x_channels, work.grid.window_px, work.grid.window_px)
    return NoiseSource(shape, work.process.coherence, work.device, work.group.stopwatch,
                       drawing_threads(work.device))


def drawing_threads(device: torch.device) -> int:
    """None on a CPU, whose threads have the network to compute."""
    return torch.get_num_threads() if device.type == "cuda" else 0
