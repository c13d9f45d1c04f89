"""Means over images, and how far they may be believed: standard errors and bootstrap intervals."""
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from swinmpi.randomness import generator

RESAMPLES, SEED, LEVEL = 2000, 0, 0.95
DRAWN_AT_ONCE = 1 << 20
FEW_IMAGES = 10  # with fewer, what is not among them shows: the interval is too narrow


@dataclass(frozen=True)
class Summary:
    """Of a figure over images. low, high: 95 % of the means over resampled images lie between them.

    NaN where something cannot be told, as the error of one image. images: how many have a value.
    """

    mean: float
    standard_error: float
    low: float
    high: float
    images: int


def summary_of(values: Sequence[float]) -> Summary:
    """Of those that are not NaN."""
    known = [float(value) for value in values if not math.isnan(value)]
    return Summary(mean_of(known), standard_error_of(known), *bootstrap_interval(known), len(known))


def bootstrap_interval(values: Sequence[float]) -> tuple[float, float]:
    """The percentile interval of the mean (Efron 1979, doi 10.1214/aos/1176344552), always of the
    same resamples; NaN of fewer than two values, or where one is not finite."""
    values = np.asarray(values, np.float64)
    count = len(values)
    if count < 2 or not np.isfinite(values).all():
        return math.nan, math.nan
    random, means = generator((SEED, 2 ** 64 - 2)), []
    at_once = max(1, DRAWN_AT_ONCE // count)
    for first in range(0, RESAMPLES, at_once):
        size = min(at_once, RESAMPLES - first), count
        means.append(values[random.integers(0, count, size)].mean(axis=1))
    low, high = np.quantile(np.concatenate(means), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def mean_of(values: Sequence[float]) -> float:
    """Of those that are not NaN."""
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else float("nan")


def standard_error_of(values: Sequence[float]) -> float:
    """Of the mean of those that are not NaN; NaN of fewer than two, or where one is infinite."""
    known = [value for value in values if not math.isnan(value)]
    if len(known) < 2 or not all(map(math.isfinite, known)):
        return float("nan")
    return float(np.std(known, ddof=1) / math.sqrt(len(known)))


def plain_number(value: float) -> float | str | None:
    """As JSON has it: None for NaN, "inf" where it is infinite."""
    if math.isnan(value):
        return None
    return value if math.isfinite(value) else "inf" if value > 0 else "-inf"
