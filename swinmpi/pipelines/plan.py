"""What a run would do: checked as far as it goes before anything is computed or created, and told in a few lines."""
from pathlib import Path

import torch

from swinmpi.config import Config
from swinmpi.errors import ConfigError, OutputError, StackError
from swinmpi.pipelines.denoise import max_shift
from swinmpi.pipelines.layout import (
    Layout,
    describe_idle,
    describe_work,
    image_grid,
    plan_layout,
    regresses_only,
    windows_of_ranks,
)
from swinmpi.pipelines.model import load_model
from swinmpi.pipelines.opposed import check_lr
from swinmpi.pipelines.request import SampleRequest, check_destination, output_plan
from swinmpi.storage.output import beside, pixel_datasets
from swinmpi.storage.partial import check_room
from swinmpi.storage.stack import Stack
from swinmpi.storage.values import ValueRange

MIB = 2**20


def check_plan(request: SampleRequest, config: Config) -> None:
    """ConfigError, StackError, CheckpointError or OutputError for all that can be wrong before compute. On one process."""
    if request.ensemble < 1:
        raise ConfigError(f"--ensemble: expected at least 1 sample, got {request.ensemble}")
    check_sampler(config)
    check_destination(request)
    with Stack.open(request.stack, request.allow_external) as stack:
        check_fit(request, config, stack)
    load_model(request.checkpoint, config)


def check_reference(request: SampleRequest, config: Config, reference: str) -> None:
    """StackError unless the HR stack `reference` is as large as the output will be. On one process."""
    with Stack.open(request.stack, request.allow_external) as lr, Stack.open(reference) as hr:
        scale, scaled = config.model.scale, (hr.height / lr.height, hr.width / lr.width)
        check_lr(lr, hr)
        if scaled != (scale, scale):
            raise StackError(f"{hr.address}: expected images {scale} times the size of {lr.height} x {lr.width} px, which the "
                             f"model makes, got {hr.height} x {hr.width}; name the HR stack that belongs to {lr.address}")


def check_sampler(config: Config) -> None:
    """ConfigError for settings that contradict each other."""
    sampler, family = config.sampler, config.model.family
    if sampler.steps > config.diffusion.steps:
        raise ConfigError(f"sampler.steps: expected at most diffusion.steps = {config.diffusion.steps}, got {sampler.steps}")
    if sampler.shift.edge != "roll" and (family, sampler.shift.border) != ("thesis", "wrap"):
        raise ConfigError(f"sampler.shift.edge: {sampler.shift.edge} is the thesis's first attempt, for model.family thesis "
                          f"and sampler.shift.border wrap, got {family} and {sampler.shift.border}; use roll")
    if config.output.value_range is not None:
        ValueRange(*config.output.value_range)
    if config.output.regression and family == "thesis":
        raise ConfigError("output.regression: expected a model of family aligned, whose encoder regresses, got thesis; "
                          "set it to false")


def check_fit(request: SampleRequest, config: Config, stack: Stack) -> None:
    """StackError, ConfigError or OutputError where the stack does not fit the model, the shift or the disk."""
    model, shift = config.model, config.sampler.shift
    if stack.channels > model.channels:
        raise StackError(f"{stack.address}: expected images of one channel, as the model has, got {stack.channels}")
    size_px = min(stack.height, stack.width) * model.scale
    if shift.edge != "roll" and shift.pattern != "none" and max_shift(config) >= size_px:
        raise ConfigError(f"sampler.shift.max_px: expected less than the SR images' {size_px} px, got {max_shift(config)}")
    partial = beside(Path(request.output).resolve(), ".partial")
    if partial.parent.is_dir() and not partial.exists():
        try:
            check_room(partial, stack, model.scale, pixel_datasets(output_plan(request, config), stack.dtype))
        except OSError as error:
            raise OutputError(f"{request.output}: cannot write here ({error.strerror}); choose another --output") from None


def describe_plan(request: SampleRequest, config: Config, num_ranks: int) -> str:
    """What a run on `num_ranks` ranks of one CPU would do; bytes are before compression."""
    with Stack.open(request.stack, request.allow_external) as stack:
        scale, model, num_images = config.model.scale, config.model, stack.num_images
        height, width = stack.height * scale, stack.width * scale
        pixel_bytes = sum(dtype.itemsize for dtype in pixel_datasets(output_plan(request, config), stack.dtype).values())
        output_mib = num_images * stack.channels * height * width * pixel_bytes / MIB
        layout = plan_layout(config, stack, num_images, num_ranks, torch.device("cpu"))
        return "\n".join([
            f"input       {stack.address}: {num_images} images of {stack.height} x {stack.width} px, {stack.layout}, "
            f"{stack.dtype}",
            f"output      {request.output}: {height} x {width} px, {output_mib:.1f} MiB",
            f"checkpoint  {request.checkpoint}: {model.family}, scale {scale}",
            f"per image   {describe_work(config, stack)}",
            f"ranks       {num_ranks}, {layout.reason}", *describe_step(config, stack, layout)])


def describe_step(config: Config, stack: Stack, layout: Layout) -> list[str]:
    """Lines on how the windows are shared; none for an encoder alone."""
    if regresses_only(config):
        return []
    grid, images, ranks = image_grid(config, stack), layout.images_per_step, len(layout.groups[0])
    frames_mib = 4 * images * config.model.channels * grid.frame_height_px * grid.frame_width_px / MIB
    idle = describe_idle(layout, grid.num_positions, stack.num_images)
    return [f"windows     {windows_of_ranks(grid.num_positions, ranks)} of each image on the ranks of a group",
            f"step        {images} images, micro-batches of {layout.micro_batch} windows, {frames_mib:.1f} MiB to every rank",
            f"sampler     noise_scale {config.sampler.noise_scale:g}, seed {config.sampler.seed}",
            *([idle] if idle else [])]
