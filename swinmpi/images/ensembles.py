"""How far an ensemble of samples may be believed: figures of members against the truth.

members: (K, ...) samples of one image; truth: (...) in the same units. Pixels that are not finite
in the truth or in any member count nowhere. A figure that cannot be computed is NaN.
"""
from dataclasses import dataclass

import numpy as np

LEVELS = (0.5, 0.9, 0.99)
FITTED_BINS = 20


@dataclass(frozen=True)
class Reliability:
    """How well a stated standard deviation fits the errors, of one image.

    crps: fair continuous ranked probability score, in the units of the image; spread_skill: 1 is
    right, below 1 too sure; coverage: share of the truth inside the intervals of LEVELS;
    correlation: of the deviation with the absolute error; ranks: (K + 1,) share of pixels by how
    many members lie below the truth, flat when right.
    """

    crps: float
    spread_skill: float
    coverage: dict[float, float]
    correlation: float
    ranks: np.ndarray


def reliability(members: np.ndarray, truth: np.ndarray, factor: float = 1.0) -> Reliability:
    """factor: on the deviations of the members from their mean (a calibration)."""
    members, truth = finite_columns(members, truth)
    if len(members) < 2 or not truth.size:
        nothing = float("nan")
        return Reliability(nothing, nothing, dict.fromkeys(LEVELS, nothing), nothing,
                           np.full(len(members) + 1, nothing))
    mean = members.mean(axis=0)
    members = mean + factor * (members - mean)
    std, error = members.std(axis=0, ddof=1), np.abs(truth - mean)
    return Reliability(fair_crps(members, truth), spread_skill(std, error, len(members)),
                       {level: coverage(std, error, level, len(members)) for level in LEVELS},
                       correlation(std, error), rank_shares(members, truth))


def reliability_of_moments(mean: np.ndarray, std: np.ndarray, truth: np.ndarray,
                           count: int) -> Reliability:
    """What the mean and deviation (ddof 1) of `count` members tell alone: no CRPS, no ranks."""
    nothing = float("nan")
    (mean, std), truth = finite_columns(np.stack([mean, std]), truth)
    error, ranks = np.abs(truth - mean), np.full(1, nothing)
    if count < 2 or not truth.size:
        return Reliability(nothing, nothing, dict.fromkeys(LEVELS, nothing), nothing, ranks)
    return Reliability(nothing, spread_skill(std, error, count),
                       {level: coverage(std, error, level, count) for level in LEVELS},
                       correlation(std, error), ranks)


def fair_crps(members: np.ndarray, truth: np.ndarray) -> float:
    """Mean over pixels of mean |y - x_i| - sum_ij |x_i - x_j| / (2 K (K - 1)), which on average is
    that of an endless ensemble (Ferro 2014, doi 10.1002/qj.2270). 0 is a perfect forecast."""
    count = len(members)
    skill = np.abs(members - truth).mean()
    # Of K sorted numbers the sum of |x_i - x_j| over pairs i < j is sum (2 i - K + 1) x_i.
    weights = 2 * np.arange(count) - count + 1
    spread = np.tensordot(weights, np.sort(members, axis=0), 1).mean()
    return float(skill - spread / (count * (count - 1)))


def spread_skill(std: np.ndarray, error: np.ndarray, count: int) -> float:
    """Adjusted spread over the error of the mean, 1 when the `count` members and the truth are
    drawn alike (Fortin et al. 2014, doi 10.1175/JHM-D-14-0008.1). std: with ddof 1."""
    wrong = np.sqrt((error**2).mean())
    spread = np.sqrt((count + 1) / count * (std**2).mean())
    return float(spread / wrong) if wrong else float("nan")


def coverage(std: np.ndarray, error: np.ndarray, level: float, count: int) -> float:
    """Share of the truth within the interval of that level."""
    return float((error <= half_width(std, level, count)).mean())


def half_width(std: np.ndarray, level: float, count: int) -> np.ndarray:
    """Of the interval around the mean of `count` members in which the next one would lie with
    probability `level`, were they normal: Student's t, since their deviation is itself uncertain.
    """
    from scipy.special import stdtrit
    quantile = stdtrit(count - 1, 0.5 + level / 2)
    return quantile * np.sqrt((count + 1) / count) * std


def widening(count: int, level: float = 0.9) -> float:
    """By how much wider the interval of `count` samples is than that of endlessly many."""
    from scipy.special import ndtri
    return float(half_width(np.float64(1), level, count) / ndtri(0.5 + level / 2))


def fit_errors(std: np.ndarray, error: np.ndarray) -> tuple[float, float]:
    """(factor, floor) so that `widened(std, factor, floor)` is the deviation of the errors: that
    of bins of like spread, by least squares of its square, relative to each bin; then both scaled
    so that 90 % of the errors lie within 1.645 deviations. NaN where the spread says nothing.

    The floor is what the samples do not know of their error: without it the least spread would
    state next to none.
    """
    stated, found = reliability_curve(std, error, FITTED_BINS)
    usable = (stated > 0) & (found > 0)
    if not usable.any():
        return float("nan"), float("nan")
    weights = 1 / found[usable] ** 2
    terms = np.stack([stated[usable] ** 2, np.ones(usable.sum())], axis=1) * weights[:, None]
    from scipy.optimize import nnls
    from scipy.special import ndtri
    factor, floor = np.sqrt(nnls(terms, np.ones(len(weights)))[0])
    ratios = error / np.maximum(widened(std, factor, floor), np.finfo(np.float64).tiny)
    scale = np.quantile(ratios, 0.9) / ndtri(0.95)
    return float(scale * factor), float(scale * floor)


def widened(std: np.ndarray, factor: float, floor: float) -> np.ndarray:
    """sqrt((factor std)^2 + floor^2), in the type of `std`."""
    return np.sqrt((factor * std) ** 2 + floor ** 2)


def correlation(std: np.ndarray, error: np.ndarray) -> float:
    """Pearson's, of deviation and absolute error; NaN where one of them is constant."""
    if not (std.std() and error.std()):
        return float("nan")
    return float(np.corrcoef(std.ravel(), error.ravel())[0, 1])


def rank_shares(members: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(K + 1,) shares of pixels with 0..K members below the truth; one that equals members counts
    for each of its possible ranks alike (integers have many ties)."""
    below, level = (compare(members, truth).sum(axis=0) for compare in (np.less, np.equal))
    shares = np.zeros(len(members) + 2)
    part = 1 / (level + 1)
    np.add.at(shares, below, part)
    np.add.at(shares, below + level + 1, -part)
    return shares.cumsum()[:-1] / truth.size


def reliability_curve(std: np.ndarray, error: np.ndarray,
                      num_bins: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """(stated, found): root mean squares of deviation and error in bins of equally many pixels,
    ascending by deviation. A diagonal when right."""
    order = np.argsort(std, axis=None, kind="stable")
    bins = [part for part in np.array_split(order, num_bins) if part.size]
    stated, found = (np.array([np.sqrt((values.ravel()[part]**2).mean()) for part in bins])
                     for values in (std, error))
    return stated, found


def finite_columns(members: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(K, P) and (P,) float64 of the pixels at which all are finite."""
    if members.shape[1:] != truth.shape:
        raise ValueError(f"expected members (K, ...) of the truth's shape, got {members.shape} "
                         f"and {truth.shape}")
    members = np.asarray(members, np.float64).reshape(len(members), -1)
    truth = np.asarray(truth, np.float64).ravel()
    usable = np.isfinite(truth) & np.isfinite(members).all(axis=0)
    return members[:, usable], truth[usable]
