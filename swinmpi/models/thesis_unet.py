"""The U-Net of the thesis (figure 2.8): one window of x_t, the time and the window's
features -> eps, v or x_0."""
from functools import partial

from torch import Tensor, nn

from swinmpi.config import ThesisModel
from swinmpi.models.blocks import (
    DoubleConv,
    Down,
    SelfAttention,
    Up,
    dropped_out,
    sinusoidal_embedding,
)

EMBEDDING_CHANNELS = 256


class ThesisUNet(nn.Module):
    """Four resolutions, a bottleneck of double convolutions, self-attention after every way
    down and every way up.

    23,334,531 parameters at the published widths 64-128-256-256 and 512 in the bottleneck.
    The window's side must be a multiple of 8, which ThesisModel guarantees.
    """

    def __init__(self, config: ThesisModel):
        super().__init__()
        widths, bottleneck, heads = (config.unet_channels, config.bottleneck_channels,
                                     config.attention_heads)
        self.dropout = config.dropout
        attention = partial(SelfAttention, heads=heads, normed_twice=config.as_published)
        steps = list(zip(widths[:-1], widths[1:], strict=True))
        self.entry = DoubleConv(config.channels, widths[0])
        self.downs = nn.ModuleList(Down(fine, coarse, EMBEDDING_CHANNELS) for fine, coarse in steps)
        self.attention_down = nn.ModuleList(attention(coarse) for _, coarse in steps)
        self.bottleneck = nn.Sequential(DoubleConv(widths[-1], bottleneck),
                                        DoubleConv(bottleneck, bottleneck),
                                        DoubleConv(bottleneck, widths[-2]))
        self.ups, self.attention_up = nn.ModuleList(), nn.ModuleList()
        coarse = widths[-2]
        for level in range(len(steps) - 1, -1, -1):
            # Each way up ends as wide as the skip it meets next, so both halves
            # of a join are equal.
            outputs = widths[max(level - 1, 0)]
            self.ups.append(Up(coarse, widths[level], outputs, EMBEDDING_CHANNELS,
                               align_corners=config.as_published))
            self.attention_up.append(attention(outputs))
            coarse = outputs
        self.exit = nn.Conv2d(coarse, config.channels, 1)

    def forward(self, x: Tensor, t: Tensor, features: Tensor | None = None) -> Tensor:
        """x: (n, C, w, w), x_t of a window; t: (n,), 0-based; features: (n, unet_channels[0],
        w, w), added to the first feature map (None: the unconditional network) -> (n, C, w, w),
        the target of the prediction."""
        embedding = sinusoidal_embedding(t, EMBEDDING_CHANNELS)
        if self.training and self.dropout:
            embedding = dropped_out(embedding, self.dropout)
        x = self.entry(x)
        if features is not None:
            x = x + features
        skips = []
        for down, attention in zip(self.downs, self.attention_down, strict=True):
            skips.append(x)
            x = attention(down(x, embedding))
        x = self.bottleneck(x)
        for up, attention in zip(self.ups, self.attention_up, strict=True):
            x = attention(up(x, skips.pop(), embedding))
        return self.exit(x)
