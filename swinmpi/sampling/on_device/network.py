"""The U-Net as a rank calls it: as it stands, compiled, or on a GPU recorded once for each size of
call and played again, which spares the host from launching its kernels one by one."""
import sys
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from swinmpi.errors import SwinmpiError
from swinmpi.models.diffuser import autocast
from swinmpi.parallel.device import Computing

Predict = Callable[..., Tensor]
"""(x_t (n, C, w, w), t (n,), what else it is told) -> (n, C, w, w)."""

MOST_RECORDED = 16
"""Each keeps the memory of its call."""


class Network:
    """`Family.predict` on one device in one precision, at one t for all windows."""

    def __init__(self, predict: Predict, computing: Computing):
        self.device, self.precision = torch.device(computing.device), computing.precision
        self.compiles = computing.compile
        self.predict = torch.compile(predict, dynamic=False) if self.compiles else predict
        self.records = self.device.type == "cuda" and not self.compiles
        self.called: dict[tuple, Recorded | None] = {}

    def __call__(self, batch: Sequence[Tensor], t: int) -> Tensor:
        """batch: (n, ...) each, x_t first. The answer may hold until the next call only."""
        if not self.records:
            return self.plain(batch, torch.full((len(batch[0]),), t, device=self.device))
        shapes = tuple(part.shape for part in batch)
        if shapes not in self.called:
            if len(self.called) == MOST_RECORDED:
                self.forget()
            # The first call is the one in which libraries choose and allocate.
            self.called[shapes] = None
            return self.plain(batch, torch.full((len(batch[0]),), t, device=self.device))
        if self.called[shapes] is None:
            self.called[shapes] = self.recorded(batch, t)
            if not self.records:
                return self(batch, t)
        return self.called[shapes](batch, t)

    def plain(self, batch: Sequence[Tensor], times: Tensor) -> Tensor:
        x_t, *told = batch
        # Casts of weights that are kept for later calls may not be recorded.
        with autocast(self.device, self.precision, keeps_casts=not self.records):
            try:
                return self.predict(x_t, times, *told)
            except Exception as error:
                if not self.compiles or isinstance(error, torch.OutOfMemoryError):
                    raise
                raise SwinmpiError(f"parallel.compile: {first_line(error)}; set "
                                   "parallel.compile=false") from error

    def recorded(self, batch: Sequence[Tensor], t: int) -> "Recorded | None":
        """None, and a line, where a network cannot be recorded, or memory is too short for it."""
        try:
            return Recorded(self.plain, batch, t)
        except RuntimeError as error:
            self.records = False
            self.forget()
            torch.cuda.empty_cache()
            print(f"swinmpi: the network's calls cannot be recorded ({first_line(error)}): going "
                  "on without, more slowly", file=sys.stderr, flush=True)
            return None

    def forget(self) -> None:
        """Let go of the memory of recorded calls."""
        self.called.clear()


class Recorded:
    """One call of fixed shapes as a CUDA graph, with memory of its own for what goes in and comes
    out."""

    def __init__(self, call: Callable[[Sequence[Tensor], Tensor], Tensor],
                 batch: Sequence[Tensor], t: int):
        device = batch[0].device
        self.inputs = [part.clone(memory_format=torch.contiguous_format) for part in batch]
        self.times = torch.full((len(batch[0]),), t, device=device)
        aside, now = torch.cuda.Stream(device), torch.cuda.current_stream(device)
        aside.wait_stream(now)
        with torch.cuda.stream(aside):
            call(self.inputs, self.times)
        now.wait_stream(aside)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            self.output = call(self.inputs, self.times)

    def __call__(self, batch: Sequence[Tensor], t: int) -> Tensor:
        for own, given in zip(self.inputs, batch, strict=True):
            own.copy_(given)
        self.times.fill_(t)
        self.graph.replay()
        return self.output


def first_line(error: Exception) -> str:
    """What an error says, in a line."""
    return next(iter(str(error).splitlines()), type(error).__name__)
