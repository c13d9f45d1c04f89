"""Many windows at a time: cut by one gather, put back by one scatter.

Which windows is said by index tensors on the device of the image. They do not depend on the shift,
which only moves the part of a canvas that is looked at, and are made once and kept.
"""
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from swinmpi.windows.canvas import Canvas
from swinmpi.windows.grid import WindowGrid
from swinmpi.windows.moves import Block

Item = tuple[int, int]
"""(image slot of the step, window position)."""
KEPT_INDICES = 1 << 14


def tiles(images: Tensor, window_px: int) -> Tensor:
    """(..., C, rows * w, cols * w) -> (..., rows, cols, C, w, w), a view: indexed by rows and
    columns it is a gather, written to a scatter."""
    split = images.unflatten(-1, (-1, window_px)).unflatten(-3, (-1, window_px))
    return split.movedim((-4, -2), (-5, -4))


@dataclass(frozen=True, eq=False)
class Places:
    """Where some windows lie among `tiles`.

    index: int64 (n,) for each leading axis, on the device of the image. runs: (which of the
    windows, index of the leading axes but the last, columns) of neighbours in a row: a CPU copies
    them three times as fast as an index that is worked out for every pixel.
    """

    index: tuple[Tensor, ...]
    runs: tuple[tuple[slice, tuple[int, ...], slice], ...]

    @classmethod
    def of(cls, found: Sequence[tuple[int, ...]], device: torch.device) -> "Places":
        """found: the index of each window, (..., row, column)."""
        runs: list[tuple[slice, tuple[int, ...], slice]] = []
        for at, (*before, col) in enumerate(found):
            same = bool(runs) and runs[-1][1] == tuple(before) and runs[-1][2].stop == col
            first, start = (runs[-1][0].start, runs[-1][2].start) if same else (at, col)
            run = (slice(first, at + 1), tuple(before), slice(start, col + 1))
            runs = [*(runs[:-1] if same else runs), run]
        index = torch.tensor(found, dtype=torch.int64, device=device)
        return cls(index.unbind(1) if found else (), tuple(runs))

    def take(self, tiled: Tensor) -> Tensor:
        """(n, C, w, w), contiguous."""
        if tiled.device.type != "cpu":
            return tiled[self.index]
        made = tiled.new_empty(self.runs[-1][0].stop, *tiled.shape[-3:])
        for windows, before, cols in self.runs:
            made[windows] = tiled[before][cols]
        return made

    def put(self, tiled: Tensor, windows: Tensor) -> None:
        """The inverse of `take`: windows (at least n, C, w, w), of which the first n are put."""
        if tiled.device.type != "cpu":
            tiled[self.index] = windows[:len(self.index[0])]
            return
        for which, before, cols in self.runs:
            tiled[before][cols] = windows[which]


@lru_cache(maxsize=KEPT_INDICES)
@torch.inference_mode(False)
def places(items: tuple[Item, ...], cols: int, device: torch.device) -> Places:
    """Of windows in frames of `cols` columns, (N, rows, cols, ...) as of `tiles`."""
    return Places.of([(slot, *divmod(position, cols)) for slot, position in items], device)


@lru_cache(maxsize=KEPT_INDICES)
@torch.inference_mode(False)
def index_of(places: tuple[int, ...], device: torch.device) -> Tensor:
    """int64 (len(places),)."""
    return torch.tensor(places, dtype=torch.int64, device=device)


def of_slots(items: Sequence[Item], device: torch.device,
             tell: Callable[[int, tuple[int, ...]], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """What `tell(slot, positions)` has of windows of one image each, (n, ...), for windows of many
    in the order of `items`."""
    parts = parted(tuple(items), device)
    told = [tell(slot, positions) for slot, positions, _ in parts]
    if len(parts) == 1:
        return told[0]
    order = torch.cat([where for _, _, where in parts]).argsort()
    return tuple(torch.cat(of_parts).index_select(0, order)
                 for of_parts in zip(*told, strict=True))


@lru_cache(maxsize=KEPT_INDICES)
@torch.inference_mode(False)
def parted(items: tuple[Item, ...],
           device: torch.device) -> tuple[tuple[int, tuple[int, ...], Tensor], ...]:
    """(slot, its positions, their places among the items) of every image that items are of."""
    found: dict[int, list[int]] = {}
    for place, (slot, _) in enumerate(items):
        found.setdefault(slot, []).append(place)
    return tuple((slot, tuple(items[place][1] for place in of_slot),
                  torch.tensor(of_slot, device=device)) for slot, of_slot in found.items())


def forget_indices() -> None:
    """Where windows that belong together are others for every image, what is kept of them would
    only grow."""
    for kept in (places, index_of, parted, by_block):
        kept.cache_clear()


class Tiled:
    """Windows of one image on the canvases of some blocks of it, which hold them at any shift that
    is asked for."""

    def __init__(self, grid: WindowGrid, blocks: Sequence[Block], canvases: Sequence[Canvas]):
        self.grid, self.blocks, self.canvases = grid, tuple(blocks), canvases

    def cut(self, shift: tuple[int, int], positions: Sequence[int]) -> Tensor:
        """(len(positions), C, w, w): a gather for every block that they lie in."""
        values, side = self.canvases[0].values, self.grid.window_px
        groups = self.groups(positions, values.device)
        cut = [(where, found.take(self.tiles(block, shift))) for block, where, found in groups]
        if len(cut) == 1:
            return cut[0][1]
        windows = values.new_empty(len(positions), len(values), side, side)
        for where, own in cut:
            windows[where] = own
        return windows

    def put(self, shift: tuple[int, int], positions: Sequence[int], windows: Tensor) -> None:
        """The inverse of `cut`: a scatter for every block."""
        groups = self.groups(positions, windows.device)
        for block, where, found in groups:
            found.put(self.tiles(block, shift), windows if len(groups) == 1 else windows[where])

    def tiles(self, block: int, shift: tuple[int, int]) -> Tensor:
        """(rows, cols, C, w, w) of a block, a view."""
        rect = self.blocks[block].rect(self.grid, shift, 0)
        return tiles(self.canvases[block].view(rect.rows, rect.cols), self.grid.window_px)

    def groups(self, positions: Sequence[int],
               device: torch.device) -> tuple[tuple[int, Tensor, Places], ...]:
        return by_block(tuple(positions), self.blocks, self.grid.cols, device)


@lru_cache(maxsize=KEPT_INDICES)
@torch.inference_mode(False)
def by_block(positions: tuple[int, ...], blocks: tuple[Block, ...], num_cols: int,
             device: torch.device) -> tuple[tuple[int, Tensor, Places], ...]:
    """(place of the block, which of the positions lie in it, where in it) for every block that
    holds some; IndexError where none holds one."""
    found: dict[int, list[tuple[int, int, int]]] = {}
    for at, position in enumerate(positions):
        row, col = divmod(position, num_cols)
        place = next((place for place, block in enumerate(blocks)
                      if row in block.rows and col in block.cols), None)
        if place is None:
            raise IndexError(f"expected a window position of {blocks}, got {position}")
        found.setdefault(place, []).append((at, row - blocks[place].rows.start,
                                            col - blocks[place].cols.start))
    return tuple((place, torch.tensor([line[0] for line in lines], device=device),
                  Places.of([line[1:] for line in lines], device))
                 for place, lines in sorted(found.items()))
