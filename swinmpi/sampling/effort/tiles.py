"""Which windows of an image are evaluated where easy tiles of it take the last steps alone.

Tiles are fixed in the image, and easy or hard by what the encoder makes of it; windows move. One is
evaluated while it shows any of a hard tile. Of the others x_0 is taken to be zero, the regression:
every rule of a sampler then takes x_t along q(x_t | regression), so that windows which show both
find all of x_t as noisy as they should, and a late start is a start like any.
"""
from dataclasses import dataclass

import torch
from torch import Tensor

from swinmpi.families.difficulty import Difficulty
from swinmpi.windows.grid import WindowGrid
from swinmpi.windows.regions import positions_over


@dataclass(frozen=True)
class Effort:
    """share: of the tiles of an image that are easy; by: what tells which, see DIFFICULTIES."""

    share: float
    by: str

    def evaluated(self, difficulty: Difficulty, grid: WindowGrid,
                  shift: tuple[int, int]) -> frozenset[int]:
        """Window positions of an image for which the network is asked while easy tiles wait. A
        pure function of the image."""
        return positions_over(hard_tiles(difficulty.tiles, self.share), difficulty.tile_px, grid,
                              shift)


def hard_tiles(tiles: Tensor, share: float) -> Tensor:
    """bool like tiles (rows, cols): all but the easiest of them; of equal ones the first are taken
    to be easier."""
    order = tiles.flatten().argsort(stable=True)
    hard = torch.ones(len(order), dtype=torch.bool)
    hard[order[:round(share * len(order))]] = False
    return hard.view(tiles.shape)
