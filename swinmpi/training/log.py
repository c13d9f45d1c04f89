"""What a training run writes about itself: log.jsonl, and the curves drawn from it."""
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from swinmpi.errors import OutputError, SwinmpiError
from swinmpi.images.plots import plot_curves
from swinmpi.storage.files import write_atomically

CURVES = "curves.png"


@dataclass
class Averages:
    """Losses of `count` updates, summed: those since the last line of the log. A saved state holds
    them, so that a run that goes on writes the line of one that was never stopped."""

    count: int = 0
    sums: dict[str, float] = field(default_factory=dict)

    def add(self, losses: Mapping[str, float]) -> None:
        """Of one more update."""
        self.count += 1
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def means(self) -> dict[str, float]:
        """By name; of no update none."""
        return {name: value / self.count for name, value in self.sums.items()}


class Log:
    """One JSON object per line: losses, the mean of all updates since the line before, with
    learning rate, seconds of the whole run and images/s, or figures.

    One process uses it. A run that goes on from an earlier update drops the lines after it: it
    will write them again.
    """

    def __init__(self, folder: Path, images_per_update: int):
        self.path, self.images_per_update = folder / "log.jsonl", images_per_update

    def start(self, update: int) -> None:
        """Go on after `update`, with what the log holds up to there."""
        self.records = [record for record in read_records(self.path) if record["update"] <= update]
        write_atomically(self.path, "".join(as_line(record) for record in self.records).encode())
        before = max((record.get("seconds", 0.0) for record in self.records), default=0.0)
        self.began = time.monotonic() - before
        self.mark(update)

    def add_losses(self, update: int, learning_rate: float, losses: Mapping[str, float]) -> None:
        """images_per_second counts since the line before."""
        marked_update, marked = self.marked
        rate = ((update - marked_update) * self.images_per_update
                / max(time.monotonic() - marked, 1e-9))
        self.add({"update": update, "learning_rate": learning_rate,
                  **losses, "images_per_second": round(rate, 2),
                  "seconds": round(time.monotonic() - self.began, 1)})

    def add_figures(self, update: int, figures: Mapping[str, float]) -> None:
        """Figures of a validation; the curves are drawn anew."""
        self.add({"update": update, **figures})
        try:
            plot_curves(self.records, self.path.with_name(CURVES))
        except (SwinmpiError, OSError):
            return  # a convenience: without matplotlib, or room for the picture, training goes on

    def add(self, record: dict) -> None:
        try:
            with open(self.path, "a") as file:
                file.write(as_line(record))
        except OSError as error:
            raise OutputError(f"{self.path}: cannot write: {error.strerror}; make room, "
                              "then go on with --resume") from None
        self.records.append(record)
        self.mark(record["update"])

    def mark(self, update: int) -> None:
        self.marked = update, time.monotonic()


def read_records(path: Path) -> list[dict]:
    """The lines of a log up to the first that a kill or a crash cut off."""
    records = []
    for line in path.read_text(errors="replace").splitlines() if path.exists() else []:
        try:
            records.append(json.loads(line))
        except ValueError:
            break
    return records


def as_line(record: Mapping) -> str:
    return json.dumps(record) + "\n"
