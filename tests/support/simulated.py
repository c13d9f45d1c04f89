"""All ranks of a group in one process: a thread for each, and the calls of mpi4py
that Group makes."""
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, Queue
from typing import Any, TypeVar

import numpy as np
import torch

from swinmpi.parallel.comm import Group

Result = TypeVar("Result")
PATIENCE_S = 120


def on_ranks(num_ranks: int, action: Callable[[Group], Result]) -> list[Result]:
    """`action(group)` on every rank at once; results in rank order. What a rank raises is raised
    here, after the other ranks gave up waiting for it."""
    if num_ranks == 1:
        return [action(Group())]
    shared = Shared(num_ranks)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)

    def of_rank(rank: int) -> Result:
        try:
            return action(Group(SimulatedComm(shared, rank)))
        except BaseException:
            shared.barrier.abort()
            raise

    try:
        with ThreadPoolExecutor(num_ranks) as pool:
            running = [pool.submit(of_rank, rank) for rank in range(num_ranks)]
            failures = [one.exception() for one in running]
        for failure in failures:
            if failure is not None and not isinstance(failure, threading.BrokenBarrierError):
                raise failure
        return [one.result() for one in running]
    finally:
        torch.set_num_threads(threads)


class Shared:
    """What the ranks of a simulated communicator have in common."""

    def __init__(self, size: int):
        self.size, self.barrier = size, threading.Barrier(size, timeout=PATIENCE_S)
        self.slots: list[Any] = [None] * size
        self.mailboxes: dict[tuple[int, int, int], Queue] = {}

    def mailbox(self, source: int, dest: int, tag: int) -> Queue:
        """In one atomic call: a sender and a receiver that both met none would make two."""
        return self.mailboxes.setdefault((source, dest, tag), Queue())


class SimulatedComm:
    """A communicator of threads. Collectives copy by way of `Shared.slots`."""

    def __init__(self, shared: Shared, rank: int):
        self.shared, self.rank = shared, rank

    def Get_rank(self) -> int:
        return self.rank

    def Get_size(self) -> int:
        return self.shared.size

    def Barrier(self) -> None:
        self.shared.barrier.wait()

    def everyones(self, own: Any) -> list:
        """What each rank brings, on every rank."""
        self.shared.slots[self.rank] = own
        self.Barrier()
        brought = list(self.shared.slots)
        self.Barrier()
        return brought

    def Bcast(self, array: np.ndarray, root: int) -> None:
        np.copyto(array, self.everyones(array.copy() if self.rank == root else None)[root])

    def Gatherv(self, own: np.ndarray, into, root: int) -> None:
        brought = self.everyones(own.copy())
        if self.rank == root:
            fill(into, brought)

    def Allgatherv(self, own: np.ndarray, into) -> None:
        fill(into, self.everyones(own.copy()))

    def Isend(self, buffer: np.ndarray, dest: int, tag: int) -> "Sent":
        self.shared.mailbox(self.rank, dest, tag).put(buffer.copy())
        return Sent()

    def Irecv(self, buffer: np.ndarray, source: int, tag: int) -> "Received":
        return Received(buffer, self.shared.mailbox(source, self.rank, tag))


def fill(into, brought: list[np.ndarray]) -> None:
    """`into`: [array, (counts, offsets in elements)]."""
    array, (counts, offsets) = into
    for part, count, offset in zip(brought, counts, offsets, strict=True):
        array.reshape(-1)[offset:offset + count] = part.reshape(-1)


class Sent:
    def Test(self) -> bool:
        return True

    def Wait(self) -> None:
        """It has left already."""


class Received:
    def __init__(self, buffer: np.ndarray, mailbox: Queue):
        self.buffer, self.mailbox, self.is_here = buffer, mailbox, False

    def Test(self) -> bool:
        if not self.is_here:
            try:
                self.take(self.mailbox.get_nowait())
            except Empty:
                return False
        return True

    def Wait(self) -> None:
        if not self.is_here:
            self.take(self.mailbox.get(timeout=PATIENCE_S))

    def take(self, message: np.ndarray) -> None:
        np.copyto(self.buffer, message)
        self.is_here = True
