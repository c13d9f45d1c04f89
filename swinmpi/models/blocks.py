"""Building blocks of the networks: time embedding, self-attention, and the residual double
convolutions of the thesis.

All images are (n, channels, height, width). Every block keeps the memory format it is given
(channels_last pays on the CPU) and is safe under bf16 autocast; no control flow depends on data.
"""
import math

import torch
from torch import Tensor, nn
from torch.nn import functional


def sinusoidal_embedding(t: Tensor, dim: int) -> Tensor:
    """Sines, then cosines, of t at dim/2 wavelengths from 2 pi to nearly 20000 pi
    (Vaswani et al. 2017, section 3.5).

    t: (n,) of any number type -> (n, dim) float32 in -1..1. ValueError when `dim` is odd.
    """
    if dim % 2:
        raise ValueError("the time embedding is half sines, half cosines: "
                         f"expected an even dim, got {dim}")
    fraction = torch.arange(0, dim, 2, device=t.device, dtype=torch.float32) / dim
    angle = t.float()[:, None] * torch.exp(-math.log(10000) * fraction)
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def dropped_out(x: Tensor, share: float) -> Tensor:
    """Each number 0 with probability `share`, the others over 1 - share, so that the mean stays.

    Drawn by the CPU's generator on any device: a resumed training draws on as if never stopped.
    """
    keep = torch.empty(x.shape).bernoulli_(1 - share).div_(1 - share)
    return x * keep.to(x)


def set_fused_attention(module: nn.Module, fused: bool) -> None:
    """Switch every SelfAttention inside `module` to scaled_dot_product_attention,
    or to the explicit softmax."""
    for part in module.modules():
        if isinstance(part, SelfAttention):
            part.fused = fused


def count_parameters(module: nn.Module) -> int:
    """How many numbers `module` holds as parameters, frozen ones included."""
    return sum(parameter.numel() for parameter in module.parameters())


class SelfAttention(nn.Module):
    """Every pixel attends to every pixel (LayerNorm, heads, residual), then a small
    feed-forward (residual).

    x: (n, channels, h, w) -> the same shape. `fused` chooses how, never what: both ways
    agree to rounding.
    ValueError when `heads` does not divide `channels`.
    """

    def __init__(self, channels: int, heads: int, fused: bool = True,
                 normed_twice: bool = False):
        """normed_twice: the feed-forward has a second LayerNorm where it else has a GELU."""
        super().__init__()
        if channels % heads:
            raise ValueError(f"expected channels that {heads} attention heads divide, "
                             f"got {channels}")
        self.heads, self.fused = heads, fused
        self.norm = nn.LayerNorm(channels)
        self.to_qkv = nn.Linear(channels, 3 * channels)
        self.join_heads = nn.Linear(channels, channels)
        self.feed_forward = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, channels),
                                          nn.LayerNorm(channels) if normed_twice else nn.GELU(),
                                          nn.Linear(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2)
                   for part in self.to_qkv(self.norm(tokens)).chunk(3, dim=2))
        mixed = (functional.scaled_dot_product_attention(q, k, v) if self.fused
                 else explicit_attention(q, k, v))
        tokens = tokens + self.join_heads(mixed.transpose(1, 2).flatten(2))
        tokens = tokens + self.feed_forward(tokens)
        return tokens.transpose(1, 2).unflatten(2, x.shape[2:])


def explicit_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v (Vaswani et al. 2017, eq. 1), each (n, heads, tokens, d);
    holds tokens^2 weights."""
    weights = torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1]), dim=-1)
    return weights.to(v.dtype) @ v


class DoubleConv(nn.Sequential):
    """conv, norm, GELU, conv, norm; (n, inputs, h, w) -> (n, outputs, h, w). The norm is over
    the whole image."""

    def __init__(self, inputs: int, outputs: int, middle: int | None = None):
        middle = middle or outputs
        super().__init__(
            nn.Conv2d(inputs, middle, 3, padding=1, bias=False), nn.GroupNorm(1, middle), nn.GELU(),
            nn.Conv2d(middle, outputs, 3, padding=1, bias=False), nn.GroupNorm(1, outputs))


class ResidualDoubleConv(nn.Module):
    """GELU(x + DoubleConv(x))."""

    def __init__(self, channels: int):
        super().__init__()
        self.change = DoubleConv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return functional.gelu(x + self.change(x))


class TimeShift(nn.Module):
    """Adds one learned number per channel that depends on the time embedding only."""

    def __init__(self, embedding_channels: int, channels: int):
        super().__init__()
        self.project = nn.Sequential(nn.SiLU(), nn.Linear(embedding_channels, channels))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        return x + self.project(embedding)[:, :, None, None]


class Down(nn.Module):
    """Half the size: (n, inputs, h, w) and (n, embedding_channels) -> (n, outputs, h/2, w/2)."""

    def __init__(self, inputs: int, outputs: int, embedding_channels: int):
        super().__init__()
        self.convs = nn.Sequential(nn.MaxPool2d(2), ResidualDoubleConv(inputs),
                                   DoubleConv(inputs, outputs))
        self.time = TimeShift(embedding_channels, outputs)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        return self.time(self.convs(x), embedding)


class Up(nn.Module):
    """Twice the size, joined with the skip of that size.

    x: (n, coarse, h, w), skip: (n, fine, 2 h, 2 w), embedding: (n, embedding_channels) ->
    (n, outputs, 2 h, 2 w).
    """

    def __init__(self, coarse: int, fine: int, outputs: int, embedding_channels: int,
                 align_corners: bool = False):
        """align_corners: whether enlarging keeps the corner pixels' centres in place."""
        super().__init__()
        self.align_corners = align_corners
        joined = coarse + fine
        self.convs = nn.Sequential(ResidualDoubleConv(joined),
                                   DoubleConv(joined, outputs, middle=joined // 2))
        self.time = TimeShift(embedding_channels, outputs)

    def forward(self, x: Tensor, skip: Tensor, embedding: Tensor) -> Tensor:
        x = functional.interpolate(x, scale_factor=2, mode="bilinear",
                                   align_corners=self.align_corners)
        return self.time(self.convs(torch.cat([skip, x], dim=1)), embedding)
