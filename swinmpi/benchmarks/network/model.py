"""What a step's exchange costs on a network, computed: alpha x messages + bytes / bandwidth.

    python -m swinmpi.benchmarks.network.model

The bytes and messages of `torus` come from the plans that the exchange itself follows, those of
`root` from the algorithms that MPICH chooses for messages this long (Thakur, Rabenseifner and
Gropp, Optimization of collective communication operations in MPICH, 2005). Every rank is taken to
have a link of its own, full duplex, and nothing else to be on the way.
"""
import argparse
import math
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from statistics import fmean

import torch
from torch import Tensor, nn

from swinmpi.demo import DEMO_MODEL, MODELS, shipped
from swinmpi.families.loading import load_family
from swinmpi.models.diffuser import prepare
from swinmpi.parallel.ownership import Ownership
from swinmpi.parallel.shares import block_range
from swinmpi.reports.tables import format_table
from swinmpi.sampling.process import Shift
from swinmpi.sampling.root import RootExchange
from swinmpi.sampling.settings import resolve_config
from swinmpi.sampling.superresolve import EXCHANGES
from swinmpi.sampling.traffic import FLOAT_BYTES, traffic_of
from swinmpi.storage.header import read_header
from swinmpi.windows.grid import Border, WindowGrid
from swinmpi.windows.moves import matches, plan_moves
from swinmpi.windows.shift import circular_shift, default_max_shift

CYCLE = 4
MIB = 2**20
# Below this many ranks MPICH broadcasts along a tree, above it in parts.
PARTED_FROM_RANKS = 8
CASES = ((8192, 48, 64), (8192, 48, 1024), (8192, 256, 64), (8192, 256, 1024))


@dataclass(frozen=True)
class Link:
    """alpha_s: of a message; bytes_per_s: in either direction, both at once."""

    name: str
    alpha_s: float
    bytes_per_s: float

    def seconds(self, demand: "Demand") -> float:
        return self.alpha_s * demand.messages + demand.num_bytes / self.bytes_per_s


LINKS = (Link("1 Gbit/s", 50e-6, 0.114e9), Link("10 Gbit/s", 20e-6, 1.14e9),
         Link("100 Gbit/s", 2e-6, 12e9))
"""The first bandwidth is measured here (four_nodes.py); all else are assumptions: TCP over
Ethernet, and InfiniBand."""


@dataclass(frozen=True)
class Demand:
    """What one rank's link has to carry in its busier direction, one message after the other."""

    messages: int
    num_bytes: float


@dataclass(frozen=True)
class Strips:
    """What one rank receives and sends when the shift changes."""

    received: Demand
    sent: Demand

    @property
    def busier(self) -> Demand:
        return Demand(max(self.received.messages, self.sent.messages),
                      max(self.received.num_bytes, self.sent.num_bytes))


def root_demand(grid: WindowGrid, num_ranks: int, shift: Shift, channels: int) -> Demand:
    """Of rank 0's link, which everything passes: the broadcast of the frame, then the gathering of
    predictions."""
    if num_ranks == 1:
        return Demand(0, 0)
    pixel_bytes, depth = channels * FLOAT_BYTES, math.ceil(math.log2(num_ranks))
    frame = grid.frame_height_px * grid.frame_width_px * pixel_bytes
    received = RootExchange.received_pixels(grid, num_ranks, [shift, shift])[0]
    gathered = Demand(num_ranks - 1, received[0] * pixel_bytes)
    if num_ranks < PARTED_FROM_RANKS:
        broadcast = Demand(depth, depth * frame)
    else:
        broadcast = Demand(depth + num_ranks - 1, 2 * (num_ranks - 1) / num_ranks * frame)
    return Demand(broadcast.messages + gathered.messages, broadcast.num_bytes + gathered.num_bytes)


def torus_demand(grid: WindowGrid, num_ranks: int, before: Shift, after: Shift,
                 channels: int) -> list[Strips]:
    """Of every rank, by its plan; as `traffic` counts it, but looks only at ranks that can have
    something for each other."""
    ownership, reach = Ownership(grid, num_ranks, 0), Reach(grid)
    held, needed = ownership.at(before), ownership.at(after)
    by_rows, own, received = defaultdict(list), defaultdict(list), []
    for place, rect in enumerate(held):
        by_rows[rect.rows].append(place)
        own[rect.rank].append(place)
    for rank in range(num_ranks):
        wanted = {needed[place].rows for place in own[rank]}
        near = {place for rows, places in by_rows.items()
                if any(reach(rows, one) for one in wanted) for place in places}
        places = sorted(near | set(own[rank]))
        moves = plan_moves(grid, [held[place] for place in places],
                           [needed[place] for place in places], rank, in_place=True)
        received.append({sender: sum(piece.num_pixels for piece in pieces) * channels * FLOAT_BYTES
                         for sender, pieces in moves.receives.items()})
    sent = [[from_rank[rank] for from_rank in received if rank in from_rank]
            for rank in range(num_ranks)]
    return [Strips(Demand(len(come), sum(come.values())), Demand(len(go), sum(go)))
            for come, go in zip(received, sent, strict=True)]


class Reach:
    """Whether rows at one shift show any pixel that is true in rows at another."""

    def __init__(self, grid: WindowGrid):
        self.grid = grid
        self.cached = lru_cache(maxsize=None)(self.look)

    def __call__(self, held: range, needed: range) -> bool:
        return self.cached(held, needed)

    def look(self, held: range, needed: range) -> bool:
        grid = self.grid
        return len(matches(held, needed, grid.height_px, grid.window_px, grid.border)[0]) > 0


@dataclass(frozen=True)
class Step:
    """A step of a square image, on average over the circular pattern."""

    grid: WindowGrid
    num_ranks: int
    root: list[Demand]
    torus: list[list[Strips]]

    @classmethod
    def of(cls, size_px: int, window_px: int, num_ranks: int, channels: int = 3,
           border: Border = "reflect") -> "Step":
        shift_px = default_max_shift(window_px)
        grid = WindowGrid(size_px, size_px, window_px, shift_px, border)
        shifts = [circular_shift(step, shift_px) for step in range(CYCLE + 1)]
        root = [root_demand(grid, num_ranks, shift, channels) for shift in shifts[1:]]
        torus = [torus_demand(grid, num_ranks, *change, channels) for change in pairwise(shifts)]
        return cls(grid, num_ranks, root, torus)

    def seconds(self, link: Link) -> dict[str, float]:
        """By exchange, of the rank that waits longest, as if nothing were computed meanwhile."""
        strips = (max(link.seconds(one.busier) for one in ranks) for ranks in self.torus)
        return {"root": fmean(map(link.seconds, self.root)), "torus": fmean(strips)}

    def windows(self) -> int:
        """The U-Net's windows on the rank that has most."""
        return len(block_range(self.grid.num_positions, self.num_ranks, 0))

    def torus_bytes(self) -> tuple[float, float]:
        """(received by the rank that receives most, mean of all ranks)."""
        received = [[strips.received.num_bytes for strips in ranks] for ranks in self.torus]
        return fmean(map(max, received)), fmean(map(fmean, received))


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    made.add_argument("--small", action="store_true",
                      help="leave out the large sizes, which take minutes")
    options = made.parse_args()
    print("received in a step at 2048 px, window 256, shift 64, 8 ranks, float32 (from the plans)\n"
          f"{received_table()}\n")
    if not options.small:
        steps = [Step.of(*case) for case in CASES]
        print("8192 px, 3 channels, border reflect: MiB through the busiest link in a step "
              f"(computed)\n{demand_table(steps)}\n")
        print("the same: seconds of a step (computed; only the U-Net is measured, on one core of "
              f"this machine)\n{seconds_table(steps)}")


def received_table() -> str:
    """The ratios are of the first exchange to the last."""
    rows = []
    for border in ("reflect", "wrap"):
        for channels in (1, 3):
            grid = WindowGrid(2048, 2048, 256, 64, border)
            received = [traffic_of(name, grid, 8, channels) for name in EXCHANGES]
            mean, most = [one.mean for one in received], [one.most for one in received]
            rows.append([border, str(channels),
                         *(f"{num_bytes / MIB:.3f}" for num_bytes in (*mean, *most)),
                         f"{mean[0] / mean[-1]:.1f}", f"{most[0] / most[-1]:.1f}"])
    columns = [f"{name} MiB, {which}" for which in ("mean", "worst") for name in EXCHANGES]
    return format_table(["border", "channels", *columns, "ratio of means", "ratio of worst"], rows)


def demand_table(steps: Sequence[Step]) -> str:
    rows = []
    for step in steps:
        most, mean = step.torus_bytes()
        root = fmean(demand.num_bytes for demand in step.root)
        messages = max(strips.busier.messages for ranks in step.torus for strips in ranks)
        rows.append([str(step.grid.window_px), str(step.num_ranks), str(step.windows()),
                     f"{root / MIB:.0f}", f"{most / MIB:.2f}", f"{mean / MIB:.2f}", str(messages)])
    return format_table(["window", "ranks", "windows of a rank", "root: rank 0", "torus: worst",
                         "torus: mean", "messages"], rows)


def seconds_table(steps: Sequence[Step]) -> str:
    rows = []
    for step in steps:
        network = step.windows() * window_seconds(step.grid.window_px)
        for link in LINKS:
            exchanges = step.seconds(link).values()
            rows.append([link.name, str(step.grid.window_px), str(step.num_ranks),
                         f"{network:.3g}", *(f"{seconds:.2g}" for seconds in exchanges),
                         *(f"{100 * network / (network + seconds):.1f} %"
                           for seconds in exchanges)])
    names = list(steps[0].seconds(LINKS[0]))
    return format_table(["network", "window", "ranks", "U-Net", *names,
                         *(f"computing, {name}" for name in names)], rows)


@lru_cache
def window_seconds(window_px: int) -> float:
    """CPU seconds of the shipped U-Net for a window on one core of this machine, the least of
    four."""
    checkpoint = shipped(MODELS[DEMO_MODEL])
    config = resolve_config(read_header(checkpoint), checkpoint, [],
                            [f"model.window_px={window_px}"], "balanced")
    model = config.model
    family = load_family(checkpoint, model, takes_steps=True)
    prepare(family.model, torch.device("cpu"), channels_last=True, fused_attention=True)
    number = max(1, 8 * 48**2 // window_px**2)

    def windows(channels: int) -> Tensor:
        return torch.zeros(number, channels, window_px, window_px)

    inputs = (windows(model.channels), torch.zeros(number, dtype=torch.long),
              windows(model.feature_channels + model.channels), windows(1),
              torch.zeros(number, model.global_channels))
    torch.set_num_threads(1)
    with torch.inference_mode():
        return min(cpu_seconds(family.model.unet, inputs) for _ in range(4)) / number


def cpu_seconds(network: nn.Module, inputs: Sequence[Tensor]) -> float:
    """Of one call."""
    started = time.thread_time()
    network(*inputs)
    return time.thread_time() - started


if __name__ == "__main__":
    main()
