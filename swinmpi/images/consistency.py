"""MATLAB's imresize as a linear operator: its adjoint, its pseudo-inverse, and the projection after
which an SR image shrinks to the LR image that it was made from.

Shrinking is separable: A = A_rows x A_cols, each of full row rank, so A+ = A_rows+ x A_cols+. A+ is
dense, but falls by a factor of 3 with every LR pixel; what lies beyond REACH_LR_PX, below 1e-6, is
left out. So it is local, and a part of an image gets the same bits as the whole.
"""
from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from swinmpi.images.figures import BORDER_LR_PX
from swinmpi.images.imresize import contributions, imresize_part, part_needed, weighted_sum

REACH_LR_PX = 13
# How far a projected pixel looks: as A+ does, then as shrinking does.
PROJECTED_LR_PX = REACH_LR_PX + BORDER_LR_PX
# Images are around -1..1. To meet a value eight ranges off would ring through all around it.
FARTHEST = 16.0
# A long line is a short one whose middle repeats: its ends are too far from there to be felt.
SHORT_LR_PX, END_LR_PX = 128, 48

Size = Sequence[int]
Lines = Sequence[range]


def projected_part(sr: Tensor, origin: Size, lr: Tensor, sr_size: Size, lr_size: Size,
                   wanted: Lines, weight: float = 1.0) -> Tensor:
    """x + weight A+ (y - A x) at the rows and columns `wanted`: with weight 1 the SR image nearest
    to x that shrinks to y; a weight below 1 leaves noise of y out (DDNM, arXiv 2212.00490, eq. 8).

    sr: x from `origin` on, (..., h, w), float, with PROJECTED_LR_PX around what is wanted; lr: y,
    float64, just what is `lr_needed`, NaN where nothing was measured: there, and where x misses y
    by more than FARTHEST, x is believed. Sizes are (height, width) of the whole images.
    """
    known = [lr_needed(line, low, high // low)
             for line, low, high in zip(wanted, lr_size, sr_size, strict=True)]
    looked_at = [part_needed(high, low, line)
                 for line, low, high in zip(known, lr_size, sr_size, strict=True)]
    shrunk = imresize_part(cut(sr, origin, looked_at).double(),
                           [line.start for line in looked_at], sr_size, lr_size, known)
    missed = lr - shrunk
    # no comparison with NaN is true
    missed = missed.where(missed.abs() <= FARTHEST, 0.0).to(sr.dtype)
    change = pseudo_inverse_part(missed, [line.start for line in known], lr_size, sr_size, wanted)
    return cut(sr, origin, wanted) + weight * change


def lr_needed(wanted: range, lr_length: int, scale: int) -> range:
    """The LR pixels on which a projected SR line `wanted` depends."""
    return range(max(0, wanted.start // scale - REACH_LR_PX),
                 min(lr_length, -(-wanted.stop // scale) + REACH_LR_PX))


def pseudo_inverse_part(part: Tensor, origin: Size, lr_size: Size, sr_size: Size,
                        wanted: Lines) -> Tensor:
    """The SR rows and columns `wanted` of A+ y, the smallest image that shrinks to y.

    part: y (..., h, w), float, from `origin` on, with all of `lr_needed`.
    """
    return applied(part, origin, lr_size, sr_size, wanted, pseudo_inverse)


def adjoint_part(part: Tensor, origin: Size, lr_size: Size, sr_size: Size,
                 wanted: Lines) -> Tensor:
    """The same of A^T y."""
    return applied(part, origin, lr_size, sr_size, wanted, adjoint)


def applied(part: Tensor, origin: Size, lr_size: Size, sr_size: Size, wanted: Lines,
            table: Callable[[int, int], tuple[Tensor, Tensor]]) -> Tensor:
    """A table of weights along both axes, columns first, tap by tap in a fixed order."""
    for axis in (-1, -2):
        weights, indices = table(lr_size[axis], sr_size[axis])
        chosen = slice(wanted[axis].start, wanted[axis].stop)
        place, weights = indices[:, chosen] - origin[axis], weights[:, chosen]
        inside = (place >= 0) & (place < part.shape[axis])
        if weights[~inside].any():
            raise ValueError(f"expected the LR pixels within {REACH_LR_PX} of {wanted[axis]}, got "
                             f"{part.shape[axis]} from {origin[axis]}")
        part = weighted_sum(part, part.ndim + axis, weights, place.where(inside, 0))
    return part


@lru_cache(maxsize=16)
def pseudo_inverse(low: int, high: int) -> tuple[Tensor, Tensor]:
    """Weights and indices (2 REACH + 1, high), as of `contributions`, of one axis of A+."""
    if low > SHORT_LR_PX:
        return lengthened(*pseudo_inverse(SHORT_LR_PX, SHORT_LR_PX * high // low), low, high // low)
    shrinking = matrix(low, high)
    return banded(torch.linalg.solve(shrinking @ shrinking.T, shrinking).T)


@lru_cache(maxsize=16)
def adjoint(low: int, high: int) -> tuple[Tensor, Tensor]:
    """The same of A^T."""
    if low > SHORT_LR_PX:
        return lengthened(*adjoint(SHORT_LR_PX, SHORT_LR_PX * high // low), low, high // low)
    return banded(matrix(low, high).T)


def matrix(low: int, high: int) -> Tensor:
    """One axis of A, (low, high), float64."""
    weights, indices = contributions(high, low, low / high, "bicubic")
    return torch.zeros(low, high, dtype=torch.float64).scatter_add_(1, indices.T, weights.T)


def banded(enlarging: Tensor) -> tuple[Tensor, Tensor]:
    """(weights, indices) of a matrix (high, low) within REACH_LR_PX of its diagonal; 0 weighs what
    lies outside of the image."""
    high, low = enlarging.shape
    centre = torch.arange(high) * low // high
    indices = centre + torch.arange(-REACH_LR_PX, REACH_LR_PX + 1).view(-1, 1)
    inside = (indices >= 0) & (indices < low)
    weights = enlarging.T.gather(0, indices.clamp(0, low - 1))
    return weights * inside, indices


def lengthened(weights: Tensor, indices: Tensor, low: int, scale: int) -> tuple[Tensor, Tensor]:
    """The table of a line of `low` LR pixels out of that of SHORT_LR_PX."""
    end, repeated = END_LR_PX * scale, low - 2 * END_LR_PX
    middle = weights[:, end:end + scale].repeat(1, repeated)
    weights = torch.cat([weights[:, :end], middle, weights[:, -end:]], 1)
    centre = torch.arange(low * scale) // scale
    return weights, centre + indices[:, :1]


def cut(part: Tensor, origin: Size, wanted: Lines) -> Tensor:
    """The rows and columns `wanted` of an image of which `part` starts at `origin`."""
    rows, cols = (slice(line.start - start, line.stop - start)
                  for line, start in zip(wanted, origin, strict=True))
    return part[..., rows, cols]
