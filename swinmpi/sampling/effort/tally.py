"""How many evaluations of windows a run did without."""
from dataclasses import dataclass


@dataclass
class Tally:
    """Of the windows that this rank answers for. all: those of a run without `sampler.adaptive`;
    made: those that the network was asked for."""

    all: int = 0
    made: int = 0

    def add(self, all_windows: int, made: int) -> None:
        """Of one evaluation."""
        self.all += all_windows
        self.made += made


def spared_share(tallies: list[Tally]) -> float | None:
    """Over the tallies of all ranks, 0..1; None where nothing was to be done."""
    windows = sum(tally.all for tally in tallies)
    return 1 - sum(tally.made for tally in tallies) / windows if windows else None
