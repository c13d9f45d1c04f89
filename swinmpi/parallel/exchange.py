"""How pixels travel: windows of one denoising step through root, finished images to world rank 0."""
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from swinmpi.parallel.comm import Group, World, complete_asleep, wait_asleep
from swinmpi.parallel.ownership import block_range

TAG_HEADER, TAG_PIXELS = 3, 4


@dataclass(frozen=True)
class ExchangePlan:
    """Who predicts what in one step; the same value on every rank.

    items: (image slot of the step, window position) of all windows to predict, ordered by position, then slot. A rank
    owns a block of positions, so its items are a block too, and their order does not depend on the number of ranks.
    counts, offsets: windows of every rank, and where they start in `items`.
    """

    items: tuple[tuple[int, int], ...]
    counts: tuple[int, ...]
    offsets: tuple[int, ...]

    def own(self, rank: int) -> tuple[tuple[int, int], ...]:
        """The items of `rank`."""
        return self.items[self.offsets[rank]:self.offsets[rank] + self.counts[rank]]


def plan_exchange(num_positions: int, num_ranks: int, live: Sequence[Sequence[int]]) -> ExchangePlan:
    """Share out one step. live: for every image slot, the positions that need a prediction at that image's shift."""
    items = sorted(((slot, position) for slot, positions in enumerate(live) for position in positions),
                   key=lambda item: (item[1], item[0]))
    counts = []
    for rank in range(num_ranks):
        positions = block_range(num_positions, num_ranks, rank)
        counts.append(sum(position in positions for _, position in items))
    if sum(counts) != len(items):
        raise ValueError(f"expected window positions of 0..{num_positions - 1}, got {sorted({p for _, p in items})}")
    offsets = tuple(sum(counts[:rank]) for rank in range(num_ranks))
    return ExchangePlan(tuple(items), tuple(counts), offsets)


class RootExchange:
    """Exchange `root` (promise 2): frames from root to all, predictions back to root. Buffers are kept between steps,
    so an array returned by a method holds until its next call."""

    def __init__(self, group: Group):
        self.group = group
        self._frames = self._gathered = np.empty(0, np.float32)

    def broadcast(self, frames: np.ndarray | None, shape: Sequence[int]) -> np.ndarray:
        """Collective; root's `frames` (n_images, C, FH, FW), contiguous float32, on every rank. shape: known to all."""
        if self.group.is_root:
            _check(frames, shape)
        else:
            self._frames = _room_for(self._frames, shape)
            frames = _shaped(self._frames, shape)
        return self.group.bcast_array(frames)

    def gather(self, own: np.ndarray, plan: ExchangePlan) -> np.ndarray | None:
        """Collective; root gets (len(plan.items), C, w, w) float32 in the order of `plan.items`, the others None.

        own: (n_own, C, w, w) float32, contiguous, in the order of `plan.own(rank)`.
        """
        _check(own, (plan.counts[self.group.rank], *own.shape[1:]))
        if not self.group.is_root:
            return self.group.gather_arrays(own, plan.counts)
        shape = (len(plan.items), *own.shape[1:])
        self._gathered = _room_for(self._gathered, shape)
        return self.group.gather_arrays(own, plan.counts, out=_shaped(self._gathered, shape))


@dataclass(frozen=True)
class FinishedImage:
    """What a group hands to world rank 0: the pixels (any shape and dtype) and small picklable notes about them."""

    image_index: int
    pixels: np.ndarray
    notes: Any = None


class ImageRelay:
    """Finished images on their way to world rank 0. Nobody waits before `finish`: groups run at their own pace."""

    def __init__(self, world: World):
        self.world = world
        self._here: list[FinishedImage] = []
        self._incoming: list[tuple[FinishedImage, Any]] = []
        self._outgoing: list = []
        self._num_sending = world.size - 1

    def send(self, image: FinishedImage) -> None:
        """Any rank. Returns at once; `image.pixels` must not change afterwards."""
        if self.world.is_root:
            self._here.append(image)
            return
        pixels = np.ascontiguousarray(image.pixels)
        self._outgoing = [request for request in self._outgoing if not request.Test()]
        self._post((image.image_index, pixels.shape, pixels.dtype.str, image.notes))
        self._outgoing.append(self.world.comm.Isend(pixels, dest=0, tag=TAG_PIXELS))

    def arrived(self) -> list[FinishedImage]:
        """World rank 0 only; the images that came in since the last call. Never waits; call it between steps."""
        self._progress()
        images, self._here = self._here, []
        return images

    def finish(self) -> Iterator[FinishedImage]:
        """All ranks, after their last `send`: yields on world rank 0 what is still to come, elsewhere nothing."""
        if not self.world.is_root:
            self._post(None)
            complete_asleep(self._outgoing)
            return
        while self._num_sending or self._incoming or self._here:
            wait_asleep(self._progress)
            yield from self.arrived()

    def _post(self, header) -> None:
        self._outgoing.append(self.world.comm.isend(header, dest=0, tag=TAG_HEADER))

    def _progress(self) -> bool:
        """Take in whatever can be; True when there is something to hand out, or nothing more to come."""
        if self._num_sending:
            self._accept_headers()
        underway = []
        for image, request in self._incoming:
            if request.Test():
                self._here.append(image)
            else:
                underway.append((image, request))
        self._incoming = underway
        return bool(self._here) or not (self._num_sending or underway)

    def _accept_headers(self) -> None:
        """Post a receive for the pixels of every header that is here; a header of None says that a rank is through."""
        from mpi4py import MPI
        comm, status = self.world.comm, MPI.Status()
        while (message := comm.improbe(tag=TAG_HEADER, status=status)) is not None:
            header = message.recv()
            if header is None:
                self._num_sending -= 1
                continue
            image_index, shape, dtype, notes = header
            image = FinishedImage(image_index, np.empty(shape, dtype), notes)
            self._incoming.append((image, comm.Irecv(image.pixels, source=status.Get_source(), tag=TAG_PIXELS)))


def _check(array: np.ndarray, shape: Sequence[int]) -> None:
    if array.dtype != np.float32 or array.shape != tuple(shape) or not array.flags.c_contiguous:
        raise ValueError(f"expected contiguous float32 of shape {tuple(shape)}, got {array.dtype} of {array.shape}"
                         f"{'' if array.flags.c_contiguous else ', not contiguous'}")


def _room_for(buffer: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """`buffer`, or a larger one."""
    needed = math.prod(shape)
    return buffer if buffer.size >= needed else np.empty(needed, np.float32)


def _shaped(buffer: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """The front of `buffer` in that shape, contiguous."""
    return buffer[:math.prod(shape)].reshape(shape)
