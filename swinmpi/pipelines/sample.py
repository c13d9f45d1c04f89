"""A stack in, its super-resolved stack out, on all ranks of an MPI job; resumable image by image."""
import math
from collections.abc import Sequence

import numpy as np
import torch

from swinmpi.config import Config
from swinmpi.errors import StackError, Stopped
from swinmpi.parallel.comm import World
from swinmpi.parallel.exchange import RootExchange
from swinmpi.parallel.launch import StopFlag, choose_device, choose_threads
from swinmpi.parallel.ownership import group_of, images_of_group
from swinmpi.parallel.relay import Part
from swinmpi.pipelines.layout import Layout, describe_idle, describe_work, plan_layout, positions_per_image
from swinmpi.pipelines.model import load_model
from swinmpi.pipelines.pixels import from_network, to_network
from swinmpi.pipelines.request import SampleRequest, open_stack
from swinmpi.pipelines.results import Results
from swinmpi.pipelines.superresolve import RegressionResolver, SuperResolver
from swinmpi.pipelines.timing import Clock, RunReport
from swinmpi.storage.stack import Stack


def sample(request: SampleRequest, config: Config, world: World, stop: StopFlag) -> RunReport:
    """Super-resolve the stack into `request.output`; validated before. Collective; the report is this rank's.

    Raises Stopped on every rank when a signal asked for an end (finished images are kept). Images that cannot be read
    are left out and named in rank 0's report.
    """
    clock = Clock(world)
    device = torch.device(choose_device(config.parallel.device, world.node.rank))
    torch.set_num_threads(choose_threads(config.parallel.threads, world.node))
    loaded = load_model(request.checkpoint, config)
    with (open_stack(request) as stack,
          Results(request, config, world, stack, loaded.sha256, clock) as results):
        layout = plan_layout(config, stack, len(results.remaining), world.size, device)
        if world.is_root:
            print(announcement(config, stack, len(results.remaining), layout, device), flush=True)
        group = group_of(layout.groups, world.rank)
        resolver = loaded.resolver(config, RootExchange(world.split(layout.groups)), layout.micro_batch, device)
        crew = Crew(request, config, stack, results, resolver, clock)
        for image_indices in rounds(results.remaining, layout, group):
            if stop.agreed(world):
                raise_stopped(results)
            crew.resolve(image_indices)
            results.store()
        results.drain()
        num_images = len(results.remaining) - len(results.failed)

        def report() -> RunReport:
            return RunReport(num_images, clock.seconds, clock.shares(resolver.seconds, resolver.exchange.group), results.failed)

        results.finish(layout, report())
        return report()


def rounds(remaining: Sequence[int], layout: Layout, group: int) -> list[list[int]]:
    """The image indices of one group, round by round; as many rounds for every group, the last ones may be empty."""
    mine, width = images_of_group(remaining, len(layout.groups), group), layout.images_per_step
    most = math.ceil(len(remaining) / len(layout.groups))
    return [mine[first:first + width] for first in range(0, most, width)]


class Crew:
    """The ranks of one group at work on some images at a time: root reads them, all resolve them, root sends them off."""

    def __init__(self, request: SampleRequest, config: Config, stack: Stack, results: Results,
                 resolver: SuperResolver | RegressionResolver, clock: Clock):
        self.config, self.stack, self.results, self.resolver, self.clock = config, stack, results, resolver, clock
        self.seeds = [config.sampler.seed + k for k in range(request.ensemble)]

    def resolve(self, image_indices: Sequence[int]) -> None:
        """Super-resolve some images, or none. Collective in the group."""
        if not image_indices:
            return
        raw, good = self.read(image_indices)
        if not good:
            return
        keys = [self.stack.first_image + image_index for image_index in good]
        result = self.resolver(list(torch.from_numpy(self.share(raw, len(good)))), keys, self.seeds)
        if result is None:
            return
        for slot, image_index in enumerate(good):
            images, figures = from_network(result.samples[:, slot].numpy(), result.base[slot].numpy(), raw[slot],
                                           self.results.value_range, self.results.datasets, self.config)
            self.results.send([Part(image_index, 0, 0, images)])
            self.results.complete(image_index, figures)

    def read(self, image_indices: Sequence[int]) -> tuple[list[np.ndarray], list[int]]:
        """(raw images on the group's root, the image indices that could be read). Collective in the group."""
        raw, good = [], []
        if self.resolver.exchange.group.is_root:
            for image_index in image_indices:
                try:
                    with self.clock.storage():
                        raw.append(self.stack.read(image_index))
                    good.append(image_index)
                except StackError as error:
                    self.results.give_up(image_index, str(error))
        return raw, self.resolver.exchange.group.bcast_object(good)

    def share(self, raw: Sequence[np.ndarray], num_images: int) -> np.ndarray:
        """The network's images (N, C, h, w) on every rank. Collective in the group."""
        channels = self.config.model.channels
        unit = np.empty((num_images, channels, self.stack.height, self.stack.width), np.float32)
        for slot, image in enumerate(raw):
            unit[slot] = to_network(image, self.results.value_range, channels)
        return self.resolver.exchange.group.bcast_array(unit)


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
