"""Program for one rank on each node: the network, either exchange by itself, and sampling by both in turn; figures as JSON.

    mpirun -n 4 python exchanges.py RESULT.json [--size PX] [--steps N] [--repeats N] [--pings N] [--precision P]

Figures are of a step, on average over whole cycles of the circular pattern of shifts: the steps 1 to 4, 5 to 8 and so on.
What comes once (the encoder, step 0, the end) is not in them.
"""
import argparse
import hashlib
import json
import time
from collections.abc import Callable
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from swinmpi.benchmarks.benchmark import SquareImage, smooth_images
from swinmpi.cli.sample import DEMO_MODEL, MODELS
from swinmpi.families.lr_rows import LrStrip
from swinmpi.families.model import load_model
from swinmpi.parallel.comm import Group, complete_asleep
from swinmpi.parallel.launch import library_version, start_mpi
from swinmpi.parallel.pieces import Job
from swinmpi.parallel.root import plan_exchange
from swinmpi.sampling.distribution import plan_layout
from swinmpi.sampling.root import max_shift, sampling_grid
from swinmpi.sampling.settings import resolve_config
from swinmpi.sampling.superresolve import Shown, SuperResolver
from swinmpi.sampling.torus import Territory
from swinmpi.storage.checkpoint import load_weights
from swinmpi.windows.canvas import Canvas
from swinmpi.windows.grid import live_positions
from swinmpi.windows.moves import ownership_order
from swinmpi.windows.shift import circular_shift

CHECKPOINT = Path(str(files("swinmpi.demo") / MODELS[DEMO_MODEL]))
EXCHANGES = ("root", "torus")
DEVICE = "eth0"
CYCLE = 4
PING_BYTES = (1, 1 << 16, 1 << 18, 1 << 20, 1 << 22)
FIGURES = ("seconds", "exchange_s", "network_s", "network_cpu_s", "noise_s", "step_s", "windows_s", "received",
           "device_received", "device_sent")


class ClockedNetwork(nn.Module):
    """A U-Net that counts its CPU time, which others on the same cores do not change much."""

    def __init__(self, unet: nn.Module):
        super().__init__()
        self.unet, self.cpu_seconds = unet, 0.0

    def forward(self, *inputs: Tensor) -> Tensor:
        started = time.thread_time()
        answer = self.unet(*inputs)
        self.cpu_seconds += time.thread_time() - started
        return answer


class CountedResolver(SuperResolver):
    """Encodes once for all samples."""

    made: list | None = None

    def conditions(self, *arguments) -> list:
        self.made = self.made or super().conditions(*arguments)
        return list(self.made)


class Watch:
    """Is called where a sample asks whether to stop, before each step; notes FIGURES where cycles begin and end."""

    def __init__(self, resolver: CountedResolver):
        self.resolver, self.step, self.marks = resolver, 0, []

    def __call__(self) -> bool:
        if self.step % CYCLE == 1:
            # Nothing may be on its way while any rank reads its counters.
            self.resolver.group.comm.Barrier()
            self.marks.append(self.figures())
            self.resolver.group.comm.Barrier()
        self.step += 1
        return False

    def figures(self) -> np.ndarray:
        stats, spent = self.resolver.group.stats, self.resolver.seconds
        return np.array([time.perf_counter(), stats.seconds, spent.network, self.resolver.model.unet.cpu_seconds, spent.noise,
                         spent.step, spent.windows, stats.received, *device_bytes()])

    def per_step(self) -> dict[str, float]:
        steps = CYCLE * (len(self.marks) - 1)
        return dict(zip(FIGURES, ((self.marks[-1] - self.marks[0]) / steps).tolist(), strict=True))


def main() -> None:
    options = parser().parse_args()
    torch.set_num_threads(1)
    with start_mpi() as world:
        group = world.split([range(world.size)])
        pings, (samples, bare, digests) = ping(group, options.pings), measure(group, options)
        everyones = group.comm.gather((world.node.ranks, samples, bare), root=0)
        if world.is_root:
            nodes, by_rank, bare_by_rank = zip(*everyones, strict=True)
            result = {"options": {name: str(value) for name, value in vars(options).items()}, "mpi": library_version(),
                      "torch": torch.__version__, "ranks_per_node": nodes, "pings": pings, "digests": digests,
                      "by_rank": by_rank, "bare_by_rank": bare_by_rank}
            options.result.write_text(json.dumps(result, indent=1) + "\n")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    made.add_argument("result", type=Path)
    made.add_argument("--size", type=int, default=1024, metavar="PX", help="side of the SR image")
    made.add_argument("--steps", type=int, default=6, help="6 have one whole cycle, 10 have two")
    made.add_argument("--repeats", type=int, default=3)
    made.add_argument("--pings", type=int, default=20, help="messages of each size there and back")
    made.add_argument("--precision", default="fp32")
    return made


def ping(group: Group, repeats: int) -> dict[int, list[float]]:
    """Seconds one way between ranks 0 and 1, by bytes, while the other ranks sleep. Collective."""
    seconds = {}
    for num_bytes in PING_BYTES:
        message = np.zeros(num_bytes, np.uint8)
        seconds[num_bytes] = [one_way(group, message) for _ in range(repeats)] if group.rank < 2 else []
        complete_asleep([group.comm.Ibarrier()])
    return seconds


def one_way(group: Group, message: np.ndarray) -> float:
    """Seconds; ranks 0 and 1."""
    other, started = 1 - group.rank, time.perf_counter()
    calls = [group.comm.Send, group.comm.Recv] if group.is_root else [group.comm.Recv, group.comm.Send]
    for call in calls:
        call(message, other)
    return (time.perf_counter() - started) / 2


def measure(group: Group, options: argparse.Namespace) -> tuple[dict[str, list], dict[str, list], dict[str, str]]:
    """By exchange: this rank's figures of all repeats; its seconds per step for nothing but the exchange; on root the
    SHA-256 of the first image. Collective."""
    resolvers = {exchange: resolver_of(group, options, exchange) for exchange in EXCHANGES}
    image = smooth_images(resolvers["root"].config, options.size, 1)[0]
    digests, samples, bare = {}, *({exchange: [] for exchange in EXCHANGES} for _ in range(2))
    for _ in range(options.repeats):
        for exchange, resolver in resolvers.items():
            watch, digest = sample(resolver, image)
            # Root's regression is in the first image only, as `conditions` is what adds it.
            digests.setdefault(exchange, digest)
            samples[exchange].append(watch.per_step())
            bare[exchange].append(exchange_alone(resolver, options.size, exchange))
    return samples, bare, digests


def resolver_of(group: Group, options: argparse.Namespace, exchange: str) -> CountedResolver:
    overrides = [f"sampler.steps={options.steps}", f"parallel.exchange={exchange}", f"parallel.precision={options.precision}"]
    config = resolve_config(load_weights(CHECKPOINT)[1], CHECKPOINT, [], overrides, "balanced")
    model = load_model(CHECKPOINT, config).model.model.prepare(torch.device("cpu"), True, True)
    model.unet = ClockedNetwork(model.unet)
    side, device = options.size // config.model.scale, torch.device("cpu")
    micro_batch = plan_layout(config, SquareImage(side, side), 1, group.size, device).micro_batch
    return CountedResolver(config, model, group, micro_batch, device)


def sample(resolver: CountedResolver, image: Tensor) -> tuple[Watch, str]:
    """A sample's counters, and on root the SHA-256 of its pixels. Collective."""
    watch = Watch(resolver)
    own = [(shown.rows, shown.cols, pixels_of(shown)) for shown in resolver([LrStrip.whole(image)], [0], [0], watch)]
    gathered = resolver.group.comm.gather(own, root=0)
    if gathered is None:
        return watch, ""
    scale = resolver.config.model.scale
    pixels = np.full((len(image), *(side * scale for side in image.shape[1:])), np.nan, np.float32)
    for rows, cols, part in (one for parts in gathered for one in parts):
        pixels[:, rows.start:rows.stop, cols.start:cols.stop] = part
    return watch, hashlib.sha256(pixels.tobytes()).hexdigest()


def pixels_of(shown: Shown) -> np.ndarray:
    """(C, h, w): what a rectangle stands for, without the border around it."""
    top, left = (seen.index(line.start) for line, seen in zip((shown.rows, shown.cols), shown.seen, strict=True))
    return shown.samples[0, :, top:top + len(shown.rows), left:left + len(shown.cols)].numpy()


def exchange_alone(resolver: CountedResolver, size_px: int, exchange: str) -> float:
    """Seconds per step of this rank for what one cycle exchanges, nothing computed. Collective."""
    grid, shift_px = sampling_grid(resolver.config, size_px, size_px), max_shift(resolver.config)
    territory = Territory(grid, resolver.group.size, resolver.group.rank)
    make = root_exchange if exchange == "root" else torus_exchange
    shifts = [circular_shift(step, shift_px) for step in range(CYCLE + 1)]
    calls = [make(resolver, territory, before, after) for before, after in pairwise(shifts)]
    seconds = 0.0
    for call in calls:
        resolver.group.comm.Barrier()
        started = time.perf_counter()
        call()
        seconds += time.perf_counter() - started
    return seconds / CYCLE


def root_exchange(resolver: CountedResolver, territory: Territory, before, after) -> Callable[[], None]:
    grid, channels, group = territory.grid, resolver.config.model.channels, resolver.group
    plan = plan_exchange(ownership_order(grid), group.size, [live_positions(grid, after)])
    frames = np.zeros((1, channels, grid.frame_height_px, grid.frame_width_px), np.float32)
    own = np.zeros((plan.counts[group.rank], channels, grid.window_px, grid.window_px), np.float32)

    def call() -> None:
        resolver.root.broadcast(frames, frames.shape)
        resolver.root.gather(own, plan)
    return call


def torus_exchange(resolver: CountedResolver, territory: Territory, before, after) -> Callable[[], None]:
    channels = resolver.config.model.channels
    canvases = territory.mine([Canvas.over(block.canvas(territory.grid), channels) for block in territory.own])
    job = Job(territory.moves(before, after), canvases, canvases, channels)
    return lambda: resolver.torus.run([job])


def device_bytes() -> tuple[int, int]:
    """(received, sent) by this node's network device so far; zeros where it has none of that name."""
    for line in Path("/proc/self/net/dev").read_text().splitlines():
        name, _, counts = line.partition(":")
        if name.strip() == DEVICE:
            return int(counts.split()[0]), int(counts.split()[8])
    return 0, 0


if __name__ == "__main__":
    main()
