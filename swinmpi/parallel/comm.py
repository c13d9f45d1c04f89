"""What pipelines need of a communicator: pixels without pickling, shared failures, waiting
that spares the cores.

A `Group` without communicator is one process on its own; the same program runs without any MPI.
"Collective" means: called by every rank of the group, in the same order, outside
of branches on the rank.
What is unpickled here was pickled by a rank of the same job; nothing of a file ever is.
"""
import os
import pickle
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from swinmpi.parallel.failure import (
    abort_all,
    die_unless_over_in,
    exit_code,
    is_echo,
    pickled_failure,
    raised_by_all,
    tell,
)
from swinmpi.parallel.shares import Weights, group_of
from swinmpi.parallel.stopwatch import Stopwatch

TAG_ARRIVED, TAG_GO = 1, 2
SPIN_S, SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 50e-6, 50e-6, 1e-3
LEAVE_PATIENCE_S = 600


@dataclass(frozen=True)
class Node:
    """A rank's place on its machine: node-local rank, ranks on the node, cores all of them
    together may use."""

    rank: int
    ranks: int
    cores: int


@dataclass
class Stats:
    """What a group has moved on this rank: payload bytes sent and received, and those received."""

    bytes: int = 0
    received: int = 0


class Group:
    """The ranks that work on one image at a time. `polite`: wait asleep, because ranks
    outnumber cores; `weights`: of the ranks, where they should not get equal shares of it;
    `direct`: MPI is given the memory of the device that a rank computes on, see Staging.

    What is called an array here may then be a contiguous tensor.
    """

    is_world, direct = False, False
    weights: Weights | None = None

    def __init__(self, comm=None, polite: bool = False, stopwatch: Stopwatch | None = None):
        """stopwatch: counts the time spent here as `exchange`; its own when None."""
        self.comm = comm
        self.stopwatch = stopwatch or Stopwatch()
        self.rank = comm.Get_rank() if comm is not None else 0
        self.size = comm.Get_size() if comm is not None else 1
        self.polite = polite and self.size > 1
        self.stats = Stats()

    @property
    def is_root(self) -> bool:
        return self.rank == 0

    def barrier(self) -> None:
        """Collective; return when every rank is here."""
        with self.counted():
            if self.size > 1 and not self.polite:
                self.comm.Barrier()

    def bcast_object(self, value: Any = None) -> Any:
        """Collective; root's `value` (small, picklable) on every rank."""
        if self.size == 1:
            return value
        payload = self._bcast_bytes(pickle.dumps(value) if self.is_root else b"")
        return value if self.is_root else pickle.loads(payload)

    def bcast_array(self, array: np.ndarray) -> np.ndarray:
        """Collective; fill `array` (contiguous, same shape and dtype everywhere) with root's
        values and return it."""
        if self.size > 1:
            sent, received = (array.nbytes, 0) if self.is_root else (0, array.nbytes)
            with self.counted(sent, received):
                self.comm.Bcast(array, root=0)
        return array

    def gather_arrays(self, own: np.ndarray, counts: Sequence[int],
                      out: np.ndarray | None = None) -> np.ndarray | None:
        """Collective; root gets (sum(counts), ...) in rank order, the others None.

        own: (counts[rank], ...), same trailing shape and dtype everywhere. counts: known to all.
        out: filled if given.
        """
        own = self._checked(own, counts)
        if self.size == 1:
            return _copied(own, out)
        if not self.is_root:
            with self.counted(own.nbytes):
                self.comm.Gatherv(own, None, root=0)
            return None
        out = np.empty((sum(counts), *own.shape[1:]), own.dtype) if out is None else out
        with self.counted(received=out.nbytes - own.nbytes):
            self.comm.Gatherv(own, [out, _counts_and_offsets(own, counts)], root=0)
        return out

    def allgather_arrays(self, own: np.ndarray, counts: Sequence[int],
                         out: np.ndarray | None = None) -> np.ndarray:
        """Collective; like `gather_arrays`, but every rank gets all of it."""
        own = self._checked(own, counts)
        if self.size == 1:
            return _copied(own, out)
        out = np.empty((sum(counts), *own.shape[1:]), own.dtype) if out is None else out
        with self.counted(own.nbytes, out.nbytes - own.nbytes):
            self.comm.Allgatherv(own, [out, _counts_and_offsets(own, counts)])
        return out

    def gather_everywhere(self, value: Any) -> list:
        """Collective; the values (small, picklable) of all ranks in rank order, on every rank."""
        payload = np.frombuffer(pickle.dumps(value), np.uint8)
        counts = self.allgather_arrays(np.array([len(payload)]), [1] * self.size).tolist()
        joined = self.allgather_arrays(payload, counts)
        return [pickle.loads(part.tobytes()) for part in np.split(joined, np.cumsum(counts)[:-1])]

    def any(self, flag: bool) -> bool:
        """Collective; True where any rank says so."""
        return bool(self.allgather_arrays(np.array([flag], np.uint8), [1] * self.size).any())

    def on_root(self, action: Callable[[], Any]) -> Any:
        """Collective; run `action` on root and share its result (small, picklable) or its exception
        with every rank."""
        if self.size == 1:
            return action()
        failure = result = None
        payload = b""
        if self.is_root:
            try:
                result = action()
                payload = pickle.dumps(result)
            except Exception as error:
                failure, payload = error, pickled_failure(error)
        failed = self.bcast_array(np.array([failure is not None]))[0]
        payload = self._bcast_bytes(payload)
        if failed:
            failure = failure or pickle.loads(payload)
            failure.echo, failure.shared = not self.is_root, self.is_world
            raise failure
        return result if self.is_root else pickle.loads(payload)

    @contextmanager
    def counted(self, sent: int = 0, received: int = 0, meet: bool = True) -> Iterator[None]:
        """Count the communication inside. meet: it is a collective call, before which polite
        ranks wait asleep."""
        with self.stopwatch.of("exchange"):
            if self.polite and meet:
                self._meet()
            yield
        self.stats.bytes += sent + received
        self.stats.received += received

    def _bcast_bytes(self, payload: bytes) -> bytes:
        length = self.bcast_array(np.array([len(payload)], np.int64))
        buffer = (np.frombuffer(payload, np.uint8).copy() if self.is_root
                  else np.empty(length[0], np.uint8))
        return self.bcast_array(buffer).tobytes()

    def _checked(self, own: np.ndarray, counts: Sequence[int]) -> np.ndarray:
        if len(counts) != self.size or len(own) != counts[self.rank]:
            raise ValueError(f"rank {self.rank} of {self.size}: expected counts of every rank and "
                             f"own items to match, got counts {list(counts)} and {len(own)} items")
        return np.ascontiguousarray(own) if isinstance(own, np.ndarray) else own

    def _meet(self) -> None:
        """Wait asleep until every rank is here, so that the blocking call after it is short.

        The obvious way, a non-blocking collective polled between naps, moves large data a few KiB
        per poll (mpich over shared memory: 1.5 s instead of 20 ms for 12 MB), and MPI_Ibarrier
        needs several naps in a row.
        """
        nothing = np.empty(0, np.uint8)
        if self.is_root:
            others = range(1, self.size)
            complete_asleep([self.comm.Irecv(nothing, source=rank, tag=TAG_ARRIVED)
                             for rank in others])
            complete_asleep([self.comm.Isend(nothing, dest=rank, tag=TAG_GO) for rank in others])
        else:
            complete_asleep([self.comm.Isend(nothing, dest=0, tag=TAG_ARRIVED),
                             self.comm.Irecv(nothing, source=0, tag=TAG_GO)])


class World(Group):
    """All ranks of the run. `with start_mpi() as world:` ends every rank when one leaves
    the block by an exception.

    Stopped, SomeImagesFailed and what `on_root` shares must be raised on every rank;
    any other exception may come on one.
    """

    is_world = True

    def __init__(self, comm=None, node: Node = Node(0, 1, 1)):
        super().__init__(comm)
        self.node = node
        self.speeds: Weights | None = None
        """Of its ranks, once they were measured."""

    def split(self, groups: Sequence[range], weights: Weights | None = None) -> Group:
        """Collective; this rank's group out of `split_groups`. weights: of all ranks."""
        if self.size == 1:
            return Group(stopwatch=self.stopwatch)
        number = group_of(groups, self.rank)
        group = Group(self.comm.Split(number, self.rank), self.polite, self.stopwatch)
        group.direct = self.direct
        if weights is not None:
            group.weights = tuple(weights[rank] for rank in groups[number])
        return group

    def __enter__(self) -> "World":
        return self

    def __exit__(self, kind, error: BaseException | None, trace) -> None:
        if self.size == 1:
            return
        if error is None or exit_code(error) == 0:
            self.barrier()
        elif raised_by_all(error):
            self._leave_by(error)
        else:
            self.fail(error)
        from mpi4py import MPI
        MPI.Finalize()

    def fail(self, error: BaseException) -> None:
        """End all ranks with this rank's message and exit code; alone, raise
        `error`. Never returns."""
        if self.size == 1:
            raise error
        from mpi4py import MPI
        if MPI.Is_finalized():
            if not is_echo(error):
                tell(error, self.rank)
            raise SystemExit(exit_code(error))
        abort_all(error, self.rank)

    def _leave_by(self, error: BaseException) -> None:
        """Collective; root prints, then every rank ends by itself: nobody is cut off, and no
        launcher loses the exit code."""
        if self.is_root:
            tell(error, self.rank)
        error.echo = True
        die_unless_over_in(LEAVE_PATIENCE_S)
        self.barrier()
        signal.alarm(0)


def wait_asleep(done: Callable[[], bool]) -> None:
    """Return when `done()`; nap between polls, the longer the longer it took so far, so that
    others can compute."""
    started = time.perf_counter()
    while not done():
        waited = time.perf_counter() - started
        if waited > SPIN_S:
            time.sleep(min(max(waited / 20, SHORTEST_PAUSE_S), LONGEST_PAUSE_S))
        else:
            os.sched_yield()


def complete_asleep(requests: Sequence) -> None:
    """Complete MPI requests by `wait_asleep`."""
    wait_asleep(lambda: all([request.Test() for request in requests]))


def _counts_and_offsets(own: np.ndarray,
                        counts: Sequence[int]) -> tuple[list[int], list[int]]:
    """Counts and displacements in array elements, as MPI wants them."""
    item = int(np.prod(own.shape[1:], dtype=np.int64))
    elements = [count * item for count in counts]
    return elements, [sum(elements[:rank]) for rank in range(len(elements))]


def _copied(own: np.ndarray, out: np.ndarray | None) -> np.ndarray:
    if out is None:
        return own.copy()
    np.copyto(out, own)
    return out
