"""A small vision transformer (Dosovitskiy et al., arXiv 2010.11929) over a whole image, which the
thesis's outlook (4.2.3) asks for: what lies elsewhere in the image, for windows that see a part.

An image has at most so many tokens: a larger one is halved until its patches are few enough. So
memory has a bound, and an image of any size is like those of training. Positions are fractions of
the image for the same reason. Local detail is not its task: convolutions see every pixel.
"""
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from swinmpi.config import AlignedModel, ThesisModel
from swinmpi.models.blocks import SelfAttention

REGISTERS = 4
"""Tokens without a place that attention may keep notes in (Darcet et al., arXiv 2309.16588)."""
SLOWEST, FASTEST = math.pi / 2, 4 * math.pi
"""Angular frequencies of positions, per side of the image: crops of a few patches resolve them."""


@dataclass(frozen=True, eq=False)
class Overview:
    """What was seen of N whole images of one size.

    vector: (N, G), by the class token; patches: (N, F, rows, cols), by the others; patch_px: side
    of a patch in LR px; size: of the images, LR px; joins: whether rows, and columns, come round.
    """

    vector: Tensor
    patches: Tensor
    patch_px: int
    size: tuple[int, int]
    joins: tuple[bool, bool]

    def image(self, number: int) -> "Overview":
        """Of one of the images."""
        one = slice(number, number + 1)
        return Overview(self.vector[one], self.patches[one], self.patch_px, self.size, self.joins)

    def beneath(self, rows: range, cols: range) -> Tensor:
        """Under these LR pixels, (N, F, len(rows), len(cols)); see `at`."""
        return self.at(*(torch.arange(line.start, line.stop) for line in (rows, cols)))

    def at(self, rows: Tensor, cols: Tensor) -> Tensor:
        """Interpolated linearly at LR pixels, whose centres have whole coordinates: rows (h,) and
        cols (w,) give (N, F, h, w); (n, h) and (n, w), of one image, (n, F, h, w)."""
        down, across = (
            weights(line, count, self.patch_px, size, joined).to(self.patches).unsqueeze(-3)
            for line, count, size, joined in zip((rows, cols), self.patches.shape[-2:], self.size,
                                                 self.joins, strict=True))
        return down @ self.patches @ across.transpose(-1, -2)


class ImageTransformer(nn.Module):
    """LR images in -1..1 -> Overview: a vector of `vector_channels` of each (none for 0), and
    `patch_channels` for each patch, which are 0 at first.

    Patches of `vit_patch_px`, a class token and registers, layers of self-attention. A patch that
    reaches beyond the image sees it mirrored, or its other side where edges join.
    """

    def __init__(self, config: AlignedModel | ThesisModel, patch_channels: int,
                 vector_channels: int):
        super().__init__()
        width, self.patch_px = config.vit_channels, config.vit_patch_px
        self.channels = config.channels
        self.most_tokens = config.vit_tokens
        self.embed = nn.Conv2d(config.channels * self.patch_px**2, width, 1)
        self.placeless = nn.Parameter(0.02 * torch.randn(1 + REGISTERS, width))
        self.layers = nn.Sequential(*[SelfAttention(width, config.vit_heads)
                                      for _ in range(config.vit_layers)])
        self.norm = nn.LayerNorm(width)
        self.to_patches = nn.Conv2d(width, patch_channels, 1)
        self.to_vector = nn.Linear(width, vector_channels) if vector_channels else None
        nn.init.zeros_(self.to_patches.weight)
        nn.init.zeros_(self.to_patches.bias)

    def halvings(self, size: tuple[int, int]) -> int:
        """How often images of (height, width) are halved before they are cut into patches."""
        times = 0
        while math.prod(-(-px // (self.patch_px << times)) for px in size) > self.most_tokens:
            times += 1
        return times

    def of(self, lr: Tensor, joins: tuple[bool, bool] = (False, False)) -> Overview:
        """Of whole images, (N, C, h, w)."""
        size = tuple(lr.shape[-2:])
        return self(halved(lr, self.halvings(size)), size, joins)

    def forward(self, small: Tensor, size: tuple[int, int],
                joins: tuple[bool, bool] = (False, False)) -> Overview:
        """small: images of `size` after `halvings`, (N, C, h', w'); a noise level, told in one more
        channel, is not looked at."""
        small = small[:, :self.channels]
        rows, cols = (filled(px, self.patch_px, joined, small.device)
                      for px, joined in zip(small.shape[-2:], joins, strict=True))
        x = self.embed(functional.pixel_unshuffle(small[:, :, rows[:, None], cols], self.patch_px))
        x = x + positions(x.shape[-2:], joins, x.shape[1], x.device)
        placeless = self.placeless.to(x.dtype).T.expand(len(x), -1, -1)
        tokens = self.layers(torch.cat([placeless, x.flatten(2)], dim=2).unsqueeze(3)).squeeze(3)
        tokens = self.norm(tokens.transpose(1, 2))
        patches = tokens[:, 1 + REGISTERS:].transpose(1, 2).unflatten(2, x.shape[-2:])
        vector = (tokens.new_zeros(len(x), 0) if self.to_vector is None
                  else self.to_vector(tokens[:, 0]))
        return Overview(vector, self.to_patches(patches),
                        self.patch_px << self.halvings(size), size, joins)


def halved(images: Tensor, times: int) -> Tensor:
    """(N, C, h, w), each time to means over 2 x 2 pixels, of fewer at an odd end."""
    for _ in range(times):
        images = functional.avg_pool2d(images, 2, ceil_mode=True)
    return images


def filled(size: int, patch_px: int, joined: bool, device: torch.device) -> Tensor:
    """Indices of the pixels of an axis, int64, filled up to whole patches by the other end, or
    mirrored."""
    at = torch.arange(-(-size // patch_px) * patch_px, device=device)
    if joined:
        return at % size
    at = at % (2 * size)
    return torch.minimum(at, 2 * size - 1 - at)


def positions(counts: tuple[int, int], joins: tuple[bool, bool], channels: int,
              device: torch.device) -> Tensor:
    """Sines and cosines of the patches' places, (channels, rows, cols) float32: a half of the
    channels by the row, a half by the column. Where edges join all places are the same."""
    frequencies = torch.logspace(0, 1, channels // 4, FASTEST / SLOWEST, device=device) * SLOWEST
    rows, cols = (torch.full((count,), 0.5, device=device) if joined
                  else (torch.arange(count, device=device) + 0.5) / count
                  for count, joined in zip(counts, joins, strict=True))
    angles = (frequencies[:, None] * at for at in (rows, cols))
    down, across = (torch.cat([angle.sin(), angle.cos()]) for angle in angles)
    return torch.cat([down[:, :, None].expand(-1, -1, counts[1]),
                      across[:, None, :].expand(-1, counts[0], -1)])


def weights(at: Tensor, count: int, patch_px: int, size: int, joined: bool) -> Tensor:
    """Of `count` patches along an axis of `size` pixels, for linear interpolation between their
    centres at pixels (..., n): float64 (..., n, count). Beyond the first and last centre it is
    theirs, or between them where edges join."""
    first, last = (patch_px - 1) / 2, (count - 0.5) * patch_px - 0.5
    at = at.double()
    if joined:
        at = first + (at - first) % size
    centres = torch.arange(count, dtype=torch.float64) * patch_px + first
    ends = (last - size, first + size) if joined else (first - size, last + size)
    knots = torch.cat([centres.new_tensor(ends[:1]), centres, centres.new_tensor(ends[1:])])
    owners = torch.tensor([count - 1 if joined else 0, *range(count), 0 if joined else count - 1])
    after = torch.searchsorted(knots, at.contiguous()).clamp(1, count + 1)
    share = ((at - knots[after - 1]) / (knots[after] - knots[after - 1])).clamp(0, 1)
    made = torch.zeros(*at.shape, count, dtype=torch.float64)
    made.scatter_add_(-1, owners[after - 1].unsqueeze(-1), (1 - share).unsqueeze(-1))
    return made.scatter_add_(-1, owners[after].unsqueeze(-1), share.unsqueeze(-1))
