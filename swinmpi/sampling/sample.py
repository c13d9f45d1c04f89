"""A stack in, its super-resolved stack out, on all ranks of an MPI job; resumable
image by image."""
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from swinmpi.config import ModelConfig
from swinmpi.config.data_section import MEASURE
from swinmpi.errors import StackError, Stopped
from swinmpi.families.family import Family
from swinmpi.families.loading import load_family
from swinmpi.images.figures import count_sums, finish_sums
from swinmpi.images.likeness.noise import NAME as NOISE
from swinmpi.images.likeness.noise import noise_level, trained_levels
from swinmpi.images.lr_rows import LrRows
from swinmpi.parallel.comm import Group, World
from swinmpi.parallel.device import start_computing
from swinmpi.parallel.inquiry import settle_staging
from swinmpi.parallel.launch import StopFlag
from swinmpi.parallel.relay import Part
from swinmpi.parallel.shares import group_of, images_of_group
from swinmpi.reports.memory import keep_freed_memory
from swinmpi.reports.timing import RunReport, shares_of
from swinmpi.sampling.distribution import Distribution
from swinmpi.sampling.effort.tally import spared_share
from swinmpi.sampling.pixels import from_network, to_network, without_network
from swinmpi.sampling.plan import SamplingPlan, describe_work, idle_of
from swinmpi.sampling.process import Abandoned
from swinmpi.sampling.ranges import in_unit
from swinmpi.sampling.rehearsal.speeds import describe_shares, with_shares
from swinmpi.sampling.request import is_calibration, open_stack
from swinmpi.sampling.results import Results
from swinmpi.sampling.superresolve import SuperResolver, make_resolver
from swinmpi.storage.header import read_header
from swinmpi.storage.stack import Stack


def run(plan: SamplingPlan, world: World, stop: StopFlag,
        family: Family | None = None) -> RunReport:
    """Super-resolve the stack into `plan.request.output`. Collective; the report is this rank's.

    family: of `load_model`, where many runs share it.

    Raises Stopped on every rank when a signal asked for an end (finished images are kept). Images
    that cannot be read are left out and named in rank 0's report.
    """
    started, spent = time.perf_counter(), world.stopwatch.read()
    device = start_computing(plan.config.parallel.device, plan.config.parallel.threads, world.node,
                             world)
    settle_staging(world, plan.config.parallel.staging, device)
    keep_freed_memory()
    family = family or load_model(plan)
    with open_stack(plan.request) as stack, Results(plan, world, stack) as results:
        plan = with_shares(plan.continued(len(results.remaining)), family, device, world)
        distribution, abandoned = plan.distribution, False
        if world.is_root:
            print(announcement(plan, results.range_in_words), flush=True)
        group = world.split(distribution.groups, distribution.weights)
        resolver = make_resolver(plan.config, family, device, group)
        work = GroupWork(plan, stack, results, resolver, stop)
        for shard_indices in rounds(results.remaining, distribution,
                                    group_of(distribution.groups, world.rank)):
            if stop.agreed(world):
                raise_stopped(results)
            try:
                work.super_resolve(shard_indices)
            except Abandoned:
                abandoned = True
            results.store()
        if world.any(abandoned):
            raise_stopped(results)
        results.drain()
        spared = None
        if resolver.effort is not None:
            spared = spared_share(world.gather_everywhere(resolver.tally))

        def report() -> RunReport:
            seconds = time.perf_counter() - started
            num_images = len(results.remaining) - len(results.failed)
            shares = shares_of(world.stopwatch.since(spent), seconds)
            return RunReport(num_images, seconds, shares, results.failed, results.figures, spared)

        results.finish(plan, report())
        return report()


def load_model(plan: SamplingPlan) -> Family:
    """The model of a plan's checkpoint."""
    return load_family(plan.request.checkpoint, plan.config.model, plan.takes_steps)


def rounds(remaining: Sequence[int], distribution: Distribution, group: int) -> list[list[int]]:
    """The shard indices of one group, round by round; as many rounds for every group, the last ones
    may be empty."""
    num_groups, width = len(distribution.groups), distribution.images_per_step
    mine = images_of_group(remaining, num_groups, group)
    most = math.ceil(len(remaining) / num_groups)
    return [mine[first:first + width] for first in range(0, most, width)]


@dataclass(frozen=True)
class GroupWork:
    """What the ranks of one group work with: LR in, everybody's parts of SR out."""

    plan: SamplingPlan
    stack: Stack
    results: Results
    resolver: SuperResolver
    stop: StopFlag

    @property
    def model(self) -> ModelConfig:
        """Without windows where nothing is made in them: there are no seams to be told of."""
        model = self.plan.config.model
        return model if self.plan.diffuses else model.model_copy(update={"window_px": None})

    @property
    def group(self) -> Group:
        return self.resolver.group

    def super_resolve(self, shard_indices: Sequence[int]) -> None:
        """Some images, or none. Collective in the group; raises Abandoned, and leaves them undone,
        when a signal asks for an end."""
        self.enlarge([index for index in shard_indices if is_calibration(self.stack, index)])
        shard_indices = [index for index in shard_indices
                         if not is_calibration(self.stack, index)]
        if not shard_indices:
            return
        read = (self.read_own_rows if self.resolver.reads_parts(self.stack.height, self.stack.width)
                else self.read_on_root)
        good, lr = read(shard_indices)
        if not good:
            return
        config, results = self.plan.config, self.results
        stack_indices = [self.stack.stack_index(shard_index) for shard_index in good]
        request, before = self.plan.request, results.members_before
        seeds = [config.sampler.seed + k for k in range(request.first_sampled, request.ensemble)]
        lr = self.with_noise(good, lr)
        noted = {shard_index: self.likeness(shard_index, image) | self.told(image)
                 for shard_index, image in zip(good, lr, strict=True) if self.group.is_root}
        sums = np.zeros((len(good), count_sums()))
        for part in self.resolver(lr, stack_indices, seeds, lambda: self.stop.agreed(self.group)):
            if before is not None:
                part = replace(part, before=before.read(good[part.slot], *part.seen))
            pixels, figures = from_network(part, lr[part.slot], results.value_range,
                                           results.datasets, self.model,
                                           error_bars=results.error_bars)
            sums[part.slot] += figures
            results.send([Part(good[part.slot], part.rows.start, part.cols.start, pixels)])
        everybodys = self.group.gather_arrays(sums[None], [1] * self.group.size)
        if everybodys is not None:
            for shard_index, total in zip(good, everybodys.sum(axis=0), strict=True):
                results.complete(shard_index, finish_sums(total, results.value_range.span)
                                 | noted[shard_index])

    def enlarge(self, shard_indices: Sequence[int]) -> None:
        """Darks and flats of a tomogram, dealt to the ranks of the group; without the network."""
        for shard_index in shard_indices[self.group.rank::self.group.size]:
            try:
                raw = self.read(shard_index, range(self.stack.height))
            except StackError as error:
                self.results.give_up(shard_index, str(error))
                continue
            pixels = without_network(raw, self.results.value_range.no_data, self.results.datasets,
                                     self.plan.config.model.scale)
            self.results.send([Part(shard_index, 0, 0, pixels)])
            self.results.complete(shard_index, {})

    def read_on_root(self, shard_indices: Sequence[int]) -> tuple[list[int], list[LrRows]]:
        """(the shard indices that could be read, their images on all ranks of the group, with raw
        values on its root). Collective in the group."""
        group, stack, raw = self.group, self.stack, {}
        if group.is_root:
            for shard_index in shard_indices:
                try:
                    raw[shard_index] = self.read(shard_index, range(stack.height))
                except StackError as error:
                    self.results.give_up(shard_index, str(error))
        good = group.bcast_object(list(raw))
        unit = np.empty((len(good), self.plan.config.model.channels, stack.height, stack.width),
                        np.float32)
        for slot, image in enumerate(raw.values()):
            unit[slot] = self.unit(image)
        group.bcast_array(unit)
        return good, [LrRows.whole(torch.from_numpy(image), raw.get(shard_index))
                      for image, shard_index in zip(unit, good, strict=True)]

    def read_own_rows(self, shard_indices: Sequence[int]) -> tuple[list[int], list[LrRows]]:
        """As `read_on_root`, but every rank reads the rows that it needs.
        Collective in the group."""
        group, stack, lr, good = self.group, self.stack, [], []
        needed = self.resolver.lr_rows(stack.height, stack.width, len(shard_indices))
        for shard_index, rows in zip(shard_indices, needed, strict=True):
            try:
                raw = self.read(shard_index, rows)
            except StackError:
                raw = None
            if group.any(raw is None):
                if group.is_root:
                    self.results.give_up(shard_index, f"{stack.name_of(shard_index)} cannot be "
                                         "read; the file is damaged, write it again")
                continue
            if group.any(not np.isfinite(stack.no_data.hide(raw)).all()):
                # What fills a hole may lie in rows of others.
                values = self.unit(stack.read(shard_index))[:, rows.start:rows.stop].clone()
            else:
                values = self.unit(raw)
            good.append(shard_index)
            lr.append(LrRows(values, rows.start, stack.height, raw))
        if good and len(good) < len(shard_indices):
            # Which rows a rank needs of an image depends on how many are made together.
            return self.read_own_rows(good)
        return good, lr

    def likeness(self, shard_index: int, lr: LrRows) -> dict[str, float]:
        """How far an image is from those that the checkpoint knows, as far as it tells. On the root
        of the group, which reads what it does not hold of it."""
        usual = self.results.usual
        if usual is None:
            return {}
        return usual.scores(usual.statistics(self.reader(shard_index, lr), (lr.height, lr.width)))

    def with_noise(self, shard_indices: Sequence[int], lr: Sequence[LrRows]) -> list[LrRows]:
        """Images with the noise level that the network is told, if it is: as set, or measured in
        each by the root of the group, within those that it learned. Collective in the group."""
        noise, size = self.plan.config.data.noise, (self.stack.height, self.stack.width)
        if not self.plan.config.model.told_noise:
            return list(lr)
        levels = [noise] * len(lr)
        if noise == MEASURE:
            levels = self.group.bcast_object(
                [float(np.clip(noise_level(self.reader(shard_index, image), size), *self.learned))
                 for shard_index, image in zip(shard_indices, lr, strict=True)]
                if self.group.is_root else None)
        return [replace(image, noise=level) for image, level in zip(lr, levels, strict=True)]

    @cached_property
    def learned(self) -> tuple[float, float]:
        """The noise levels that the network learned with."""
        return trained_levels(read_header(self.plan.request.checkpoint))

    def told(self, lr: LrRows) -> dict[str, float]:
        """The noise level of an image, as the output keeps it, where the network is told."""
        return {NOISE: lr.noise} if self.plan.config.model.told_noise else {}

    def reader(self, shard_index: int, lr: LrRows) -> Callable[[range], np.ndarray]:
        """Of rows of an image, (C, rows, w), -1..1, NaN for no number. On the root of the group."""
        values = self.results.value_range

        def read_rows(rows: range) -> np.ndarray:
            top, inside = lr.top, slice(rows.start - lr.top, rows.stop - lr.top)
            holds = top <= rows.start and rows.stop <= top + lr.raw.shape[1]
            raw = lr.raw[:, inside] if holds else self.read(shard_index, rows)
            return in_unit(raw, values)

        return read_rows

    def read(self, shard_index: int, rows: range) -> np.ndarray:
        """(C, len(rows), w) raw values; StackError where they cannot be read."""
        with self.group.stopwatch.of("storage"):
            return self.stack.read_rows(shard_index, rows)

    def unit(self, raw: np.ndarray) -> Tensor:
        """Raw values as the network wants them."""
        return torch.from_numpy(
            to_network(raw, self.results.value_range, self.plan.config.model.channels).copy())


def raise_stopped(results: Results) -> None:
    """Save what is on its way, then Stopped. Collective."""
    results.drain()
    left = results.world.on_root(lambda: len(results.output.remaining()))
    raise Stopped(f"stopped by a signal with {left} images to go; start again to go on from "
                  f"{results.plan.request.unfinished}")


def announcement(plan: SamplingPlan, values: str) -> str:
    """What is about to happen, and with which `values`; a second line where ranks stay idle."""
    stack, scale, distribution = plan.stack, plan.config.model.scale, plan.distribution
    done = stack.num_images - plan.num_remaining
    size = f"{stack.height * scale} x {stack.width * scale}"
    before = f", {done} of them done before" if done else ""
    lines = [f"{stack.words} to {size}{before}; {describe_work(plan)}; "
             f"{distribution.num_ranks} ranks x {torch.get_num_threads()} "
             f"threads on {plan.config.parallel.device}, {distribution.reason}, "
             f"{distribution.images_per_step} images per step, {values}",
             describe_shares(distribution), idle_of(plan, plan.num_remaining),
             *stack.remarks]
    return "\n".join(filter(None, lines))
