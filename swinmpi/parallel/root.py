"""Frames from the root of a group to all its ranks, predictions back: the collectives of a step."""
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from swinmpi.parallel.comm import Group
from swinmpi.parallel.shares import Weights, share_in_turn
from swinmpi.parallel.staging import Staging, to_device


@dataclass(frozen=True)
class StepPlan:
    """Who predicts what in one step; the same value on every rank.

    items: (image slot of the step, window position) of all windows to predict, rank by rank. Unless
    ranks take turns, they are in the order in which positions are dealt out, then by slot.
    counts, offsets: windows of every rank, and where they start in `items`.
    """

    items: tuple[tuple[int, int], ...]
    counts: tuple[int, ...]
    offsets: tuple[int, ...]

    def own(self, rank: int) -> tuple[tuple[int, int], ...]:
        """The items of `rank`."""
        return self.items[self.offsets[rank]:self.offsets[rank] + self.counts[rank]]


def plan_step(order: Sequence[int], num_ranks: int, live: Sequence[Collection[int]],
              in_turn: bool = False, weights: Weights | None = None) -> StepPlan:
    """Share out one step. order: all window positions as they are dealt out. live: for every image
    slot, the positions that need a prediction at that image's shift. in_turn: whether image slots
    are turns of the ranks, which then get as many windows as `weights` say, image by image; see
    `share_in_turn` for both.
    """
    if unknown := set().union(*live).difference(order):
        raise ValueError(f"expected window positions of 0..{len(order) - 1}, got {sorted(unknown)}")
    wanted = [frozenset(positions) for positions in live]
    items, counts = [], []
    for rank in range(num_ranks):
        own = [(k, slot) for slot, positions in enumerate(wanted)
               for k in share_in_turn(len(order), num_ranks, rank, slot * in_turn, weights)
               if order[k] in positions]
        items += [(slot, order[k]) for k, slot in (own if in_turn else sorted(own))]
        counts.append(len(own))
    offsets = tuple(sum(counts[:rank]) for rank in range(num_ranks))
    return StepPlan(tuple(items), tuple(counts), offsets)


def deal_out(items: Sequence[tuple[int, int]], num_ranks: int,
             weights: Weights | None = None) -> StepPlan:
    """Share out the windows (image slot, position) of one step evenly, or as `weights` say,
    whichever they are; for ranks that know all that windows are told."""
    counts = [len(share_in_turn(len(items), num_ranks, rank, 0, weights))
              for rank in range(num_ranks)]
    return StepPlan(tuple(items), tuple(counts), tuple(accumulate([0, *counts[:-1]])))


class RootCollectives:
    """Frames from root to all, predictions back to root (promise 2), from device to device.
    Buffers are kept between steps, so a tensor returned by a method holds until its next call.

    On one rank nothing is copied.
    """

    def __init__(self, group: Group, device: torch.device):
        self.group, self.device = group, device
        self.staging = Staging(device, group.direct)
        self._frames = self._own = self._gathered = torch.empty(0)

    def broadcast(self, frames: Tensor | None, shape: Sequence[int]) -> Tensor:
        """Collective; root's `frames` (n_images, C, FH, FW), contiguous float32, on every rank.
        shape: known to all."""
        if self.group.is_root:
            _check(frames, shape)
        if self.group.size == 1:
            return frames
        self._frames = self._room_for(self._frames, shape)
        staged = (_shaped(self._frames, shape) if frames is None
                  else self.staging.readable(frames, self._frames))
        self.group.bcast_array(self.staging.buffer(staged))
        return to_device(staged, self.device) if frames is None else frames

    def gather(self, own: Tensor, plan: StepPlan) -> Tensor | None:
        """Collective; root gets (len(plan.items), C, w, w) float32 in the order
        of `plan.items`, the others None.

        own: (n_own, C, w, w) float32, contiguous, in the order of `plan.own(rank)`.
        """
        _check(own, (plan.counts[self.group.rank], *own.shape[1:]))
        if self.group.size == 1:
            return own
        self._own = self._room_for(self._own, own.shape)
        staged = self.staging.buffer(self.staging.readable(own, self._own))
        if not self.group.is_root:
            return self.group.gather_arrays(staged, plan.counts)
        shape = (len(plan.items), *own.shape[1:])
        self._gathered = self._room_for(self._gathered, shape)
        gathered = _shaped(self._gathered, shape)
        self.group.gather_arrays(staged, plan.counts, out=self.staging.buffer(gathered))
        return to_device(gathered, self.device)

    def _room_for(self, buffer: Tensor, shape: Sequence[int]) -> Tensor:
        """`buffer`, or a larger one."""
        needed = math.prod(shape)
        return buffer if buffer.numel() >= needed else self.staging.room(needed)


def _check(values: Tensor, shape: Sequence[int]) -> None:
    if (values.dtype != torch.float32 or values.shape != torch.Size(shape)
            or not values.is_contiguous()):
        raise ValueError(f"expected contiguous float32 of shape {tuple(shape)}, "
                         f"got {values.dtype} of {tuple(values.shape)}"
                         f"{'' if values.is_contiguous() else ', not contiguous'}")


def _shaped(buffer: Tensor, shape: Sequence[int]) -> Tensor:
    """The front of `buffer` in that shape, contiguous."""
    return buffer[:math.prod(shape)].view(tuple(shape))
