"""How a run lies over the ranks: groups, images at a time, windows per call of the network. Pure arithmetic."""
import math
from dataclasses import dataclass
from typing import Protocol

import torch

from swinmpi.config import Config
from swinmpi.parallel.shares import auto_ranks_per_image, block_range, split_groups
from swinmpi.sampling.root import sampling_grid
from swinmpi.windows.grid import WindowGrid

WINDOWS_PER_RANK = 32
MAX_IMAGES_PER_STEP = 8
# Measured on CPUs: 8 windows take a fifth less time each than 4, but padding costs more where an image has few.
MICRO_BATCH = {"cpu": 4, "cuda": 64}
MANY_WINDOWS, LARGE_MICRO_BATCH = 64, 8


class ImageSize(Protocol):
    """LR pixels; a Stack is one."""

    height: int
    width: int


@dataclass(frozen=True)
class Layout:
    """The same value on every rank. groups: world ranks of each; reason: why so many, in words."""

    groups: tuple[range, ...]
    reason: str
    images_per_step: int
    micro_batch: int

    def idle_ranks(self, num_positions: int, num_images: int) -> int:
        """Ranks without work: more in their group than window positions, or in a group without an image."""
        return sum(max(0, len(ranks) - num_positions) if group < num_images else len(ranks)
                   for group, ranks in enumerate(self.groups))


def plan_layout(config: Config, size: ImageSize, num_images: int, num_ranks: int, device: torch.device) -> Layout:
    """The layout for `num_images` images still to do."""
    ranks_per_image, reason = choose_ranks_per_image(config, num_images, num_ranks)
    groups = split_groups(num_ranks, ranks_per_image)
    images_per_step = config.parallel.images_per_step
    if images_per_step == "auto":
        wanted = math.ceil(WINDOWS_PER_RANK * len(groups[0]) / positions_per_image(config, size))
        images_per_step = max(1, min(MAX_IMAGES_PER_STEP, wanted, math.ceil(num_images / len(groups))))
    return Layout(tuple(groups), reason, images_per_step, settled(config, size, device).parallel.micro_batch)


def settled(config: Config, size: ImageSize, device: torch.device) -> Config:
    """`config` with device and micro-batch as they will be, not `auto`: both decide the last bits of the pixels."""
    micro_batch = config.parallel.micro_batch
    if micro_batch == "auto":
        many = device.type == "cpu" and positions_per_image(config, size) >= MANY_WINDOWS
        micro_batch = LARGE_MICRO_BATCH if many else MICRO_BATCH[device.type]
    return config.model_copy(update={"parallel": config.parallel.model_copy(
        update={"device": device.type, "micro_batch": micro_batch})})


def choose_ranks_per_image(config: Config, num_images: int, num_ranks: int) -> tuple[int, str]:
    """(ranks per image, the reason in words)."""
    asked = config.parallel.ranks_per_image
    if regresses_only(config):
        return 1, "one rank per image, because an encoder alone has no windows to share"
    if asked == "auto":
        return auto_ranks_per_image(num_images, num_ranks)
    if asked == "all" or asked >= num_ranks:
        return num_ranks, "all ranks on every image"
    return asked, f"{asked} ranks per image, as asked"


def image_grid(config: Config, size: ImageSize) -> WindowGrid:
    """The windows of one image."""
    return sampling_grid(config, size.height * config.model.scale, size.width * config.model.scale)


def positions_per_image(config: Config, size: ImageSize) -> int:
    """Parts of one image that ranks can share."""
    return 1 if regresses_only(config) else image_grid(config, size).num_positions


def regresses_only(config: Config) -> bool:
    """Whether the model is an encoder trained alone, which takes no steps."""
    return config.train.target == "encoder"


def describe_work(config: Config, size: ImageSize) -> str:
    """What is done to each image, in words."""
    if regresses_only(config):
        return "one pass of the encoder"
    grid = image_grid(config, size)
    return f"{grid.num_positions} windows of {grid.window_px} px, {config.sampler.steps} steps ({config.sampler.method})"


def describe_idle(layout: Layout, num_positions: int, num_images: int) -> str | None:
    """How many ranks have nothing to do, and why; None when all have work or nothing is left."""
    idle, most = layout.idle_ranks(num_positions, num_images), len(layout.groups[0])
    if not idle or not num_images:
        return None
    reason = (f"{num_images} images for {len(layout.groups)} groups of ranks" if num_images < len(layout.groups) else
              f"an image has {num_positions} windows for the {most} ranks of a group")
    return f"{idle} of {sum(map(len, layout.groups))} ranks stay idle: {reason}"


def windows_of_ranks(num_positions: int, num_ranks: int) -> str:
    """Window positions owned by each rank of a group, for people: `9 9 9 9`, `3 2 2`."""
    counts = [len(block_range(num_positions, num_ranks, rank)) for rank in range(num_ranks)]
    return " ".join(map(str, counts)) if num_ranks <= 16 else f"{counts[-1]} to {counts[0]} each"
