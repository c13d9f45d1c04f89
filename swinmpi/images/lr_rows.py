"""An LR image as a rank needs it: whole, or only the rows under its own windows."""
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

NOISE_GAIN = 20.0  # so that usual levels, of 0.05 and less, are of the size of pixels


@dataclass(frozen=True, eq=False)
class LrRows:
    """Rows `top`.. of an LR image of `height` rows.

    values: (C, rows, width), -1..1, float32 on the CPU; raw: the same rows as they were read, on
    ranks that finish images; noise: what networks that want it are told of the whole image's, as a
    share of the value range.
    """

    values: Tensor
    top: int
    height: int
    raw: np.ndarray | None = None
    noise: float = 0.0

    @classmethod
    def whole(cls, image: Tensor, raw: np.ndarray | None = None) -> "LrRows":
        """All of an image (C, height, width)."""
        return cls(image, 0, image.shape[-2], raw)

    @property
    def width(self) -> int:
        return self.values.shape[-1]

    def clamped(self, limit: float) -> "LrRows":
        """The same rows with values in -limit..limit, without raw ones."""
        return LrRows(self.values.clamp(-limit, limit), self.top, self.height, noise=self.noise)

    def with_noise(self) -> "LrRows":
        """The same rows as networks see them that are told the noise, without raw ones."""
        return LrRows(with_noise(self.values, self.noise), self.top, self.height)

    def rows(self, rows: range) -> Tensor:
        """(C, len(rows), width)."""
        return self.values[:, rows.start - self.top:rows.stop - self.top]

    def around(self, rows: range, cols: range) -> Tensor:
        """(C, len(rows), len(cols)) of an image that repeats itself beyond its edges."""
        at_rows, at_cols = (torch.arange(line.start, line.stop) % size for line, size
                            in ((rows, self.height), (cols, self.width)))
        return self.values[:, (at_rows - self.top)[:, None], at_cols]

    def raw_part(self, rows: range, cols: range) -> np.ndarray:
        """(C, len(rows), len(cols)) as read."""
        return self.raw[:, rows.start - self.top:rows.stop - self.top, cols.start:cols.stop]


def with_noise(lr: Tensor, noise: float | Tensor) -> Tensor:
    """(..., C, h, w) and, as one more channel, the noise level that it has, NOISE_GAIN times.

    noise: a share of the value range, for all images or (N,) for N.
    """
    level = torch.as_tensor(noise, dtype=lr.dtype, device=lr.device) * NOISE_GAIN
    told = level.reshape(*level.shape, 1, 1, 1).expand(*lr.shape[:-3], 1, *lr.shape[-2:])
    return torch.cat([lr, told], dim=-3)


def union(*ranges: range) -> range:
    """The shortest range that holds all of them; empty ones count nowhere."""
    filled = [one for one in ranges if one]
    return (range(min(one.start for one in filled), max(one.stop for one in filled)) if filled
            else range(0))
