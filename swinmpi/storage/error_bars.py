"""What a checkpoint says of its ensembles: how the spread of the samples becomes an error bar, for
the settings that swinmpi-calibrate learned it with. Without torch."""
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from swinmpi.config import Config
from swinmpi.images.ensembles import widened, widening
from swinmpi.storage.header import read_header
from swinmpi.storage.trust import NAME, Trust, TrustTable

HEADER_KEY = "error_bars"  # a list of entries, one for each preset


@dataclass(frozen=True)
class ErrorBars:
    """sqrt((factor spread)^2 + floor^2) is the deviation of the error.

    factor: on the spread of endlessly many samples; floor: as a share of the data range. samples,
    images: how many it was learned with. source: of the images. held_out: share of the truth in
    90 % intervals, on images that it was not learned from. table: for masks of trust, None where
    none was learned. trust: the mask to make beside the deviation.
    """

    factor: float
    floor: float
    samples: int
    images: int
    source: str
    held_out: float
    table: TrustTable | None = None
    trust: Trust | None = None

    def factor_for(self, count: int) -> float:
        """On the spread (ddof 1) of `count` samples."""
        return self.factor * widening(count)

    def of(self, spread: np.ndarray, count: int, span: float) -> np.ndarray:
        """The deviation of which 1.645 around the mean hold 90 % of the truth, in the units of the
        spread (ddof 1) of `count` samples. span: the data range in them."""
        return widened(spread, self.factor_for(count), self.floor * span)

    def __str__(self) -> str:
        return (f"calibrated on {self.images} images of {self.source} with {self.samples} samples: "
                f"1.645 times sr_std around sr_mean held {self.held_out:.0%} of the truth of "
                "images left out, 90 % wanted")

    def attributes(self, count: int) -> dict[str, Mapping[str, Any]]:
        """Of the data sets, by name."""
        told = {"long_name": "standard deviation of the error of sr_mean, calibrated",
                "calibrated_on": str(self), "factor": self.factor_for(count),
                "floor_of_range": self.floor}
        return {"sr_std": told} | ({NAME: self.trust.attributes} if self.trust else {})


def decided_by(config: Config) -> dict:
    """The settings that a factor holds for, as JSON has them. `output.consistent` is settled."""
    # Younger than the first factors.
    silent = {"overlap"} if config.sampler.overlap == 1 else set()
    if config.sampler.adaptive is None:
        silent |= {"adaptive", "adaptive_steps", "adaptive_by"}
    sampler = config.sampler.model_dump(exclude={"seed"} | silent)
    noise = {"noise": config.data.noise} if config.model.told_noise else {}
    return json.loads(json.dumps({**noise, "sampler": sampler, "window_px": config.model.window_px,
                                  "variance": config.diffusion.variance,
                                  "consistent": float(config.output.consistent or 0)}))


def error_bars_in(header: Mapping, config: Config) -> ErrorBars | None:
    """Of a checkpoint's header for these settings; None where it has none for them."""
    entries = header.get(HEADER_KEY)
    for entry in entries if isinstance(entries, list) else ():
        try:
            if entry["settings"] == decided_by(config):
                found = ErrorBars(float(entry["factor"]), float(entry["floor"]),
                                  int(entry["samples"]), int(entry["images"]),
                                  str(entry["source"]), float(entry["held_out"]["coverage_90"]),
                                  TrustTable.of(entry))
                sound = 0 < found.factor < math.inf and 0 <= found.floor < math.inf
                return found if sound else None
        except (KeyError, TypeError, ValueError):
            continue
    return None


def error_bars_of(checkpoint: Path, ensemble: int, config: Config) -> ErrorBars | None:
    """Of a run; None where it is of no ensemble, or its checkpoint has none for its settings."""
    return None if ensemble == 1 else error_bars_in(read_header(checkpoint), config)
