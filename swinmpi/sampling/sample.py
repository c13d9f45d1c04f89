"""A stack in, its super-resolved stack out, on all ranks of an MPI job; resumable image by image."""
import math
from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np
import torch
from torch import Tensor

from swinmpi.config import Config
from swinmpi.errors import StackError, Stopped
from swinmpi.families.lr_rows import LrStrip
from swinmpi.families.model import load_model
from swinmpi.images.figures import count_sums, finish_sums
from swinmpi.parallel.comm import World
from swinmpi.parallel.launch import StopFlag, choose_device, choose_threads
from swinmpi.parallel.relay import Part
from swinmpi.parallel.shares import group_of, images_of_group
from swinmpi.reports.memory import keep_freed_memory
from swinmpi.reports.timing import Clock, RunReport
from swinmpi.sampling.distribution import Layout, describe_idle, describe_work, plan_layout, positions_per_image, settled
from swinmpi.sampling.pixels import from_network, to_network
from swinmpi.sampling.request import SampleRequest, open_stack
from swinmpi.sampling.results import Results
from swinmpi.sampling.root import Abandoned
from swinmpi.sampling.superresolve import RegressionResolver, SuperResolver
from swinmpi.storage.stack import Stack


def sample(request: SampleRequest, config: Config, world: World, stop: StopFlag) -> RunReport:
    """Super-resolve the stack into `request.output`; validated before. Collective; the report is this rank's.

    Raises Stopped on every rank when a signal asked for an end (finished images are kept). Images that cannot be read
    are left out and named in rank 0's report.
    """
    clock = Clock(world)
    device = torch.device(choose_device(config.parallel.device, world.node.rank))
    torch.set_num_threads(choose_threads(config.parallel.threads, world.node))
    keep_freed_memory()
    loaded = load_model(request.checkpoint, config)
    with open_stack(request) as stack, ExitStack() as opened:
        config = settled(config, stack, device)
        results = opened.enter_context(Results(request, config, world, stack, loaded.sha256, clock))
        layout = plan_layout(config, stack, len(results.remaining), world.size, device)
        if world.is_root:
            print(announcement(config, stack, len(results.remaining), layout, device), flush=True)
        group = group_of(layout.groups, world.rank)
        resolver = loaded.resolver(config, world.split(layout.groups), layout.micro_batch, device)
        crew = Crew(request, config, stack, results, resolver, clock, stop)
        for image_indices in rounds(results.remaining, layout, group):
            if stop.agreed(world):
                raise_stopped(results)
            crew.resolve(image_indices)
            results.store()
        if world.any(crew.has_abandoned):
            raise_stopped(results)
        results.drain()
        num_images = len(results.remaining) - len(results.failed)

        def report() -> RunReport:
            return RunReport(num_images, clock.seconds, clock.shares(resolver.seconds, resolver.group), results.failed)

        results.finish(layout, report())
        return report()


def rounds(remaining: Sequence[int], layout: Layout, group: int) -> list[list[int]]:
    """The image indices of one group, round by round; as many rounds for every group, the last ones may be empty."""
    mine, width = images_of_group(remaining, len(layout.groups), group), layout.images_per_step
    most = math.ceil(len(remaining) / len(layout.groups))
    return [mine[first:first + width] for first in range(0, most, width)]


class Crew:
    """The ranks of one group at work on some images at a time: LR in, everybody's parts of SR out."""

    def __init__(self, request: SampleRequest, config: Config, stack: Stack, results: Results,
                 resolver: SuperResolver | RegressionResolver, clock: Clock, stop: StopFlag):
        self.config, self.stack, self.results, self.resolver, self.clock = config, stack, results, resolver, clock
        self.group, self.stop = resolver.group, stop
        self.seeds = [config.sampler.seed + k for k in range(request.ensemble)]
        self.has_abandoned = False

    def resolve(self, image_indices: Sequence[int]) -> None:
        """Super-resolve some images, or none; they stay undone when a signal asks for an end. Collective in the group."""
        if not image_indices:
            return
        good, strips = (read_parts if self.resolver.keeps_parts else read_whole)(self, image_indices)
        if not good:
            return
        keys = [self.stack.first_image + image_index for image_index in good]
        sums = np.zeros((len(good), count_sums()))
        try:
            for shown in self.resolver(strips, keys, self.seeds, lambda: self.stop.agreed(self.group)):
                pixels, of_part = from_network(shown, strips[shown.slot], self.results.value_range, self.results.datasets,
                                               self.config)
                sums[shown.slot] += of_part
                self.results.send([Part(good[shown.slot], shown.rows.start, shown.cols.start, pixels)])
        except Abandoned:
            self.has_abandoned = True
            return
        everybodys = self.group.gather_arrays(sums[None], [1] * self.group.size)
        if everybodys is not None:
            for image_index, total in zip(good, everybodys.sum(axis=0), strict=True):
                figures = finish_sums(total, self.results.value_range.span)
                self.results.complete(image_index, figures)

    def read(self, image_index: int, rows: range) -> np.ndarray | None:
        """(C, len(rows), w) raw values; None where they cannot be read."""
        try:
            with self.clock.storage():
                return self.stack.read_rows(image_index, rows)
        except StackError as error:
            self.problem = str(error)
            return None

    def unit(self, raw: np.ndarray) -> Tensor:
        """Raw values as the network wants them."""
        return torch.from_numpy(to_network(raw, self.results.value_range, self.config.model.channels).copy())


def read_whole(crew: Crew, image_indices: Sequence[int]) -> tuple[list[int], list[LrStrip]]:
    """(the image indices that could be read, their images on all ranks of the group, with raw values on its root), read by
    root. Collective in the group."""
    group, stack, raw = crew.group, crew.stack, {}
    if group.is_root:
        for image_index in image_indices:
            if (image := crew.read(image_index, range(stack.height))) is None:
                crew.results.give_up(image_index, crew.problem)
            else:
                raw[image_index] = image
    good = group.bcast_object(list(raw))
    unit = np.empty((len(good), crew.config.model.channels, stack.height, stack.width), np.float32)
    for slot, image in enumerate(raw.values()):
        unit[slot] = crew.unit(image)
    group.bcast_array(unit)
    return good, [LrStrip.whole(torch.from_numpy(image), raw.get(image_index))
                  for image, image_index in zip(unit, good, strict=True)]


def read_parts(crew: Crew, image_indices: Sequence[int]) -> tuple[list[int], list[LrStrip]]:
    """As `read_whole`, but every rank reads the rows it needs. Collective in the group."""
    group, stack, strips, good = crew.group, crew.stack, [], []
    needed = crew.resolver.lr_rows(stack.height, stack.width, len(image_indices))
    for image_index, rows in zip(image_indices, needed, strict=True):
        raw = crew.read(image_index, rows)
        if group.any(raw is None):
            if group.is_root:
                crew.results.give_up(image_index, f"{stack.address}: image {stack.first_image + image_index} cannot be read; "
                                     "the file is damaged, write it again")
            continue
        if group.any(not np.isfinite(raw).all()):
            # What fills a hole may lie in rows of others.
            values = crew.unit(stack.read(image_index))[:, rows.start:rows.stop].clone()
        else:
            values = crew.unit(raw)
        good.append(image_index)
        strips.append(LrStrip(values, rows.start, stack.height, raw))
    return good, strips


def raise_stopped(results: Results) -> None:
    """Save what is on its way, then Stopped. Collective."""
    results.drain()
    left = results.world.on_root(lambda: len(results.output.remaining()))
    raise Stopped(f"stopped by a signal with {left} images to go; start again to go on from {results.request.output}.partial")


def announcement(config: Config, stack: Stack, num_remaining: int, layout: Layout, device: torch.device) -> str:
    """What is about to happen; a second line where ranks stay idle."""
    scale, done = config.model.scale, stack.num_images - num_remaining
    sizes = f"{stack.height} x {stack.width} px to {stack.height * scale} x {stack.width * scale}"
    before = f", {done} of them done before" if done else ""
    lines = [f"{stack.num_images} images of {sizes}{before}; {describe_work(config, stack)}; "
             f"{sum(map(len, layout.groups))} ranks x {torch.get_num_threads()} threads on {device.type}, {layout.reason}, "
             f"{layout.images_per_step} images per step",
             describe_idle(layout, positions_per_image(config, stack), num_remaining)]
    return "\n".join(filter(None, lines))
