"""The U-Net of SRDiff (Li et al. 2021, arXiv 2104.14951): no normalisation, no attention,
reflection padding; the encoder's features are enlarged and added at full resolution."""
import torch
from torch import Tensor, nn
from torch.nn import functional

from swinmpi.config import SrdiffModel
from swinmpi.models.blocks import sinusoidal_embedding
from swinmpi.models.srdiff_encoder import SrdiffEncoder


class SrdiffUNet(nn.Module):
    """Four resolutions of two residual blocks; at 4x 9.37 M parameters with the widths published
    for CelebA, 11.76 M with those for DF2K. Sides must be multiples of 8 and at least 16."""

    def __init__(self, config: SrdiffModel):
        super().__init__()
        widths, first, scale = config.unet_channels, config.unet_channels[0], config.scale
        steps = list(zip(widths[:-1], widths[1:], strict=True))
        self.enlarge = nn.ConvTranspose2d(SrdiffEncoder.num_features(config), first, 2 * scale,
                                          scale, scale // 2)
        self.embed = nn.Sequential(nn.Linear(first, 4 * first), ExactMish(),
                                   nn.Linear(4 * first, first), ExactMish())
        self.encoders = nn.ModuleList(Stage(inputs, outputs, first) for inputs, outputs
                                      in [(config.channels, first), *steps])
        self.downs = nn.ModuleList(mirrored_conv(fine, fine, stride=2) for fine, _ in steps)
        self.middle = Stage(widths[-1], widths[-1], first)
        self.decoders = nn.ModuleList(Stage(2 * coarse, fine, first)
                                      for fine, coarse in reversed(steps))
        self.ups = nn.ModuleList(nn.ConvTranspose2d(fine, fine, 4, 2, 1)
                                 for fine, _ in reversed(steps))
        self.exit = nn.Sequential(mirrored_conv(first, first), nn.Mish(),
                                  nn.Conv2d(first, config.channels, 1))

    def forward(self, x: Tensor, t: Tensor, enlarged: Tensor) -> Tensor:
        """x: (n, C, h, w), x_t; t: (n,), 0-based; enlarged: (n, unet_channels[0], h, w), what
        `enlarge` makes of the encoder's features -> (n, C, h, w), the target of the prediction."""
        embedding = self.embed(sinusoidal_embedding(t, self.embed[0].in_features))
        x = self.encoders[0](x, embedding) + enlarged
        skips = []
        # The full resolution has no skip: what was joined there is not joined again.
        for down, stage in zip(self.downs, self.encoders[1:], strict=True):
            x = stage(down(x), embedding)
            skips.append(x)
        x = self.middle(x, embedding)
        for stage, up in zip(self.decoders, self.ups, strict=True):
            x = up(stage(x, embedding, skips.pop()))
        return self.exit(x)


class ExactMish(nn.Module):
    """Mish of few numbers, in float64: the last bits of float32 would depend on their place in
    the batch."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.mish(x.double()).to(x.dtype)


class Stage(nn.Module):
    """Two residual blocks of one resolution; the first may change the width."""

    def __init__(self, inputs: int, outputs: int, embedding_channels: int):
        super().__init__()
        self.blocks = nn.ModuleList([MishBlock(inputs, outputs, embedding_channels),
                                     MishBlock(outputs, outputs, embedding_channels)])

    def forward(self, x: Tensor, embedding: Tensor, skip: Tensor | None = None) -> Tensor:
        """skip: as many channels as x, behind which it is put."""
        x = x if skip is None else torch.cat([x, skip], dim=1)
        for block in self.blocks:
            x = block(x, embedding)
        return x


class MishBlock(nn.Module):
    """x + Mish(conv(Mish(conv(x)) + time)); (n, inputs, h, w) -> (n, outputs, h, w). The
    embedding has gone through Mish."""

    def __init__(self, inputs: int, outputs: int, embedding_channels: int):
        super().__init__()
        self.conv1, self.conv2 = mirrored_conv(inputs, outputs), mirrored_conv(outputs, outputs)
        self.time = nn.Linear(embedding_channels, outputs)
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = functional.mish(self.conv1(x)) + self.time(embedding)[:, :, None, None]
        return self.skip(x) + functional.mish(self.conv2(h))


def mirrored_conv(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """3 x 3, what lies outside being the mirror image."""
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, padding_mode="reflect")
