"""What travels in a step, worked out from the plans, for sizes nobody has to run."""
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from swinmpi.families.condition import Shift
from swinmpi.parallel.root import plan_exchange
from swinmpi.sampling.torus import Territory
from swinmpi.windows.grid import Border, WindowGrid, live_positions
from swinmpi.windows.moves import ownership_order
from swinmpi.windows.shift import circular_shift, default_max_shift

FLOAT_BYTES = 4


@dataclass(frozen=True)
class Traffic:
    """Payload bytes received in a step by the rank that receives most, and by all ranks on average; means over steps."""

    most: float
    mean: float


def traffic(size_px: int, window_px: int, num_ranks: int, channels: int = 3, border: Border = "reflect") -> dict[str, Traffic]:
    """Of both exchanges, for a square image and the circular pattern of shifts, without the first step."""
    shift_px = default_max_shift(window_px)
    grid = WindowGrid(size_px, size_px, window_px, shift_px, border)
    shifts = [circular_shift(step, shift_px) for step in range(5)]
    return {"root": average([root_bytes(grid, num_ranks, shift, channels) for shift in shifts[1:]]),
            "torus": average(torus_bytes(grid, num_ranks, shifts, channels))}


def root_bytes(grid: WindowGrid, num_ranks: int, shift: Shift, channels: int) -> list[int]:
    """By rank: root gets the windows of the others, they get the whole frame."""
    plan = plan_exchange(ownership_order(grid), num_ranks, [live_positions(grid, shift)])
    pixels = channels * FLOAT_BYTES
    frame, window = grid.frame_height_px * grid.frame_width_px * pixels, grid.window_px**2 * pixels
    return [sum(plan.counts[1:]) * window, *[frame] * (num_ranks - 1)]


def torus_bytes(grid: WindowGrid, num_ranks: int, shifts: Sequence[Shift], channels: int) -> list[list[int]]:
    """By change of shift and rank: the pieces that come from others."""
    territories = [Territory(grid, num_ranks, rank) for rank in range(num_ranks)]
    return [[received_pixels(territory, *change) * channels * FLOAT_BYTES for territory in territories]
            for change in pairwise(shifts)]


def received_pixels(territory: Territory, before: Shift, after: Shift) -> int:
    return territory.moves(before, after).num_received


def average(by_step: Sequence[Sequence[int]]) -> Traffic:
    return Traffic(fmean(max(ranks) for ranks in by_step), fmean(fmean(ranks) for ranks in by_step))
