"""What travels in a step by each exchange, worked out from its plans, for sizes
nobody has to run."""
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from swinmpi.parallel.shares import Weights
from swinmpi.sampling.superresolve import EXCHANGES
from swinmpi.windows.grid import Border, WindowGrid
from swinmpi.windows.shift import circular_shift, default_max_shift

FLOAT_BYTES = 4


@dataclass(frozen=True)
class Traffic:
    """Payload bytes received in a step by the rank that receives most, and by all ranks on average;
    means over steps."""

    most: float
    mean: float


def traffic(size_px: int, window_px: int, num_ranks: int, channels: int = 3,
            border: Border = "reflect") -> dict[str, Traffic]:
    """By exchange, for a square image and the circular pattern of shifts, without
    the first step."""
    shift_px = default_max_shift(window_px)
    grid = WindowGrid(size_px, size_px, window_px, shift_px, border)
    return {name: traffic_of(name, grid, num_ranks, channels) for name in EXCHANGES}


def traffic_of(exchange: str, grid: WindowGrid, num_ranks: int, channels: int,
               weights: Weights | None = None) -> Traffic:
    """Of the circular pattern of shifts, without the first step."""
    shifts = [circular_shift(step, grid.max_shift_px) for step in range(5)]
    pixels = EXCHANGES[exchange].received_pixels(grid, num_ranks, shifts, weights)
    return average([[count * channels * FLOAT_BYTES for count in ranks] for ranks in pixels])


def average(by_step: Sequence[Sequence[int]]) -> Traffic:
    return Traffic(fmean(max(ranks) for ranks in by_step), fmean(fmean(ranks) for ranks in by_step))
