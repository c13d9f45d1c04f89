"""The U-Net of the `aligned` family: lean, and told what lies under its window."""
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from swinmpi.config import AlignedModel
from swinmpi.models.blocks import SelfAttention, sinusoidal_embedding

EMBEDDING_CHANNELS = 192


class AlignedUNet(nn.Module):
    """Predicts eps, v or x_0 of a window from x_t, the aligned features, the border channel,
    t and the global vector.

    Works on the window unshuffled by `fold`, one resolution per entry of `unet_channels`,
    attention at the lowest only.
    """

    def __init__(self, config: AlignedModel, fold: int = 2):
        super().__init__()
        widths, self.fold = config.unet_channels, fold
        told = config.feature_channels + config.residual_channels + 1
        outputs = fold**2 * config.x_channels
        self.embed = nn.Sequential(
            nn.Linear(EMBEDDING_CHANNELS + config.global_channels, EMBEDDING_CHANNELS),
            nn.SiLU(), nn.Linear(EMBEDDING_CHANNELS, EMBEDDING_CHANNELS), nn.SiLU())
        self.entry = nn.Conv2d(outputs + fold**2 * told, widths[0], 3, padding=1)
        pairs = list(zip(widths[:-1], widths[1:], strict=True))
        self.encoders = nn.ModuleList(Stage(width, width, config.unet_blocks) for width in widths)
        self.downs = nn.ModuleList(nn.Conv2d(fine, coarse, 2, stride=2) for fine, coarse in pairs)
        self.attention = SelfAttention(widths[-1], config.attention_heads)
        self.middle = Stage(widths[-1], widths[-1], 2)
        self.ups = nn.ModuleList(nn.Conv2d(coarse, 4 * fine, 1) for fine, coarse in reversed(pairs))
        self.decoders = nn.ModuleList(Stage(2 * width, width, config.unet_blocks)
                                      for width in reversed(widths))
        self.exit = nn.Conv2d(widths[0], outputs, 3, padding=1)
        nn.init.zeros_(self.exit.weight)
        nn.init.zeros_(self.exit.bias)

    def forward(self, x_t: Tensor, t: Tensor, features: Tensor, border: Tensor,
                global_vector: Tensor) -> Tensor:
        """x_t: (n, x_channels, w, w); t: (n,) 0-based; features: (n, F + residual_channels, w, w);
        border: (n, 1, w, w); global: (n, G)."""
        embedding = self.embed(
            torch.cat([sinusoidal_embedding(t, EMBEDDING_CHANNELS), global_vector], dim=1))
        x = self.entry(joined_and_unshuffled([x_t, features, border], self.fold))
        skips = []
        for level, stage in enumerate(self.encoders):
            x = stage(x if level == 0 else self.downs[level - 1](x), embedding)
            skips.append(x)
        x = self.middle(self.attention(x), embedding)
        for level, stage in enumerate(self.decoders):
            x = x if level == 0 else functional.pixel_shuffle(self.ups[level - 1](x), 2)
            x = stage(torch.cat([x, skips.pop()], dim=1), embedding)
        return functional.pixel_shuffle(self.exit(x), self.fold)


def joined_and_unshuffled(images: Sequence[Tensor], fold: int = 2) -> Tensor:
    """pixel_unshuffle by `fold` of images joined along their channels, (n, C, h, w) each, in one
    pass over the memory instead of two."""
    blocks = [image.unflatten(3, (-1, fold)).unflatten(2, (-1, fold)) for image in images]
    blocks = [block.permute(0, 1, 3, 5, 2, 4) for block in blocks]
    return torch.cat(blocks, dim=1).flatten(1, 3)


class Stage(nn.Module):
    """Residual blocks of one resolution; the first joins `inputs` channels into `outputs`."""

    def __init__(self, inputs: int, outputs: int, blocks: int):
        super().__init__()
        self.blocks = nn.ModuleList(ModulatedBlock(inputs if i == 0 else outputs, outputs)
                                    for i in range(blocks))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, embedding)
        return x


class ModulatedBlock(nn.Module):
    """Residual double convolution whose normalised middle is scaled and shifted by
    the embedding (FiLM)."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.norm1 = nn.GroupNorm(8, inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.modulate = nn.Linear(EMBEDDING_CHANNELS, 2 * outputs)
        self.norm2 = nn.GroupNorm(8, outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.modulate(embedding)[:, :, None, None].chunk(2, dim=1)
        # Under bf16 autocast the CPU normalises twice as fast in float32, the type of the weights,
        # and more exactly. Writing in place spares the caches.
        exact = self.norm1.weight.dtype
        h = self.conv1(functional.silu(self.norm1(x.to(exact)), inplace=True))
        h = self.conv2(functional.silu(self.norm2(h.to(exact)).mul_(1 + scale).add_(shift),
                                       inplace=True))
        return self.skip(x) + h
