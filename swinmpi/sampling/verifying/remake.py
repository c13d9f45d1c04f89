"""Some images of a run made again in memory, by all ranks, as the run would."""
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

import swinmpi
from swinmpi.errors import StackError, Stopped
from swinmpi.families.family import Family
from swinmpi.parallel.comm import World
from swinmpi.parallel.device import start_computing
from swinmpi.parallel.launch import StopFlag
from swinmpi.parallel.relay import Ending, Part
from swinmpi.parallel.shares import group_of
from swinmpi.reports.machine import made_on
from swinmpi.sampling.delivery import GatherDelivery
from swinmpi.sampling.plan import SamplingPlan
from swinmpi.sampling.process import Abandoned
from swinmpi.sampling.request import open_stack, output_plan
from swinmpi.sampling.sample import GroupWork, rounds
from swinmpi.sampling.superresolve import make_resolver
from swinmpi.sampling.verifying.compared import DIFFERS, UNKNOWN, Verdict, verdict
from swinmpi.storage.outputs.contents import pixel_datasets
from swinmpi.storage.pictures.source import PictureStack
from swinmpi.storage.stack import Stack
from swinmpi.storage.values import ValueRange


class Stored(Protocol):
    """Where the images of an output are read."""

    def read(self, image_index: int) -> Mapping[str, np.ndarray]:
        """(C, H, W) by data set, as stored; StackError where it cannot be read."""

    def completed(self, image_index: int,
                  made: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """What `read` should give of an image whose data sets were made again; StackError where
        something else of its input cannot be read."""


@dataclass(frozen=True)
class Remaking:
    """A run of which some images are made again. images: their indices in its stack; machine: what
    decided the last bits; version: of the program that ran."""

    sampling: SamplingPlan
    images: tuple[int, ...]
    stored: Stored
    machine: Mapping[str, Any]
    version: str


def remake(one: Remaking, world: World, stop: StopFlag, family: Family) -> list[Verdict]:
    """Make the images and compare them; on rank 0 their verdicts in the order of the images.
    Collective; Stopped on every rank when a signal asked for an end."""
    sampling = one.sampling.continued(len(one.images))
    config, distribution = sampling.config, sampling.distribution
    device = start_computing(config.parallel.device, config.parallel.threads, world.node, world)
    stopped = Stopped("stopped by a signal; nothing was written, start again")
    with open_stack(sampling.request) as stack:
        remade = Remade(one, world, stack, elsewhere(one, made_on(device)))
        resolver = make_resolver(config, family, device, world.split(distribution.groups))
        work = GroupWork(sampling, stack, remade, resolver, stop)
        abandoned = False
        for indices in rounds(one.images, distribution, group_of(distribution.groups, world.rank)):
            if stop.agreed(world):
                raise stopped
            try:
                work.super_resolve(indices)
            except Abandoned:
                abandoned = True
            remade.conclude(remade.delivery.store())
        if world.any(abandoned):
            raise stopped
        remade.conclude(remade.delivery.drain())
        return [verdict for _, verdict in sorted(remade.verdicts.items())]


def elsewhere(one: Remaking, here: Mapping[str, Any]) -> str | None:
    """What of program and machine is not as it was, in words; None where nothing is, or where the
    output does not tell."""
    was = {**({"swinmpi": one.version} if one.version else {}), **one.machine}
    now = {"swinmpi": swinmpi.__version__, **here}
    told = [f"{name} was {was[name]}, here it is {now.get(name, 'none')}"
            for name in was if was[name] != now.get(name)]
    return ", ".join(told) or None


class Remade:
    """What stands in for `Results` where images are made to be compared: the same way to rank 0,
    which is an `ImageStore` that writes nothing."""

    usual = None  # what the images are like was told by the run
    members_before = None  # all samples are made again

    def __init__(self, one: Remaking, world: World, stack: Stack | PictureStack,
                 elsewhere: str | None):
        low, high = one.sampling.config.output.value_range
        plan = output_plan(one.sampling.request, one.sampling.config, high - low)
        self.one, self.stack, self.elsewhere = one, stack, elsewhere
        self.datasets, self.error_bars = pixel_datasets(plan, stack.dtype), plan.error_bars
        self.value_range = replace(ValueRange(low, high), no_data=stack.no_data)
        self.verdicts: dict[int, Verdict] = {}
        scale = one.sampling.config.model.scale
        self.shape = stack.channels, stack.height * scale, stack.width * scale
        self.delivery = GatherDelivery(world, InMemory(self), self.datasets,
                                       self.shape[1] * self.shape[2])

    def send(self, parts: Sequence[Part]) -> None:
        """See `Results`, also of the next two."""
        for part in parts:
            self.delivery.send(part)

    def complete(self, shard_index: int, figures: Mapping[str, float]) -> None:
        self.delivery.send(Ending(shard_index, figures))

    def give_up(self, shard_index: int, reason: str) -> None:
        self.delivery.send(Ending(shard_index, reason))

    def conclude(self, endings: Iterable[Ending]) -> None:
        """On rank 0, note which images could not be made."""
        for ending in endings:
            if ending.given_up:
                name = self.stack.short_name_of(ending.shard_index)
                self.verdicts[ending.shard_index] = Verdict(
                    name, UNKNOWN, f"cannot be compared: {ending.notes}")

    def compare(self, shard_index: int, made: Mapping[str, np.ndarray]) -> None:
        """Beside what is stored."""
        name = self.stack.short_name_of(shard_index)
        try:
            stored = self.one.stored.read(shard_index)
            made = self.one.stored.completed(shard_index, made)
        except StackError as error:
            self.verdicts[shard_index] = Verdict(name, DIFFERS, f"cannot be read: {error}")
            return
        self.verdicts[shard_index] = verdict(name, stored, made, self.value_range.span,
                                             self.elsewhere)


class InMemory:
    """Images as they grow, on rank 0, until they are compared."""

    def __init__(self, remade: Remade):
        self.remade = remade
        self._growing: dict[int, dict[str, np.ndarray]] = {}

    def write_part(self, image_index: int, top: int, left: int,
                   arrays: Mapping[str, np.ndarray]) -> None:
        """See `ImageStore`."""
        images = self._growing.setdefault(image_index, {
            name: np.empty(self.remade.shape, dtype)
            for name, dtype in self.remade.datasets.items()})
        for name, part in arrays.items():
            rows, cols = (slice(start, start + size) for start, size in
                          zip((top, left), part.shape[1:], strict=True))
            images[name][:, rows, cols] = part

    def complete(self, image_index: int, figures: Mapping[str, float]) -> None:
        """See `ImageStore`."""
        self.remade.compare(image_index, self._growing.pop(image_index))
