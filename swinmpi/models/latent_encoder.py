"""The encoder of the family `latent`: that of `aligned` on the grid of latents, and an autoencoder
of what its regression misses."""
import torch
from torch import Tensor, nn
from torch.nn import functional

from swinmpi.config import LatentModel
from swinmpi.models.aligned_encoder import AlignedEncoder


class LatentEncoder(AlignedEncoder):
    """Each px of what it makes lies on one px of the latents; the regression residual of the HR
    px under it comes as so many channels."""

    def __init__(self, config: LatentModel):
        super().__init__(config, config.latent_factor)
        self.autoencoder = Autoencoder(config)


class Autoencoder(nn.Module):
    """Residual images to latents and back (Rombach et al. 2022, arXiv 2112.10752, made small).

    Nothing is normalised or attended to and nothing padded: a pixel depends on what lies within
    `reach_px` of it, wherever it lies. Nothing has a bias, so that zero stays zero: without
    latents, nothing is added to the regression.
    """

    def __init__(self, config: LatentModel):
        super().__init__()
        width, pixels = config.autoencoder_channels, config.channels * config.latent_factor**2
        self.factor, self.reach_px = config.latent_factor, config.autoencoder_blocks + 2
        self.encoder, self.decoder = (
            nn.Sequential(conv(inputs, width),
                          *[ShrinkingBlock(width) for _ in range(config.autoencoder_blocks)],
                          conv(width, outputs))
            for inputs, outputs in ((pixels, config.latent_channels),
                                    (config.latent_channels, pixels)))
        self.register_buffer("deviation", torch.ones(config.latent_channels))

    def encode(self, residual: Tensor) -> Tensor:
        """(n, C, H, W) with reach_px * factor around what is wanted -> latents (n, L, h, w), each
        channel over its `deviation`."""
        latents = self.encoder(functional.pixel_unshuffle(residual, self.factor))
        return latents / self.deviation.view(-1, 1, 1)

    def decode(self, latents: Tensor) -> Tensor:
        """(n, L, h, w) with reach_px around what is wanted -> a residual (n, C, H, W)."""
        return functional.pixel_shuffle(self.decoder(latents * self.deviation.view(-1, 1, 1)),
                                        self.factor)


class ShrinkingBlock(nn.Module):
    """x + conv1x1(relu(conv3x3(x))) without the outermost pixels."""

    def __init__(self, channels: int):
        super().__init__()
        self.seeing = conv(channels, channels)
        self.mixing = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x[..., 1:-1, 1:-1] + self.mixing(functional.relu(self.seeing(x)))


def conv(inputs: int, outputs: int) -> nn.Conv2d:
    """3 x 3, where there are all nine pixels."""
    return nn.Conv2d(inputs, outputs, 3, bias=False)
