"""The U-Net alone: what a run would take if it did nothing but call it, on the same windows."""
import time
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from swinmpi.parallel.staging import wait_for
from swinmpi.sampling.predictor import Predictor, unwatched


@dataclass
class Calls:
    """The calls of the network that this rank made: how many of each size, and what the first of
    them was told."""

    counts: dict[int, int] = field(default_factory=dict)
    told: dict[int, tuple[Sequence[Tensor], int]] = field(default_factory=dict)

    def note(self, size: int, batch: Sequence[Tensor], t: int) -> None:
        self.counts[size] = self.counts.get(size, 0) + 1
        self.told.setdefault(size, (batch, t))

    @property
    def num_windows(self) -> int:
        """With those that only fill a call."""
        return sum(size * count for size, count in self.counts.items())


@contextmanager
def noted(predictor: Predictor, calls: Calls):
    """`calls` learns of those made inside; how many anew."""
    calls.counts.clear()
    predictor.watch = calls.note
    try:
        yield
    finally:
        predictor.watch = unwatched


@torch.inference_mode()
def seconds_alone(predictor: Predictor, calls: Calls) -> float:
    """Of the same calls, one after the other, by the same network in the same precision on the same
    device."""
    wait_for(predictor.device)
    started = time.perf_counter()
    for size, count in calls.counts.items():
        batch, t = calls.told[size]
        for _ in range(count):
            predictor.network(batch, t)
    wait_for(predictor.device)
    return time.perf_counter() - started
