"""What a run would do, in a few lines."""
import torch

from swinmpi.config import Config
from swinmpi.sampling.distribution import (
    Layout,
    describe_idle,
    describe_work,
    image_grid,
    plan_layout,
    regresses_only,
    windows_of_ranks,
)
from swinmpi.sampling.request import SampleRequest, open_stack, output_plan
from swinmpi.sampling.traffic import FLOAT_BYTES, average, torus_bytes
from swinmpi.storage.output import pixel_datasets
from swinmpi.storage.stack import Stack
from swinmpi.windows.grid import WindowGrid
from swinmpi.windows.shift import circular_shift

MIB = 2**20


def describe_plan(request: SampleRequest, config: Config, num_ranks: int) -> str:
    """What a run on `num_ranks` ranks of one CPU would do; bytes are before compression."""
    with open_stack(request) as stack:
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
    idle = describe_idle(layout, grid.num_positions, stack.num_images)
    return [f"windows     {windows_of_ranks(grid.num_positions, ranks)} of each image on the ranks of a group",
            f"step        {images} images, micro-batches of {layout.micro_batch} windows, "
            f"{describe_traffic(config, grid, images, ranks)} ({config.parallel.exchange})",
            f"sampler     noise_scale {config.sampler.noise_scale:g}, seed {config.sampler.seed}",
            *([idle] if idle else [])]


def describe_traffic(config: Config, grid: WindowGrid, images: int, ranks: int) -> str:
    """What a rank receives in a step, in words."""
    channels = images * config.model.channels
    if config.parallel.exchange == "root" or ranks == 1:
        frames_mib = FLOAT_BYTES * channels * grid.frame_height_px * grid.frame_width_px / MIB
        return f"{frames_mib:.1f} MiB to every rank"
    shifts = [circular_shift(step, grid.max_shift_px) for step in range(5)]
    strips = average(torus_bytes(grid, ranks, shifts, channels))
    return f"{strips.mean / MIB:.2f} MiB of strips to a rank, {strips.most / MIB:.2f} to the one that needs most"
