"""How much fine detail an image has: whether images are as sharp and as noisy as others are."""
from collections.abc import Iterable

import numpy as np

STEEPEST = 20.0  # of log2: nothing at all at one of the two scales
LOW_QUANTILE, HIGH_QUANTILE = 0.05, 0.95


def fine_detail(image: np.ndarray) -> float:
    """log2 of the energy of the finest diagonal detail over that of the next coarser one, which has
    twice its size (Haar wavelets); any unit of the values cancels out.

    image: (C, h, w); what is not finite is left out. 2 for white noise, -4 for what is smooth, as
    after blurring or enlarging; photographs lie between. NaN for an image that is too small or has
    no detail.
    """
    fine, means = haar(np.asarray(image, np.float64))
    coarse, _ = haar(means)
    if not (fine.size and coarse.size):
        return float("nan")
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        found = np.log2(np.mean(fine**2)) - np.log2(np.mean(coarse**2))
    return float(np.clip(found, -STEEPEST, STEEPEST))


def haar(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(the diagonal details of all blocks of 2 x 2 finite pixels, in one row; the means of all
    blocks, (C, h // 2, w // 2))."""
    height, width = (side // 2 * 2 for side in image.shape[1:])
    with np.errstate(over="ignore", invalid="ignore"):
        a, b, c, d = (image[:, top:height:2, left:width:2] for top in (0, 1) for left in (0, 1))
        details, means = (a - b - c + d) / 2, (a + b + c + d) / 4
    return details[np.isfinite(details)], means


def usual_detail(images: Iterable[np.ndarray]) -> list[float] | None:
    """Between which numbers the detail of nine in ten images lies; None without any."""
    found = [value for value in map(fine_detail, images) if np.isfinite(value)]
    return [float(value) for value in np.quantile(found, (LOW_QUANTILE, HIGH_QUANTILE))] \
        if found else None
