"""How hard parts of an image are to make: expected before any step, by what its encoder says."""
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from swinmpi.models.aligned_encoder import LOG_DIFFICULTY, AlignedEncoder

TILE_LR_PX = 16
"""Side of a tile. Blocks of the encoder are whole tiles, so that no tile is on two ranks."""


@dataclass(frozen=True, eq=False)
class Difficulty:
    """tiles: float32 (rows, cols) on the CPU, higher where it is harder, the same on every rank;
    tile_px: side of a tile in px of x_t. Tiles begin at the image's first pixel; the last ones may
    be smaller."""

    tiles: Tensor
    tile_px: int


def expected(encoder: AlignedEncoder, features: Tensor) -> Tensor:
    """|HR - regression| as the encoder's head expects it: features (F + C, h, w) -> (h, w)."""
    return encoder.log_difficulty(features[None])[0, 0].float().exp()


def added(encoder: AlignedEncoder, features: Tensor) -> Tensor:
    """|regression - bicubic|, mean over channels: features (F + C, h, w) -> (h, w)."""
    return features[-encoder.image_channels:].abs().mean(0)


DIFFICULTIES: dict[str, Callable[[AlignedEncoder, Tensor], Tensor]] = {"head": expected,
                                                                       "detail": added}
"""By `sampler.adaptive_by`."""


def tile_means(pixels: Tensor, tile_px: int) -> Tensor:
    """(h, w) -> the mean of every tile, (rows, cols)."""
    return functional.avg_pool2d(pixels[None], tile_px, ceil_mode=True)[0]


def laplace(log_scale: Tensor, missed: Tensor) -> Tensor:
    """Negative log-likelihood of errors (N, C, H, W) that are Laplace distributed with scale
    exp(log_scale), (N, 1, H, W): least where that is the mean |error|. But for a constant, which
    keeps it above 0."""
    of_scale = log_scale - LOG_DIFFICULTY[0]
    return (missed.abs().mean(1, keepdim=True) * (-log_scale).exp() + of_scale).mean()
