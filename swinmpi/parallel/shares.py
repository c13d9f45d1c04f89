"""Who owns what: window positions over the ranks of a group, ranks over groups, images over groups.
Pure arithmetic."""
import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

Weights = tuple[float, ...]
"""What each of some ranks should get, in proportion; all above 0."""


def block_range(num_items: int, num_ranks: int, rank: int) -> range:
    """Contiguous share of `rank` (0 <= rank < num_ranks); earlier ranks take one
    leftover item each."""
    share, extra = divmod(num_items, num_ranks)
    start = rank * share + min(rank, extra)
    return range(start, start + share + (rank < extra))


def share_in_turn(num_items: int, num_ranks: int, rank: int, turn: int,
                  weights: Weights | None = None) -> range:
    """The `block_range` of the rank that stands `turn` places further on, the first after the last:
    over as many turns as ranks every rank gets as many items. Fewer items than ranks stay with the
    first ones.

    weights: of the ranks, where they differ; a share is then as large as `dealt` says.
    """
    if weights is None or len(set(weights)) == 1:
        place = (rank + turn) % num_ranks if num_items >= num_ranks else rank
        return block_range(num_items, num_ranks, place)
    counts = dealt(num_items, weights, turn % num_ranks)
    start = sum(counts[:rank])
    return range(start, start + counts[rank])


@lru_cache(maxsize=1 << 10)
def dealt(num_items: int, weights: Weights, turn: int = 0) -> tuple[int, ...]:
    """How many items each rank gets in a turn, in proportion to `weights`: largest remainders are
    rounded up (Hamilton's method), ties go to the first ranks. What rounding gives or takes is made
    up for in the turns that follow. A rank may get none."""
    highest = max(weights)
    parts = [weight / highest for weight in weights]
    total, owed = sum(parts), [0.0] * len(parts)
    for _ in range(turn + 1):
        counts = [0] * len(parts)
        # The one that is owed most, again and again: whole items first, then the remainders.
        waiting = [(-(owed[rank] + num_items * part / total), rank)
                   for rank, part in enumerate(parts)]
        heapq.heapify(waiting)
        for _ in range(num_items):
            debt, rank = waiting[0]
            counts[rank] += 1
            heapq.heapreplace(waiting, (debt + 1, rank))
        for debt, rank in waiting:
            owed[rank] = -debt
    return tuple(counts)


@dataclass(frozen=True)
class Shard:
    """Part `number` (1..of) of a stack whose images are shared by `of` jobs that know
    nothing of each other."""

    number: int
    of: int

    def __post_init__(self):
        if not 1 <= self.number <= self.of:
            raise ValueError(f"expected a shard of 1..{self.of}, got {self.number}")

    def __str__(self):
        return f"shard {self.number} of {self.of}"

    def images(self, num_images: int) -> range:
        """Its image indices in the whole stack; none where there are more shards than images."""
        return block_range(num_images, self.of, self.number - 1)


def split_groups(num_ranks: int, ranks_per_image: int) -> list[range]:
    """World ranks of every group: as many groups as have `ranks_per_image` ranks, leftover ranks
    spread one by one.

    7 ranks, 2 per image: [0..2], [3..4], [5..6]. Fewer ranks than
    `ranks_per_image`: one group of all.
    """
    if ranks_per_image < 1:
        raise ValueError(f"expected at least 1 rank per image, got {ranks_per_image}")
    num_groups = max(1, num_ranks // ranks_per_image)
    return [block_range(num_ranks, num_groups, group) for group in range(num_groups)]


def group_of(groups: Sequence[range], rank: int) -> int:
    """Index of the group that holds world rank `rank`."""
    return next(index for index, ranks in enumerate(groups) if rank in ranks)


def images_of_group(image_indices: Sequence[int], num_groups: int, group: int) -> list[int]:
    """The image indices that `group` works on, dealt in turn so that every group starts near
    the front of the stack."""
    return list(image_indices[group::num_groups])


def auto_ranks_per_image(num_images: int, num_ranks: int) -> tuple[int, str]:
    """(ranks per image, the reason in words). Few ranks per image exchange least, so throughput
    is best with the fewest that still keep every rank busy: one when there are images enough,
    else the ranks divided by the images."""
    if num_images >= num_ranks:
        return (1, f"{num_images} images for {num_ranks} ranks: one rank per image, "
                "so that nothing is exchanged")
    ranks_per_image = num_ranks // max(1, num_images)
    return ranks_per_image, (f"{num_images} images for {num_ranks} ranks: {ranks_per_image} ranks "
                             "per image, so that all images are worked on at once")
