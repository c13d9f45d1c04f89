"""Where the time of a run went on one rank, and the table at its end."""
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from swinmpi.reports.tables import format_table

SHARES = {"unet": "U-Net", "encoder": "encoder", "exchange": "exchange", "storage": "I/O",
          "other": "other"}
PHASES = {"unet": "network", "encoder": "encoder", "exchange": "exchange", "storage": "storage"}
"""The phases of a Stopwatch by their names in a report; `other` is starting up, noise, the reverse
step, windows and composition."""


@dataclass(frozen=True)
class RunReport:
    """Of one rank. num_images: finished in this run; share: parts of `seconds` by the names
    of SHARES, adding up to 1; failed: reason by shard index; figures: on rank 0, of the images
    finished, by name; spared: share of the network's windows that all ranks together did without,
    None where every one is evaluated in every step, or no image was made."""

    num_images: int
    seconds: float
    share: Mapping[str, float]
    failed: Mapping[int, str] = field(default_factory=dict)
    figures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    spared: float | None = None

    @property
    def entries(self) -> dict:
        """As a report keeps them, `spared` where it says something."""
        return {name: value for name, value in asdict(self).items()
                if name != "spared" or value is not None}

    @property
    def images_per_second(self) -> float:
        return self.num_images / self.seconds


def shares_of(spent: Mapping[str, float], seconds: float) -> dict[str, float]:
    """Parts of `seconds` by the names of SHARES, out of the seconds of a Stopwatch's phases."""
    shares = {name: spent.get(phase, 0.0) / seconds for name, phase in PHASES.items()}
    return shares | {"other": 1 - sum(shares.values())}


def about(seconds: float) -> str:
    """An estimate in words: about 40 s, about 3 min, about 5 h, about 2 days."""
    if seconds < 1:
        return "less than a second"
    for size, unit, most in ((1, "s", 90), (60, "min", 90 * 60), (3600, "h", 36 * 3600)):
        if seconds < most:
            return f"about {float(f'{seconds / size:.2g}'):g} {unit}"
    return f"about {float(f'{seconds / 86400:.2g}'):g} days"


def describe_spared(report: RunReport) -> list[str]:
    """A line on what was not computed, if something could be spared."""
    if report.spared is None:
        return []
    return [f"adaptive: {100 * report.spared:.0f} % of the windows' evaluations were not needed"]


def as_table(report: RunReport) -> str:
    """One line of figures under their names."""
    row = [f"{report.num_images}", f"{report.seconds:.1f}", f"{report.images_per_second:.3g}",
           *(f"{100 * report.share[name]:.1f} %" for name in SHARES)]
    return format_table(["images", "seconds", "images/s", *SHARES.values()], [row])
