"""What an image is like, in a few numbers that do not depend on its size: medians over small crops
at fixed places."""
import math
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np

CROPS_ALONG = 3  # at most, of an image along each axis
SMALLEST_PX = 16  # of a crop's side: less says nothing
BLOCK_PX = 4  # of details: so small that some lie on nothing but noise
QUIETEST = 0.2  # so many blocks of an image are taken to show nothing but noise
LEAST = 2.0**-20  # of -1..1
ENDS = (0.02, 0.98)
STATISTICS = ("detail", "fineness", "noise", "contrast", "beyond", "coarseness", "two_valued")
"""log2 of the energy of the finest diagonal detail over that of twice its size, and over the
variance; of the deviation of that detail where there is least of it; of the width of the values
over that of -1..1, and how far they lie outside of it; log2 of the usual gap between neighbouring
values; the share of pixels close to the ends of the values."""


def statistics_of(read_rows: Callable[[range], np.ndarray], size: tuple[int, int],
                  crop_px: int) -> dict[str, float]:
    """The statistics of an image, by name; NaN where it does not tell.

    read_rows: some of its rows as (C, rows, w), -1..1, what is no number not finite. size: height
    and width; crop_px: side of the crops, of images that are not smaller.
    """
    found = [one for crop in crops_of(read_rows, size, crop_px) if (one := of_crop(crop))]
    return {name: median(one[name] for one in found) for name in STATISTICS}


def crops_of(read_rows: Callable[[range], np.ndarray], size: tuple[int, int],
             crop_px: int) -> Iterator[np.ndarray]:
    """Crops (C, h, w), evenly over the image; none of one that is too small."""
    if min(size) < SMALLEST_PX:
        return
    tops, lefts = (places(side, crop_px) for side in size)
    for rows in tops:
        band = read_rows(rows)
        for cols in lefts:
            yield np.asarray(band[:, :, cols.start:cols.stop], np.float64)


def places(side: int, crop_px: int) -> list[range]:
    """Where crops lie along a side."""
    crop_px = min(side, crop_px)
    count = min(CROPS_ALONG, side // crop_px)
    starts = (np.arange(count) + 0.5) * (side / count) - crop_px / 2
    return [range(int(start), int(start) + crop_px) for start in starts]


def of_crop(crop: np.ndarray) -> Mapping[str, float]:
    """Of (C, h, w); nothing of one that is blank, or half without numbers."""
    numbers = crop[np.isfinite(crop)]
    if 2 * numbers.size < crop.size or numbers.min() == numbers.max():
        return {}
    details, means = haar(crop)
    coarser = haar(means)[0]
    ends = np.quantile(numbers, ENDS)
    width, near = ends[1] - ends[0], (ends[1] - ends[0]) / 10
    return {"detail": log2(mean_square(details)) - log2(mean_square(coarser)),
            "fineness": log2(mean_square(details)) - log2(float(numbers.var())),
            "noise": log2(quiet_square(crop)) / 2, "contrast": log2(width / 2),
            "beyond": float(max(ends[1] - 1, -1 - ends[0], 0.0)),
            "coarseness": log2(float(np.median(np.diff(np.unique(numbers)))) / 2),
            "two_valued": float(np.mean((numbers <= ends[0] + near) | (numbers >= ends[1] - near)))}


def haar(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(the diagonal details of all blocks of 2 x 2 finite pixels, in one row; the means of all
    blocks, (C, h // 2, w // 2))."""
    height, width = (side // 2 * 2 for side in image.shape[1:])
    with np.errstate(over="ignore", invalid="ignore"):
        a, b, c, d = (image[:, top:height:2, left:width:2] for top in (0, 1) for left in (0, 1))
        details, means = (a - b - c + d) / 2, (a + b + c + d) / 4
    return details[np.isfinite(details)], means


def quiet_square(crop: np.ndarray) -> float:
    """The mean square of the finest diagonal detail where there is least of it, which is noise; NaN
    where everything has holes."""
    height, width = (side // (2 * BLOCK_PX) * 2 * BLOCK_PX for side in crop.shape[1:])
    a, b, c, d = (crop[:, top:height:2, left:width:2] for top in (0, 1) for left in (0, 1))
    squares = ((a - b - c + d) / 2) ** 2
    blocks = squares.reshape(len(crop), height // 2 // BLOCK_PX, BLOCK_PX, width // 2 // BLOCK_PX,
                             BLOCK_PX).mean(axis=(0, 2, 4))
    known = blocks[np.isfinite(blocks)]
    return float(np.quantile(known, QUIETEST)) if known.size else math.nan


def mean_square(values: np.ndarray) -> float:
    return float(np.mean(values**2)) if values.size else math.nan


def log2(value: float) -> float:
    return float(np.log2(value + LEAST**2))


def median(values: Iterable[float]) -> float:
    """Of what is finite; NaN where nothing is."""
    known = [value for value in values if math.isfinite(value)]
    return float(np.median(known)) if known else math.nan
