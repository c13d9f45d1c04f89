"""The network on windows, in micro-batches whose sizes the windows decide."""
import sys
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from swinmpi.errors import SwinmpiError
from swinmpi.families.family import Family
from swinmpi.parallel.calls import Calls
from swinmpi.parallel.device import Computing
from swinmpi.parallel.staging import wait_for
from swinmpi.parallel.stopwatch import Stopwatch
from swinmpi.sampling.on_device.network import Network
from swinmpi.windows.tiles import Item

Watch = Callable[[int, Sequence[Tensor], int], None]
"""(windows of a call, what the network is told, t)."""


def unwatched(size: int, batch: Sequence[Tensor], t: int) -> None:
    """What happens before a call that nobody watches."""


class Predictor:
    """Calls the network. A window always goes in a micro-batch of the same size, the last one of a
    size padded: a prediction then does not depend on how many windows a rank owns."""

    def __init__(self, family: Family, computing: Computing, stopwatch: Stopwatch):
        self.network, self.stopwatch = Network(family.predict, computing), stopwatch
        self.device = self.network.device
        self.calls, self.limit = Calls(()), 0
        """Of the grid at work, and after running out of memory the size of all calls."""
        self.watch: Watch = unwatched
        """Is told of every call before it is made."""
        self.waits = False
        """Whether the time of the network is counted by the clock of a GPU, at the price of waiting
        for every call."""

    def __call__(self, items: Sequence[Item], t: int,
                 inputs: Callable[[Sequence[Item]], tuple[Tensor, ...]],
                 store: Callable[[Sequence[Item], Tensor], None],
                 before: Callable[[Sequence[Item]], None] = lambda part: None) -> None:
        """Predict every item once, for each size of calls in their order. Nothing waits for the
        device, unless it `waits`.

        inputs: what the U-Net is told about the items of a call, (size, ...) each, x_t first; the
        last item comes again until a call is full. store: takes the predictions of a micro-batch,
        (m, C, w, w) float32 on the device, which hold until the next call. before: called with the
        items of a micro-batch before its inputs are taken.
        """
        todo = list(self.parts(items))
        while todo:
            size, part = todo.pop(0)
            before(part)
            with self.stopwatch.of("windows"):
                batch = inputs([*part, *[part[-1]] * (size - len(part))])
            self.watch(size, batch, t)
            try:
                with self.stopwatch.of("network"):
                    predictions = self.network(batch, t)[:len(part)].float()
                    if self.waits:
                        wait_for(self.device)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                del batch
                self.halve(size, error)
                todo = list(self.parts([*part, *(item for _, later in todo for item in later)]))
                continue
            with self.stopwatch.of("windows"):
                store(part, predictions)

    @property
    def calls_now(self) -> Calls:
        """The calls of the grid at work, or what memory is left for."""
        return Calls((self.limit,) * len(self.calls.sizes)) if self.limit else self.calls

    @property
    def largest(self) -> int:
        """Windows of the largest call."""
        return max(self.calls_now.sizes)

    def parts(self, items: Sequence[Item]) -> Iterator[tuple[int, list[Item]]]:
        """See `Calls.parts`."""
        return self.calls_now.parts(items, lambda item: item[1])

    def halve(self, size: int, error: RuntimeError) -> None:
        """Go on with calls of half that size; SwinmpiError where there is no half."""
        if size == 1:
            raise SwinmpiError("out of memory with one window at a time; use fewer ranks per node, "
                               "parallel.images_per_step=1, or parallel.exchange=torus") from error
        self.limit = size // 2
        self.network.forget()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        print(f"swinmpi: out of memory: going on with micro-batches of {self.limit} windows; "
              "the last digits may differ from a run that had enough (set "
              f"parallel.micro_batch={self.limit} to repeat this one)",
              file=sys.stderr, flush=True)


def is_out_of_memory(error: RuntimeError) -> bool:
    """CUDA's has a class of its own, the CPU's allocator only a text."""
    texts = ("not enough memory", "can't allocate memory")
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in texts)
