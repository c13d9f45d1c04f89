"""Between which numbers the images lie that a model was trained on, and how far outside others are.

An image is compared by itself with wide limits, so that few of the images that a model knows fall
outside (2 % and less were found to); some of a stack together with narrow ones, which what is wrong
with all of them, such as blur, passes long before."""
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from swinmpi.errors import SwinmpiError
from swinmpi.images.likeness.statistics import STATISTICS, median, statistics_of

HEADER_KEY = "lr_images"
QUANTILES = (0.005, 0.025, 0.5, 0.975, 0.995)
# By how much of the way from the median the outer quantiles are passed.
BEYOND = 0.2
FEWEST_TOGETHER = 5  # images that are compared together
# A model trained on few kinds of images is taken to know others nearby: so far from the median.
NEAR = {"two_valued": 0.65, "beyond": 0.25} | dict.fromkeys(
    ("detail", "fineness", "noise", "contrast", "coarseness"), 1.5)
BOTH_SIDES = ("detail", "fineness", "contrast")
KINDS = {"spectrum": ("detail", "fineness"), "noise": ("noise",), "range": ("contrast", "beyond"),
         "values": ("coarseness", "two_valued")}
SCORES = tuple(f"unlike_{kind}" for kind in KINDS)
"""Of an image, in OUT's /entry/per_image: 0 for the usual image, 1 and -1 at the limits; NaN where
the image does not tell."""
# (what such images are, what to do), by kind and whether they are above the limit.
SMOOTH = ("blurred, or enlarged before", "take them as they were recorded, or shrink them to what "
          "they resolve")
SHARPENED = "expect noise to be sharpened as well, or denoise them"
RANGE = "check output.value_range and their unit"
MEANINGS = {
    ("spectrum", False): SMOOTH, ("noise", False): SMOOTH, ("noise", True): ("noisy", SHARPENED),
    ("spectrum", True): ("noisy, or coarser", SHARPENED),
    ("range", False): ("of little contrast", RANGE),
    ("range", True): ("of too much contrast, or beyond the value range", RANGE),
    ("values", True): ("binary, or of few values",
                       "take them as they were before they were thresholded")}


@dataclass(frozen=True)
class Usual:
    """crop_px: side of the crops looked at; images: of how many; source: in words; quantiles: of
    every statistic, at QUANTILES."""

    crop_px: int
    images: int
    source: str
    quantiles: Mapping[str, tuple[float, ...]]

    def statistics(self, read_rows: Callable[[range], np.ndarray],
                   size: tuple[int, int]) -> dict[str, float]:
        """See `statistics_of`."""
        return statistics_of(read_rows, size, self.crop_px)

    def scores(self, statistics: Mapping[str, float]) -> dict[str, float]:
        """SCORES of an image."""
        far = {name: self.outside(name, value) for name, value in statistics.items()}
        return {f"unlike_{kind}": farthest([far[name] if name in BOTH_SIDES else max(far[name], 0.0)
                                            for name in names]) for kind, names in KINDS.items()}

    def outside(self, name: str, value: float, together: bool = False) -> float:
        """A statistic on the scale of its limits: 0 at the median, 1 and -1 at the limits, of an
        image or of many `together`."""
        outer, inner, middle, *others = self.quantiles.get(name, (math.nan,) * 5)
        low, high = (inner, others[0]) if together else (outer, others[1])
        far = middle - low if value < middle else high - middle
        return (value - middle) / max(far * (1 if together else 1 + BEYOND), NEAR[name])

    def differences(self, images: Sequence[Mapping[str, float]]) -> dict[str, float]:
        """In which kinds the statistics of some images, together, are outside, and how far."""
        together = len(images) >= FEWEST_TOGETHER
        medians = {name: median([one[name] for one in images]) for name in STATISTICS}
        if not together:
            scores = self.scores(medians)
            return {kind: far for kind in KINDS if abs(far := scores[f"unlike_{kind}"]) > 1}
        far = {name: self.outside(name, value, together) for name, value in medians.items()}
        return {kind: most for kind, names in KINDS.items()
                if abs(most := farthest([far[name] for name in names])) > 1
                and (kind, most > 0) in MEANINGS}


def meanings(found: Mapping[str, float]) -> list[tuple[str, str]]:
    """What kinds that are so far outside mean, and what to do; what follows from another is left
    out: few values leave edges, noise is fine detail as well."""
    if "values" in found:
        found = {"values": found["values"]}
    elif found.get("noise", 0.0) * found.get("spectrum", 0.0) > 0:
        found = {kind: far for kind, far in found.items() if kind != "spectrum"}
    return [MEANINGS[kind, far > 0] for kind, far in found.items()]


def farthest(values: Iterable[float]) -> float:
    """From 0; NaN only where all are."""
    return max((value for value in values if math.isfinite(value)), key=abs, default=math.nan)


def usual_in(header: Mapping[str, Any]) -> Usual | None:
    """What a checkpoint's header tells; None where it does not."""
    told = header.get(HEADER_KEY)
    try:
        quantiles = {name: tuple(map(float, told["quantiles"][name])) for name in STATISTICS}
        sound = all(len(one) == len(QUANTILES) and list(one) == sorted(one)
                    and all(map(math.isfinite, one)) for one in quantiles.values())
        source = str(SwinmpiError(str(told["source"])))  # as one line that can be printed
        found = Usual(int(told["crop_px"]), int(told["images"]), source, quantiles)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return found if sound and found.crop_px > 0 else None


def usual_of(groups: Iterable[Iterable[np.ndarray]], crop_px: int, source: str) -> dict[str, Any]:
    """The entry of a header; nothing where no image tells.

    groups: of images (C, h, w), -1..1, such as those of a split. The limits are the widest of any
    group's, so that few of many do not drown.
    """
    found = [[statistics_of(lambda rows, of=image: of[:, rows.start:rows.stop], image.shape[1:],
                            crop_px) for image in images] for images in groups]
    quantiles = {name: widest([known for images in found if (known := [
        one[name] for one in images if math.isfinite(one[name])])]) for name in STATISTICS}
    if not all(quantiles.values()):
        return {}
    return {HEADER_KEY: {"crop_px": crop_px, "images": sum(map(len, found)), "source": source,
                         "at": list(QUANTILES), "quantiles": quantiles}}


def widest(groups: Sequence[Sequence[float]]) -> list[float]:
    """QUANTILES of all values, but for the outer ones the farthest of any group's."""
    if not groups:
        return []
    each = np.stack([np.quantile(values, QUANTILES) for values in groups])
    low, high = each.min(axis=0), each.max(axis=0)
    middle = float(np.median(np.concatenate(groups)))
    return [*map(float, low[:2]), middle, *map(float, high[-2:])]
