"""Which rank of a node computes on which of its GPUs. Pure arithmetic, but for what the system
knows."""
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Seen:
    """What one rank sees: its host, the UUIDs of the cards that it may use, in its own order, and
    how many cards the node has, which may be more."""

    host: str
    cards: tuple[str, ...]
    of_node: int = 0


def take_in_turn(everybody: Sequence[Seen]) -> list[int | None]:
    """By rank the place, in its own order, of the card it takes: of those that it sees the one that
    fewest ranks before it took; None where it sees none.

    Where all see the same cards in the same order that is in turn. A batch system that hands each
    task another order, or one card each, does not bring two of them to one card.
    """
    taken: Counter[tuple[str, str]] = Counter()
    chosen: list[int | None] = []
    for seen in everybody:
        if not seen.cards:
            chosen.append(None)
            continue
        place = min(range(len(seen.cards)), key=lambda at: (taken[seen.host, seen.cards[at]], at))
        taken[seen.host, seen.cards[place]] += 1
        chosen.append(place)
    return chosen


def remarks(everybody: Sequence[Seen], chosen: Sequence[int | None]) -> list[str]:
    """A line for every node on which ranks share a card."""
    on_card: dict[str, Counter[str]] = defaultdict(Counter)
    for seen, place in zip(everybody, chosen, strict=True):
        if place is not None:
            on_card[seen.host][seen.cards[place]] += 1
    lines = []
    for host, counts in on_card.items():
        card, most = counts.most_common(1)[0]
        if most == 1:
            continue
        there = max(seen.of_node for seen in everybody if seen.host == host)
        told = f"{host}: {most} ranks share one GPU ({card})"
        if len(counts) < min(there, sum(counts.values())):
            lines.append(f"{told}, though the node has {there}: every rank is shown the same; ask "
                         "for a GPU for each task (srun --gpus-per-task=1) or set "
                         "CUDA_VISIBLE_DEVICES by rank")
        else:
            lines.append(f"{told}: that is allowed, but slower than one rank, as they take turns "
                         "on it and exchange windows through the host; start one rank for each GPU")
    return lines


def cards_of_node(driver: Path = Path("/proc/driver/nvidia/gpus")) -> int:
    """How many NVIDIA cards the node has, whoever may use them; 0 where nobody tells."""
    return len(list(driver.iterdir())) if driver.is_dir() else 0
