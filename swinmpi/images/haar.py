"""The Haar transform of images: four bands of half their size, orthonormal.

Bands keep the energy of the image: mean squares over the bands of white noise are those of its
pixels. The order is LL (the mean), LH, HL and HH, where the first letter tells of rows from top to
bottom, the second of columns from left to right, and H is a difference.
"""
import torch
from torch import Tensor

BANDS = ("LL", "LH", "HL", "HH")
"""HH is the diagonal one."""


def haar(image: Tensor) -> Tensor:
    """(..., C, H, W) of even sides -> (..., 4 C, H / 2, W / 2): all channels of a band, then the
    next band."""
    a, b, c, d = (image[..., row::2, col::2] for row in (0, 1) for col in (0, 1))
    return torch.cat([a + b + c + d, a - b + c - d, a + b - c - d, a - b - c + d], dim=-3) / 2


def inverse_haar(bands: Tensor) -> Tensor:
    """The inverse of `haar`: (..., 4 C, h, w) -> (..., C, 2 h, 2 w). A pixel depends on its own
    coefficients alone, so a part of an image gets the bits of the whole."""
    mean, across, down, diagonal = bands.chunk(len(BANDS), dim=-3)
    rows = [(mean + across + down + diagonal, mean - across + down - diagonal),
            (mean + across - down - diagonal, mean - across - down + diagonal)]
    return torch.stack([torch.stack(row, dim=-1).flatten(-2) for row in rows],
                       dim=-2).flatten(-3, -2) / 2
