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
    are the features."""

    def __init__(self, image_channels: int, channels: int, growth: int, num_blocks: int):
        super().__init__()
        self.first = nn.Conv2d(image_channels, channels, 3, padding=1)
        self.blocks = nn.ModuleList(RRDBBlock(channels, growth) for _ in range(num_blocks))

    def forward(self, image: Tensor, joined: Tensor | float = 0.0) -> Tensor:
        """image: (n, image_channels, h, w) in -1..1 -> (n, num_blocks * channels, h, w).

        `joined`, (n, channels, h, w), is added to the first convolution: how an encoder
        adds to the trunk.
        """
        x = self.first(image) + joined
        outputs = []
        for block in self.blocks:
            x = block(x)
            outputs.append(x)
        return torch.cat(outputs, dim=1)


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


class RRDBSuperResolver(nn.Module):
    """The trunk used alone: LR image -> the residual HR - bicubic(LR), by L1 regression.

    The pre-training of the thesis: its `trunk` fits into RRDBEncoder. It starts as bicubic,
    its residual being 0.
    """

    def __init__(self, config: ThesisModel):
        super().__init__()
        width = config.rrdb_channels
        self.trunk = RRDB(config.channels, width, config.rrdb_growth, config.rrdb_blocks)
        # Fusing all blocks, not only the last, trains every output that an encoder will read.
        self.fuse = nn.Conv2d(config.rrdb_blocks * width, width, 1)
        self.stages = UPSAMPLING_STAGES[config.scale]
        self.upsample = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in self.stages)
        self.refine = nn.Conv2d(width, width, 3, padding=1)
        self.last = nn.Conv2d(width, config.channels, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, lr: Tensor) -> Tensor:
        """lr: (n, C, h, w) in -1..1 -> (n, C, h * scale, w * scale), the residual on the same
        scale of values."""
        x = self.fuse(self.trunk(lr))
        for factor, conv in zip(self.stages, self.upsample, strict=True):
            x = leaky(conv(functional.interpolate(x, scale_factor=factor, mode="nearest")))
        return self.last(leaky(self.refine(x)))


def leaky(x: Tensor) -> Tensor:
    return functional.leaky_relu(x, 0.2)
