"""Whether x_t is still made of numbers: asked on the device in every step, read once."""
import math
from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor

from swinmpi.parallel.staging import Reading
from swinmpi.sampling.process import ReverseProcess


class FiniteCheck:
    """Asks after every evaluation. On a GPU the answer is read an evaluation later, so that the
    device always has work; SwinmpiError names the image and the evaluation that was asked about."""

    def __init__(self, process: ReverseProcess):
        self.process = process
        self.seen: list[tuple[int, Tensor, Tensor]] = []
        self.asked: deque[tuple[int, Sequence[int], Reading, Sequence[Tensor]]] = deque()

    def look(self, stack_index: int, following: Tensor, x_t: Tensor) -> None:
        """At a part of the next x_t of an image, while it is in the cache; x_t: where it stays
        until the evaluation is over."""
        # A sum takes one pass over the memory, the exact question five. Where huge numbers may
        # have a sum that is none, as in float32, they are asked exactly; in float64 they have one,
        # which on a CPU would be a copy.
        on_cpu = following.device.type == "cpu"
        total = following.sum(dtype=None if on_cpu else torch.float64)
        self.seen.append((stack_index, total, x_t))

    def ask(self, number: int) -> None:
        """About all that was looked at in an evaluation."""
        if not self.seen:
            return
        stack_indices, sums, parts = zip(*self.seen, strict=True)
        self.seen.clear()
        on_cpu = sums[0].device.type == "cpu"
        self.asked.append((number, stack_indices, Reading(torch.stack(sums)),
                           parts if on_cpu else ()))
        self.read(0 if on_cpu else 1)

    def drop(self) -> None:
        """Forget what was asked: the images are not wanted any more."""
        self.seen.clear()
        self.asked.clear()

    def read(self, but: int = 0) -> None:
        """Read the answers of all evaluations but so many."""
        while len(self.asked) > but:
            number, stack_indices, sums, parts = self.asked.popleft()
            for place, (stack_index, total) in enumerate(zip(stack_indices, sums.read(),
                                                             strict=True)):
                if not math.isfinite(total) and not (parts and parts[place].isfinite().all()):
                    raise self.process.not_finite(stack_index, number)
