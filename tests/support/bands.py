"""A tiny family that only tests know: it diffuses the Haar bands of what is missing in bicubic.

x_t has four times the channels and half the pixels along an axis; its network is one convolution
that is told the bicubic image under the window. `reach_px` is 1 although the bands need nothing
around them, so that the way of a border is tested.
"""
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from swinmpi.diffusion.process import q_sample, target
from swinmpi.families.beneath import surrounded
from swinmpi.families.family import (
    Batch,
    Drawing,
    Encoding,
    Objective,
    Shift,
    Window,
    counts_of,
    cut,
    frame_windows,
    upsampled,
)
from swinmpi.images.imresize import imresize_tensor
from swinmpi.images.lr_rows import LrRows
from swinmpi.models.diffuser import Diffuser
from swinmpi.parallel.ownership import Ownership
from swinmpi.windows.moves import Rect


@dataclass(frozen=True)
class BandsModel:
    """Its section; window_px counts px of x_t."""

    family: str = "bands"
    scale: int = 2
    channels: int = 3
    window_px: int = 16
    gain: float = 4.0


class Bands:
    """See families/family.py."""

    takes_steps = True
    num_parts = 1
    needs_whole_lr = True
    reach_px = 1
    joins_edges = False
    time_per_window = False
    starts_from_lr = True

    def __init__(self, config: BandsModel = BandsModel()):
        self.config = config
        self.x_channels, self.x_px_per_lr_px = 4 * config.channels, config.scale // 2
        network = nn.Conv2d(2 * self.x_channels, self.x_channels, 3, padding=1)
        self.model = Diffuser(None, network)

    def x_0(self, hr: Tensor, base: Tensor) -> Tensor:
        return haar(hr - base) * self.config.gain

    def image(self, x_0: Tensor, base: Tensor, out: Tensor | None = None) -> Tensor:
        reach = self.reach_px
        if x_0.shape[-1] * 2 != base.shape[-1]:
            x_0 = x_0[..., reach:-reach, reach:-reach]
        return torch.add(inverse_haar(x_0) / self.config.gain, base, out=out)

    def draw(self, drawing: Drawing, rng: np.random.Generator) -> list[Window]:
        return frame_windows(drawing, rng)

    def losses(self, batch: Batch, objective: Objective) -> dict[str, Tensor]:
        grid, counts = objective.grid, counts_of(batch)
        base = upsampled(batch)
        x_0, under = self.x_0(batch.hr, base), haar(base)
        t = torch.stack([times[0] for times in batch.t.split(counts.tolist())])
        x_t = q_sample(x_0, t, batch.eps, objective.path)
        wanted = target(objective.prediction, x_0, batch.eps, t, objective.path)
        x_t, wanted, under = (cut(image, batch.windows, grid.window_px, grid.border)
                              for image in (x_t, wanted, under))
        output = self.predict(x_t, t.repeat_interleave(counts), under)
        loss = objective.distance(output.float(), wanted)
        return {"loss": loss, "diffusion": loss.detach()}

    def lr_rows(self, height: int, width: int, num_images: int,
                ownership: Ownership) -> list[range]:
        return [range(height)] * num_images

    def conditions(self, images: Sequence[LrRows], encoding: Encoding,
                   residuals: Sequence[Tensor] | None) -> list["BandsCondition"]:
        return [BandsCondition(self, image.values, encoding) for image in images]

    def predict(self, x_t: Tensor, t: Tensor, *told: Tensor) -> Tensor:
        return (functional.silu(self.model.unet(torch.cat([x_t, *told], dim=1)))
                * (1 + t.view(-1, 1, 1, 1) / 1000))


class BandsCondition:
    def __init__(self, family: Bands, lr: Tensor, encoding: Encoding):
        self.grid = encoding.ownership.grid
        size = [side * family.config.scale for side in lr.shape[-2:]]
        self.tiled = surrounded(haar(imresize_tensor(lr[None].to(encoding.device), size=size))[0],
                                self.grid)

    def prepare(self, shift: Shift, positions: Sequence[int], x_t: Callable[[], Tensor]) -> None:
        """Nothing to do."""

    def inputs(self, shift: Shift, positions: Sequence[int]) -> tuple[Tensor, ...]:
        return (self.tiled.cut(shift, positions),)

    def residual(self, rect: Rect) -> None:
        """Nothing is added."""


def haar(image: Tensor) -> Tensor:
    """(..., C, H, W) -> (..., 4 C, H / 2, W / 2), orthonormal: mean, and three details."""
    a, b, c, d = (image[..., row::2, col::2] for row in (0, 1) for col in (0, 1))
    return torch.cat([a + b + c + d, a - b + c - d, a + b - c - d, a - b - c + d], dim=-3) / 2


def inverse_haar(bands: Tensor) -> Tensor:
    mean, right, down, diagonal = bands.chunk(4, dim=-3)
    rows = [(mean + right + down + diagonal, mean - right + down - diagonal),
            (mean + right - down - diagonal, mean - right - down + diagonal)]
    return torch.stack([torch.stack(row, dim=-1).flatten(-2) for row in rows],
                       dim=-2).flatten(-3, -2) / 2
