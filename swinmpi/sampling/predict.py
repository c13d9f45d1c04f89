"""The U-Net on windows, in micro-batches of one size, and where the time of sampling goes."""
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from swinmpi.config import Config
from swinmpi.errors import SwinmpiError
from swinmpi.models.diffuser import Diffuser, autocast

Item = tuple[int, int]
"""(image slot of the step, window position)."""


@dataclass
class Seconds:
    """Where the time went on this rank, summed over the run; communication is counted by its Group.

    network: the U-Net; encoder; noise: drawing it; step: the reverse step; windows: rolling, cutting, joining windows.
    """

    network: float = 0.0
    encoder: float = 0.0
    noise: float = 0.0
    step: float = 0.0
    windows: float = 0.0

    @contextmanager
    def of(self, phase: str) -> Iterator[None]:
        """Count the time inside."""
        started = time.perf_counter()
        yield
        setattr(self, phase, getattr(self, phase) + time.perf_counter() - started)


class Predictor:
    """Calls the U-Net. It always sees micro-batches of one size, the last one padded: a prediction then does not depend
    on how many windows a rank owns."""

    def __init__(self, config: Config, model: Diffuser, micro_batch: int, device: torch.device, seconds: Seconds):
        self.config, self.model, self.micro_batch, self.device, self.seconds = config, model, micro_batch, device, seconds

    def __call__(self, items: Sequence[Item], t: int, inputs: Callable[[Item], tuple[Tensor, ...]],
                 store: Callable[[Sequence[Item], Tensor], None],
                 before: Callable[[Sequence[Item]], None] = lambda part: None) -> None:
        """Predict every item once, in order.

        inputs: what the U-Net is told, x_t (C, w, w) first. store: takes a micro-batch's predictions, (m, C, w, w) float32
        on the CPU. before: called with the items of a micro-batch before its inputs are taken.
        """
        first = 0
        while first < len(items):
            part = items[first:first + self.micro_batch]
            before(part)
            with self.seconds.of("windows"):
                batch = self.batch([inputs(item) for item in part])
            try:
                with self.seconds.of("network"):
                    predictions = self.evaluate(batch, t)[:len(part)].float().cpu()
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                del batch
                self.halve(error)
                continue
            with self.seconds.of("windows"):
                store(part, predictions)
            first += len(part)

    def batch(self, inputs: list[tuple[Tensor, ...]]) -> list[Tensor]:
        """Stacked, and filled up with the last one to a whole micro-batch."""
        inputs += [inputs[-1]] * (self.micro_batch - len(inputs))
        return [torch.stack(parts).to(self.device) for parts in zip(*inputs, strict=True)]

    def evaluate(self, batch: Sequence[Tensor], t: int) -> Tensor:
        x_t, *told = batch
        times = torch.full((len(x_t),), t, device=self.device)
        with autocast(self.device, self.config.parallel.precision):
            return self.model.unet(x_t, times, *told)

    def halve(self, error: RuntimeError) -> None:
        """Go on with half the micro-batch; SwinmpiError where there is no half."""
        if self.micro_batch == 1:
            raise SwinmpiError("out of memory with one window at a time; use fewer ranks per node, parallel.images_per_step=1, "
                               "or parallel.exchange=torus") from error
        self.micro_batch //= 2
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        print(f"swinmpi: out of memory: going on with micro-batches of {self.micro_batch} windows; the last digits may differ "
              f"from a run that had enough (set parallel.micro_batch={self.micro_batch} to repeat this one)",
              file=sys.stderr, flush=True)


def is_out_of_memory(error: RuntimeError) -> bool:
    """CUDA's has a class of its own, the CPU's allocator only a text."""
    texts = ("not enough memory", "can't allocate memory")
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in texts)
