"""The encoder of SRDiff: an RRDB that is a super-resolver by itself, and whose features are
the condition (Li et al. 2021, arXiv 2104.14951)."""
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from swinmpi.config import SrdiffModel
from swinmpi.models.rrdb import RRDBBlock, leaky

FIRST_LEVEL, LEVEL_STEP = 2, 3


class SrdiffEncoder(nn.Module):
    """1.48 M parameters at 4x with the published 8 blocks of 32 channels that grow by 16."""

    def __init__(self, config: SrdiffModel):
        super().__init__()
        width = config.rrdb_channels
        self.first = nn.Conv2d(config.channels, width, 3, padding=1)
        self.blocks = nn.ModuleList(RRDBBlock(width, config.rrdb_growth)
                                    for _ in range(config.rrdb_blocks))
        self.trunk = nn.Conv2d(width, width, 3, padding=1)
        self.upsample = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1)
                                      for _ in range(config.scale.bit_length() - 1))
        self.refine = nn.Conv2d(width, width, 3, padding=1)
        self.last = nn.Conv2d(width, config.channels, 3, padding=1)
        # A channel that starts wholly beyond the cut-off of `image` would never learn.
        nn.init.constant_(self.last.bias, 0.5)

    @staticmethod
    def num_features(config: SrdiffModel) -> int:
        """Channels of `features`."""
        return config.rrdb_channels * len(range(FIRST_LEVEL, config.rrdb_blocks + 1, LEVEL_STEP))

    def levels(self, lr: Tensor) -> list[Tensor]:
        """lr: (n, C, h, w) in -1..1 -> what every block gives and, last, the trunk, each
        (n, width, h, w)."""
        shallow = x = self.first((lr + 1) / 2)
        made = []
        for block in self.blocks:
            x = block(x)
            made.append(x)
        return [*made, shallow + self.trunk(x)]

    @staticmethod
    def features(levels: Sequence[Tensor]) -> Tensor:
        """Every third level from the third, (n, num_features, h, w): the condition."""
        return torch.cat(levels[FIRST_LEVEL::LEVEL_STEP], dim=1)

    def image(self, levels: Sequence[Tensor]) -> Tensor:
        """The super-resolved image, (n, C, h * scale, w * scale) in -1..1, beyond which it is
        cut off, in training too."""
        x = levels[-1]
        for conv in self.upsample:
            x = leaky(conv(functional.interpolate(x, scale_factor=2, mode="nearest")))
        return self.last(leaky(self.refine(x))).clamp(0, 1) * 2 - 1
