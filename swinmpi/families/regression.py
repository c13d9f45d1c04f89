"""An encoder that was trained alone (`train.target: encoder`): a regression super-resolver.

It takes no steps; its result is the bicubic image and the residual that it predicts, which is none
for the family `bicubic`.
"""
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from swinmpi.config import ModelConfig
from swinmpi.families.family import Batch, Drawing, Encoding, Objective, Shift, Window, upsampled
from swinmpi.images.haar import inverse_haar
from swinmpi.images.imresize import imresize_tensor
from swinmpi.images.lr_rows import LrRows
from swinmpi.models.aligned_encoder import AlignedEncoder
from swinmpi.models.diffuser import autocast
from swinmpi.models.latent_encoder import LatentEncoder
from swinmpi.models.rrdb import RRDBSuperResolver
from swinmpi.models.srdiff_encoder import SrdiffEncoder
from swinmpi.parallel.ownership import Ownership
from swinmpi.windows.moves import Rect


class Regression:
    """See families/family.py. For one rank per image."""

    takes_steps = False
    num_parts = 1
    needs_whole_lr = True
    reach_px = 0
    time_per_window = False
    starts_from_lr = True

    def __init__(self, config: ModelConfig):
        """ValueError for a family without an encoder that stands alone."""
        self.config = config
        self.model, self.residual = make_regressor(config)
        self.joins_edges = config.joins_edges
        self.x_channels, self.x_px_per_lr_px = config.channels, config.scale

    def x_0(self, hr: Tensor, base: Tensor) -> Tensor:
        """Nothing is diffused: what is missing in the base."""
        return hr - base

    def image(self, x_0: Tensor, base: Tensor, out: Tensor | None = None) -> Tensor:
        return torch.add(x_0, base, out=out)

    def draw(self, drawing: Drawing, rng: np.random.Generator) -> list[Window]:
        """None: the whole crop is regressed."""
        return []

    def losses(self, batch: Batch, objective: Objective) -> dict[str, Tensor]:
        """L1(HR, bicubic + residual)."""
        loss = functional.l1_loss(upsampled(batch) + self.residual(batch.seen).float(), batch.hr)
        return {"loss": loss, "regression": loss.detach()}

    def lr_rows(self, height: int, width: int, num_images: int,
                ownership: Ownership) -> list[range]:
        return [range(height)] * num_images

    def conditions(self, images: Sequence[LrRows], encoding: Encoding,
                   residuals: Sequence[Tensor] | None) -> list["RegressionCondition"]:
        made = []
        for image in images if encoding.pieces.group.is_root else ():
            seen = image.with_noise() if self.config.told_noise else image
            with autocast(encoding.device, encoding.precision):
                residual = self.around(seen.values[None].to(encoding.device), encoding)
            made.append(RegressionCondition(residual))
        return made or [RegressionCondition(torch.empty(0))] * len(images)

    def around(self, lr: Tensor, encoding: Encoding) -> Tensor:
        """The residual of one image (1, C, h, w), (C, H, W); where edges join it sees
        beyond them what lies at the opposite ones."""
        joins = encoding.ownership.grid.joins if self.joins_edges else (False, False)
        if not any(joins):
            return self.residual(lr)[0].float()
        (height, width), scale = lr.shape[-2:], self.config.scale
        halo = [self.model.radius_px if joined else 0 for joined in joins]
        seen = tuple(range(-px, size + px)
                     for px, size in zip(halo, (height, width), strict=True))
        residual = self.residual(lr, seen, joins)[0].float()
        top, left = (px * scale for px in halo)
        return residual[:, top:top + height * scale, left:left + width * scale].contiguous()

    def predict(self, x_t: Tensor, t: Tensor, *told: Tensor) -> Tensor:
        raise ValueError("expected a family that takes steps; an encoder alone only regresses")


class RegressionCondition:
    """The residual of one image, (C, H, W), on root."""

    def __init__(self, whole_residual: Tensor):
        self.whole_residual = whole_residual

    def prepare(self, shift: Shift, positions: Sequence[int], x_t: Callable[[], Tensor]) -> None:
        """Nothing to do."""

    def inputs(self, shift: Shift, positions: Sequence[int]) -> tuple[Tensor, ...]:
        return ()

    def residual(self, rect: Rect) -> Tensor:
        return self.whole_residual[:, rect.rows.start:rect.rows.stop,
                                   rect.cols.start:rect.cols.stop]


Residual = Callable[..., Tensor]
"""LR (n, C, h, w) -> what to add to the bicubic image, (n, C, H, W); for families that join edges
also (LR, rows and columns to be seen, whether they come round)."""


def make_regressor(config: ModelConfig) -> tuple[nn.Module, Residual]:
    """The encoder of a family and its regression; ValueError where there is none."""
    if config.family not in REGRESSORS:
        raise ValueError(f"expected a family with an encoder that stands alone, one of "
                         f"{', '.join(REGRESSORS)}, got {config.family}")
    return REGRESSORS[config.family](config)


def of_aligned(config: ModelConfig) -> tuple[nn.Module, Residual]:
    model = AlignedEncoder(config)
    # No regression answers for the global vector, and DDP waits for every gradient that it
    # expects.
    if model.vector_layer is not None:
        model.vector_layer.requires_grad_(False)

    def residual(lr: Tensor, seen: tuple[range, range] | None = None,
                 joins: tuple[bool, bool] = (False, False)) -> Tensor:
        overview, part = model.overview(lr, joins), lr
        if seen is not None:
            rows, cols = (torch.arange(line.start, line.stop, device=lr.device) % size
                          for line, size in zip(seen, lr.shape[-2:], strict=True))
            part = lr[:, :, rows[:, None], cols]
        return model.upsample(model.trunk(part, overview, seen))[:, -config.channels:]

    return model, residual


def of_latent(config: ModelConfig) -> tuple[nn.Module, Residual]:
    model = LatentEncoder(config)
    model.to_global.requires_grad_(False)  # as of `aligned`
    return model, lambda lr: functional.pixel_shuffle(
        model.upsample(model.trunk(lr))[:, -config.residual_channels:], config.latent_factor)


def of_wavelet(config: ModelConfig) -> tuple[nn.Module, Residual]:
    model = AlignedEncoder(config, config.hr_px_per_x_px)
    model.to_global.requires_grad_(False)
    return model, lambda lr: inverse_haar(
        model.upsample(model.trunk(lr))[:, -config.residual_channels:])


def of_thesis(config: ModelConfig) -> tuple[nn.Module, Residual]:
    model = RRDBSuperResolver(config)
    return model, model


def of_srdiff(config: ModelConfig) -> tuple[nn.Module, Residual]:
    """Its encoder makes the image itself."""
    model = SrdiffEncoder(config)
    return model, lambda lr: model.image(model.levels(lr)).float() - enlarged(lr, config.scale)


def of_bicubic(config: ModelConfig) -> tuple[nn.Module, Residual]:
    return nn.Module(), lambda lr: torch.zeros_like(enlarged(lr, config.scale))


def enlarged(lr: Tensor, scale: int) -> Tensor:
    """Bicubic, (n, C, h, w) -> (n, C, h * scale, w * scale)."""
    return imresize_tensor(lr, size=[side * scale for side in lr.shape[-2:]])


REGRESSORS = {"aligned": of_aligned, "thesis": of_thesis, "srdiff": of_srdiff,
              "bicubic": of_bicubic, "latent": of_latent, "wavelet": of_wavelet}
