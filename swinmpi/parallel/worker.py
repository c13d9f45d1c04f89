"""The ranks that train together, and what they share besides gradients (torch.distributed)."""
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from swinmpi.errors import SwinmpiError


@dataclass(frozen=True)
class Worker:
    """This process's place in the training group; alone (size 1) it needs no torch.distributed.

    Every method but `told_once` is collective: all ranks call it, in the same order, outside
    of branches on the rank.
    """

    rank: int
    size: int
    device: torch.device

    @property
    def is_root(self) -> bool:
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """True on all ranks when one of them says so."""
        return bool(self.mean([torch.tensor(float(flag), device=self.device)])[0])

    def mean(self, values: Sequence[Tensor]) -> list[float]:
        """Mean over the ranks of each of these scalars on the worker's device; a NaN of one
        rank is everyone's."""
        sums = torch.stack([value.detach().double() for value in values])
        if self.size > 1:
            dist.all_reduce(sums)
        return (sums / self.size).tolist()

    def gather(self, rows: list) -> list:
        """The lists of all ranks (small, picklable), joined in rank order, on every rank."""
        if self.size == 1:
            return rows
        parts: list = [None] * self.size
        dist.all_gather_object(parts, rows)
        return [row for part in parts for row in part]

    def on_root(self, action: Callable[..., Any], *arguments: Any) -> Any:
        """Rank 0 acts; its result (small, picklable) is everyone's. If it fails, all ranks
        fail, and one prints why."""
        failure: Exception | None = None
        outcome: list = [None, None]
        if self.is_root:
            try:
                outcome[0] = action(*arguments)
            except Exception as error:
                failure = error
                outcome[1] = (error if isinstance(error, SwinmpiError)
                              else SwinmpiError(f"rank 0 failed: {error}"))
        if self.size > 1:
            dist.broadcast_object_list(outcome, src=0)
        if failure is not None:
            raise failure
        if outcome[1] is not None:
            raise self.told_once(outcome[1])
        return outcome[0]

    def root_first(self, action: Callable[..., None], *arguments: Any) -> None:
        """Every rank acts, rank 0 before the others: what would fail everywhere is printed once."""
        self.on_root(lambda: action(*arguments))
        if not self.is_root:
            action(*arguments)

    def told_once(self, error: SwinmpiError) -> SwinmpiError:
        """An error that all ranks raise together, marked so that rank 0 alone prints it."""
        error.echo = not self.is_root
        return error


def leave_torch_distributed() -> None:
    """Collective; the end of what `init_torch_distributed` began."""
    dist.destroy_process_group()
