"""Progress for people: a bar on a terminal, one plain line every 30 s in a job's log."""
import sys
import time

from tqdm import tqdm

LOG_SECONDS = 30


class Progress:
    """Counts `total` units; used by one rank, the others pass enabled=False.
    Use as a context manager."""

    def __init__(self, total: int, unit: str, start: int = 0, enabled: bool = True):
        self.total, self.unit, self.done, self.enabled = total, unit, start, enabled
        self.first, self.began, self.logged = start, time.monotonic(), time.monotonic()
        terminal = enabled and sys.stderr.isatty()
        self.bar = (tqdm(total=total, initial=start, unit=unit, dynamic_ncols=True) if terminal
                    else None)

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count; `note` (such as the current loss) stands behind the figures."""
        self.done += count
        if self.bar is not None:
            self.bar.set_postfix_str(note, refresh=False)
            self.bar.update(count)
        elif self.enabled and time.monotonic() - self.logged >= LOG_SECONDS:
            self.logged = time.monotonic()
            print(self.line(note), flush=True)

    def say(self, text: str) -> None:
        """A line of its own, above the bar if there is one."""
        if self.bar is not None:
            self.bar.write(text)
        elif self.enabled:
            print(text, flush=True)

    def line(self, note: str = "") -> str:
        elapsed = time.monotonic() - self.began
        rate = (self.done - self.first) / elapsed if elapsed > 0 else 0.0
        remaining = (self.total - self.done) / rate if rate else float("inf")
        return (f"{self.done}/{self.total} {self.unit}, {rate:.3g}/s, {clock(elapsed)} so far, "
                f"about {clock(remaining)} to go{', ' + note if note else ''}")

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error) -> None:
        if self.bar is not None:
            self.bar.close()


def clock(seconds: float) -> str:
    """1:02:03, or 2:03 below an hour."""
    if seconds == float("inf"):
        return "?"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
