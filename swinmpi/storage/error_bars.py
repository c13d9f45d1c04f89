"""What a checkpoint says of its ensembles: by which factor the spread of the samples becomes an
error bar, for the settings that swinmpi-calibrate learned it with. Without torch."""
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swinmpi.config import Config
from swinmpi.images.ensembles import widening
from swinmpi.storage.header import read_header

HEADER_KEY = "error_bars"  # a list of entries, one for each preset


@dataclass(frozen=True)
class ErrorBars:
    """factor: on the spread of endlessly many samples. samples, images: how many it was learned
    with. source: of the images. held_out: share of the truth in 90 % intervals, on images that the
    factor was not learned from."""

    factor: float
    samples: int
    images: int
    source: str
    held_out: float

    def factor_for(self, count: int) -> float:
        """From the spread (ddof 1) of `count` samples to a deviation of which 1.645 around their
        mean hold 90 % of the truth."""
        return self.factor * widening(count)

    def __str__(self) -> str:
        return (f"calibrated on {self.images} images of {self.source} with {self.samples} samples: "
                f"1.645 times sr_std around sr_mean held {self.held_out:.0%} of the truth of "
                "images left out, 90 % wanted")

    def attributes(self, count: int) -> dict[str, Any]:
        """Of the data set."""
        return {"long_name": "standard deviation of the error of sr_mean, calibrated",
                "calibrated_on": str(self), "factor": self.factor_for(count)}


def decided_by(config: Config) -> dict:
    """The settings that a factor holds for, as JSON has them."""
    sampler = config.sampler.model_dump(exclude={"seed"})
    return json.loads(json.dumps({"sampler": sampler, "window_px": config.model.window_px,
                                  "variance": config.diffusion.variance}))


def error_bars_in(header: Mapping, config: Config) -> ErrorBars | None:
    """Of a checkpoint's header for these settings; None where it has none for them."""
    entries = header.get(HEADER_KEY)
    for entry in entries if isinstance(entries, list) else ():
        try:
            if entry["settings"] == decided_by(config):
                found = ErrorBars(float(entry["factor"]), int(entry["samples"]),
                                  int(entry["images"]), str(entry["source"]),
                                  float(entry["held_out"]["coverage_90"]))
                return found if math.isfinite(found.factor) and found.factor > 0 else None
        except (KeyError, TypeError, ValueError):
            continue
    return None


def error_bars_of(checkpoint: Path, ensemble: int, config: Config) -> ErrorBars | None:
    """Of a run; None where it is of no ensemble, or its checkpoint has none for its settings."""
    return None if ensemble == 1 else error_bars_in(read_header(checkpoint), config)
