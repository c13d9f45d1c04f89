"""How a run is distributed over the ranks: groups, images at a time, windows per
call. Arithmetic."""
import math
from dataclasses import dataclass

from swinmpi.config import ModelConfig, ParallelConfig
from swinmpi.parallel.calls import Calls, calls_in
from swinmpi.parallel.shares import auto_ranks_per_image, block_range, split_groups
from swinmpi.windows.grid import WindowGrid

WINDOWS_PER_RANK = 32
MAX_IMAGES_PER_STEP = 8
# Measured on CPUs: 8 windows take a fifth less time each than 4, and 4 less than one. But they
# cannot be shared out, and padding costs more where an image has few. On a GPU calls are paid for
# until they hold some hundred windows (docs/scaling.md), so an image makes no more of them than
# CUDA_CALLS, which as many ranks with GPUs of their own can still share.
CUDA_SMALLEST, CUDA_LARGEST, CUDA_CALLS, CPU_LARGEST = 64, 512, 4, 8
WINDOWS_FOR_4, WINDOWS_FOR_8 = 9, 64
CALLS_OF_AN_IMAGE = 16


@dataclass(frozen=True)
class Distribution:
    """The same value on every rank.

    groups: world ranks of each; reason: why so many, in words; num_positions: parts of one image
    that the ranks of a group can share.
    """

    groups: tuple[range, ...]
    reason: str
    images_per_step: int
    num_positions: int

    @property
    def num_ranks(self) -> int:
        return sum(map(len, self.groups))

    def idle_ranks(self, num_images: int) -> int:
        """Ranks without work: more in their group than window positions, or in a group
        without an image."""
        return sum(max(0, len(ranks) - self.num_positions) if group < num_images else len(ranks)
                   for group, ranks in enumerate(self.groups))


def distribute(parallel: ParallelConfig, num_positions: int, num_images: int, num_ranks: int,
               takes_steps: bool = True) -> Distribution:
    """For `num_images` images still to do, of `num_positions` windows each. takes_steps: False for
    an encoder alone."""
    ranks_per_image, reason = choose_ranks_per_image(parallel, num_images, num_ranks,
                                                     takes_steps and num_positions > 1)
    groups = split_groups(num_ranks, ranks_per_image)
    images_per_step = parallel.images_per_step
    if images_per_step == "auto":
        wanted = math.ceil(WINDOWS_PER_RANK * len(groups[0]) / num_positions)
        images_per_step = max(1,
                              min(MAX_IMAGES_PER_STEP, wanted, math.ceil(num_images / len(groups))))
    return Distribution(tuple(groups), reason, images_per_step, num_positions)


def calls_of(micro_batch: int | str, model: ModelConfig, grid: WindowGrid, device: str) -> Calls:
    """The calls of the network on `cpu` or `cuda`, for the setting parallel.micro_batch: as many
    windows as set, else by the windows of an image, and by what one of them costs.

    Few windows go alone, so that as many ranks can share them and none is computed in vain.
    """
    if micro_batch != "auto":
        return Calls((micro_batch,) * grid.num_positions)
    return calls_in(grid, largest_on_cuda(grid.num_positions) if device == "cuda"
                    else largest_on_cpu(grid.num_positions, model.window_is_work_enough))


def largest_on_cuda(num_windows: int) -> int:
    """Windows of a call; no more than there are."""
    return min(num_windows, CUDA_LARGEST, max(CUDA_SMALLEST, math.ceil(num_windows / CUDA_CALLS)))


def largest_on_cpu(num_windows: int, window_is_work_enough: bool) -> int:
    """Windows of a call. window_is_work_enough: for a call of its own."""
    if window_is_work_enough:
        wished = max(1, num_windows // CALLS_OF_AN_IMAGE)
        return min(CPU_LARGEST, 2 ** (wished.bit_length() - 1))
    if num_windows < WINDOWS_FOR_4:
        return 1
    return 4 if num_windows < WINDOWS_FOR_8 else CPU_LARGEST


def choose_ranks_per_image(parallel: ParallelConfig, num_images: int, num_ranks: int,
                           has_windows: bool) -> tuple[int, str]:
    """(ranks per image, the reason in words). has_windows: False for an encoder alone, and for one
    window over the whole image."""
    asked = parallel.ranks_per_image
    if not has_windows:
        return 1, "one rank per image, because it has no windows to share"
    if asked == "auto":
        return auto_ranks_per_image(num_images, num_ranks)
    if asked == "all" or asked >= num_ranks:
        return num_ranks, "all ranks on every image"
    return asked, f"{asked} ranks per image, as asked"


def describe_idle(distribution: Distribution, num_images: int,
                  shared: str = "windows") -> str | None:
    """How many ranks have nothing to do, and why; None when all have work or nothing is left.
    shared: what the ranks of a group share."""
    idle, groups = distribution.idle_ranks(num_images), distribution.groups
    if not idle or not num_images:
        return None
    reason = (f"{num_images} images for {len(groups)} groups of ranks" if num_images < len(groups)
              else f"an image has {distribution.num_positions} {shared} for the {len(groups[0])} "
              "ranks of a group")
    return f"{idle} of {distribution.num_ranks} ranks stay idle: {reason}"


def windows_of_ranks(num_positions: int, num_ranks: int) -> str:
    """Window positions owned by each rank of a group, for people: `9 9 9 9`, `3 2 2`."""
    counts = [len(block_range(num_positions, num_ranks, rank)) for rank in range(num_ranks)]
    return " ".join(map(str, counts)) if num_ranks <= 16 else f"{counts[-1]} to {counts[0]} each"
