"""The sections of the thesis's baselines: SRDiff, plain diffusion, bicubic."""
from typing import Literal

from pydantic import Field, model_validator

from swinmpi.config.base import DEEPEST, WIDEST
from swinmpi.config.model_sections import ModelSection, Width, check_widths

WINDOW_PX = Field(None, ge=16, le=4096, multiple_of=8, description="side of a window on the HR "
                  "grid; one window over the whole image, of any size, when absent")


class SrdiffModel(ModelSection):
    """SRDiff (arXiv 2104.14951): an RRDB tells a U-Net; one window over the whole image."""

    family: Literal["srdiff"] = Field("srdiff", description="which family of model this is")
    scale: Literal[2, 4, 8] = Field(4, description="HR size / LR size; in training that of the "
                                "pairs when absent")
    window_px: int | None = WINDOW_PX
    rrdb_blocks: int = Field(8, ge=2, le=DEEPEST, description="RRDB blocks of the encoder")
    rrdb_channels: int = Field(32, gt=0, le=WIDEST, description="width of the RRDB")
    rrdb_growth: int = Field(16, gt=0, le=WIDEST, description="channels that each convolution of "
                             "a dense block adds")
    unet_channels: list[Width] = Field(
        [64, 128, 128, 256], min_length=4, max_length=4, description="widths of the U-Net's four "
        "resolutions, 64 times 1, 2, 2, 4 as published for CelebA; 1, 2, 3, 4 for DF2K")
    residual_gain: float = Field(2.0, ge=1e-6, le=1e6, description="x_0 = clip((HR - bicubic) * "
                                 "residual_gain, -1, 1)")

    @model_validator(mode="after")
    def network_can_be_built(self):
        if any(width < 8 or width % 8 for width in self.unet_channels):
            raise ValueError(f"unet_channels in multiples of 8, not {self.unet_channels}")
        return self

    @property
    def encoder_stands_alone(self) -> bool:
        return True


class VanillaModel(ModelSection):
    """Plain diffusion of whole images, told the bicubic image beside x_t (as SR3), or nothing."""

    family: Literal["vanilla"] = Field("vanilla", description="which family of model this is")
    scale: Literal[2, 3, 4, 8] = Field(2, description="HR size / LR size; in training that of the "
                                "pairs when absent")
    window_px: int | None = WINDOW_PX
    conditional: bool = Field(True, description="false: images from noise; LR only gives the size")
    unet_channels: list[Width] = Field([64, 128, 256, 256], min_length=2, max_length=4,
                                       description="widths of the U-Net, one a resolution, the "
                                       "finest first")
    unet_blocks: int = Field(2, gt=0, le=DEEPEST, description="residual blocks per resolution")
    attention_heads: int = Field(4, gt=0, description="heads of the self-attention at the lowest "
                                 "resolution")
    residual_gain: float | None = Field(
        None, ge=1e-6, le=1e6, description="diffuse clip((HR - bicubic) * residual_gain, -1, 1) "
        "in place of the image itself; conditional only")

    @model_validator(mode="after")
    def network_can_be_built(self):
        check_widths(self.unet_channels, self.attention_heads)
        if self.residual_gain is not None and not self.conditional:
            raise ValueError("no residual_gain with conditional false, which knows no bicubic "
                             f"image to add to, not {self.residual_gain:g}")
        return self


class BicubicModel(ModelSection):
    """MATLAB's bicubic imresize: nothing to train; `swinmpi-sample --model bicubic_x2`."""

    family: Literal["bicubic"] = Field("bicubic", description="which family of model this is")
    scale: Literal[2, 3, 4, 8] = Field(2, description="HR size / LR size; in training that of the "
                                "pairs when absent")
    window_px: None = Field(None, description="nothing: there are no windows")

    @property
    def learns(self) -> bool:
        return False
