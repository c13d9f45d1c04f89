"""Images to frames to windows and back."""
import torch
from torch import Tensor

from swinmpi.windows.grid import (
    Border,
    WindowGrid,
    check_shift,
    frame_cols,
    frame_rows,
    source_index,
)


def patchify(x: Tensor, window: int) -> Tensor:
    """(N, C, H, W) -> (N, rows*cols, C, window, window), row-major; ValueError unless H and W
    are whole windows."""
    num_images, channels, height, width = x.shape
    if height % window or width % window:
        raise ValueError(f"patchify: expected height and width in whole windows of {window} px, "
                         f"got {height} x {width}")
    tiles = x.reshape(num_images, channels, height // window, window, width // window, window)
    return tiles.permute(0, 2, 4, 1, 3, 5).reshape(num_images, -1, channels, window, window)


def to_frame(image: Tensor, grid: WindowGrid, shift: tuple[int, int]) -> Tensor:
    """(..., height_px, width_px) -> (..., frame_height_px, frame_width_px): moved by shift,
    filled at the border."""
    if grid.border == "wrap":
        return torch.roll(extend(image, grid, (0, 0)), shift, (-2, -1))
    return extend(image, grid, shift)


def from_frame(frame: Tensor, grid: WindowGrid, shift: tuple[int, int]) -> Tensor:
    """(..., frame_height_px, frame_width_px) -> (..., height_px, width_px): the true pixels;
    under reflect a view."""
    dy, dx = check_shift(grid, shift[0]), check_shift(grid, shift[1])
    if grid.border == "wrap":
        return torch.roll(frame, (-dy, -dx), (-2, -1))[..., :grid.height_px, :grid.width_px]
    return frame[..., dy:dy + grid.height_px, dx:dx + grid.width_px]


def cut_at(image: Tensor, origin_y: int, origin_x: int, window_px: int,
           border: Border = "reflect") -> Tensor:
    """(C, H, W) -> (C, w, w): the window that starts at these image coordinates,
    which may lie anywhere.

    A view of the image where it lies wholly inside.
    """
    height, width = image.shape[-2:]
    if 0 <= origin_y <= height - window_px and 0 <= origin_x <= width - window_px:
        return image[..., origin_y:origin_y + window_px, origin_x:origin_x + window_px]
    rows = source_index(origin_y, window_px, height, window_px, border, image.device)
    cols = source_index(origin_x, window_px, width, window_px, border, image.device)
    return image[..., rows[:, None], cols]


def extend(image: Tensor, grid: WindowGrid, corner: tuple[int, int]) -> Tensor:
    """The frame of shift `corner`, not wrapped round; only the pixels around the image are
    picked one by one."""
    device = image.device
    for dim, index, start in (-2, frame_rows(grid, corner[0], device), corner[0]), (
            -1, frame_cols(grid, corner[1], device), corner[1]):
        before, after = index[:start], index[start + image.shape[dim]:]
        image = torch.cat((image.index_select(dim, before), image, image.index_select(dim, after)),
                          dim)
    return image
