"""The section of the family `latent`: that of `aligned`, and what its autoencoder is."""
from typing import Literal

from pydantic import Field, model_validator

from swinmpi.config.base import WIDEST
from swinmpi.config.model_sections import CoarserModel


class LatentModel(CoarserModel):
    """As aligned, but what is diffused is a code that an autoencoder makes of the residual
    (thesis 4.2.4); the autoencoder is trained first, by train.target encoder, and then kept."""

    family: Literal["latent"] = Field("latent", description="which family of model this is")
    window_px: int = Field(24, ge=16, le=4096, multiple_of=4, description="side of a window in px "
                           "of the latents, as sampler.shift.max_px; may be changed after training")
    residual_gain: float = Field(16.0, ge=1e-6, le=1e6, description="the autoencoder is given (HR "
                                 "- regression) * residual_gain, images in -1..1")
    latent_factor: Literal[2, 4] = Field(2, description="HR px along one px of the latents; "
                                         "divides scale")
    latent_channels: int = Field(6, gt=0, le=WIDEST, description="of the latents")
    autoencoder_channels: int = Field(96, gt=0, le=WIDEST, description="width of the autoencoder")
    autoencoder_blocks: int = Field(2, gt=0, le=8, description="residual blocks of its encoder, "
                                    "and of its decoder; each lets a pixel see one px of latents "
                                    "further")
    latent_noise: float = Field(0.05, ge=0, le=1e3, description="deviation of the noise on the "
                                "latents, whose own stays near 1, while the autoencoder is trained")

    @model_validator(mode="after")
    def latents_lie_on_lr_px(self):
        if self.scale % self.latent_factor:
            raise ValueError(f"a latent_factor that divides scale {self.scale}, "
                             f"not {self.latent_factor}")
        return self

    @property
    def x_channels(self) -> int:
        return self.latent_channels

    @property
    def hr_px_per_x_px(self) -> int:
        return self.latent_factor

    @property
    def residual_channels(self) -> int:
        return self.channels * self.latent_factor**2

    @property
    def diffuses_code(self) -> bool:
        return True
