"""Which pixels of an image may be trusted: conformal risk control (Angelopoulos et al., "Conformal
Risk Control", arXiv 2208.02814) of masks over super-resolved images, as Adame et al. do it
(arXiv 2502.09664).

A pixel is trusted where the spread of its samples is at most a threshold; a trusted one is wrong
where the error of their mean is beyond a tolerance. The loss of an image is the share of wrong ones
among the trusted, the largest for this threshold or any below, so that it only grows with the
threshold; 0..1. Spreads, errors, thresholds and tolerances are shares of the data range here.
"""
from collections.abc import Sequence

import numpy as np

# Fixed before any image is seen, as the guarantee wants it; steps of 15 %, the last is all.
THRESHOLDS = tuple(float(2.0 ** (step / 5)) for step in range(-60, 1))
# Grey levels of 8 bit.
TOLERANCES = tuple(levels / 255 for levels in (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 25, 32, 40, 51,
                                               64))
# An image with fewer trusted pixels than this share counts as one with so many: of a handful a
# single wrong one would be most.
FEWEST_TRUSTED = 0.01
WORST_LOSS = 1.0


def losses_of_image(spread: np.ndarray, error: np.ndarray,
                    thresholds: Sequence[float] = THRESHOLDS,
                    tolerances: Sequence[float] = TOLERANCES) -> tuple[np.ndarray, np.ndarray]:
    """((T, S) loss by tolerance and threshold, (S,) share of the image that is trusted).

    spread, error: (H, W, C); a pixel counts by the largest of its channels, and nowhere without a
    number in all. thresholds: ascending. An image without a number has no loss.
    """
    known = np.isfinite(spread).all(axis=-1) & np.isfinite(error).all(axis=-1)
    spread, error = (values.max(axis=-1)[known] for values in (spread, error))
    first = np.searchsorted(thresholds, spread)  # of the thresholds that trust the pixel
    trusted = counted(first, len(thresholds))
    wrong = np.stack([counted(first[error > tolerance], len(thresholds))
                      for tolerance in tolerances])
    share = wrong / np.maximum(trusted, max(FEWEST_TRUSTED * spread.size, 1))
    return np.maximum.accumulate(share, axis=1), trusted / max(spread.size, 1)


def counted(first: np.ndarray, count: int) -> np.ndarray:
    """How many of `first` are at most 0, 1 .. count - 1."""
    return np.bincount(first, minlength=count + 1)[:count].cumsum()


def fewest_images(risk: float) -> int:
    """Without which no threshold keeps the risk, however small the losses."""
    return int(np.ceil(round(WORST_LOSS / risk - 1, 9)))


def controlled(mean_losses: np.ndarray, images: int, risk: float) -> int | None:
    """The largest threshold, by its place, with which the expected loss of one more image is at
    most `risk`, 0..1 (theorem 1 of arXiv 2208.02814). None where there is none.

    mean_losses: (S,) over so many images, which grow with the threshold.
    """
    bounds = (images * mean_losses + WORST_LOSS) / (images + 1)
    kept = np.flatnonzero(bounds <= risk)
    return int(kept[-1]) if kept.size else None
