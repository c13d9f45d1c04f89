"""How parts of finished images get into OUT.partial: gathered and written by rank 0,
or written by all ranks."""
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

import numpy as np

from swinmpi.parallel.comm import World
from swinmpi.parallel.relay import Ending, Part, Relay, chunks, share
from swinmpi.storage.outputs.mpio import SharedPartial
from swinmpi.storage.outputs.output import StackOutput
from swinmpi.storage.outputs.store import ImageStore


class Delivery(Protocol):
    """One way to the output. The endings that are handed out, on rank 0 only, are those of images
    that are done on the disk, and of those given up."""

    def send(self, item: Part | Ending) -> None:
        """On any rank; does not wait."""

    def store(self) -> Iterator[Ending]:
        """On every rank, once per round; to be used up."""

    def drain(self) -> Iterator[Ending]:
        """Collective, once, at the end: as `store`, until everything of every rank is stored."""

    def close(self) -> None:
        """Collective; let go of what is open, drained or not."""


class CompletionTracker:
    """What has come of each image, and so which are complete. An image is over when all its pixels
    and its figures are there, or when it is given up; what comes after that is not wanted."""

    def __init__(self, num_pixels: int):
        """num_pixels: of one image."""
        self.num_pixels = num_pixels
        self._missing: dict[int, int] = {}
        self._endings: dict[int, Ending] = {}
        self._given_up: set[int] = set()

    def wants(self, shard_index: int) -> bool:
        return shard_index not in self._given_up

    def add_pixels(self, shard_index: int, num_pixels: int) -> None:
        if self.wants(shard_index):
            self._missing[shard_index] = (self._missing.get(shard_index, self.num_pixels)
                                          - num_pixels)

    def add_ending(self, ending: Ending) -> None:
        self._endings[ending.shard_index] = ending

    def over(self) -> list[Ending]:
        """The endings of images that are over since the last call, in the order
        of their indices."""
        over = [ending for index, ending in sorted(self._endings.items())
                if ending.given_up or self._missing.get(index, self.num_pixels) == 0]
        for ending in over:
            del self._endings[ending.shard_index]
            self._missing.pop(ending.shard_index, None)
            if ending.given_up:
                self._given_up.add(ending.shard_index)
        return over


class GatherDelivery:
    """`output.backend: gather`. Parts travel to rank 0, the only one that opens the file;
    it never waits for another rank but for chunks that were announced a round before, so that what
    the others keep for it cannot pile up."""

    def __init__(self, world: World, output: ImageStore | None, datasets: Mapping[str, np.dtype],
                 num_pixels: int):
        """output: on rank 0."""
        self.world, self.output, self.datasets = world, output, datasets
        self.relay, self.tracker, self.due = Relay(world), CompletionTracker(num_pixels), 0

    def send(self, item: Part | Ending) -> None:
        self.relay.send(item)

    def store(self) -> Iterator[Ending]:
        if self.world.is_root:
            yield from self._write_until(lambda: self.relay.num_received >= self.due)
            self.due = self.relay.num_announced
        else:
            self.relay.forget_taken()

    def drain(self) -> Iterator[Ending]:
        with self.world.stopwatch.of("exchange"):
            self.relay.close()
        if self.world.is_root:
            yield from self._write_until(lambda: self.relay.is_over)

    def close(self) -> None:
        """Nothing to do: the output closes itself."""

    def _write_until(self, enough: Callable[[], bool]) -> Iterator[Ending]:
        while True:
            with self.world.stopwatch.of("exchange"):
                item = self.relay.receive(enough)
            if item is None:
                return
            with self.world.stopwatch.of("storage"):
                over = self._write(item)
            yield from over

    def _write(self, item: Part | Ending) -> list[Ending]:
        if isinstance(item, Ending):
            self.tracker.add_ending(item)
        elif self.tracker.wants(item.shard_index):
            self.output.write_part(*stored(item, self.datasets))
            self.tracker.add_pixels(item.shard_index, item.num_pixels)
        over = self.tracker.over()
        for ending in over:
            if not ending.given_up:
                self.output.complete(ending.shard_index, ending.notes)
        return over


class SharedDelivery:
    """`output.backend: mpio`. Every rank writes its own parts, all ranks together,
    once per round."""

    def __init__(self, world: World, output: StackOutput | None, datasets: Mapping[str, np.dtype],
                 num_pixels: int, file: SharedPartial):
        """output: on rank 0, handed over until everything is drained."""
        self.world, self.output, self.datasets, self.file = world, output, datasets, file
        self.tracker, self.waiting = CompletionTracker(num_pixels), []

    def send(self, item: Part | Ending) -> None:
        self.waiting.append(item)

    def store(self) -> Iterator[Ending]:
        yield from self._store_together(last=False)[1]

    def drain(self) -> Iterator[Ending]:
        all_last = False
        while not all_last:
            all_last, over = self._store_together(last=True)
            yield from over
        self.close()
        if self.output is not None:
            self.output.take_back()

    def close(self) -> None:
        self.file.close()

    def _store_together(self, last: bool) -> tuple[bool, list[Ending]]:
        """Collective; (whether it is the last time for every rank, on rank 0 the endings)."""
        own = [chunk for item in self.waiting if isinstance(item, Part) for chunk in chunks(item)]
        endings = [item for item in self.waiting if isinstance(item, Ending)]
        self.waiting = []
        brought = share(self.world,
                     (last, [(chunk.shard_index, chunk.num_pixels) for chunk in own], endings))
        with self.world.stopwatch.of("storage"):
            for number in range(max(len(pixels) for _, pixels, _ in brought)):
                self.file.write_part(stored(own[number], self.datasets) if number < len(own)
                                     else None)
            # The same on every rank, so that nothing more has to be agreed on.
            for _, pixels, ended in brought:
                for shard_index, num_pixels in pixels:
                    self.tracker.add_pixels(shard_index, num_pixels)
                for ending in ended:
                    self.tracker.add_ending(ending)
            over = self.tracker.over()
            done = {ending.shard_index: ending.notes for ending in over if not ending.given_up}
            if done:
                if self.world.is_root:
                    self.output.check_in_place()
                self.file.complete(done)
        is_last = all(rank_is_last for rank_is_last, _, _ in brought)
        return is_last, over if self.world.is_root else []


def stored(part: Part,
           datasets: Mapping[str, np.dtype]) -> tuple[int, int, int, dict[str, np.ndarray]]:
    """The arguments of `write_part`: the part in the dtypes of its datasets."""
    arrays = {name: pixels.astype(datasets[name], copy=False)
              for name, pixels in zip(datasets, part.pixels, strict=True)}
    return part.shard_index, part.top, part.left, arrays
