"""Between a rank's device and the host memory that MPI and files read: pinned on a GPU, so that
copies need not be waited for where they are made; on a CPU the tensors themselves."""
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


def host_room(shape: Sequence[int], device: torch.device,
              dtype: torch.dtype = torch.float32) -> Tensor:
    """Memory of the host to copy to or from `device`, not filled."""
    return torch.empty(tuple(shape), dtype=dtype, pin_memory=device.type == "cuda")


def to_host(values: Tensor, room: Tensor | None = None) -> Tensor:
    """`values` where MPI can read them, contiguous: themselves on a CPU; in `room`, of at least
    their size, if given. Waits for the device."""
    if values.device.type == "cpu":
        return values.contiguous()
    room = host_room(values.shape, values.device, values.dtype) if room is None else room
    copied = room.flatten()[:values.numel()].view(values.shape)
    copied.copy_(values, non_blocking=True)
    torch.cuda.current_stream(values.device).synchronize()
    return copied


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Host memory on `device`, without waiting where it is pinned."""
    return values.to(device, non_blocking=True)


def wait_for(device: torch.device) -> None:
    """Until a GPU has done all that it was asked to; at once on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclass(frozen=True)
class Staging:
    """The memory that MPI reads and writes for a rank's device. direct: the device's own, for a
    library that takes it; else the host's."""

    device: torch.device
    direct: bool = False

    def room(self, count: int) -> Tensor:
        """For so many float32 that MPI writes."""
        if not self.direct:
            return host_room((count,), self.device)
        room = torch.empty(count, device=self.device)
        wait_for(self.device)  # else what had this memory before may still be at it
        return room

    def readable(self, values: Tensor, room: Tensor | None = None) -> Tensor:
        """`values` where MPI can read them, contiguous, see `to_host`. Waits for the device."""
        if not self.direct:
            return to_host(values, room)
        values = values.contiguous()
        wait_for(self.device)
        return values

    def buffer(self, memory: Tensor) -> np.ndarray | Tensor:
        """`memory`, of `room` or `readable`, as mpi4py takes it: tensors go by DLPack."""
        return memory if self.direct else memory.numpy()


class Reading:
    """A small tensor of the device that is read later: what is asked after it does not hold it
    up."""

    def __init__(self, values: Tensor):
        self.values, self.is_here = values, None
        if values.device.type == "cuda":
            self.values = host_room(values.shape, values.device, values.dtype)
            self.values.copy_(values, non_blocking=True)
            self.is_here = torch.cuda.Event()
            self.is_here.record(torch.cuda.current_stream(values.device))

    def read(self) -> list:
        """Its values; waits for what was asked of the device before it."""
        if self.is_here is not None:
            self.is_here.synchronize()
        return self.values.tolist()
