"""Where the windows of a frame lie on the image, for every image size, shift and border.

A coordinate counts pixels from the image's corner and may lie outside the image; `source_index`
says which image pixel is shown there. The frame of shift (dy, dx) starts at coordinate
(-dy, -dx): the sign of `torch.roll`.
"""
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

Border = Literal["reflect", "wrap"]
BORDERS = ("reflect", "wrap")
# Halved three times it leaves 4 x 4 px, so that with channels in multiples of 8 an image is a whole
# number of vectors: the processor then computes it the same wherever in a batch it lies.
WHOLE_IMAGE_STEP_PX = 32


@dataclass(frozen=True)
class WindowGrid:
    """Windows of `window_px` over an image of height_px x width_px whose shifts lie in
    0..max_shift_px per axis.

    reflect: the image, moved by the shift, lies on a canvas of whole windows with room for
    the largest shift, and everything around it is mirrored, so opposite edges never meet.
    wrap: the image is padded by mirroring (below and at the right) to whole windows, then rolled,
    as in the thesis (ch. 2.2, fig. 2.7). ValueError for impossible values.
    """

    height_px: int
    width_px: int
    window_px: int
    max_shift_px: int = 0
    border: Border = "reflect"

    def __post_init__(self):
        if min(self.height_px, self.width_px, self.window_px) < 1 or self.max_shift_px < 0:
            raise ValueError("window grid: expected sizes of at least 1 px and a shift of at least "
                             f"0, got {self}")
        check_border(self.border)

    @property
    def rows(self) -> int:
        return self._windows_over(self.height_px)

    @property
    def cols(self) -> int:
        return self._windows_over(self.width_px)

    @property
    def num_positions(self) -> int:
        return self.rows * self.cols

    @property
    def frame_height_px(self) -> int:
        return self.rows * self.window_px

    @property
    def frame_width_px(self) -> int:
        return self.cols * self.window_px

    @property
    def joins(self) -> tuple[bool, bool]:
        """Whether rows, and whether columns, come round to the first after the last: under wrap,
        where they are whole windows."""
        return tuple(self.border == "wrap" and size % self.window_px == 0
                     for size in (self.height_px, self.width_px))

    def _windows_over(self, size_px: int) -> int:
        room_px = self.max_shift_px if self.border == "reflect" else 0
        return whole_windows(size_px + room_px, self.window_px)


def frame_rows(grid: WindowGrid, dy: int, device: torch.device | None = None) -> Tensor:
    """Image row shown in each frame row: frame[..., j, :] = image[..., frame_rows[j], :].

    int64 (frame_height_px,), kept between calls: do not write to it. ValueError when reflect
    has no room for dy.
    """
    return source_index(-check_shift(grid, dy), grid.frame_height_px, grid.height_px,
                        grid.window_px, grid.border, device)


def frame_cols(grid: WindowGrid, dx: int, device: torch.device | None = None) -> Tensor:
    """Image column shown in each frame column: int64 (frame_width_px,); see `frame_rows`."""
    return source_index(-check_shift(grid, dx), grid.frame_width_px, grid.width_px, grid.window_px,
                        grid.border, device)


def true_rows(grid: WindowGrid, dy: int) -> Tensor:
    """bool (frame_height_px,): the frame row is that image row itself, not a mirrored copy;
    every row is true once."""
    return is_true(-check_shift(grid, dy), grid.frame_height_px, grid.height_px, grid.window_px,
                   grid.border)


def true_cols(grid: WindowGrid, dx: int) -> Tensor:
    """bool (frame_width_px,); see `true_rows`."""
    return is_true(-check_shift(grid, dx), grid.frame_width_px, grid.width_px, grid.window_px,
                   grid.border)


def live_positions(grid: WindowGrid, shift: tuple[int, int]) -> list[int]:
    """Window positions (ascending) that hold at least one true pixel; the others
    need no prediction."""
    rows = true_rows(grid, shift[0]).view(grid.rows, -1).any(1)
    cols = true_cols(grid, shift[1]).view(grid.cols, -1).any(1)
    return torch.outer(rows, cols).flatten().nonzero().flatten().tolist()


def window_origin(grid: WindowGrid, shift: tuple[int, int], position: int) -> tuple[int, int]:
    """Image coordinates (y, x) of the first pixel of a window position."""
    row, col = row_and_col(grid, position)
    return row * grid.window_px - shift[0], col * grid.window_px - shift[1]


def row_and_col(grid: WindowGrid, position: int) -> tuple[int, int]:
    """Row and column of a window position in the grid; IndexError when the grid has
    no such position."""
    if not 0 <= position < grid.num_positions:
        raise IndexError(f"expected a window position in 0..{grid.num_positions - 1}, "
                         f"got {position}")
    return divmod(position, grid.cols)


@lru_cache(maxsize=512)
# a kept index made in inference mode could not serve a later backward pass
@torch.inference_mode(False)
def source_index(start: int, count: int, size_px: int, window_px: int, border: Border,
                 device: torch.device | None = None) -> Tensor:
    """int64 (count,) in 0..size_px-1: the image index shown at coordinates
    start..start+count-1 of one axis. device: of the index, the CPU if None."""
    at = canvas_coordinate(start, count, size_px, window_px, border).to(device)
    if size_px == 1:
        return torch.zeros_like(at)
    at = at.remainder(2 * (size_px - 1))
    return torch.minimum(at, 2 * (size_px - 1) - at)


def is_true(start: int, count: int, size_px: int, window_px: int, border: Border) -> Tensor:
    """bool (count,): the coordinate lies in the image itself."""
    at = canvas_coordinate(start, count, size_px, window_px, border)
    return (at >= 0) & (at < size_px)


def canvas_coordinate(start: int, count: int, size_px: int, window_px: int,
                      border: Border) -> Tensor:
    """int64 (count,): start..start+count-1, brought back under wrap to the image padded
    to whole windows."""
    check_border(border)
    at = torch.arange(start, start + count)
    return at.remainder(whole_windows(size_px, window_px) * window_px) if border == "wrap" else at


def window_over(height_px: int, width_px: int, window_px: int | None) -> int:
    """Side of the windows over an image: `window_px`, or for None of the one that covers it."""
    return whole_image_px(max(height_px, width_px)) if window_px is None else window_px


def whole_image_px(size_px: int) -> int:
    """A side grown to what a network of four resolutions can halve."""
    return whole_windows(size_px, WHOLE_IMAGE_STEP_PX) * WHOLE_IMAGE_STEP_PX


def whole_windows(size_px: int, window_px: int) -> int:
    return -(-size_px // window_px)


def check_border(border: str) -> None:
    if border not in BORDERS:
        raise ValueError(f"expected a border of {' or '.join(BORDERS)}, got {border!r}")


def check_shift(grid: WindowGrid, shift_px: int) -> int:
    """The shift of one axis, or ValueError when the grid keeps no room for it."""
    if grid.border == "reflect" and not 0 <= shift_px <= grid.max_shift_px:
        raise ValueError(f"expected a shift of 0..{grid.max_shift_px} px (the room this grid "
                         f"keeps), got {shift_px}")
    return shift_px
