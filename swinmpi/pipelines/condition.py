"""What the U-Net is told about each window besides x_t and t, made once per image and handed out window by window."""
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from swinmpi.config import Config
from swinmpi.images.degrade import imresize_tensor
from swinmpi.models.diffuser import Diffuser, autocast, thesis_condition
from swinmpi.parallel.comm import Group
from swinmpi.parallel.ownership import block_range
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

    def prepare(self, shift: Shift, positions: Sequence[int], x_t: Callable[[], Tensor]) -> None:
        """Nothing to do: features depend neither on the shift nor on x_t."""

    def inputs(self, shift: Shift, position: int) -> tuple[Tensor, ...]:
        """(features and residual (F + C, w, w), border channel (1, w, w), global vector (G,)) of one window."""
        grid = self.grid
        origin = window_origin(grid, shift, position)
        border = border_distance_at(*origin, grid.window_px, grid.height_px, grid.width_px, BORDER_REACH_PX, grid.border)
        return cut_at(self.features, *origin, grid.window_px, grid.border), border.to(self.features), self.global_vector


class ThesisCondition:
    """The encoder's answer to (LR image, mask of the window), made once per distinct shift and window and kept."""

    def __init__(self, config: Config, model: Diffuser, lr: Tensor, grid: WindowGrid, micro_batch: int):
        self.config, self.model, self.grid, self.micro_batch = config, model, grid, micro_batch
        side = config.model.window_px
        self.lr = imresize_tensor(lr[None], size=(side, side)) if lr.shape[-2:] != (side, side) else lr[None]
        self.kept: dict[tuple[Shift, int], Tensor] = {}

    def prepare(self, shift: Shift, positions: Sequence[int], x_t: Callable[[], Tensor]) -> None:
        """Encode the windows not known yet, in padded micro-batches; with x_t in the condition nothing can be kept."""
        model, side = self.config.model, self.config.model.window_px
        if self.model.encoder is None:
            return
        small = None
        if model.condition_on != "lr":
            self.kept.clear()
            small = imresize_tensor(x_t()[None].to(self.lr), size=(side, side)).expand(self.micro_batch, -1, -1, -1)
        missing = [position for position in positions if (shift, position) not in self.kept]
        for first in range(0, len(missing), self.micro_batch):
            part = missing[first:first + self.micro_batch]
            padded = [*part, *[part[-1]] * (self.micro_batch - len(part))]
            masks = gaussian_masks(self.grid, shift, padded, model.mask_width, side, side).to(self.lr)
            condition = thesis_condition(model, self.lr.expand(self.micro_batch, -1, -1, -1), masks, small)
            with autocast(self.lr.device, self.config.parallel.precision):
                encoded = self.model.encoder(condition)
            self.kept |= {(shift, position): features.float() for position, features in zip(part, encoded, strict=False)}

    def inputs(self, shift: Shift, position: int) -> tuple[Tensor, ...]:
        """(features (unet_channels[0], w, w),) of one window; nothing without an encoder."""
        return (self.kept[shift, position],) if self.model.encoder is not None else ()


def encode_aligned(model: Diffuser, images: Sequence[Tensor], group: Group, precision: str) -> list[tuple[Tensor, Tensor]]:
    """(features (F + C, H, W), global vector (G,)) of each LR image (C, h, w), the work shared by the ranks. Collective.

    An image is encoded in blocks of its own unshifted grid with a halo as wide as the receptive field: the answer is
    the whole image's, and a block's bits do not depend on who computes it. Block sums are added in the order of blocks
    for the image's mean.
    """
    encoder, scale = model.encoder, model.config.scale
    blocks = [(i, *block) for i, lr in enumerate(images) for block in blocks_of(*lr.shape[-2:])]
    shares = [block_range(len(blocks), group.size, rank) for rank in range(group.size)]
    channels, width = encoder.tail.out_channels // scale**2, encoder.head.out_channels
    shapes = [(channels, height * scale, across * scale) for *_, height, across in blocks]
    with autocast(images[0].device, precision):
        encoded = [encode_block(encoder, images[blocks[k][0]], blocks[k][1:], scale) for k in shares[group.rank]]
    features = share_all(group, [part for part, _ in encoded], shapes, shares)
    sums = share_all(group, [total for _, total in encoded], [(width,)] * len(blocks), shares)
    results = []
    for slot, lr in enumerate(images):
        height, across = lr.shape[-2:]
        whole, total = torch.empty(channels, height * scale, across * scale), torch.zeros(width)
        for (i, y, x, h, w), part, block_sum in zip(blocks, features, sums, strict=True):
            if i == slot:
                whole[:, y * scale:(y + h) * scale, x * scale:(x + w) * scale] = part
                total += block_sum
        vector = encoder.global_vector((total / (height * across))[None].to(lr.device))[0]
        results.append((whole.to(lr.device), vector.float()))
    return results


def share_all(group: Group, own: Sequence[Tensor], shapes: Sequence[tuple[int, ...]],
              shares: Sequence[range]) -> list[Tensor]:
    """Tensors of known shapes, each made by one rank, on every rank (CPU). Collective."""
    sizes = [math.prod(shape) for shape in shapes]
    flat = torch.cat([part.flatten().cpu() for part in own]) if own else torch.empty(0)
    everything = torch.from_numpy(group.allgather_arrays(flat.numpy(), [sum(sizes[k] for k in share) for share in shares]))
    return [part.view(shape) for part, shape in zip(everything.split(sizes), shapes, strict=True)]


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
