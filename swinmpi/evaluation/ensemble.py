"""The samples of an ensemble beside its SR stack, and how far they may be believed, image by
image."""
import math
import posixpath
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from swinmpi.errors import StackError
from swinmpi.evaluation.viewed import Viewed, read_hwc
from swinmpi.images.ensembles import (
    LEVELS,
    Reliability,
    finite_columns,
    reliability,
    reliability_curve,
    reliability_of_moments,
)
from swinmpi.storage.layout import in_letters
from swinmpi.storage.metadata.frames import View
from swinmpi.storage.outputs.partial import member_name
from swinmpi.storage.outputs.result import find_sibling
from swinmpi.storage.stack import Stack
from swinmpi.storage.trust import NAME as TRUST_MASK

ENDLESS = 1 << 40  # samples of which the deviation is certain: the normal distribution's quantiles


@dataclass(frozen=True)
class TrustFigure:
    """A figure of an ensemble beside the truth; `of` gives it, style is how it is printed."""

    name: str
    title: str
    style: str
    of: Callable[[Reliability], float]
    optional: bool = False


TRUST = (TrustFigure("crps", "CRPS", ".4g", lambda found: found.crps),
         TrustFigure("spread_skill", "spread/skill", ".3f", lambda found: found.spread_skill),
         *(TrustFigure(f"coverage_{100 * level:.0f}", f"in {100 * level:.0f} %", ".1%",
                       lambda found, level=level: found.coverage[level]) for level in LEVELS),
         TrustFigure("correlation", "std~error", ".3f", lambda found: found.correlation))
SPREAD = TrustFigure("spread", "spread", ".4g", lambda found: math.nan)
OF_MASK = (TrustFigure("trusted", "trusted", ".1%", lambda found: math.nan),
           TrustFigure("wrong", "of it wrong", ".1%", lambda found: math.nan))


@dataclass(frozen=True)
class Ensemble:
    """`count` samples. members: all of them, SR first, where they were kept; mean, std: of all.

    factor: from the deviation that is stored to that of a sample (ddof 1). calibrated: on what, in
    words, where the deviation is a calibrated one; widened: by which factor and floor. trust: the
    mask of pixels that are at most `tolerance` off.
    """

    count: int
    mean: Viewed
    std: Viewed
    members: tuple[Viewed, ...] = ()
    factor: float = 1.0
    calibrated: str | None = None
    widened: tuple[float, float] = (1.0, 0.0)
    trust: Viewed | None = None
    tolerance: float = math.nan

    def open(self, stacks: ExitStack) -> "OpenEnsemble":
        """To be closed by `stacks`."""
        mean, std, *members = (stacks.enter_context(one.open())
                               for one in (self.mean, self.std, *self.members))
        trust = stacks.enter_context(self.trust.open()) if self.trust else None
        return OpenEnsemble(self, mean, std, tuple(members), trust)


@dataclass(frozen=True)
class OpenEnsemble:
    """The open stacks of an ensemble."""

    ensemble: Ensemble
    mean: Stack
    std: Stack
    members: tuple[Stack, ...]
    trust: Stack | None = None

    def read_trust(self, image_index: int) -> np.ndarray | None:
        """(H, W) bool; None without a mask."""
        return (None if self.trust is None else
                np.nan_to_num(read_hwc(self.trust, image_index)).min(axis=-1) > 0)

    def read_std(self, image_index: int) -> np.ndarray:
        """The deviation that is stated, (H, W, C), in the units of the image."""
        return self.ensemble.factor * read_hwc(self.std, image_index).astype(np.float64)

    def read_spread(self, image_index: int) -> np.ndarray:
        """The deviation of the samples (ddof 1), (H, W, C)."""
        factor, floor = self.ensemble.widened
        return np.sqrt(np.maximum(self.read_std(image_index) ** 2 - floor ** 2, 0)) / factor

    def read_members(self, image_index: int) -> np.ndarray | None:
        """(K, H, W, C); None where they were not kept."""
        if not self.members:
            return None
        return np.stack([read_hwc(member, image_index) for member in self.members])


@dataclass
class Trust:
    """What was found of an ensemble: values by image, and sums over images for the plots."""

    ensemble: Ensemble
    images: dict[int, dict[str, float]] = field(default_factory=dict)
    ranks: list[np.ndarray] = field(default_factory=list)
    curves: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)

    @property
    def figures(self) -> tuple[TrustFigure, ...]:
        """Those that have a value in any image."""
        return tuple(figure for figure in (*TRUST, SPREAD, *OF_MASK) if any(
            not math.isnan(values.get(figure.name, math.nan)) for values in self.images.values()))

    @property
    def mean_ranks(self) -> list[float]:
        """(K + 1,) shares of the pixels with 0..K samples below the truth; () without samples."""
        return np.mean(self.ranks, axis=0).tolist() if self.ranks else []

    @property
    def curve(self) -> tuple[list[float], list[float]]:
        """(stated, found) errors, root mean squares in bins of like deviation."""
        if not self.curves:
            return [], []
        stated, found = np.sqrt(np.mean(np.square(self.curves), axis=0))
        return stated.tolist(), found.tolist()

    def add(self, image_index: int, opened: OpenEnsemble, number: int,
            truth: np.ndarray | None) -> None:
        """The number-th image. truth: (H, W, C), NaN where nothing counts; None without it."""
        std = opened.read_std(number)
        values = {"spread": float(np.nanmean(std)) if np.isfinite(std).any() else math.nan}
        if truth is not None:
            members, mean = opened.read_members(number), read_hwc(opened.mean, number)
            found = self.compare(members, mean, std, truth)
            values |= {figure.name: figure.of(found) for figure in TRUST}
            self.note(found, mean, std, truth)
            values |= self.judge_mask(opened.read_trust(number), mean, truth)
        self.images[image_index] = values

    def compare(self, members: np.ndarray | None, mean: np.ndarray, std: np.ndarray,
                truth: np.ndarray) -> Reliability:
        """Of samples where there are some; a calibrated deviation speaks for itself."""
        count, ensemble = self.ensemble.count, self.ensemble
        if members is None or ensemble.calibrated:
            stated = reliability_of_moments(mean, std, truth,
                                            ENDLESS if ensemble.calibrated else count)
            if members is None:
                return stated
            of_samples = reliability(members, truth)
            return replace(stated, crps=of_samples.crps, ranks=of_samples.ranks)
        return reliability(members, truth)

    def judge_mask(self, trusted: np.ndarray | None, mean: np.ndarray,
                   truth: np.ndarray) -> dict[str, float]:
        """The share of the pixels that are trusted, and of those the wrong ones."""
        known = np.isfinite(truth).all(axis=-1)
        if trusted is None or not known.any():
            return {}
        marked = trusted & known
        wrong = marked & (np.abs(truth - mean).max(axis=-1) > self.ensemble.tolerance)
        return {"trusted": float(marked.sum() / known.sum()),
                "wrong": float(wrong.sum() / marked.sum()) if marked.any() else math.nan}

    def note(self, found: Reliability, mean: np.ndarray, std: np.ndarray,
             truth: np.ndarray) -> None:
        """Add an image to the plots."""
        if np.isfinite(found.ranks).all():
            self.ranks.append(found.ranks)
        (means, stds), known = finite_columns(np.stack([mean, std]), truth)
        curve = reliability_curve(stds, np.abs(known - means))
        if len(curve[0]) and (not self.curves or len(curve[0]) == len(self.curves[0][0])):
            self.curves.append(curve)


def ensemble_beside(sr: Stack, view: View, process: Mapping[str, Any]) -> Ensemble | None:
    """The samples in an SR file of swinmpi, stored like SR; None where it has none.

    StackError where they are not what a run writes.
    """
    axes, count = in_letters(sr.arrangement.layout), process.get("ensemble")
    if type(count) is not int or count < 2 or posixpath.basename(sr.address.dataset) != "sr":
        return None

    def beside(name: str) -> Viewed | None:
        address = find_sibling(sr, name)
        return None if address is None else checked(
            Viewed(address, replace(view, axes=axes)), sr)

    mean, spread, deviation = (beside(name) for name in ("sr_mean", "sr_spread", "sr_std"))
    if mean is None or (spread or deviation) is None:
        return None
    last = beside(member_name(count - 1))
    members = [beside(member_name(k)) for k in range(1, count)] if last else [None]
    kept = (Viewed(sr.address, view), *members) if all(members) else ()
    if spread is not None:
        return Ensemble(count, mean, spread, kept)
    told = told_of(deviation, process)
    if told is not None:
        mask = beside(TRUST_MASK)
        return Ensemble(count, mean, deviation, kept, 1.0, *told, mask,
                        tolerance_of(mask, process) if mask else math.nan)
    # Before there was sr_spread this was its name, and its variance a K-th too small.
    return Ensemble(count, mean, deviation, kept, math.sqrt(count / (count - 1)))


def checked(viewed: Viewed, sr: Stack) -> Viewed:
    """StackError unless it holds images like those of SR."""
    with viewed.open() as stack:
        if (stack.shape, stack.layout) != (sr.shape, sr.layout):
            raise StackError(f"{stack.address}: expected {sr.shape} as of {sr.address}, got "
                             f"{stack.shape}; make it again")
    return viewed


def tolerance_of(mask: Viewed, process: Mapping[str, Any]) -> float:
    """In the units of the image; StackError where it is no number."""
    with mask.open() as stack:
        told = stack.attributes.get("tolerance_of_range")
    try:
        low, high = map(float, process["value_range"])
        return float(told) * (high - low)
    except (KeyError, TypeError, ValueError):
        raise StackError(f"{mask}: expected the tolerance that it was made for, got {told!r}; make "
                         "it again") from None


def told_of(deviation: Viewed,
            process: Mapping[str, Any]) -> tuple[str, tuple[float, float]] | None:
    """(on what it was calibrated, (factor, floor) that made it of the spread); None where it was
    not. StackError where that is no number."""
    with deviation.open() as stack:
        told = stack.attributes
    if "calibrated_on" not in told:
        return None
    try:
        low, high = map(float, process["value_range"])
        widened = float(told["factor"]), float(told["floor_of_range"]) * (high - low)
        if widened[0] > 0 and 0 <= widened[1] < math.inf:
            return str(told["calibrated_on"]), widened
    except (KeyError, TypeError, ValueError):
        pass
    raise StackError(f"{deviation}: expected the numbers that it was calibrated with, got others; "
                     "make it again")
