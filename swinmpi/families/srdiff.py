"""The family `srdiff` (Li et al. 2021, arXiv 2104.14951), layer by layer: what is diffused is the
residual to the bicubic image; an RRDB, trained alone and then frozen, makes the condition.

One window covers the image, as published; with `model.window_px` its network works on windows.
"""
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from swinmpi.config import SrdiffModel
from swinmpi.families.beneath import Beneath, distance_on_windows, has_windows, predict_beneath
from swinmpi.families.family import (
    Batch,
    Drawing,
    Encoding,
    Objective,
    Window,
    frame_windows,
    upsampled,
)
from swinmpi.images.lr_rows import LrRows
from swinmpi.models.diffuser import Diffuser, autocast
from swinmpi.models.srdiff_encoder import SrdiffEncoder
from swinmpi.models.srdiff_unet import SrdiffUNet
from swinmpi.parallel.ownership import Ownership


class Srdiff:
    """See families/family.py."""

    takes_steps = True
    num_parts = 1
    needs_whole_lr = True
    reach_px = 0
    joins_edges = False
    time_per_window = True
    starts_from_lr = True

    def __init__(self, config: SrdiffModel):
        self.config = config
        self.model = Diffuser(SrdiffEncoder(config), SrdiffUNet(config))
        self.x_channels, self.x_px_per_lr_px = config.channels, config.scale

    def x_0(self, hr: Tensor, base: Tensor) -> Tensor:
        """base: the bicubic image."""
        return ((hr - base) * self.config.residual_gain).clamp(-1, 1)

    def image(self, x_0: Tensor, base: Tensor, out: Tensor | None = None) -> Tensor:
        return torch.div(x_0, self.config.residual_gain, out=out).add_(base)

    def draw(self, drawing: Drawing, rng: np.random.Generator) -> list[Window]:
        return frame_windows(drawing, rng)

    def losses(self, batch: Batch, objective: Objective) -> dict[str, Tensor]:
        """Distance of the prediction; plus the weighted L1 of the encoder's own image, where it is
        trained as well."""
        encoder = self.model.encoder
        levels = encoder.levels(batch.lr)
        told = self.model.unet.enlarge(encoder.features(levels))
        diffusion = distance_on_windows(self, batch, objective,
                                        self.x_0(batch.hr, upsampled(batch)), [told])
        parts = {"loss": diffusion, "diffusion": diffusion.detach()}
        if any(parameter.requires_grad for parameter in encoder.parameters()):
            regression = functional.l1_loss(encoder.image(levels).float(), batch.hr)
            parts["loss"] = diffusion + objective.regression_weight * regression
            parts["regression"] = regression.detach()
        return parts

    def lr_rows(self, height: int, width: int, num_images: int,
                ownership: Ownership) -> list[range]:
        return [range(height)] * num_images

    def conditions(self, images: Sequence[LrRows], encoding: Encoding,
                   residuals: Sequence[Tensor] | None) -> list[Beneath]:
        return [Beneath(self.told(image, encoding) if has_windows(encoding, slot) else None,
                        encoding) for slot, image in enumerate(images)]

    def told(self, image: LrRows, encoding: Encoding) -> Tensor:
        """The enlarged features of a whole image, (unet_channels[0], H, W)."""
        encoder = self.model.encoder
        with autocast(encoding.device, encoding.precision):
            levels = encoder.levels(image.values[None].to(encoding.device))
            return self.model.unet.enlarge(encoder.features(levels))[0].float()

    def predict(self, x_t: Tensor, t: Tensor, *told: Tensor) -> Tensor:
        """told: enlarged features (n, unet_channels[0], h, w)."""
        return predict_beneath(self.model.unet, x_t, t, *told)
