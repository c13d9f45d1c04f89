"""What the U-Net is told about each window besides x_t and t, made once per image and handed out window by window."""
from collections.abc import Sequence

import torch
from torch import Tensor

from swinmpi.config import Config
from swinmpi.images.degrade import imresize_tensor
from swinmpi.models.diffuser import Diffuser, thesis_condition
from swinmpi.pipelines.exchange import Exchange
from swinmpi.pipelines.objective import BORDER_REACH_PX
from swinmpi.windows.grid import WindowGrid, window_origin
from swinmpi.windows.mask import border_distance_at, gaussian_masks
from swinmpi.windows.patchify import cut_at

ENCODER_BLOCK_PX = 128
Shift = tuple[int, int]


class AlignedCondition:
    """Features of one image on the HR grid, its regression residual and its global vector."""

    def __init__(self, features: Tensor, global_vector: Tensor, num_channels: int, grid: WindowGrid):
        self.features, self.global_vector, self.grid = features, global_vector, grid
        self.residual = features[-num_channels:]

    def inputs(self, shift: Shift, position: int) -> tuple[Tensor, ...]:
        """(features and residual (F + C, w, w), border channel (1, w, w), global vector (G,)) of one window."""
        grid = self.grid
        origin = window_origin(grid, shift, position)
        border = border_distance_at(*origin, grid.window_px, grid.height_px, grid.width_px, BORDER_REACH_PX, grid.border)
        return cut_at(self.features, *origin, grid.window_px, grid.border), border.to(self.features), self.global_vector


class ThesisCondition:
    """The encoder's answer to (LR image, mask of the window), once per distinct shift and window."""

    def __init__(self, config: Config, model: Diffuser, lr: Tensor, grid: WindowGrid):
        self.config, self.model, self.grid = config, model, grid
        side = config.model.window_px
        self.lr = imresize_tensor(lr[None], size=(side, side)) if lr.shape[-2:] != (side, side) else lr[None]
        self.kept: dict[tuple[Shift, int], Tensor] = {}

    def prepare(self, shift: Shift, positions: Sequence[int], x_t: Tensor | None) -> None:
        """Encode the windows not known yet; with x_t in the condition or `encoder_cache: false` nothing is kept."""
        if self.model.encoder is None:
            return
        model = self.config.model
        if x_t is not None or not self.config.parallel.encoder_cache:
            self.kept.clear()
        missing = [k for k in positions if (shift, k) not in self.kept]
        side = model.window_px
        for k in missing:
            mask = gaussian_masks(self.grid, shift, [k], model.mask_width, side, side).to(self.lr)
            small = None if x_t is None else imresize_tensor(x_t[None], size=(side, side))
            self.kept[shift, k] = self.model.encoder(thesis_condition(model, self.lr, mask, small))[0]

    def inputs(self, shift: Shift, position: int) -> tuple[Tensor, ...]:
        """(features (unet_channels[0], w, w),) of one window; nothing without an encoder."""
        return (self.kept[shift, position],) if self.model.encoder is not None else ()


def encode_aligned(model: Diffuser, images: Sequence[Tensor], exchange: Exchange) -> list[tuple[Tensor, Tensor]]:
    """(features (F + C, H, W), global vector (G,)) of each LR image (C, h, w), the work shared by the ranks. Collective.

    An image is encoded in blocks of its own unshifted grid with a halo as wide as the receptive field: the answer is
    the whole image's, and a block's bits do not depend on who computes it. Block sums are added in the order of blocks
    for the image's mean.
    """
    encoder, scale = model.encoder, model.config.scale
    blocks = [(i, *block) for i, lr in enumerate(images) for block in blocks_of(*lr.shape[-2:])]
    parts = []
    for i, *block in blocks[len(blocks) * exchange.rank // exchange.size:len(blocks) * (exchange.rank + 1) // exchange.size]:
        parts += encode_block(encoder, images[i], block, scale)
    channels, width = encoder.tail.out_channels // scale**2, encoder.head.out_channels
    shapes = [shape for *_, height, w in blocks for shape in ((channels, height * scale, w * scale), (width,))]
    parts = exchange.allgather(parts, shapes)
    results = [(lr.new_empty(channels, lr.shape[-2] * scale, lr.shape[-1] * scale), lr.new_zeros(width)) for lr in images]
    for (i, y, x, height, w), features, total in zip(blocks, parts[::2], parts[1::2], strict=True):
        results[i][0][:, y * scale:(y + height) * scale, x * scale:(x + w) * scale] = features
        results[i][1].add_(total)
    means = [total / (lr.shape[-2] * lr.shape[-1]) for lr, (_, total) in zip(images, results, strict=True)]
    return [(features, encoder.global_vector(mean[None])[0].float()) for (features, _), mean in zip(results, means, strict=True)]


def blocks_of(height: int, width: int) -> list[tuple[int, int, int, int]]:
    """(y, x, height, width) of the encoder's blocks, a function of the image size alone."""
    return [(y, x, min(ENCODER_BLOCK_PX, height - y), min(ENCODER_BLOCK_PX, width - x))
            for y in range(0, height, ENCODER_BLOCK_PX) for x in range(0, width, ENCODER_BLOCK_PX)]


def encode_block(encoder, lr: Tensor, block: tuple[int, int, int, int], scale: int) -> tuple[Tensor, Tensor]:
    """Features (F + C, height * scale, width * scale) of one block, and the sum of its trunk (width,), float32."""
    y, x, height, width = block
    halo = encoder.radius_px
    top, left = max(0, y - halo), max(0, x - halo)
    seen = lr[:, top:y + height + halo, left:x + width + halo]
    trunk = encoder.trunk(seen[None].contiguous(memory_format=torch.channels_last))
    features = encoder.upsample(trunk)[0].float()
    rows, cols = slice(y - top, y - top + height), slice(x - left, x - left + width)
    scaled = (slice((y - top) * scale, (y - top + height) * scale), slice((x - left) * scale, (x - left + width) * scale))
    return features[:, *scaled].contiguous(), trunk[0, :, rows, cols].float().sum(dim=(1, 2))
