"""Where the time of this rank goes: one clock for computing, waiting for others, and files."""
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class Stopwatch:
    """Seconds by phase since it was made. Phases exclude each other: an inner one interrupts the
    outer one, so they add up to at most the time that has passed.

    exchange: communication and waiting for other ranks; storage: files; network: the U-Net;
    encoder; noise: drawing it; step: the reverse step; windows: rolling, cutting
    and joining windows. It is the host's clock: what a GPU was asked to do counts where the host
    waits for it.
    """

    def __init__(self):
        self.started = time.perf_counter()
        self.seconds: dict[str, float] = defaultdict(float)
        self._phases: list[str] = []
        self._since = self.started

    @contextmanager
    def of(self, phase: str) -> Iterator[None]:
        """Count the time inside."""
        self._count()
        self._phases.append(phase)
        try:
            yield
        finally:
            self._count()
            self._phases.pop()

    def read(self) -> dict[str, float]:
        """Seconds by phase so far, to be subtracted from a later reading by `since`."""
        return dict(self.seconds)

    def since(self, before: Mapping[str, float]) -> dict[str, float]:
        """Seconds by phase since a reading, phases without time left out."""
        return {phase: seconds - before.get(phase, 0.0) for phase, seconds in self.seconds.items()}

    def _count(self) -> None:
        now = time.perf_counter()
        if self._phases:
            self.seconds[self._phases[-1]] += now - self._since
        self._since = now
