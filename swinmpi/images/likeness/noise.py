"""How strong the noise of an image is, measured in itself."""
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from swinmpi.images.likeness.statistics import crops_of

NAME = "noise"  # of levels, in OUT's /entry/per_image and in a checkpoint's header
CROP_PX = 128  # of the crops that are looked at, at most
QUIET = 0.1  # so many blocks are taken to show nothing but noise
OF_NOISE = 0.5435  # energy below which QUIET of the blocks of white noise of deviation 1 lie, found
DIFFERENCE = np.array([1, -4, 6, -4, 1]) / np.sqrt(70)  # of order 4; keeps white noise's deviation
BLOCK_PX = 8
EMPTY = 2  # values of a background, or at the ends of the type
STEP = 1e-4  # levels are told in steps of


def noise_level(read_rows: Callable[[range], np.ndarray], size: tuple[int, int]) -> float:
    """The deviation of the white noise of an image, as a share of the value range; 0 of one that is
    too small or too blank to tell. Fine texture everywhere is taken for some noise.

    By what is left of differences along both axes (of the second order Immerkaer 1996; of the
    fourth nearer to the corner of the spectrum, which shrinking leaves nearly empty, but not
    noise), in the blocks where there is least of it. Blocks of one value, the commonest two, are a
    background or cut off, and tell nothing.

    read_rows: some of its rows as (C, rows, w), -1..1, what is no number not finite; size: height
    and width.
    """
    found = [quiet for crop in crops_of(read_rows, size, CROP_PX) if (quiet := squares(crop)).size]
    if not found:
        return 0.0
    square = float(np.quantile(np.concatenate(found), QUIET)) / OF_NOISE
    return round(float(np.sqrt(square)) / 2 / STEP) * STEP


def trained_levels(header: Mapping[str, Any]) -> tuple[float, float]:
    """Between which levels a network learned, by its checkpoint's header; 0 and 1 where it does not
    tell."""
    try:
        low, high = map(float, header[NAME])
    except (KeyError, TypeError, ValueError):
        return 0.0, 1.0
    return (low, high) if 0 <= low <= high <= 1 else (0.0, 1.0)


def squares(crop: np.ndarray) -> np.ndarray:
    """Mean squares of the differences of a crop (C, h, w), of blocks that are whole and not empty,
    in one row."""
    margin = len(DIFFERENCE) // 2
    values = in_blocks(difference(difference(crop, 1), 2) ** 2).mean(axis=(2, 4))
    pixels = in_blocks(crop[:, margin:-margin, margin:-margin])
    low, high = pixels.min(axis=(2, 4)), pixels.max(axis=(2, 4))
    found, counts = np.unique(low[low == high], return_counts=True)
    empty = (low == high) & np.isin(low, found[np.argsort(-counts, kind="stable")[:EMPTY]])
    return values[np.isfinite(values) & ~empty]


def difference(image: np.ndarray, axis: int) -> np.ndarray:
    """DIFFERENCE along an axis, where all of it lies inside."""
    length = image.shape[axis] - len(DIFFERENCE) + 1
    return sum(weight * image.take(range(first, first + length), axis)
               for first, weight in enumerate(DIFFERENCE))


def in_blocks(image: np.ndarray) -> np.ndarray:
    """(C, h, w) -> (C, rows of blocks, BLOCK_PX, blocks in a row, BLOCK_PX)."""
    rows, cols = (side // BLOCK_PX for side in image.shape[1:])
    whole = image[:, :rows * BLOCK_PX, :cols * BLOCK_PX]
    return whole.reshape(len(image), rows, BLOCK_PX, cols, BLOCK_PX)
