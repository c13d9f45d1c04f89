"""ESRGAN's residual-in-residual dense blocks (Wang et al. 2018): the trunk, and the trunk as
a super-resolver alone."""
import torch
from torch import Tensor, nn
from torch.nn import functional

from swinmpi.config import ThesisModel

RESIDUAL_SCALE = 0.2
DENSE_BLOCKS = 3
UPSAMPLING_STAGES = {2: (2,), 3: (3,), 4: (2, 2)}


class RRDB(nn.Module):
    """The trunk: a first convolution, then blocks; the outputs of all blocks, concatenated,
    are the features. As published, a last convolution follows, and what it adds to the first
    one's output is one more feature."""

    def __init__(self, config: ThesisModel):
        super().__init__()
        width, self.as_published = config.rrdb_channels, config.as_published
        self.first = nn.Conv2d(config.channels, width, 3, padding=1)
        self.blocks = nn.ModuleList(RRDBBlock(width, config.rrdb_growth)
                                    for _ in range(config.rrdb_blocks))
        if self.as_published:
            self.last = nn.Conv2d(width, width, 3, padding=1)
        self.num_features = (config.rrdb_blocks + self.as_published) * width

    def forward(self, image: Tensor, joined: Tensor | float = 0.0) -> Tensor:
        """image: (n, C, h, w), see `seen_by_rrdb` -> (n, num_features, h, w).

        `joined`, (n, channels, h, w), is added to the first convolution: how an encoder
        adds to the trunk.
        """
        x = first = self.first(image) + joined
        outputs = []
        for block in self.blocks:
            x = block(x)
            outputs.append(x)
        if self.as_published:
            outputs.append(first + self.last(x))
        return torch.cat(outputs, dim=1)


def seen_by_rrdb(config: ThesisModel, images: Tensor) -> Tensor:
    """Images in -1..1 as the trunk takes them: as published in 0..1."""
    return (images + 1) / 2 if config.as_published else images


class RRDBBlock(nn.Module):
    """x + 0.2 * dense blocks(x)."""

    def __init__(self, channels: int, growth: int):
        super().__init__()
        self.dense = nn.Sequential(*[DenseBlock(channels, growth) for _ in range(DENSE_BLOCKS)])

    def forward(self, x: Tensor) -> Tensor:
        return x + RESIDUAL_SCALE * self.dense(x)


class DenseBlock(nn.Module):
    """Five convolutions, each seeing x and everything before it; x + 0.2 * the last."""

    def __init__(self, channels: int, growth: int):
        super().__init__()
        self.grow = nn.ModuleList(nn.Conv2d(channels + i * growth, growth, 3, padding=1)
                                  for i in range(4))
        self.close = nn.Conv2d(channels + 4 * growth, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        seen = x
        for conv in self.grow:
            seen = torch.cat([seen, leaky(conv(seen))], dim=1)
        return x + RESIDUAL_SCALE * self.close(seen)


class RRDBHead(nn.Module):
    """The layers that turn features of the trunk, (n, channels, h, w), into the residual
    (n, C, h * scale, w * scale)."""

    def add_head(self, config: ThesisModel) -> None:
        """Make the layers. The residual starts at 0: bicubic."""
        width, self.stages = config.rrdb_channels, UPSAMPLING_STAGES[config.scale]
        self.upsample = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in self.stages)
        self.refine = nn.Conv2d(width, width, 3, padding=1)
        self.last = nn.Conv2d(width, config.channels, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def enlarge(self, x: Tensor) -> Tensor:
        for factor, conv in zip(self.stages, self.upsample, strict=True):
            x = leaky(conv(functional.interpolate(x, scale_factor=factor, mode="nearest")))
        return self.last(leaky(self.refine(x)))


class RRDBSuperResolver(RRDBHead):
    """The trunk used alone: LR image -> the residual HR - bicubic(LR), by L1 regression.

    The pre-training of the thesis: it fits into RRDBEncoder.
    """

    def __init__(self, config: ThesisModel):
        super().__init__()
        self.config, self.trunk = config, RRDB(config)
        if not config.as_published:
            # Fusing all blocks, not only the last, trains every output that an encoder will read.
            self.fuse = nn.Conv2d(self.trunk.num_features, config.rrdb_channels, 1)
        self.add_head(config)

    def forward(self, lr: Tensor) -> Tensor:
        """lr: (n, C, h, w) in -1..1 -> (n, C, h * scale, w * scale), the residual on the same
        scale of values."""
        features = self.trunk(seen_by_rrdb(self.config, lr))
        return self.enlarge(features[:, -self.config.rrdb_channels:] if self.config.as_published
                            else self.fuse(features))


def leaky(x: Tensor) -> Tensor:
    return functional.leaky_relu(x, 0.2)
