"""What a run of swinmpi-sample will do: settled before it starts, printed by
a dry run, recorded."""
from dataclasses import dataclass, replace

import numpy as np

from swinmpi.config import Config
from swinmpi.config.data_section import MEASURE
from swinmpi.families.difficulty import TILE_LR_PX
from swinmpi.parallel.calls import Calls
from swinmpi.parallel.device import settled
from swinmpi.sampling.distribution import (
    Distribution,
    calls_of,
    describe_idle,
    distribute,
    in_words,
)
from swinmpi.sampling.process import sampling_grid
from swinmpi.sampling.request import SampleRequest, describe_shard, open_stack, output_plan
from swinmpi.sampling.settings import takes_steps
from swinmpi.sampling.superresolve import EXCHANGES
from swinmpi.sampling.traffic import FLOAT_BYTES, traffic_of
from swinmpi.storage.header import read_header
from swinmpi.storage.outputs.carrying import carried
from swinmpi.storage.outputs.contents import pixel_datasets
from swinmpi.storage.pictures.source import PictureStack
from swinmpi.storage.stack import Stack
from swinmpi.windows.grid import WindowGrid

MIB = 2**20


@dataclass(frozen=True)
class StackFacts:
    """What the plan knows of the images to do.

    words: 2 colour images of 48 x 60 px. remarks: lines on what of them is taken, and on what of
    their metadata the output has otherwise.
    """

    address: str
    num_images: int
    height: int
    width: int
    channels: int
    layout: str
    dtype: np.dtype
    words: str
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class SamplingPlan:
    """A run as it will be, the same value on every rank.

    config: with device (`cpu` or `cuda`) and precision settled, which decide the last bits of the
    pixels, as `calls` do. takes_steps: False for an encoder alone. grid: the windows of one SR
    image. num_remaining: images not done before.
    """

    request: SampleRequest
    config: Config
    stack: StackFacts
    takes_steps: bool
    grid: WindowGrid
    num_remaining: int
    distribution: Distribution

    @property
    def diffuses(self) -> bool:
        """Whether the network is evaluated step by step; else the encoder's regression is all."""
        return self.takes_steps and self.config.sampler.diffuses

    @property
    def measures_shares(self) -> bool:
        """Whether windows are shared by how fast ranks are."""
        return (self.config.parallel.shares == "measured" and self.diffuses
                and self.distribution.are_shared)

    @property
    def calls(self) -> Calls:
        """How many windows go to the network together."""
        parallel = self.config.parallel
        return calls_of(parallel.micro_batch, self.config.model, self.grid, parallel.device)

    def continued(self, num_remaining: int) -> "SamplingPlan":
        """The plan of a run that finds so many images still to do."""
        distribution = distribute(self.config.parallel, self.distribution.num_positions,
                                  num_remaining, self.distribution.num_ranks, self.takes_steps)
        return replace(self, num_remaining=num_remaining, distribution=distribution)


def plan(request: SampleRequest, config: Config, num_ranks: int) -> SamplingPlan:
    """For a validated request. On one process; nothing is computed or written."""
    with open_stack(request) as stack:
        facts = facts_of(stack, config.model.scale)
    steps, model = takes_steps(read_header(request.checkpoint)), config.model
    px = model.scale // model.hr_px_per_x_px
    grid = sampling_grid(config.sampler.shift, model.window_px, facts.height * px,
                         facts.width * px)
    num_positions = grid.num_positions * parts_shared(config) if steps else 1
    config = config.replaced(parallel=settled(config.parallel))
    distribution = distribute(config.parallel, num_positions, facts.num_images, num_ranks, steps)
    return SamplingPlan(request, config, facts, steps, grid, facts.num_images, distribution)


def facts_of(stack: Stack | PictureStack, scale: int) -> StackFacts:
    """On one process; nothing is read but metadata."""
    facts = StackFacts(str(stack.address), stack.num_images, stack.height, stack.width,
                       stack.channels, stack.layout, stack.dtype, stack.words)
    if isinstance(stack, PictureStack):
        return facts
    no_data = f"no data: {stack.no_data.in_words()}" if stack.no_data else None
    return replace(facts, layout=stack.arrangement.layout, remarks=(
        *filter(None, (stack.described.remark, no_data, stack.unwritten)), *carried(stack, scale)))


def describe(plan: SamplingPlan) -> str:
    """What the run will do, in a few lines; bytes are before compression."""
    request, model, stack = plan.request, plan.config.model, plan.stack
    lines = [f"input       {stack.address}: {stack.words}, {stack.layout}, {stack.dtype}",
             *(f"            {remark}" for remark in stack.remarks),
             f"output      {request.output}: {stack.height * model.scale} x "
             f"{stack.width * model.scale} px, {output_mib(plan):.1f} MiB",
             f"checkpoint  {request.checkpoint}: {model.family}, scale {model.scale}",
             f"per image   {describe_work(plan)}",
             *describe_noise(plan.config),
             f"ranks       {plan.distribution.num_ranks}, {plan.distribution.reason}",
             f"device      {plan.config.parallel.device}, {plan.config.parallel.precision}"
             f"{', compiled' if plan.config.parallel.compile else ''}, "
             f"at least {memory_mib(plan):.0f} MiB a rank for images and features, "
             "the network's buffers not counted",
             *describe_step(plan)]
    if request.members is not None:
        first, end = request.members.first, request.members.end
        before = ("the output has those before" if request.members.known else
                  "those before are made again, as the output has them rounded, and compared")
        lines.append(f"members     {first} to {end - 1} are added; {before}")
    if request.shard is not None:
        lines.append(describe_shard(request))
    return "\n".join(lines)


def describe_work(plan: SamplingPlan) -> str:
    """What is done to each image, in words."""
    if plan.diffuses:
        return describe_steps(plan.config, plan.grid)
    return "one pass of the encoder" if plan.config.model.learns else "enlarged, by no network"


def describe_noise(config: Config) -> list[str]:
    """A line on the noise level that the network is told, if it is."""
    noise = config.data.noise
    level = "measured in every image" if noise == MEASURE else f"{noise} of the value range, as set"
    return [f"noise       {level}; the network is told"] if config.model.told_noise else []


def describe_steps(config: Config, grid: WindowGrid) -> str:
    """Windows and steps of an image, in words."""
    windows = "1 window" if grid.num_positions == 1 else f"{grid.num_positions} windows"
    return (f"{windows} of {grid.window_px} px{' of latents' * config.model.diffuses_code}, "
            f"{config.sampler.steps} step{'s' * (config.sampler.steps > 1)} "
            f"({config.sampler.method})"
            + (f", the last at {config.sampler.overlap} shifts" if config.sampler.overlap > 1
               else ""))


def describe_step(plan: SamplingPlan) -> list[str]:
    """Lines on how the windows are shared; none for an encoder alone."""
    if not plan.takes_steps:
        return []
    config, distribution = plan.config, plan.distribution
    images, parts = distribution.images_per_step, parts_shared(config)
    idle = idle_of(plan, plan.stack.num_images)
    shared = (f"{in_words(distribution.parts_in(0))} of each image on the ranks of a group")
    shared = f"windows     {shared}" if parts == 1 else f"parts       {shared}, {parts} a window"
    if plan.measures_shares:
        shared += " if all are as fast, else as measured when the run starts"
    if not plan.diffuses:
        return [shared, "sampler     none: the image that the encoder regresses"
                + describe_agreement(config), *([idle] if idle else [])]
    return [shared,
            f"step        {images} images, micro-batches of {plan.calls.told} windows, "
            f"{describe_traffic(plan)} ({config.parallel.exchange})",
            f"sampler     noise_scale {config.sampler.noise_scale:g}, seed {config.sampler.seed}"
            + describe_agreement(config),
            *describe_effort(config, len(distribution.groups[0])),
            *describe_border(config, plan.grid), *([idle] if idle else [])]


def describe_effort(config: Config, ranks: int) -> list[str]:
    """A line on what easy parts of an image are spared, if anything; ranks: of a group."""
    sampler, exchange = config.sampler, config.parallel.exchange
    if sampler.adaptive is None:
        return []
    shared = ("" if ranks == 1 else
              f"; {exchange}: ranks whose windows are easy wait for the others"
              if EXCHANGES[exchange].in_parts else
              "; the other windows are dealt out evenly, so every rank holds all features")
    return [f"adaptive    the easiest {100 * sampler.adaptive:g} % of the tiles of "
            f"{TILE_LR_PX * config.model.scale} px (by {sampler.adaptive_by}) take "
            f"{sampler.adaptive_steps} of {sampler.steps} steps{shared}"]


def idle_of(plan: SamplingPlan, num_images: int) -> str | None:
    """See `describe_idle`."""
    return describe_idle(plan.distribution, num_images, "windows" if parts_shared(plan.config) == 1
                         else "parts of windows")


def describe_border(config: Config, grid: WindowGrid) -> list[str]:
    """A line on where opposite edges join, if that was asked for."""
    if config.sampler.shift.border != "wrap" or not config.model.joins_edges:
        return []
    px = config.model.hr_px_per_x_px
    sides = [(word, size * px) for word, size, joined in
             zip(("height", "width"), (grid.height_px, grid.width_px), grid.joins, strict=True)
             if not joined]
    told = "opposite edges join"
    if sides:
        named = " and ".join(f"{word} of {size} px" for word, size in sides)
        told += (f" but along the {named}, which is not whole windows of {grid.window_px * px} "
                 "px and mirrored up to that")
    return [f"border      wrap: {told}"]


def describe_agreement(config: Config) -> str:
    """How far samples are made to agree with the LR image, in words."""
    weight = config.output.consistent
    if not weight:
        return ""
    made = "samples shrink" if config.sampler.diffuses else "made to shrink"
    return f", {made} to the LR image" + ("" if weight == 1 else f", weight {weight:g}")


def describe_traffic(plan: SamplingPlan) -> str:
    """What a rank receives in a step, in words."""
    config, grid, distribution = plan.config, plan.grid, plan.distribution
    ranks = len(distribution.groups[0])
    channels = distribution.images_per_step * config.model.x_channels
    if holds_whole_images(config) or ranks == 1:
        frames_mib = FLOAT_BYTES * channels * grid.frame_height_px * grid.frame_width_px / MIB
        return f"{frames_mib:.1f} MiB to every rank"
    strips = traffic_of(config.parallel.exchange, grid, ranks, channels,
                        distribution.weights_in(0))
    return (f"{strips.mean / MIB:.2f} MiB of strips to a rank, "
            f"{strips.most / MIB:.2f} to the one that needs most")


def parts_shared(config: Config) -> int:
    """In how many parts a window may lie on different ranks."""
    return config.model.num_parts if EXCHANGES[config.parallel.exchange].shares_parts else 1


def holds_whole_images(config: Config) -> bool:
    """Whether root holds whole images."""
    return not EXCHANGES[config.parallel.exchange].in_parts


def output_mib(plan: SamplingPlan) -> float:
    """Of the pixels, before compression."""
    stack, scale = plan.stack, plan.config.model.scale
    datasets = pixel_datasets(output_plan(plan.request, plan.config), stack.dtype)
    pixel_bytes = sum(dtype.itemsize for dtype in datasets.values())
    return (stack.num_images * stack.channels * stack.height * stack.width * scale**2 * pixel_bytes
            / MIB)


def memory_mib(plan: SamplingPlan) -> float:
    """What images of one step take on the rank that holds most: x_t and the finished samples where
    they lie, features of its own windows, frames on their way."""
    model, images = plan.config.model, plan.distribution.images_per_step
    pixels = plan.grid.frame_height_px * plan.grid.frame_width_px
    ranks = plan.distribution.equal_ranks
    whole = holds_whole_images(plan.config)
    finished = model.channels * model.hr_px_per_x_px**2
    features = getattr(model, "feature_channels", 0) + finished + 1
    state = finished * (1 + plan.request.ensemble) + model.x_channels * (4 if whole else 2)
    if whole and plan.config.sampler.adaptive is not None:
        features *= ranks  # every rank has all of them
    return (FLOAT_BYTES * images * pixels * (features / ranks + state / (1 if whole else ranks))
            / MIB)
