"""Masks of the pixels that may be trusted: what a user asks for, what a calibrated checkpoint can
promise. Without torch."""
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from swinmpi.errors import ConfigError
from swinmpi.images.conformal import FEWEST_TRUSTED, controlled, fewest_images

NAME = "sr_trust"
ENTRY_KEY = "trust"  # of an entry of a checkpoint's error bars
ROUNDING = 1e-9  # relative, of a tolerance that is meant to be one of the table's


@dataclass(frozen=True)
class Tolerance:
    """The error of `sr_mean` that a user can live with. relative: a share of the data range, else
    in the units of the data."""

    value: float
    relative: bool = True

    @classmethod
    def parsed(cls, text: str) -> "Tolerance":
        """`5`: in the units of the data; `2%`: of the data range. ConfigError for anything else."""
        relative = text.endswith("%")
        value = as_number(text.removesuffix("%")) / (100 if relative else 1)
        if not 0 < value < math.inf:
            raise ConfigError(f"--tolerance: expected an error above 0, got {text!r}; give it in "
                              "the units of the data, or as a share of their range, such as 2%")
        return cls(value, relative)

    def share(self, span: float | None) -> float | None:
        """Of a data range `span`; None where that must be known and is not."""
        if self.relative:
            return self.value
        return None if span is None else self.value / span

    def __str__(self) -> str:
        """What `parsed` takes."""
        return f"{100 * self.value:.12g}%" if self.relative else f"{self.value:.12g}"


@dataclass(frozen=True)
class TrustAsked:
    """risk: the share, 0..1, of the trusted pixels that may be wrong, on average."""

    risk: float
    tolerance: Tolerance = Tolerance(10 / 255)

    @classmethod
    def parsed(cls, risk: str | None, tolerance: str | None) -> "TrustAsked | None":
        """Of a command line; None without a risk. ConfigError for what is neither."""
        if risk is None:
            if tolerance is not None:
                raise ConfigError("--tolerance: expected --trust RISK beside it, got it alone; "
                                  "give both, or leave it out")
            return None
        if not 0 < as_number(risk) < 1:
            raise ConfigError(f"--trust: expected a share between 0 and 1, got {risk!r}; give the "
                              "share of the trusted pixels that may be wrong, such as 0.1")
        asked = as_number(risk)
        return cls(asked) if tolerance is None else cls(asked, Tolerance.parsed(tolerance))

    def __str__(self) -> str:
        """What `recorded` takes."""
        return f"{self.risk:.12g} within {self.tolerance}"

    @classmethod
    def recorded(cls, told: str) -> "TrustAsked":
        """Of what an output says; ConfigError for anything else."""
        risk, _, tolerance = told.partition(" within ")
        return cls.parsed(risk, tolerance)


@dataclass(frozen=True)
class Trust:
    """A pixel is trusted where the spread (ddof 1) of its samples is at most `threshold` in all
    channels. tolerance, threshold: as shares of the data range; marked: the share of the pixels
    that it was on images of the calibration; told: what is promised, in words.
    """

    risk: float
    tolerance: float
    threshold: float
    marked: float
    told: str

    def of(self, spread: np.ndarray, span: float) -> np.ndarray:
        """1 where trusted, (C, h, w) uint8, the same in all channels. spread: alike, in units in
        which the data range is `span`."""
        trusted = spread.max(axis=0) <= self.threshold * span
        return np.broadcast_to(trusted.astype(np.uint8), spread.shape)

    @property
    def attributes(self) -> dict[str, Any]:
        """Of the data set."""
        return {"long_name": "1 where sr_mean may be trusted, else 0", "promise": self.told,
                "risk": self.risk, "tolerance_of_range": self.tolerance,
                "threshold_of_range": self.threshold}


@dataclass(frozen=True)
class TrustTable:
    """What was found on calibration images, see images/conformal.py.

    losses: (T, S) means over so many `images` with `samples` each, cut from so many `sources`;
    marked: (S,) mean shares of the images that are trusted.
    """

    tolerances: np.ndarray
    thresholds: np.ndarray
    losses: np.ndarray
    marked: np.ndarray
    images: int
    sources: int
    samples: int

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> "TrustTable | None":
        """In an entry of a checkpoint's error bars; None without, or where it makes no sense."""
        told = entry.get(ENTRY_KEY)
        try:
            tolerances, thresholds, losses, marked = (
                np.array(told[name], np.float64)
                for name in ("tolerances", "thresholds", "losses", "marked"))
            made = cls(tolerances, thresholds, losses, marked, int(told["images"]),
                       int(told["sources"]), int(entry["samples"]))
            return made if made.is_sound else None
        except (KeyError, TypeError, ValueError, OverflowError):
            return None

    @property
    def is_sound(self) -> bool:
        """Whether it is what a calibration writes: numbers that could be true."""
        shape = len(self.tolerances), len(self.thresholds)
        return (self.images > 0 and self.samples > 1 and all(shape)
                and self.losses.shape == shape and self.marked.shape == shape[1:]
                and bool((np.diff(self.tolerances) > 0).all() and self.tolerances[0] > 0)
                and bool((np.diff(self.thresholds) > 0).all() and self.thresholds[0] > 0)
                and bool((np.diff(self.losses, axis=1) >= 0).all())
                and bool(((self.losses >= 0) & (self.losses <= 1)).all()))

    def trust(self, asked: TrustAsked, span: float | None = None) -> Trust:
        """The mask that keeps what is asked. span: the data range; None where it is not known yet,
        so that the widest tolerance is looked at. ConfigError where nothing keeps it."""
        needed = fewest_images(asked.risk)
        if self.images < needed:
            raise ConfigError(f"--trust {asked.risk:g}: expected a checkpoint calibrated on at "
                              f"least {needed} images, got {self.images}; calibrate with more, or "
                              f"ask for {math.ceil(1000 / (self.images + 1)) / 1000:g} or more")
        place = self._place_of(asked.tolerance, span)
        found = controlled(self.losses[place], self.images, asked.risk)
        if found is None or self.marked[found] < FEWEST_TRUSTED:
            raise ConfigError(
                f"--trust {asked.risk:g}: expected pixels that are within {asked.tolerance} of the "
                f"truth so often, found next to none on the {self.images} images that the "
                "checkpoint was calibrated on; ask for a larger share, or a larger --tolerance")
        tolerance, marked = float(self.tolerances[place]), float(self.marked[found])
        told = (f"of the pixels marked 1 in an image like those of the calibration, on average at "
                f"most {asked.risk:.3g} are farther than {tolerance:.2%} of the data range from "
                f"the truth in sr_mean; learned on {self.images} images of {self.sources} sources, "
                f"of which it marks {marked:.0%}")
        return Trust(asked.risk, tolerance, float(self.thresholds[found]), marked, told)

    def _place_of(self, tolerance: Tolerance, span: float | None) -> int:
        """Of the largest tolerance that was looked at and is not beyond the one asked for."""
        share = tolerance.share(span)
        if share is None:
            return len(self.tolerances) - 1
        place = int(np.searchsorted(self.tolerances, share * (1 + ROUNDING), side="right")) - 1
        if place < 0:
            least = self.tolerances[0]
            told = f"{least:.2%} of the data range" + (
                "" if span is None else f", {least * span:.3g} in the units of the data")
            raise ConfigError(f"--tolerance {tolerance}: expected at least {told}; ask for that")
        return place


def as_number(text: str) -> float:
    """NaN for what is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan
