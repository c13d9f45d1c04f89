"""Stored values that stand for "no data": what a file or the user calls so, hidden and avoided."""
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class NoData:
    """Which raw values mean that there is no number, beside NaN and infinities.

    values: as they are stored; low, high: what lies outside of them means no data as well.
    """

    values: tuple[float, ...] = ()
    low: float = -np.inf
    high: float = np.inf

    def __bool__(self) -> bool:
        return bool(self.values) or self.low > -np.inf or self.high < np.inf

    def in_words(self) -> str:
        """-9999, and what is not in 0 to 400."""
        values = ", ".join(f"{value:.9g}" for value in self.values)
        limits = ("" if self.low == -np.inf and self.high == np.inf else
                  f"what is not in {self.low:.6g} to {self.high:.6g}")
        return " and ".join(filter(None, (values, limits)))

    def marks(self, raw: np.ndarray) -> np.ndarray:
        """True where a raw value means no data; NaN and infinities are not looked at."""
        found = (raw < self.low) | (raw > self.high)
        for value in self.values:
            found |= raw == value
        return found

    def hide(self, raw: np.ndarray) -> np.ndarray:
        """Raw values as floats with NaN for no data; `raw` itself where there is none."""
        if not self:
            return raw
        found = self.marks(raw)
        return np.where(found, raw.dtype.type(np.nan), raw) if found.any() else raw

    def avoid(self, made: np.ndarray, dtype: np.dtype) -> np.ndarray:
        """Computed values of `dtype`, none of which means no data by accident.

        One that does becomes its nearest neighbour in the type that does not. made: floats that
        hold every value of the type exactly.
        """
        if not self:
            return made
        made = made.clip(self.low, self.high)
        for value in self.values:
            same = made == value
            if same.any():
                made = np.where(same, made.dtype.type(self.beside(value, dtype)), made)
        return made

    def beside(self, value: float, dtype: np.dtype) -> float:
        """The value of `dtype` nearest to this one, inwards first, that means a number."""
        kind = np.dtype(dtype).newbyteorder("=")
        limits = np.iinfo(kind) if kind.kind in "iu" else np.finfo(kind)
        below = above = kind.type(value)
        for _ in range(2 * len(self.values) + 1):
            below, above = (next_to(near, limits, kind) for near, limits in
                            ((below, limits.min), (above, limits.max)))
            for near in (above, below) if value <= 0 else (below, above):
                if not self.marks(np.asarray(near)) and near != value:
                    return float(near)
        return float(value)


def next_to(value, limit, kind: np.dtype):
    """The next value of an integer or floating type towards a limit of it."""
    if value == limit:
        return value
    if kind.kind == "f":
        return np.nextafter(value, kind.type(limit))
    return kind.type(int(value) + (1 if limit > value else -1))


def as_stored(value, dtype: np.dtype) -> set[float]:
    """How a no-data value that a file or the user tells is stored in `dtype`.

    Empty where it cannot be, or where it is no finite number. A float32 that stands beside float64
    data may be stored as what it prints as.
    """
    kind = np.dtype(dtype).newbyteorder("=")
    try:
        number = float(value)
    except (TypeError, ValueError):
        return set()
    if kind.kind in "iu":
        limits = np.iinfo(kind)
        fits = number.is_integer() and limits.min <= number <= limits.max
        return {number} if fits else set()
    told = {number, float(str(value))} if isinstance(value, np.floating) else {number}
    with np.errstate(over="ignore"):
        cast = {float(kind.type(one)) for one in told}
    return {one for one in cast if np.isfinite(one)}
