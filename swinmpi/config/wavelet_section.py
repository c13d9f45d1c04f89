"""The section of the family `wavelet`: that of `aligned`, and how its bands are scaled."""
from typing import Literal

from pydantic import Field

from swinmpi.config.base import WIDEST
from swinmpi.config.model_sections import CoarserModel


class WaveletModel(CoarserModel):
    """As aligned, in the four Haar bands of the residual, predicted one by one (thesis 4.2.2)."""

    family: Literal["wavelet"] = Field("wavelet", description="which family of model this is")
    window_px: int = Field(24, ge=8, le=4096, multiple_of=4, description="side of a window in px "
                           "of the bands, of which one covers 2 x 2 HR px, as "
                           "sampler.shift.max_px; may be changed after training")
    feature_channels: int = Field(24, gt=0, le=WIDEST, description="channels of the features on "
                                  "the grid of the bands")
    residual_gain: None = Field(None, description="nothing: bands are divided by what is measured "
                                "of them while the network is trained")
    band_scaling: Literal["own", "common", "none"] = Field(
        "own", description="own: every band is divided by its own deviation; for comparison "
        "common: all by the same one, and none: bands as they are of images in -1..1, which stay "
        "noisy, the diagonal one most (thesis fig. 4.3)")
    pixel_weight: float = Field(1.0, ge=0, le=1e6, description="of the L1 distance that "
                                "predictions have after the inverse transform, beside that of the "
                                "bands (train.loss)")

    @property
    def x_channels(self) -> int:
        return self.num_parts * self.channels

    @property
    def hr_px_per_x_px(self) -> int:
        return 2

    @property
    def residual_channels(self) -> int:
        return self.x_channels

    @property
    def num_parts(self) -> int:
        return 4
