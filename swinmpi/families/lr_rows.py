"""LR images as every rank needs them: whole, or only the rows under its own windows."""
from dataclasses import dataclass

import numpy as np
from torch import Tensor


@dataclass(frozen=True, eq=False)
class LrStrip:
    """Rows `top`.. of an LR image of `height` rows: values (C, h, width), -1..1, float32 on the CPU; raw: the same rows
    as they were read, on ranks that finish images."""

    values: Tensor
    top: int
    height: int
    raw: np.ndarray | None = None

    @classmethod
    def whole(cls, image: Tensor, raw: np.ndarray | None = None) -> "LrStrip":
        """All of an image (C, height, width)."""
        return cls(image, 0, image.shape[-2], raw)

    @property
    def width(self) -> int:
        return self.values.shape[-1]

    def rows(self, rows: range) -> Tensor:
        """(C, len(rows), width)."""
        return self.values[:, rows.start - self.top:rows.stop - self.top]

    def raw_part(self, rows: range, cols: range) -> np.ndarray:
        """(C, len(rows), len(cols)) as read."""
        return self.raw[:, rows.start - self.top:rows.stop - self.top, cols.start:cols.stop]


def union(*lines: range) -> range:
    """The shortest range that holds all of them; empty ones count nowhere."""
    filled = [line for line in lines if line]
    return range(min(line.start for line in filled), max(line.stop for line in filled)) if filled else range(0)
