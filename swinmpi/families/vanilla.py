"""The family `vanilla`: plain diffusion of whole images, without an encoder.

Conditional, its network sees the bicubic image beside x_t (SR3, Saharia et al. 2021, arXiv
2104.07636); unconditional, it makes images from noise (Ho et al. 2020).
"""
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from swinmpi.config import VanillaModel
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
from swinmpi.images.imresize import imresize_tensor
from swinmpi.images.lr_rows import LrRows
from swinmpi.models.diffuser import Diffuser
from swinmpi.models.vanilla_unet import VanillaUNet
from swinmpi.parallel.ownership import Ownership


class Vanilla:
    """See families/family.py."""

    takes_steps = True
    num_parts = 1
    needs_whole_lr = True
    reach_px = 0
    joins_edges = False
    time_per_window = True

    def __init__(self, config: VanillaModel):
        self.config = config
        self.model = Diffuser(None, VanillaUNet(config))
        self.x_channels, self.x_px_per_lr_px = config.channels, config.scale

    @property
    def starts_from_lr(self) -> bool:
        """True where a residual is diffused."""
        return self.config.residual_gain is not None

    def x_0(self, hr: Tensor, base: Tensor) -> Tensor:
        """base: the bicubic image; not looked at where the image itself is diffused."""
        if not self.starts_from_lr:
            return hr
        return ((hr - base) * self.config.residual_gain).clamp(-1, 1)

    def image(self, x_0: Tensor, base: Tensor, out: Tensor | None = None) -> Tensor:
        return torch.div(x_0, self.config.residual_gain or 1.0, out=out).add_(base)

    def draw(self, drawing: Drawing, rng: np.random.Generator) -> list[Window]:
        return frame_windows(drawing, rng)

    def losses(self, batch: Batch, objective: Objective) -> dict[str, Tensor]:
        bicubic = upsampled(batch)
        loss = distance_on_windows(self, batch, objective, self.x_0(batch.hr, bicubic),
                                   [bicubic] if self.config.conditional else [])
        return {"loss": loss, "diffusion": loss.detach()}

    def lr_rows(self, height: int, width: int, num_images: int,
                ownership: Ownership) -> list[range]:
        return [range(height)] * num_images

    def conditions(self, images: Sequence[LrRows], encoding: Encoding,
                   residuals: Sequence[Tensor] | None) -> list[Beneath]:
        tells = self.config.conditional
        return [Beneath(self.told(image, encoding) if tells and has_windows(encoding, slot)
                        else None, encoding) for slot, image in enumerate(images)]

    def told(self, image: LrRows, encoding: Encoding) -> Tensor:
        """The bicubic image, (C, H, W)."""
        size = [side * self.config.scale for side in image.values.shape[-2:]]
        return imresize_tensor(image.values[None], size=size)[0].to(encoding.device)

    def predict(self, x_t: Tensor, t: Tensor, *told: Tensor) -> Tensor:
        """told: the bicubic image (n, C, h, w), or nothing."""
        return predict_beneath(self.model.unet, x_t, t, *told)
