"""Which windows show some part of an image: fixed tiles of it, under a grid that moves."""
import torch
from torch import Tensor

from swinmpi.windows.grid import (
    WindowGrid,
    frame_cols,
    frame_rows,
    true_cols,
    true_rows,
)


def positions_over(marked: Tensor, tile_px: int, grid: WindowGrid,
                   shift: tuple[int, int]) -> frozenset[int]:
    """Window positions that show at a shift a true pixel of a marked tile.

    marked: bool (rows, cols) of the tiles of tile_px x tile_px that the image is cut into from its
    first pixel on; the last ones may be smaller.
    """
    down = shown(frame_rows(grid, shift[0]), true_rows(grid, shift[0]), tile_px, grid.rows)
    across = shown(frame_cols(grid, shift[1]), true_cols(grid, shift[1]), tile_px, grid.cols)
    touched = down @ marked.to(down) @ across.T
    return frozenset(touched.flatten().nonzero().flatten().tolist())


def shown(index: Tensor, true: Tensor, tile_px: int, num_windows: int) -> Tensor:
    """float64 (num_windows, tiles): how many true pixels of a tile a window shows along an axis,
    given the image index of each of its frame's pixels."""
    window = torch.arange(num_windows).repeat_interleave(len(index) // num_windows)
    tile = index // tile_px
    counts = torch.zeros(num_windows, int(tile.max()) + 1, dtype=torch.float64)
    return counts.index_put_((window[true], tile[true]), counts.new_ones(int(true.sum())),
                             accumulate=True)
