"""An image that was made again beside the one that is stored: the same bytes, or how far off."""
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from swinmpi.errors import SwinmpiError

FAR = 0.01  # of the value range: more than another machine or library makes of it
SAME, DIFFERS, UNKNOWN = "same", "differs", "unknown"


@dataclass(frozen=True)
class Verdict:
    """On an image: SAME, DIFFERS or UNKNOWN, in words."""

    name: str
    found: str
    words: str

    def __str__(self) -> str:
        return str(SwinmpiError(f"{self.name}: {self.words}"))  # one line, whatever the names


def verdict(name: str, stored: Mapping[str, np.ndarray], made: Mapping[str, np.ndarray],
            span: float, elsewhere: str | None) -> Verdict:
    """stored, made: (C, H, W) by data set. span: width of the value range; elsewhere: what of the
    machine is not as it was, in words, if anything."""
    lacking, more = sorted(made.keys() - stored.keys()), sorted(stored.keys() - made.keys())
    off = {one: difference(stored[one], made[one], span) for one in made if one in stored}
    told = [f"{one} {words}" for one, (words, _) in off.items() if words]
    told += [f"{one} is missing" for one in lacking]
    told += [f"{one} is there, but was not made" for one in more]
    if not told:
        return Verdict(name, SAME, f"the same bytes ({', '.join(made)})")
    farthest = max((far for _, far in off.values()), default=0.0)
    if elsewhere is None or farthest > FAR or lacking or more:
        return Verdict(name, DIFFERS, ", ".join(told))
    return Verdict(name, UNKNOWN, f"cannot be compared: {', '.join(told)}, but {elsewhere}, which "
                   "may change the last bits; verify it where it was made")


def difference(stored: np.ndarray, made: np.ndarray, span: float) -> tuple[str, float]:
    """(how far two images are from each other, in words, none where all bytes are the same; as a
    part of the value range)."""
    stored = stored.astype(stored.dtype.newbyteorder("="))
    made = made.astype(made.dtype.newbyteorder("="))
    if (stored.shape, stored.dtype) != (made.shape, made.dtype):
        return (f"is {stored.dtype} of {stored.shape}, was {made.dtype} of {made.shape} when made "
                "again"), np.inf
    if stored.tobytes() == made.tobytes():
        return "", 0.0
    one, other = stored.astype(np.float64), made.astype(np.float64)
    unequal = np.count_nonzero((one != other) & ~(np.isnan(one) & np.isnan(other)))
    with np.errstate(invalid="ignore"):
        off = np.abs(one - other)
    far = float(np.nanmax(np.where(one == other, 0.0, off), initial=0.0))
    if np.count_nonzero(np.isnan(one) != np.isnan(other)):
        far = np.inf
    return (f"differs in {unequal} of {one.size} values, by up to {far:.3g} ({far / span:.2g} of "
            "the range)"), far / span
