"""Frames from the root of a group to all its ranks, predictions back: the collectives of a step."""
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from swinmpi.parallel.comm import Group
from swinmpi.parallel.shares import block_range


@dataclass(frozen=True)
class StepPlan:
    """Who predicts what in one step; the same value on every rank.

    items: (image slot of the step, window position) of all windows to predict, in the order in
    which positions are dealt out, then by slot. A rank owns a run of them, so its items are a run
    too, and their order does not depend on the number of ranks.
    counts, offsets: windows of every rank, and where they start in `items`.
    """

    items: tuple[tuple[int, int], ...]
    counts: tuple[int, ...]
    offsets: tuple[int, ...]

    def own(self, rank: int) -> tuple[tuple[int, int], ...]:
        """The items of `rank`."""
        return self.items[self.offsets[rank]:self.offsets[rank] + self.counts[rank]]


def plan_step(order: Sequence[int], num_ranks: int, live: Sequence[Collection[int]]) -> StepPlan:
    """Share out one step. order: all window positions as they are dealt out. live: for every image
    slot, the positions that need a prediction at that image's shift."""
    if unknown := set().union(*live).difference(order):
        raise ValueError(f"expected window positions of 0..{len(order) - 1}, got {sorted(unknown)}")
    wanted = [frozenset(positions) for positions in live]
    items, counts = [], []
    for rank in range(num_ranks):
        own = [(slot, order[k]) for k in block_range(len(order), num_ranks, rank)
               for slot, positions in enumerate(wanted) if order[k] in positions]
        items += own
        counts.append(len(own))
    offsets = tuple(sum(counts[:rank]) for rank in range(num_ranks))
    return StepPlan(tuple(items), tuple(counts), offsets)


class RootCollectives:
    """Frames from root to all, predictions back to root (promise 2). Buffers are kept between
    steps, so an array returned by a method holds until its next call."""

    def __init__(self, group: Group):
        self.group = group
        self._frames = self._gathered = np.empty(0, np.float32)

    def broadcast(self, frames: np.ndarray | None, shape: Sequence[int]) -> np.ndarray:
        """Collective; root's `frames` (n_images, C, FH, FW), contiguous float32, on every rank.
        shape: known to all."""
        if self.group.is_root:
            _check(frames, shape)
        else:
            self._frames = _room_for(self._frames, shape)
            frames = _shaped(self._frames, shape)
        return self.group.bcast_array(frames)

    def gather(self, own: np.ndarray, plan: StepPlan) -> np.ndarray | None:
        """Collective; root gets (len(plan.items), C, w, w) float32 in the order
        of `plan.items`, the others None.

        own: (n_own, C, w, w) float32, contiguous, in the order of `plan.own(rank)`.
        """
        _check(own, (plan.counts[self.group.rank], *own.shape[1:]))
        if not self.group.is_root:
            return self.group.gather_arrays(own, plan.counts)
        shape = (len(plan.items), *own.shape[1:])
        self._gathered = _room_for(self._gathered, shape)
        return self.group.gather_arrays(own, plan.counts, out=_shaped(self._gathered, shape))


def _check(array: np.ndarray, shape: Sequence[int]) -> None:
    if array.dtype != np.float32 or array.shape != tuple(shape) or not array.flags.c_contiguous:
        raise ValueError(f"expected contiguous float32 of shape {tuple(shape)}, "
                         f"got {array.dtype} of {array.shape}"
                         f"{'' if array.flags.c_contiguous else ', not contiguous'}")


def _room_for(buffer: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """`buffer`, or a larger one."""
    needed = math.prod(shape)
    return buffer if buffer.size >= needed else np.empty(needed, np.float32)


def _shaped(buffer: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """The front of `buffer` in that shape, contiguous."""
    return buffer[:math.prod(shape)].reshape(shape)
