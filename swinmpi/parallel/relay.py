"""How finished pixels travel to world rank 0: parts of images, in chunks, and never more at once
than it has room for."""
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from swinmpi.parallel.comm import World, complete_asleep, wait_asleep

TAG_HEADER, TAG_PIXELS = 3, 4
CHUNK_BYTES = 32 << 20
IN_FLIGHT_BYTES = 2 * CHUNK_BYTES


@dataclass(frozen=True, eq=False)
class Part:
    """Pixels (k, C, h, w), float32 or float64, raw values, at (top, left) of an SR image: k
    datasets of the output have them there.

    The parts of an image are disjoint and cover it; any rank may own some. Pixels must not change
    once they are sent.
    """

    shard_index: int
    top: int
    left: int
    pixels: np.ndarray

    @property
    def num_pixels(self) -> int:
        """Of the image, whatever the number of datasets and channels."""
        return prod(self.pixels.shape[-2:])


@dataclass(frozen=True)
class Ending:
    """The end of an image: its figures, or the reason why it is given up."""

    shard_index: int
    notes: Mapping[str, float] | str

    @property
    def given_up(self) -> bool:
        return isinstance(self.notes, str)


def chunks(part: Part) -> list[Part]:
    """The part in chunks of at most CHUNK_BYTES (at least one row), from its top to its bottom;
    views of its pixels."""
    return [Part(part.shard_index, part.top + rows.start, part.left,
                 part.pixels[..., rows.start:rows.stop, :])
            for rows in chunk_rows(part.pixels.shape, part.pixels.itemsize)]


def share(world: World, own: Any) -> list:
    """Collective; what every rank has to say (small, picklable), in the order
    of ranks, on every rank."""
    if world.size == 1:
        return [own]
    world.barrier()  # the way to wait for the slowest rank without taking its core
    return world.comm.allgather(own)


class Relay:
    """Parts and endings on their way to world rank 0. `send` never waits; rank 0 waits in `receive`
    as long as it likes.

    Rank 0 asks for chunks one by one: at most IN_FLIGHT_BYTES are under way or wait there, the rest
    stays where it was made. Strips of one rank arrive in their order.
    """

    def __init__(self, world: World):
        self.world = world
        self.num_announced = self.num_received = self.held_bytes = 0  # chunks of other ranks
        self._here: deque[tuple[Part | Ending, int]] = deque()
        self._announced: deque[Announced] = deque()
        self._incoming: list[tuple[Part, Any]] = []
        self._outgoing: list = []
        self._num_sending = world.size - 1

    def send(self, item: Part | Ending) -> None:
        """Any rank. Returns at once."""
        if self.world.is_root:
            self._here += [(own, 0) for own in (chunks(item) if isinstance(item, Part) else [item])]
            return
        self.forget_taken()
        if isinstance(item, Ending):
            self._post(item)
        else:
            self._post((item.shard_index, item.top, item.left, item.pixels.shape,
                        item.pixels.dtype.name))
            self._post_pixels(np.ascontiguousarray(item.pixels))

    def forget_taken(self) -> None:
        """Let go of pixels that have been delivered. Never waits."""
        self._outgoing = [request for request in self._outgoing if not request.Test()]

    def close(self) -> None:
        """Every rank, after its last `send`; those that are not world rank 0 wait until all
        of theirs is taken."""
        if not self.world.is_root:
            self._post(None)
            complete_asleep(self._outgoing)

    def receive(self, enough: Callable[[], bool]) -> Part | Ending | None:
        """World rank 0 only: the next chunk or ending. Where nothing is here, waits until something
        is, or `enough()`."""
        wait_asleep(lambda: self._progress() or enough())
        if not self._here:
            return None
        item, held_bytes = self._here.popleft()
        self.held_bytes -= held_bytes
        return item

    @property
    def is_over(self) -> bool:
        """On world rank 0: every other rank has closed, and nothing more will come."""
        return not (self._num_sending or self._announced or self._incoming or self._here)

    def _post(self, header) -> None:
        self._outgoing.append(self.world.comm.isend(header, dest=0, tag=TAG_HEADER))

    def _post_pixels(self, pixels: np.ndarray) -> None:
        """A message for every chunk, out of the part where it lies."""
        from mpi4py import MPI
        planes, (height, width) = prod(pixels.shape[:-2]), pixels.shape[-2:]
        number = {"float32": MPI.FLOAT, "float64": MPI.DOUBLE}[pixels.dtype.name]
        for rows in chunk_rows(pixels.shape, pixels.itemsize):
            chunk = number.Create_vector(planes, len(rows) * width, height * width).Commit()
            first = pixels.reshape(-1)[rows.start * width:]
            self._outgoing.append(self.world.comm.Isend([first, 1, chunk], dest=0, tag=TAG_PIXELS))
            chunk.Free()

    def _progress(self) -> bool:
        """Take in what can be; True when there is something to hand out."""
        if self._num_sending:
            self._accept_headers()
        self._ask_for_strips()
        underway = []
        for chunk, request in self._incoming:
            if request.Test():
                self._here.append((chunk, chunk.pixels.nbytes))
                self.num_received += 1
            else:
                underway.append((chunk, request))
        self._incoming = underway
        return bool(self._here)

    def _accept_headers(self) -> None:
        from mpi4py import MPI
        status = MPI.Status()
        while (message := self.world.comm.improbe(tag=TAG_HEADER, status=status)) is not None:
            header = message.recv()
            if header is None:
                self._num_sending -= 1
            elif isinstance(header, Ending):
                self._here.append((header, 0))
            else:
                shard_index, top, left, shape, dtype = header
                announced = [Announced(status.Get_source(), shard_index, top + rows.start,
                                       left, (*shape[:-2], len(rows), shape[-1]), dtype)
                             for rows in chunk_rows(shape, np.dtype(dtype).itemsize)]
                self._announced += announced
                self.num_announced += len(announced)

    def _ask_for_strips(self) -> None:
        while self._announced:
            num_bytes = self._announced[0].num_bytes
            if self.held_bytes and self.held_bytes + num_bytes > IN_FLIGHT_BYTES:
                return
            chunk = self._announced.popleft()
            pixels = np.empty(chunk.shape, chunk.dtype)
            request = self.world.comm.Irecv(pixels, source=chunk.source, tag=TAG_PIXELS)
            self._incoming.append((Part(chunk.shard_index, chunk.top, chunk.left, pixels), request))
            self.held_bytes += num_bytes


@dataclass(frozen=True)
class Announced:
    """A chunk that waits on the rank `source` until it is asked for."""

    source: int
    shard_index: int
    top: int
    left: int
    shape: tuple[int, ...]
    dtype: str

    @property
    def num_bytes(self) -> int:
        return prod(self.shape) * np.dtype(self.dtype).itemsize


def chunk_rows(shape: Sequence[int], itemsize: int = 4) -> list[range]:
    """The rows of each chunk of a part of that shape and bytes per value; none where it is
    empty."""
    height, num_bytes = shape[-2], prod(shape) * itemsize
    if not num_bytes:
        return []
    rows = max(1, CHUNK_BYTES * height // num_bytes)
    return [range(first, min(first + rows, height)) for first in range(0, height, rows)]
