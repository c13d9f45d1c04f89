"""How a run is distributed over the ranks: groups, images at a time, windows per
call. Arithmetic."""
import math
from collections.abc import Sequence
from dataclasses import dataclass

from swinmpi.config import ModelConfig, ParallelConfig
from swinmpi.errors import ConfigError
from swinmpi.parallel.calls import Calls, calls_in
from swinmpi.parallel.shares import (
    Weights,
    auto_ranks_per_image,
    share_in_turn,
    split_groups,
)
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
    that the ranks of a group can share; weights: of the world's ranks, where those of a group do
    not get equal parts; speeds: windows a second of each, where they were measured.
    """

    groups: tuple[range, ...]
    reason: str
    images_per_step: int
    num_positions: int
    weights: Weights | None = None
    speeds: Weights | None = None

    @property
    def num_ranks(self) -> int:
        return sum(map(len, self.groups))

    @property
    def are_shared(self) -> bool:
        """Whether ranks work on an image together."""
        return self.num_positions > 1 and max(map(len, self.groups)) > 1

    def weights_in(self, group: int) -> Weights | None:
        """Of the ranks of a group."""
        return self.weights and tuple(self.weights[rank] for rank in self.groups[group])

    @property
    def equal_ranks(self) -> float:
        """How many ranks with as much work as its busiest one the first group amounts to."""
        weights = self.weights_in(0) or (1.0,) * len(self.groups[0])
        return sum(weights) / max(weights)

    def parts_in(self, group: int) -> list[int]:
        """Parts of an image by rank of a group, without turns."""
        ranks, weights = len(self.groups[group]), self.weights_in(group)
        return [len(share_in_turn(self.num_positions, ranks, place, 0, weights))
                for place in range(ranks)]

    @property
    def parts_of_ranks(self) -> list[int]:
        """Of all groups, by world rank."""
        return [parts for group in range(len(self.groups)) for parts in self.parts_in(group)]

    def idle_ranks(self, num_images: int) -> int:
        """Ranks without work: without parts of an image, or in a group without one."""
        return sum(self.parts_in(group).count(0) if group < num_images else len(ranks)
                   for group, ranks in enumerate(self.groups))


def distribute(parallel: ParallelConfig, num_positions: int, num_images: int, num_ranks: int,
               takes_steps: bool = True) -> Distribution:
    """For `num_images` images still to do, of `num_positions` windows each. takes_steps: False for
    an encoder alone. ConfigError where weights are not those of the ranks."""
    ranks_per_image, reason = choose_ranks_per_image(parallel, num_images, num_ranks,
                                                     takes_steps and num_positions > 1)
    groups = split_groups(num_ranks, ranks_per_image)
    images_per_step = parallel.images_per_step
    if images_per_step == "auto":
        wanted = math.ceil(WINDOWS_PER_RANK * len(groups[0]) / num_positions)
        images_per_step = max(1,
                              min(MAX_IMAGES_PER_STEP, wanted, math.ceil(num_images / len(groups))))
    return Distribution(tuple(groups), reason, images_per_step, num_positions,
                        given_weights(parallel, num_ranks))


def given_weights(parallel: ParallelConfig, num_ranks: int) -> Weights | None:
    """Of every rank, where the settings say them."""
    if isinstance(parallel.shares, str):
        return None  # equal, or not known before they are measured
    if len(parallel.shares) != num_ranks:
        raise ConfigError(f"parallel.shares: expected a number for each of {num_ranks} rank"
                          f"{'s' * (num_ranks > 1)}, got {len(parallel.shares)}; give as many, or "
                          "measured, or equal")
    return tuple(parallel.shares)


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
              f"ranks of a group{', which are not alike' if distribution.weights else ''}")
    return f"{idle} of {distribution.num_ranks} ranks stay idle: {reason}"


def in_words(of_ranks: Sequence[int | float]) -> str:
    """Numbers of ranks, such as windows owned, for people: `9 9 9 9`, `3 2 2`."""
    few = of_ranks if len(of_ranks) <= 16 else (min(of_ranks), max(of_ranks))
    told = [f"{float(f'{one:.3g}'):g}" if isinstance(one, float) else str(one) for one in few]
    return " ".join(told) if few is of_ranks else f"{' to '.join(told)} each"
