"""Windows at any places of many images at once: where their pixels lie, how near the border they
are, and cutting them in one gather.

Origins are image coordinates of first pixels, int64 (n, 2) of (y, x), on the device of the images;
see windows/grid.py for coordinates outside of an image.
"""
import torch
from torch import Tensor

from swinmpi.windows.grid import Border, WindowGrid, check_border, whole_windows
from swinmpi.windows.masks import nearness


def cut_at_places(images: Tensor, numbers: Tensor, origins: Tensor, window_px: int,
                  border: Border) -> Tensor:
    """(B, C, H, W) -> (n, C, w, w), in the memory format channels_last: of image numbers[i], int64
    (n,), the window at origins[i]; what `cut_at` gives of each."""
    _, channels, height, width = images.shape
    rows, cols = (source_indices(coordinates(origins[:, axis], size, window_px, border), size)
                  for axis, size in enumerate((height, width)))
    pixels = images.permute(0, 2, 3, 1).reshape(-1, channels)
    first = (numbers * height)[:, None]
    return pixels[((first + rows) * width)[:, :, None] + cols[:, None, :]].permute(0, 3, 1, 2)


def border_distances(origins: Tensor, grid: WindowGrid, reach_px: int) -> Tensor:
    """float32 (n, 1, w, w) in 0..1: `border_distance_over` of the windows of a grid at origins."""
    over_rows, over_cols = (
        torch.minimum(at + 1, size - at) for at, size in
        ((coordinates(origins[:, axis], size, grid.window_px, grid.border), size)
         for axis, size in enumerate((grid.height_px, grid.width_px))))
    return nearness(over_rows[:, None], over_cols[:, None], reach_px)


def coordinates(starts: Tensor, size_px: int, window_px: int, border: Border) -> Tensor:
    """int64 (n, window_px): from each start on, under wrap brought back to the image padded to
    whole windows."""
    check_border(border)
    at = starts[:, None] + torch.arange(window_px, device=starts.device)
    return at.remainder(whole_windows(size_px, window_px) * window_px) if border == "wrap" else at


def source_indices(at: Tensor, size_px: int) -> Tensor:
    """Of coordinates the image index shown there, in 0..size_px-1."""
    if size_px == 1:
        return torch.zeros_like(at)
    at = at.remainder(2 * (size_px - 1))
    return torch.minimum(at, 2 * (size_px - 1) - at)
