"""The family `wavelet` (thesis 4.2.2): that of `aligned`, in the Haar bands of the residual.

Every band is divided by its own deviation, so that all of them are as far above the noise as the
others at every t; with one divisor for all, the diagonal band, which has less energy than the
other details, is the noise's for longer (thesis fig. 4.3). A band is predicted by itself, told the
same features and which band it is, so that bands may lie on different ranks.
"""
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from swinmpi.config import WaveletModel
from swinmpi.families.aligned import Aligned, AlignedCondition
from swinmpi.families.family import Batch, Encoding, Objective
from swinmpi.images.haar import BANDS, haar, inverse_haar
from swinmpi.images.lr_rows import LrRows
from swinmpi.models.aligned_encoder import AlignedEncoder
from swinmpi.models.diffuser import Diffuser
from swinmpi.models.wavelet_unet import WaveletUNet
from swinmpi.windows.moves import Rect

POWERS = tuple(f"power_{band}" for band in BANDS)
"""Mean squares of the bands of what the regression misses, images in -1..1: losses that are logged
and measured, not minimised."""
LEAST_DEVIATION = 1e-6  # a band in which nothing ever is stays near 0
X_0_STD = 0.5  # of every band; near that of family aligned, which has the same schedule


class Wavelet(Aligned):
    """See families/family.py."""

    def __init__(self, config: WaveletModel):
        self.config = config
        self.model = Diffuser(AlignedEncoder(config, config.hr_px_per_x_px),
                              WaveletUNet(config, POWERS))
        self.x_channels = config.x_channels
        self.x_px_per_lr_px = config.scale // config.hr_px_per_x_px
        self.num_parts = config.num_parts

    @property
    def make_condition(self) -> type["WaveletCondition"]:
        return WaveletCondition

    @property
    def divisors(self) -> Tensor:
        """What the channels of the bands are divided by, (4 C, 1, 1)."""
        measured = self.model.unet.deviations
        of_bands = {"own": measured.values, "common": measured.common(),
                    "none": torch.full_like(measured.values, X_0_STD)}[self.config.band_scaling]
        of_bands = of_bands.clamp(min=LEAST_DEVIATION)
        return (of_bands / X_0_STD).repeat_interleave(self.config.channels).view(-1, 1, 1)

    def x_0(self, hr: Tensor, base: Tensor) -> Tensor:
        """base: the regression."""
        return haar(hr - base) / self.divisors

    def image(self, x_0: Tensor, base: Tensor, out: Tensor | None = None) -> Tensor:
        return torch.add(inverse_haar(x_0 * self.divisors), base, out=out)

    def unfolded(self, residual: Tensor) -> Tensor:
        """The regression's residual, which windows are told by its bands, on the HR grid."""
        return inverse_haar(residual)

    def losses(self, batch: Batch, objective: Objective) -> dict[str, Tensor]:
        """As of family aligned, all bands of a window at one t; and `pixels`, the L1 of predictions
        after the inverse transform."""
        weight, apart = self.config.pixel_weight, []

        def distance(output: Tensor, wanted: Tensor) -> Tensor:
            apart.append(self.distance_of_pixels(output, wanted))
            return objective.distance(output, wanted) + weight * apart[0]

        parts = super().losses(batch, replace(objective, distance=distance))
        pixels = apart[0].detach()
        return parts | {"diffusion": parts["diffusion"] - weight * pixels, "pixels": pixels}

    def measured(self, hr: Tensor, regression: Tensor) -> dict[str, Tensor]:
        """Mean squares of the bands."""
        bands = haar(hr - regression).unflatten(1, (len(BANDS), -1))
        return dict(zip(POWERS, bands.square().mean(dim=(0, 2, 3, 4)), strict=True))

    def distance_of_pixels(self, output: Tensor, wanted: Tensor) -> Tensor:
        """Mean L1 of bands (n, 4 C, w, w) taken back to pixels, in units of x_0. Of v and eps it is
        the error of the image, weighted over t as that of the bands is."""
        scaled = self.divisors / self.divisors.square().mean().sqrt()
        return inverse_haar((output - wanted) * scaled).abs().mean()

    def conditions(self, images: Sequence[LrRows], encoding: Encoding,
                   residuals: Sequence[Tensor] | None) -> list["WaveletCondition"]:
        bands = residuals and [one.view(len(BANDS) * len(one), *(side // 2 for side in
                                                                 one.shape[-2:]))
                               for one in residuals]
        return super().conditions(images, encoding, bands)

    def predict(self, x_t: Tensor, t: Tensor, *told: Tensor) -> Tensor:
        """told: features and residual (n, F + 4 C, w, w), border channel (n, 1, w, w), vectors
        (n, G), and, where x_t is one band of a window, (n, C, w, w), which of them, int64 (n,).
        Band by band, so that those of a window have the same bits whether or not they are
        predicted together."""
        if len(told) == 4:
            return self.model.unet(x_t, t, *told)
        return torch.cat([self.model.unet(one, t, *told, torch.full_like(t, band))
                          for band, one in enumerate(x_t.chunk(len(BANDS), dim=1))], dim=1)


class WaveletCondition(AlignedCondition):
    """Of aligned, on the grid of the bands; the regression's residual is held by its bands."""

    def residual(self, rect: Rect) -> Tensor:
        rows, cols = (range(line.start // 2, line.stop // 2) for line in (rect.rows, rect.cols))
        return inverse_haar(super().residual(Rect(rect.rank, rows, cols)))
