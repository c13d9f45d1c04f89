"""What `scaling` compares on the ranks it is started on. Arithmetic."""
from dataclasses import dataclass, replace

from swinmpi.config import ParallelConfig
from swinmpi.sampling.distribution import distribute
from swinmpi.sampling.superresolve import EXCHANGES


@dataclass(frozen=True)
class Setting:
    """Groups of the first ranks of the world, each on its share of the images, while all others
    sleep.

    threads: of every rank; kind: `image`, all on one image, or `stack`, what many images take.
    """

    name: str
    kind: str
    groups: tuple[range, ...]
    threads: int
    exchange: str
    num_images: int = 1
    images_per_step: int = 1

    @property
    def num_ranks(self) -> int:
        return sum(map(len, self.groups))


@dataclass(frozen=True)
class Available:
    """What a run has: ranks, threads of each, and the cores of root's node."""

    ranks: int
    threads: int
    cores: int


def plan_settings(parallel: ParallelConfig, available: Available, num_positions: int,
                  images_per_rank: int) -> list[Setting]:
    """The first setting is what the others are measured by. num_positions: windows of an image;
    device and micro-batch are settled."""
    ranks, threads, exchange = available.ranks, available.threads, parallel.exchange
    made = [on_one_image(n, threads, exchange) for n in rank_counts(ranks)]
    if parallel.device == "cpu" and ranks > 1 and ranks * threads <= available.cores:
        made.append(on_one_image(1, ranks * threads, exchange))
    if ranks > 1:
        made += [replace(on_one_image(ranks, threads, other),
                         name=f"{named(ranks, threads)}, {other}")
                 for other in EXCHANGES if other != exchange]
    for ranks_per_image in sorted({1, ranks}):
        made.append(on_many_images(parallel, available, ranks_per_image, num_positions,
                                   images_per_rank))
    return made


def on_one_image(ranks: int, threads: int, exchange: str) -> Setting:
    return Setting(named(ranks, threads), "image", (range(ranks),), threads, exchange)


def on_many_images(parallel: ParallelConfig, available: Available, ranks_per_image: int,
                   num_positions: int, images_per_rank: int) -> Setting:
    """Laid over the ranks as swinmpi-sample would."""
    num_images = images_per_rank * available.ranks
    chosen = parallel.model_copy(update={"ranks_per_image": ranks_per_image})
    distribution = distribute(chosen, num_positions, num_images, available.ranks)
    groups = distribution.groups
    name = f"{plural(len(groups), 'group')} of {plural(ranks_per_image, 'rank')}"
    return Setting(name, "stack", groups, available.threads, parallel.exchange, num_images,
                   distribution.images_per_step)


def rank_counts(num_ranks: int) -> list[int]:
    """1, 2, 4 and so on, and all of them."""
    return sorted({2**power for power in range(num_ranks.bit_length())} | {num_ranks})


def named(ranks: int, threads: int) -> str:
    return f"{plural(ranks, 'rank')} x {plural(threads, 'thread')}"


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
