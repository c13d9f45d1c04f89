"""The ranks that train together, and what they share besides gradients (torch.distributed)."""
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from swinmpi.errors import LaunchError, SwinmpiError


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
        if self.size == 1:
            return flag
        return bool(self.mean([torch.tensor(float(flag))])[0])  # a GPU need not be waited for

    def mean(self, values: Sequence[Tensor]) -> list[float]:
        """Mean over the ranks of each of these scalars, all on the CPU or all on the worker's
        device; a NaN of one rank is everyone's."""
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

    def check_gpus(self) -> None:
        """LaunchError on all ranks where two of them have the same GPU, which NCCL would refuse
        in the middle of the first update."""
        shared = same_gpu(self.gather([(socket.gethostname(), gpu_uuid(self.device))]))
        if shared:
            raise self.told_once(LaunchError(shared))

    def told_once(self, error: SwinmpiError) -> SwinmpiError:
        """An error that all ranks raise together, marked so that rank 0 alone prints it."""
        error.echo = not self.is_root
        return error


def same_gpu(places: Sequence[tuple[str, str]]) -> str:
    """Which ranks have the same GPU, and what to do; empty where none have. places: (host, UUID of
    the GPU, empty without one) by rank."""
    ranks: dict[str, list[int]] = {}
    for rank, (_, uuid) in enumerate(places):
        ranks.setdefault(uuid, []).append(rank)
    for uuid, sharing in ranks.items():
        if uuid and len(sharing) > 1:
            return (f"ranks {' and '.join(map(str, sharing))} have one GPU, {uuid} on "
                    f"{places[sharing[0]][0]}: expected one for each rank, NCCL joins no others; "
                    "start one rank for each GPU, ask for more GPUs, or set parallel.device=cpu")
    return ""


def gpu_uuid(device: torch.device) -> str:
    """Of the GPU itself, whatever number it has in this process; empty where there is none, or this
    version of torch does not tell."""
    if device.type != "cuda":
        return ""
    return str(getattr(torch.cuda.get_device_properties(device), "uuid", ""))


def leave_torch_distributed() -> None:
    """Collective; the end of what `init_torch_distributed` began."""
    dist.destroy_process_group()
