"""Photographs as arrays: decoding at full bit depth, cutting crops shrunk by any factor out
of one decoded image."""
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from swinmpi.images.pictures import read_page

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as MATLAB's rgb2gray


@dataclass(frozen=True)
class Photograph:
    """A decoded image as Pillow planes, because Pillow can resample any part of them without
    touching the rest.

    8 bit: one plane of mode L or RGB. 16 bit: one plane of mode F for each channel.
    """

    planes: tuple[Image.Image, ...]
    dtype: np.dtype

    @property
    def height_px(self) -> int:
        return self.planes[0].height

    @property
    def width_px(self) -> int:
        return self.planes[0].width

    def cut(self, top_px: float, left_px: float, reduce: float, height_px: int,
            width_px: int) -> np.ndarray:
        """A (height, width, C) part of the image shrunk by `reduce` (Lanczos);
        the origin is in full-size pixels.

        Equal to shrinking the whole image and then cropping: the filter reads beyond
        the edges of the part.
        """
        return self.shrunk((top_px, left_px), (height_px * reduce, width_px * reduce),
                           (height_px, width_px))

    def middle_square(self) -> "Photograph":
        """The largest square around its middle, which lies a pixel up or left where it must."""
        side = min(self.height_px, self.width_px)
        top, left = (self.height_px - side) // 2, (self.width_px - side) // 2
        box = (left, top, left + side, top + side)
        return Photograph(tuple(plane.crop(box) for plane in self.planes), self.dtype)

    def shrunk(self, corner: tuple[float, float], sides: tuple[float, float],
               size: tuple[int, int]) -> np.ndarray:
        """The rectangle of `sides` at `corner`, full-size pixels along y and x, as a (*size, C)
        image (Lanczos)."""
        (top, left), (height, width) = corner, sides
        box = (left, top, min(left + width, self.width_px), min(top + height, self.height_px))
        parts = [plane.resize(size[::-1], Image.Resampling.LANCZOS, box=box)
                 for plane in self.planes]
        return to_dtype(stack_channels([np.asarray(part) for part in parts]), self.dtype)


def to_photograph(image: np.ndarray) -> Photograph:
    """Wrap an (H, W, C) array of uint8 or uint16 and 1 or 3 channels."""
    if image.dtype == np.uint8:
        return Photograph((Image.fromarray(image[..., 0] if image.shape[2] == 1 else image),),
                          image.dtype)
    planes = [Image.fromarray(np.ascontiguousarray(image[..., c], dtype=np.float32))
              for c in range(image.shape[2])]
    return Photograph(tuple(planes), image.dtype)


def read_photograph(path: Path, page: int = 0) -> np.ndarray:
    """Decode one page to (H, W, C), uint8 or uint16, C of 1 or 3: EXIF orientation applied, palette
    resolved, alpha dropped.

    Raises whatever the decoder raises for a damaged file, ValueError for a kind of image it cannot
    keep the depth of.
    """
    image = read_page(path, page).colour
    if image.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"expected 8 or 16 bit per channel, got {image.dtype}; "
                         "put such images into an HDF5 stack")
    return image


def with_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """(H, W, 1 or 3) -> (H, W, channels): grey is copied, colours are weighted
    to luma; same dtype."""
    if image.shape[2] == channels:
        return image
    if channels == 3:
        return np.repeat(image, 3, axis=2)
    return to_dtype(np.einsum("hwc,c->hw", image, np.asarray(LUMA, np.float32))[..., None],
                    image.dtype)


def with_depth(image: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Between uint8 and uint16, full range to full range (255 <-> 65535)."""
    if image.dtype == dtype:
        return image
    return image.astype(np.uint16) * 257 if dtype == np.uint16 else to_dtype(image / 257, dtype)


def to_dtype(image: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Round and clip floats to an unsigned integer type; integers of that type pass."""
    if image.dtype == dtype:
        return image
    return np.clip(np.rint(image), 0, np.iinfo(dtype).max).astype(dtype)


def stack_channels(parts: list[np.ndarray]) -> np.ndarray:
    """One (H, W) or (H, W, C) array, or several (H, W), as one (H, W, C)."""
    if len(parts) > 1:
        return np.stack(parts, axis=-1)
    return parts[0] if parts[0].ndim == 3 else parts[0][..., None]
