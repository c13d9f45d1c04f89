"""A plain diffusion U-Net (Ho et al. 2020, with time that scales and shifts): x_t, and beside it
the bicubic image where it is told one."""
import torch
from torch import Tensor, nn
from torch.nn import functional

from swinmpi.config import VanillaModel
from swinmpi.models.aligned_unet import EMBEDDING_CHANNELS, Stage
from swinmpi.models.blocks import SelfAttention, sinusoidal_embedding


class VanillaUNet(nn.Module):
    """At full resolution first; attention at the lowest only, so that whole images are not too
    large for it. Sides must be multiples of 2 to the number of `unet_channels` less one."""

    def __init__(self, config: VanillaModel):
        super().__init__()
        widths, blocks = config.unet_channels, config.unet_blocks
        pairs = list(zip(widths[:-1], widths[1:], strict=True))
        inputs = config.channels * (2 if config.conditional else 1)
        self.embed = nn.Sequential(nn.Linear(EMBEDDING_CHANNELS, EMBEDDING_CHANNELS), nn.SiLU(),
                                   nn.Linear(EMBEDDING_CHANNELS, EMBEDDING_CHANNELS), nn.SiLU())
        self.entry = nn.Conv2d(inputs, widths[0], 3, padding=1)
        self.encoders = nn.ModuleList(Stage(width, width, blocks) for width in widths)
        self.downs = nn.ModuleList(nn.Conv2d(fine, coarse, 3, stride=2, padding=1)
                                   for fine, coarse in pairs)
        self.attention = SelfAttention(widths[-1], config.attention_heads)
        self.middle = Stage(widths[-1], widths[-1], 2)
        self.ups = nn.ModuleList(nn.Conv2d(coarse, fine, 3, padding=1)
                                 for fine, coarse in reversed(pairs))
        self.decoders = nn.ModuleList(Stage(2 * width, width, blocks) for width in reversed(widths))
        self.exit = nn.Conv2d(widths[0], config.channels, 3, padding=1)
        nn.init.zeros_(self.exit.weight)
        nn.init.zeros_(self.exit.bias)

    def forward(self, x_t: Tensor, t: Tensor, *told: Tensor) -> Tensor:
        """x_t: (n, C, h, w); t: (n,), 0-based; told: the bicubic image (n, C, h, w), or nothing ->
        (n, C, h, w), the target of the prediction."""
        embedding = self.embed(sinusoidal_embedding(t, EMBEDDING_CHANNELS))
        x, skips = self.entry(torch.cat([x_t, *told], dim=1)), []
        for level, stage in enumerate(self.encoders):
            x = stage(x if level == 0 else self.downs[level - 1](x), embedding)
            skips.append(x)
        x = self.middle(self.attention(x), embedding)
        for level, stage in enumerate(self.decoders):
            if level:
                x = self.ups[level - 1](functional.interpolate(x, scale_factor=2, mode="nearest"))
            x = stage(torch.cat([x, skips.pop()], dim=1), embedding)
        return self.exit(x)
