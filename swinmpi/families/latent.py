"""The family `latent` (thesis 4.2.4): that of `aligned`, in the latents of an autoencoder.

What is diffused is the autoencoder's code of the residual to the regression, and so are windows,
shifts and what travels between ranks. A code of zeros is the regression itself. The autoencoder is
trained first, with the encoder, and then kept.
"""
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from swinmpi.config import LatentModel
from swinmpi.families.aligned import Aligned, AlignedCondition
from swinmpi.families.family import Batch, Encoding, Objective, upsampled
from swinmpi.families.regression import Regression, enlarged
from swinmpi.images.lr_rows import LrRows
from swinmpi.models.aligned_unet import AlignedUNet
from swinmpi.models.diffuser import Diffuser
from swinmpi.models.latent_encoder import LatentEncoder
from swinmpi.windows.moves import Rect

KL_WEIGHT = 1e-6
"""Of sums over an image, as published for latent diffusion (Rombach et al. 2022, arXiv
2112.10752)."""


class Latent(Aligned):
    """See families/family.py. Windows, shifts and reach count in px of latents."""

    def __init__(self, config: LatentModel):
        self.config = config
        self.model = Diffuser(LatentEncoder(config), AlignedUNet(config, fold=1))
        self.code = Code(self.model.encoder, config)
        self.code.autoencoder.requires_grad_(False)
        self.x_channels, self.x_px_per_lr_px = config.x_channels, self.model.encoder.scale
        self.reach_px = self.code.autoencoder.reach_px

    def x_0(self, hr: Tensor, base: Tensor) -> Tensor:
        """base: the regression."""
        return self.code.of(hr, base)

    def image(self, x_0: Tensor, base: Tensor, out: Tensor | None = None) -> Tensor:
        """As near as the autoencoder comes to it."""
        return self.code.image(x_0, base, out)

    def regression(self, lr: Tensor) -> Tensor:
        """The base of whole images (n, C, h, w), (n, C, H, W)."""
        features = self.model.encoder.upsample(self.model.encoder.trunk(lr))
        residual = features[:, -self.config.residual_channels:]
        return self.unfolded(residual) + enlarged(lr, self.config.scale)

    def unfolded(self, residual: Tensor) -> Tensor:
        return functional.pixel_shuffle(residual, self.config.latent_factor)

    @property
    def make_condition(self) -> Callable[..., "LatentCondition"]:
        return partial(LatentCondition, self.config.latent_factor)

    def conditions(self, images: Sequence[LrRows], encoding: Encoding,
                   residuals: Sequence[Tensor] | None) -> list["LatentCondition"]:
        if residuals is None:
            return super().conditions(images, encoding, None)
        channels, factor = self.config.residual_channels, self.config.latent_factor
        folded = [room.new_zeros(channels, *(side // factor for side in room.shape[1:]))
                  for room in residuals]
        made = super().conditions(images, encoding, folded)
        for condition, room, residual in zip(made, residuals, folded, strict=True):
            condition.whole_residual = room.copy_(self.unfolded(residual))
        return made


class LatentCondition(AlignedCondition):
    """As of `aligned`, on the grid of latents, where the residual has the HR px under each px as
    channels."""

    def __init__(self, hr_px_per_x_px: int, *told):
        super().__init__(*told)
        self.hr_px_per_x_px = hr_px_per_x_px

    def residual(self, rect: Rect) -> Tensor:
        """rect: on the HR grid, of whole px of latents."""
        if self.whole_residual is not None:
            return super().residual(rect)
        factor = self.hr_px_per_x_px
        under = Rect(rect.rank, *(range(line.start // factor, line.stop // factor)
                                  for line in (rect.rows, rect.cols)))
        return functional.pixel_shuffle(super().residual(under), factor)


class LatentStart(Regression):
    """The first stage (`train.target: encoder`): the encoder's regression, and the autoencoder of
    what that misses. It samples the regression."""

    def __init__(self, config: LatentModel):
        super().__init__(config)
        self.code = Code(self.model, config)
        self.x_channels, self.x_px_per_lr_px = config.x_channels, self.model.scale
        self.reach_px = self.code.autoencoder.reach_px

    def x_0(self, hr: Tensor, base: Tensor) -> Tensor:
        return self.code.of(hr, base)

    def image(self, x_0: Tensor, base: Tensor, out: Tensor | None = None) -> Tensor:
        return self.code.image(x_0, base, out)

    def losses(self, batch: Batch, objective: Objective) -> dict[str, Tensor]:
        """L1 of what is missed, as it comes back from noisy latents, and what their divergence from
        N(0, 1) has of the code; plus the weighted L1 of the regression, which does not answer for
        the rest."""
        regression = upsampled(batch) + self.residual(batch.lr).float()
        missed = (batch.hr - regression.detach()) * self.config.residual_gain
        latents = self.code.encoded(missed)
        again = self.code.decoded(latents + self.config.latent_noise * batch.eps)
        missing = functional.l1_loss(again.float(), missed)
        divergence = latents.float().square().sum() / (2 * len(latents))
        regressed = functional.l1_loss(regression, batch.hr)
        return {"loss": missing + KL_WEIGHT * divergence + objective.regression_weight * regressed,
                "autoencoder": missing.detach(), "regression": regressed.detach()}


class Code:
    """Images as latents, given the regression, and latents as images."""

    def __init__(self, encoder: LatentEncoder, config: LatentModel):
        self.autoencoder = encoder.autoencoder
        self.gain, self.tile_px = config.residual_gain, config.window_px

    def encoded(self, missed: Tensor) -> Tensor:
        """(n, C, H, W) -> (n, L, h, w), mirrored at the edges."""
        return self.autoencoder.encode(
            mirrored(missed, self.autoencoder.reach_px * self.autoencoder.factor))

    def decoded(self, latents: Tensor) -> Tensor:
        """(n, L, h, w) -> (n, C, H, W), mirrored at the edges."""
        return self.autoencoder.decode(mirrored(latents, self.autoencoder.reach_px))

    @torch.no_grad()
    def of(self, hr: Tensor, base: Tensor) -> Tensor:
        """Latents (n, L, h, w) of images (n, C, H, W), computed in float32 whatever the precision
        around. base: their regression."""
        with exactly(hr):
            return self.encoded((hr - base) * self.gain)

    def image(self, latents: Tensor, base: Tensor, out: Tensor | None) -> Tensor:
        """`base` (..., C, H, W) with what latents (..., L, h, w), or with the decoder's reach
        around them, say that it misses; in `out` if given.

        In tiles of a window from the upper left: a rectangle of whole windows has the bits that it
        has in the image, because the last bits of convolutions may depend on the size.
        """
        reach, factor = self.autoencoder.reach_px, self.autoencoder.factor
        out = torch.empty_like(base) if out is None else out
        height, width = (side // factor for side in base.shape[-2:])
        if latents.shape[-1] == width:
            latents = mirrored(latents, reach)
        for rows, cols in tiles_over(height, width, self.tile_px):
            seen = latents[..., rows.start:rows.stop + 2 * reach, cols.start:cols.stop + 2 * reach]
            place = (..., slice(rows.start * factor, rows.stop * factor),
                     slice(cols.start * factor, cols.stop * factor))
            with exactly(base):
                missed = self.autoencoder.decode(seen.contiguous().view(-1, *seen.shape[-3:]))
            out[place] = missed.view(base[place].shape).div_(self.gain).add_(base[place])
        return out


def exactly(images: Tensor) -> AbstractContextManager:
    """Float32 whatever the precision around."""
    device = images.device.type
    return (torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device)
            else nullcontext())


def mirrored(images: Tensor, px: int) -> Tensor:
    """(..., h, w) with so many px around it, at most its size less one."""
    return functional.pad(images, (px,) * 4, mode="reflect")


def tiles_over(height: int, width: int, side: int) -> list[tuple[range, range]]:
    """Rows and columns of squares, cut off at the lower and the right edge."""
    rows, cols = ([range(at, min(at + side, size)) for at in range(0, size, side)]
                  for size in (height, width))
    return [(down, across) for down in rows for across in cols]
