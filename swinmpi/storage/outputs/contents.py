"""What an output holds: its data sets of images, and the numbers kept of every image."""
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from swinmpi.images.figures import stored_names
from swinmpi.images.likeness.noise import NAME as NOISE
from swinmpi.images.likeness.usual import SCORES, Usual
from swinmpi.storage.error_bars import ErrorBars
from swinmpi.storage.outputs.partial import SPREAD_IN_WORDS, exact_name, member_name
from swinmpi.storage.trust import NAME as TRUST
from swinmpi.storage.values import exact_float


@dataclass(frozen=True)
class OutputPlan:
    """What an output file holds beside `sr`."""

    scale: int
    ensemble: bool = False  # sr_mean and sr_spread or sr_std, floats
    regression: bool = False  # like sr
    compression: int = 4  # gzip level of the finished file
    figures: tuple[str, ...] = stored_names()  # of every image
    kept_members: int = 0  # of an ensemble, beside its first, which is sr; like sr
    error_bars: ErrorBars | None = None  # sr_std, a calibrated spread, in its place
    samples: int = 1  # of an ensemble
    exact: bool = False  # the members unrounded as well
    lr: bool = False  # the images it was made of
    extends: int = 0  # the file that is there: it has so many of these samples, which stay
    usual: Usual | None = None  # how far every image is from those the checkpoint knows
    noise: bool = False  # the noise level that the network was told of every image

    @property
    def per_image(self) -> tuple[str, ...]:
        """Names of the numbers that are kept of every image."""
        return (*self.figures, *(SCORES if self.usual else ()), *([NOISE] if self.noise else ()))

    @property
    def attributes(self) -> dict[str, Mapping[str, Any]]:
        """Of data sets of images, by name."""
        if not self.ensemble:
            return {}
        return (self.error_bars.attributes(self.samples) if self.error_bars else
                {"sr_spread": {"long_name": SPREAD_IN_WORDS}})


def pixel_datasets(plan: OutputPlan, dtype: np.dtype) -> dict[str, np.dtype]:
    """Names and dtypes of the datasets that hold images; all have the shape of `sr`."""
    names = {"sr": dtype}
    if plan.regression:
        names["regression"] = dtype
    if plan.ensemble:
        deviation = "sr_std" if plan.error_bars else "sr_spread"
        names |= {"sr_mean": exact_float(dtype), deviation: exact_float(dtype)}
        if plan.error_bars and plan.error_bars.trust:
            names[TRUST] = np.dtype("uint8")
    names |= {member_name(k): dtype for k in range(1, plan.kept_members + 1)}
    if plan.exact:
        names |= {exact_name(k): np.dtype("float32") for k in range(plan.samples)}
    return names
