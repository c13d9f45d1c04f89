"""Where the time of a run went on one rank, and the table at its end."""
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from swinmpi.parallel.comm import Group
from swinmpi.reports.tables import format_table
from swinmpi.sampling.predict import Seconds

SHARES = {"unet": "U-Net", "encoder": "encoder", "exchange": "exchange", "storage": "I/O", "other": "other"}


@dataclass(frozen=True)
class RunReport:
    """Of one rank. num_images: finished in this run; share: parts of `seconds` by the names of SHARES, adding up to 1;
    failed: reason by image index."""

    num_images: int
    seconds: float
    share: Mapping[str, float]
    failed: Mapping[int, str] = field(default_factory=dict)

    @property
    def images_per_second(self) -> float:
        return self.num_images / self.seconds


class Clock:
    """Runs from its making; counts apart what this rank spends on files, and on waiting for images of other groups."""

    def __init__(self, world: Group):
        self.world, self.started, self.exchanged_before = world, time.perf_counter(), world.stats.seconds
        self.storage_s = self.waiting_s = 0.0

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.started

    @contextmanager
    def storage(self) -> Iterator[None]:
        """Count the time inside as I/O."""
        started = time.perf_counter()
        yield
        self.storage_s += time.perf_counter() - started

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time inside as exchange."""
        started = time.perf_counter()
        yield
        self.waiting_s += time.perf_counter() - started

    def shares(self, computing: Seconds, group: Group) -> dict[str, float]:
        """Shares of the time so far; `other` is starting up, noise, the reverse step, windows and composition."""
        exchange = self.waiting_s + group.stats.seconds + self.world.stats.seconds - self.exchanged_before
        parts = {"unet": computing.network, "encoder": computing.encoder, "exchange": exchange, "storage": self.storage_s}
        total = self.seconds
        shares = {name: seconds / total for name, seconds in parts.items()}
        return shares | {"other": 1 - sum(shares.values())}


def as_table(report: RunReport) -> str:
    """One line of figures under their names."""
    row = [f"{report.num_images}", f"{report.seconds:.1f}", f"{report.images_per_second:.3g}",
           *(f"{100 * report.share[name]:.1f} %" for name in SHARES)]
    return format_table(["images", "seconds", "images/s", *SHARES.values()], [row])
