"""Program for one rank on each node: the network, each exchange alone, and sampling by all in turn.

    mpirun -n 4 python exchanges.py RESULT.json [--size PX] [--steps N] [--repeats N] [--pings N]
                                                [--precision P]

Figures, as JSON, are of a step, on average over whole cycles of the circular pattern of shifts: the
steps 1 to 4, 5 to 8 and so on. What comes once (the encoder, step 0, the end) is not in them.
"""
import argparse
import hashlib
import json
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from swinmpi.benchmarks.program import quiet_resolver, smooth_images, whole
from swinmpi.demo import DEMO_MODEL, MODELS, shipped
from swinmpi.families.loading import load_family
from swinmpi.parallel.comm import Group, complete_asleep
from swinmpi.parallel.device import start_computing
from swinmpi.parallel.launch import library_version, start_mpi
from swinmpi.parallel.ownership import Ownership
from swinmpi.parallel.pieces import PieceExchange, Transfer
from swinmpi.parallel.root import RootCollectives, plan_step
from swinmpi.sampling.exchange import FinishedPart
from swinmpi.sampling.process import Shift, sampling_grid
from swinmpi.sampling.settings import resolve_config
from swinmpi.sampling.superresolve import EXCHANGES, SuperResolver
from swinmpi.storage.header import read_header
from swinmpi.windows.canvas import Canvas
from swinmpi.windows.grid import live_positions
from swinmpi.windows.moves import ownership_order
from swinmpi.windows.shift import circular_shift

CHECKPOINT = shipped(MODELS[DEMO_MODEL])
NETWORK_DEVICE = "eth0"
CYCLE = 4
PING_BYTES = (1, 1 << 16, 1 << 18, 1 << 20, 1 << 22)
FIGURES = ("seconds", "exchange_s", "network_s", "network_cpu_s", "noise_s", "step_s", "windows_s",
           "received", "device_received", "device_sent")


class TimedNetwork(nn.Module):
    """A U-Net that counts its CPU time, which others on the same cores do not change much."""

    def __init__(self, unet: nn.Module):
        super().__init__()
        self.unet, self.cpu_seconds = unet, 0.0

    def forward(self, *inputs: Tensor) -> Tensor:
        started = time.thread_time()
        answer = self.unet(*inputs)
        self.cpu_seconds += time.thread_time() - started
        return answer


class CycleWatch:
    """Called after every evaluation: notes FIGURES where cycles of shifts begin and end."""

    def __init__(self, resolver: SuperResolver):
        self.resolver, self.marks = resolver, []

    def __call__(self, number: int, output: object) -> None:
        if number % CYCLE == 0:
            # Nothing may be on its way while any rank reads its counters.
            self.resolver.group.comm.Barrier()
            self.marks.append(self.figures())
            self.resolver.group.comm.Barrier()

    def figures(self) -> np.ndarray:
        group, unet = self.resolver.group, self.resolver.family.model.unet
        seconds = group.stopwatch.read()
        exchange, network, *others = (seconds.get(phase, 0.0) for phase in
                                      ("exchange", "network", "noise", "step", "windows"))
        return np.array([time.perf_counter(), exchange, network, unet.cpu_seconds, *others,
                         group.stats.received, *device_bytes()])

    def per_step(self) -> dict[str, float]:
        steps = CYCLE * (len(self.marks) - 1)
        means = (self.marks[-1] - self.marks[0]) / steps
        return dict(zip(FIGURES, means.tolist(), strict=True))


def main() -> None:
    options = parser().parse_args()
    with start_mpi() as world:
        start_computing("cpu", 1, world.node)
        group = world.split([range(world.size)])
        pings = ping(group, options.pings)
        samples, alone, digests = measure(group, options)
        everyones = group.comm.gather((world.node.ranks, samples, alone), root=0)
        if world.is_root:
            nodes, by_rank, alone_by_rank = zip(*everyones, strict=True)
            words = {name: str(value) for name, value in vars(options).items()}
            result = {"options": words, "mpi": library_version(), "torch": torch.__version__,
                      "ranks_per_node": nodes, "pings": pings, "digests": digests,
                      "by_rank": by_rank, "bare_by_rank": alone_by_rank}
            options.result.write_text(json.dumps(result, indent=1) + "\n")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    made.add_argument("result", type=Path)
    made.add_argument("--size", type=int, default=1024, metavar="PX", help="side of the SR image")
    made.add_argument("--steps", type=int, default=6, help="6 have one whole cycle, 10 have two")
    made.add_argument("--repeats", type=int, default=3)
    made.add_argument("--pings", type=int, default=20,
                      help="messages of each size there and back")
    made.add_argument("--precision", default="fp32")
    return made


def ping(group: Group, repeats: int) -> dict[int, list[float]]:
    """Seconds one way between ranks 0 and 1, by bytes, while the others sleep. Collective."""
    seconds = {}
    for size in PING_BYTES:
        message = np.zeros(size, np.uint8)
        seconds[size] = [one_way(group, message) for _ in range(repeats)] if group.rank < 2 else []
        complete_asleep([group.comm.Ibarrier()])
    return seconds


def one_way(group: Group, message: np.ndarray) -> float:
    """Seconds; ranks 0 and 1."""
    other, started, comm = 1 - group.rank, time.perf_counter(), group.comm
    for call in (comm.Send, comm.Recv) if group.is_root else (comm.Recv, comm.Send):
        call(message, other)
    return (time.perf_counter() - started) / 2


Seconds = dict[str, list]
"""By exchange, one entry a repeat."""


def measure(group: Group, options: argparse.Namespace) -> tuple[Seconds, Seconds, dict[str, str]]:
    """By exchange: this rank's figures of all repeats; its seconds per step for nothing but the
    exchange; on root the SHA-256 of the image. Collective."""
    resolvers = {exchange: resolver_of(group, options, exchange) for exchange in EXCHANGES}
    config = next(iter(resolvers.values())).family.config
    image, digests = smooth_images(config, options.size, 1)[0], {}
    samples, alone = ({exchange: [] for exchange in EXCHANGES} for _ in range(2))
    for _ in range(options.repeats):
        for exchange, resolver in resolvers.items():
            watch, digests[exchange] = sample(resolver, image)
            samples[exchange].append(watch.per_step())
            alone[exchange].append(exchange_alone(resolver, options.size, ALONE[exchange]))
    return samples, alone, digests


def resolver_of(group: Group, options: argparse.Namespace, exchange: str) -> SuperResolver:
    """The shipped model, its U-Net timed."""
    overrides = [f"sampler.steps={options.steps}", f"parallel.exchange={exchange}",
                 f"parallel.precision={options.precision}"]
    config = resolve_config(read_header(CHECKPOINT), CHECKPOINT, [], overrides, "balanced")
    family = load_family(CHECKPOINT, config.model, takes_steps=True)
    family.model.unet = TimedNetwork(family.model.unet)
    return quiet_resolver(config, family, "cpu", group)


def sample(resolver: SuperResolver, image: Tensor) -> tuple[CycleWatch, str]:
    """A sample's counters, and on root the SHA-256 of its pixels. Collective."""
    watch = CycleWatch(resolver)
    own = [(part.rows, part.cols, pixels_of(part))
           for part in resolver(whole([image]), [0], [0], watch=watch)]
    gathered = resolver.group.comm.gather(own, root=0)
    if gathered is None:
        return watch, ""
    scale = resolver.family.config.scale
    side = [side * scale for side in image.shape[1:]]
    pixels = np.full((len(image), *side), np.nan, np.float32)
    for rows, cols, part in (one for parts in gathered for one in parts):
        pixels[:, rows.start:rows.stop, cols.start:cols.stop] = part
    return watch, hashlib.sha256(pixels.tobytes()).hexdigest()


def pixels_of(part: FinishedPart) -> np.ndarray:
    """(C, h, w): what a rectangle stands for, without the border around it."""
    lines = zip((part.rows, part.cols), part.seen, strict=True)
    top, left = (seen.index(line.start) for line, seen in lines)
    inside = part.samples[0, :, top:top + len(part.rows), left:left + len(part.cols)]
    return inside.numpy()


Alone = Callable[[Group, Ownership, int, Shift, Shift], Callable[[], object]]
"""(group, ownership, channels, shift before, after) -> what a step exchanges, nothing computed."""


def exchange_alone(resolver: SuperResolver, size_px: int, make: Alone) -> float:
    """Seconds per step of this rank for what one cycle exchanges. Collective."""
    process, group = resolver.process, resolver.group
    grid = sampling_grid(process.shift, process.window_px, size_px, size_px)
    ownership = Ownership(grid, group.size, group.rank)
    shifts = [circular_shift(step, grid.max_shift_px) for step in range(CYCLE + 1)]
    calls = [make(group, ownership, resolver.family.x_channels, *change)
             for change in pairwise(shifts)]
    seconds = 0.0
    for call in calls:
        group.comm.Barrier()
        started = time.perf_counter()
        call()
        seconds += time.perf_counter() - started
    return seconds / CYCLE


def root_alone(group: Group, ownership: Ownership, channels: int, before: Shift,
               after: Shift) -> Callable[[], object]:
    grid, collectives = ownership.grid, RootCollectives(group, torch.device("cpu"))
    plan = plan_step(ownership_order(grid), group.size, [live_positions(grid, after)])
    frames = torch.zeros(1, channels, grid.frame_height_px, grid.frame_width_px)
    num_own = plan.counts[group.rank]
    own = torch.zeros(num_own, channels, grid.window_px, grid.window_px)

    def call() -> None:
        collectives.broadcast(frames, frames.shape)
        collectives.gather(own, plan)

    return call


def torus_alone(group: Group, ownership: Ownership, channels: int, before: Shift,
                after: Shift) -> Callable[[], object]:
    canvases = ownership.mine([Canvas.over(block.canvas(ownership.grid), channels)
                               for block in ownership.own])
    transfer = Transfer(ownership.moves(before, after), canvases, canvases, channels)
    pieces = PieceExchange(group)
    return lambda: pieces.run([transfer])


ALONE: dict[str, Alone] = {"root": root_alone, "torus": torus_alone}


def device_bytes() -> tuple[int, int]:
    """(received, sent) by this node's network device so far; zeros where it has no such device."""
    for line in Path("/proc/self/net/dev").read_text().splitlines():
        name, _, counts = line.partition(":")
        if name.strip() == NETWORK_DEVICE:
            return int(counts.split()[0]), int(counts.split()[8])
    return 0, 0


if __name__ == "__main__":
    main()
