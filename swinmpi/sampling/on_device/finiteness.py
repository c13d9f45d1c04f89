"""Whether x_t is still made of numbers: asked on the device in every step, read once."""
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
        self.asked: deque[tuple[int, Sequence[int], Reading, Sequence[Tensor]]] = deque()

    def ask(self, number: int, stack_indices: Sequence[int], parts: Sequence[Tensor]) -> None:
        """parts: of x_t after an evaluation, each of the image `stack_indices` names."""
        if not parts:
            return
        on_cpu = parts[0].device.type == "cpu"
        # A sum takes one pass over the memory, the exact question five. Where huge numbers may
        # have a sum that is none, as in float32, they are asked exactly; in float64 they have one.
        sums = torch.stack([part.sum(dtype=None if on_cpu else torch.float64) for part in parts])
        self.asked.append((number, stack_indices, Reading(sums), parts if on_cpu else ()))
        self.read(0 if on_cpu else 1)

    def drop(self) -> None:
        """Forget what was asked: the images are not wanted any more."""
        self.asked.clear()

    def read(self, but: int = 0) -> None:
        """Read the answers of all evaluations but so many."""
        while len(self.asked) > but:
            number, stack_indices, sums, parts = self.asked.popleft()
            for place, (stack_index, total) in enumerate(zip(stack_indices, sums.read(),
                                                             strict=True)):
                finite = torch.isfinite(torch.tensor(total))
                if not finite and not (parts and torch.isfinite(parts[place]).all()):
                    raise self.process.not_finite(stack_index, number)
