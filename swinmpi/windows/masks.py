"""What a window is told about where it lies: the thesis's Gaussian attention mask,
and the distance to the border."""
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from swinmpi.windows.grid import Border, WindowGrid, canvas_coordinate, check_shift, row_and_col


@dataclass(frozen=True)
class GaussianMask:
    """What is drawn around a window. width_ratio: sigma over half a window; centre_px: of the
    drawing along both axes, counted from the window's first pixel."""

    width_ratio: float
    centre_px: float


def gaussian_masks(grid: WindowGrid, shift: tuple[int, int], positions: Sequence[int],
                   width_ratio: float, lr_height: int, lr_width: int) -> Tensor:
    """`masks_of` around the true centres of the windows, between the middle pixels."""
    mask = GaussianMask(width_ratio, (grid.window_px - 1) / 2)
    return masks_of(mask, grid, shift, positions, (lr_height, lr_width))


def masks_of(mask: GaussianMask, grid: WindowGrid, shift: tuple[int, int],
             positions: Sequence[int], lr_size: tuple[int, int]) -> Tensor:
    """float32 (len(positions), 1, lr_height, lr_width) in -1..1: where each window
    lies on the LR image.

    On the frame exp(-r^2 / (2 sigma^2)) / max * 2 - 1 around the window's centre,
    sigma = width_ratio * window / 2; then rolled by the inverse shift, cropped to the image,
    averaged to LR size (thesis ch. 2.1 and 2.2, fig. 2.2).
    A Gaussian is a product over the axes, and so are the steps after it: no HR mask is ever made.
    """
    over_rows = axis_masks(mask, grid.rows, grid.window_px, check_shift(grid, shift[0]),
                           (grid.height_px, lr_size[0]))
    over_cols = axis_masks(mask, grid.cols, grid.window_px, check_shift(grid, shift[1]),
                           (grid.width_px, lr_size[1]))
    rows, cols = rows_and_cols(grid, positions)
    return (over_rows[rows, None, :, None] * over_cols[cols, None, None, :] * 2 - 1).float()


def border_distance_at(origin_y: int, origin_x: int, window_px: int, height: int, width: int,
                       reach_px: int, border: Border = "reflect") -> Tensor:
    """float32 (1, w, w) in 0..1: steps from each pixel to the nearest pixel outside
    the image, over reach_px.

    0: the pixel is a mirrored copy; 1 / reach_px: it lies on the image's edge;
    1: at least reach_px - 1 px inside.
    """
    rows, cols = range(origin_y, origin_y + window_px), range(origin_x, origin_x + window_px)
    return border_distance_over(rows, cols, WindowGrid(height, width, window_px, border=border),
                                reach_px)


def border_distance_over(rows: range, cols: range, grid: WindowGrid, reach_px: int) -> Tensor:
    """float32 (1, len(rows), len(cols)): `border_distance_at` over any rectangle of coordinates."""
    over_rows = steps_inside(rows.start, len(rows), grid.height_px, grid.window_px, grid.border)
    over_cols = steps_inside(cols.start, len(cols), grid.width_px, grid.window_px, grid.border)
    return nearness(over_rows[None], over_cols[None], reach_px)


def axis_masks(mask: GaussianMask, num_windows: int, window_px: int, shift_px: int,
               sizes: tuple[int, int]) -> Tensor:
    """One axis of the masks, scaled to a largest value of 1: float64 (num_windows, lr_size).
    sizes: of the image and the LR image."""
    sigma_px = mask.width_ratio * window_px / 2
    at = torch.arange(num_windows * window_px, dtype=torch.float64)
    centres = torch.arange(num_windows) * window_px + mask.centre_px
    masks = torch.exp(-((at - centres[:, None]) ** 2) / (2 * sigma_px**2))
    masks = masks / masks.amax(1, keepdim=True)
    return torch.roll(masks, -shift_px, 1)[:, :sizes[0]] @ averaging(*sizes).T


def averaging(size_in: int, size_out: int) -> Tensor:
    """float64 (size_out, size_in): means over equal parts of the axis; a pixel cut by a bound
    counts by share."""
    bounds = torch.arange(size_out + 1, dtype=torch.float64) * size_in / size_out
    pixels = torch.arange(size_in, dtype=torch.float64)
    overlap = torch.minimum(bounds[1:, None], pixels + 1) - torch.maximum(bounds[:-1, None], pixels)
    return overlap.clamp(min=0) * size_out / size_in


def steps_inside(start: int, count: int, size_px: int, window_px: int, border: Border) -> Tensor:
    """int64 (count,): steps along one axis to the first coordinate outside; 0 or less outside."""
    at = canvas_coordinate(start, count, size_px, window_px, border)
    return torch.minimum(at + 1, size_px - at)


def nearness(over_rows: Tensor, over_cols: Tensor, reach_px: int) -> Tensor:
    """Steps (..., h) and (..., w) per axis -> float32 (..., h, w): the smaller one over
    reach_px, in 0..1."""
    return torch.minimum(over_rows[..., :, None],
                         over_cols[..., None, :]).clamp(0, reach_px).float() / reach_px


def rows_and_cols(grid: WindowGrid, positions: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Rows and columns of window positions: int64 (len(positions),) each."""
    pairs = torch.tensor([row_and_col(grid, position) for position in positions], dtype=torch.int64)
    return pairs.view(-1, 2).unbind(1)
