"""The U-Net of the `wavelet` family: one network for all bands, one band at a time."""
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from swinmpi.config import WaveletModel
from swinmpi.models.aligned_unet import AlignedUNet
from swinmpi.models.deviations import Deviations

FIRST_DEVIATION = 1 / 32  # until bands are measured: what a gain of 16 makes 0.5 of


class WaveletUNet(nn.Module):
    """Predicts eps, v or x_0 of one band of a window from its x_t, the features under it, the
    border channel, t, the global vector and which band it is.

    The U-Net sees the band in its place among all, the others zero, and answers in its place, so
    every band has first and last filters of its own; all between is shared. `deviations` are those
    of the bands, measured in training.
    """

    def __init__(self, config: WaveletModel, powers: Sequence[str]):
        """powers: names of the bands' mean squares among the losses."""
        super().__init__()
        self.num_bands = config.num_parts
        self.unet = AlignedUNet(config)
        self.band = nn.Embedding(self.num_bands, config.global_channels)
        self.deviations = Deviations(powers, FIRST_DEVIATION)

    def forward(self, x_t: Tensor, t: Tensor, features: Tensor, border: Tensor,
                global_vector: Tensor, band: Tensor) -> Tensor:
        """x_t: (n, C, w, w) of one band each; t, band: (n,) 0-based; features: (n, F + 4 C, w, w);
        border: (n, 1, w, w); global: (n, G)."""
        each = torch.arange(len(x_t), device=x_t.device)
        placed = x_t.new_zeros(len(x_t), self.num_bands, *x_t.shape[1:])
        placed[each, band] = x_t
        output = self.unet(placed.flatten(1, 2), t, features, border,
                           global_vector + self.band(band))
        return output.unflatten(1, (self.num_bands, -1))[each, band]
