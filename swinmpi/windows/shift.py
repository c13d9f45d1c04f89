"""How far the image moves in a step: the thesis's circular pattern, and its first attempt,
the cropping shift."""
from typing import Literal

import torch
from torch import Tensor

from swinmpi.config import ShiftConfig

Edge = Literal["pad", "resize"]


def circular_shift(step: int, s: int) -> tuple[int, int]:
    """Shift (dy, dx) of a step: (0, 0), (0, s), (s, s), (s, 0) in turn, one axis at a time
    (thesis ch. 2.2, I)."""
    return ((0, 0), (0, s), (s, s), (s, 0))[step % 4]


def default_max_shift(window_px: int) -> int:
    """A quarter of the window, the best of thesis table 3.1."""
    return window_px // 4


def max_shift_of(shift: ShiftConfig, window_px: int) -> int:
    """s of a shift pattern: as set, else the default."""
    return default_max_shift(window_px) if shift.max_px is None else shift.max_px


def crop_shift(image: Tensor, shift: tuple[int, int], edge: Edge = "pad") -> Tensor:
    """(..., H, W) -> (..., H, W): the image without its first dy rows and dx columns
    (thesis ch. 2.2, fig. 2.5).

    What is left moves to the upper left and is filled up with zeros (pad), or is stretched
    to the old size (resize, bilinear). The part cut off gets no prediction in this step, so
    the edges stay noisy (fig. 2.6): kept to show that. Cut the result with a grid of max_shift_px
    0. ValueError unless 0 <= dy < H and 0 <= dx < W.
    """
    height, width = image.shape[-2:]
    check_crop(height, width, shift, edge)
    cropped = image[..., shift[0]:, shift[1]:]
    return (resize(cropped, height, width) if edge == "resize"
            else place(cropped, (0, 0), height, width))


def uncrop_shift(prediction: Tensor, shift: tuple[int, int], edge: Edge = "pad") -> Tensor:
    """(..., H, W) -> (..., H, W): a prediction for `crop_shift`'s image, back in place;
    zeros where it has none."""
    height, width = prediction.shape[-2:]
    check_crop(height, width, shift, edge)
    left_height, left_width = height - shift[0], width - shift[1]
    if edge == "resize":
        return place(resize(prediction, left_height, left_width), shift, height, width)
    return place(prediction[..., :left_height, :left_width], shift, height, width)


def place(part: Tensor, corner: tuple[int, int], height: int, width: int) -> Tensor:
    """Zeros of (..., height, width) with `part` at `corner`."""
    image = part.new_zeros(*part.shape[:-2], height, width)
    image[..., corner[0]:corner[0] + part.shape[-2], corner[1]:corner[1] + part.shape[-1]] = part
    return image


def resize(image: Tensor, height: int, width: int) -> Tensor:
    """(..., H, W) -> (..., height, width), bilinear, pixel centres aligned, not antialiased."""
    over_rows = linear_weights(image.shape[-2], height).to(image)
    over_cols = linear_weights(image.shape[-1], width).to(image)
    return over_rows @ image @ over_cols.T


def linear_weights(size_in: int, size_out: int) -> Tensor:
    """float64 (size_out, size_in): linear interpolation along one axis."""
    centres = (torch.arange(size_out, dtype=torch.float64) + 0.5) * size_in / size_out - 0.5
    return (1 - (centres.clamp(0, size_in - 1)[:, None] - torch.arange(size_in)).abs()).clamp(min=0)


def check_crop(height: int, width: int, shift: tuple[int, int], edge: str) -> None:
    if edge not in ("pad", "resize"):
        raise ValueError(f"expected an edge of pad or resize, got {edge!r}")
    if not (0 <= shift[0] < height and 0 <= shift[1] < width):
        raise ValueError(f"expected a crop that leaves a part of {height} x {width} px, "
                         f"got shift {shift}")
