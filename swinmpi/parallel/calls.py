"""How many windows a call of the network gets: a function of a window's place in its image, never
of the rank that computes it, so that the number of ranks cannot be seen in the last bits."""
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from swinmpi.windows.grid import WindowGrid
from swinmpi.windows.moves import ownership_order

Item = TypeVar("Item")


@dataclass(frozen=True)
class Calls:
    """sizes: of the call that every window position belongs in."""

    sizes: tuple[int, ...]

    @cached_property
    def all_sizes(self) -> tuple[int, ...]:
        """The sizes that occur, largest first."""
        return tuple(sorted(set(self.sizes), reverse=True))

    @property
    def told(self) -> int | str:
        """For people and fingerprints: 4, or 32+4 where the last windows go in calls of 4."""
        return (self.all_sizes[0] if len(self.all_sizes) == 1
                else "+".join(map(str, self.all_sizes)))

    def parts(self, items: Sequence[Item],
              position_of: Callable[[Item], int]) -> Iterator[tuple[int, list[Item]]]:
        """(size, at most so many items) of every call, in their order for each size. The last one
        of a size is to be filled up to it."""
        for size in self.all_sizes:
            fitting = [item for item in items if self.sizes[position_of(item)] == size]
            for first in range(0, len(fitting), size):
                yield size, fitting[first:first + size]


def calls_in(grid: WindowGrid, largest: int) -> Calls:
    """Calls of `largest` windows along the image's list of windows, and for those left over of
    halves of it, or of halves of these ..., so that few windows are computed in vain."""
    places, sizes = ownership_order(grid), call_sizes(grid.num_positions, largest)
    by_position = dict(zip(places, sizes, strict=True))
    return Calls(tuple(by_position[position] for position in range(grid.num_positions)))


def call_sizes(num_windows: int, largest: int) -> list[int]:
    """The size of the call of every place of a list; a call is filled up where that costs at most a
    sixteenth of the list."""
    sizes: list[int] = []
    size = largest
    while len(sizes) < num_windows:
        left = num_windows - len(sizes)
        if left >= size or size - left <= num_windows / MOST_PADDING:
            sizes += [size] * min(size, left)
        else:
            size = -(-size // 2)
    return sizes


MOST_PADDING = 16
