"""The network on windows, in micro-batches of one size."""
import sys
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from swinmpi.errors import SwinmpiError
from swinmpi.families.family import Family
from swinmpi.models.diffuser import autocast
from swinmpi.parallel.device import Computing
from swinmpi.parallel.stopwatch import Stopwatch

Item = tuple[int, int]
"""(image slot of the step, window position)."""


class Predictor:
    """Calls the network. It always sees micro-batches of one size, the last one padded:
    a prediction then does not depend on how many windows a rank owns."""

    def __init__(self, family: Family, computing: Computing, stopwatch: Stopwatch):
        self.family, self.stopwatch = family, stopwatch
        self.device, self.precision = torch.device(computing.device), computing.precision
        self.micro_batch = computing.micro_batch

    def __call__(self, items: Sequence[Item], t: int, inputs: Callable[[Item], tuple[Tensor, ...]],
                 store: Callable[[Sequence[Item], Tensor], None],
                 before: Callable[[Sequence[Item]], None] = lambda part: None) -> None:
        """Predict every item once, in order.

        inputs: what the U-Net is told, x_t (C, w, w) first. store: takes a micro-batch's
        predictions, (m, C, w, w) float32 on the CPU. before: called with the items of a micro-batch
        before its inputs are taken.
        """
        first = 0
        while first < len(items):
            part = items[first:first + self.micro_batch]
            before(part)
            with self.stopwatch.of("windows"):
                batch = self.batch([inputs(item) for item in part])
            try:
                with self.stopwatch.of("network"):
                    predictions = self.evaluate(batch, t)[:len(part)].float().cpu()
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                del batch
                self.halve(error)
                continue
            with self.stopwatch.of("windows"):
                store(part, predictions)
            first += len(part)

    def batch(self, inputs: list[tuple[Tensor, ...]]) -> list[Tensor]:
        """Stacked, and filled up with the last one to a whole micro-batch."""
        inputs += [inputs[-1]] * (self.micro_batch - len(inputs))
        return [torch.stack(parts).to(self.device) for parts in zip(*inputs, strict=True)]

    def evaluate(self, batch: Sequence[Tensor], t: int) -> Tensor:
        x_t, *told = batch
        times = torch.full((len(x_t),), t, device=self.device)
        with autocast(self.device, self.precision):
            return self.family.predict(x_t, times, *told)

    def halve(self, error: RuntimeError) -> None:
        """Go on with half the micro-batch; SwinmpiError where there is no half."""
        if self.micro_batch == 1:
            raise SwinmpiError("out of memory with one window at a time; use fewer ranks per node, "
                               "parallel.images_per_step=1, or parallel.exchange=torus") from error
        self.micro_batch //= 2
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        print(f"swinmpi: out of memory: going on with micro-batches of {self.micro_batch} windows; "
              "the last digits may differ from a run that had enough (set "
              f"parallel.micro_batch={self.micro_batch} to repeat this one)",
              file=sys.stderr, flush=True)


def is_out_of_memory(error: RuntimeError) -> bool:
    """CUDA's has a class of its own, the CPU's allocator only a text."""
    texts = ("not enough memory", "can't allocate memory")
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in texts)
