"""The sections of the model families: what a network is built from, and what a family can do."""
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, get_args

from pydantic import Field, field_validator, model_validator

from swinmpi.config.base import DEEPEST, WIDEST, Section
from swinmpi.config.vit_settings import VitSettings

Width = Annotated[int, Field(le=WIDEST)]


class ModelSection(Section):
    """What every family has: which it is, and the images it is made for."""

    family: str
    scale: Literal[2, 3, 4] = Field(2, description="HR size / LR size; in training that of the "
                                   "pairs when absent")
    channels: Literal[1, 3] = Field(3, description="of the images: 1 grey, 3 RGB; in training "
                                    "those of the pairs when absent")

    @property
    def scales(self) -> tuple[int, ...]:
        """Those that it can have."""
        return get_args(type(self).model_fields["scale"].annotation)

    @property
    def takes_published_weights(self) -> bool:
        """Whether weights of the thesis's published code can be converted for it."""
        return False

    @property
    def window_is_work_enough(self) -> bool:
        """Whether a window costs a CPU so much that calls of one are worth it, to share them."""
        return True

    @property
    def draws_freely(self) -> bool:
        """Whether training windows drawn one by one lie anywhere, on no frame."""
        return False

    @property
    def learns(self) -> bool:
        """Whether there is anything to train."""
        return True

    @property
    def regresses(self) -> bool:
        """Whether what is diffused is added to an HR image of the encoder's own."""
        return False

    @property
    def x_channels(self) -> int:
        """Channels of what is diffused."""
        return self.channels

    @property
    def hr_px_per_x_px(self) -> int:
        """HR px along one px of what is diffused, in which `window_px` and shifts count."""
        return 1

    @property
    def seam_px(self) -> int | None:
        """Side of a window on the HR grid; None where there are none."""
        return None if self.window_px is None else self.window_px * self.hr_px_per_x_px

    @property
    def diffuses_code(self) -> bool:
        """Whether what is diffused is a code whose maker is trained with the encoder, before."""
        return False

    @property
    def num_parts(self) -> int:
        """In how many parts the network predicts a window, each by itself."""
        return 1

    @property
    def sees_whole_x_t(self) -> bool:
        """Whether a window is told about x_t outside of it."""
        return False

    @property
    def told_noise(self) -> bool:
        """Whether its encoder sees the noise level of the LR image (`data.noise`) beside it."""
        return getattr(self, "noise_aware", False)

    @property
    def unsaid(self) -> set[str]:
        """Settings younger than the first checkpoints, where they say nothing: left out of what is
        kept and compared, so that older runs go on."""
        return {name for name in ("noise_aware", "difficulty_head")
                if not getattr(self, name, False)}

    @property
    def may_crop(self) -> bool:
        """Whether `sampler.shift.edge` crop_* makes sense for it."""
        return False

    @property
    def joins_edges(self) -> bool:
        """Whether, under `sampler.shift.border` wrap, all of it sees opposite edges as neighbours,
        not its windows alone."""
        return False

    @property
    def keeps_to_lr(self) -> bool:
        """Whether its samples are made to agree with the LR image, unless told otherwise."""
        return False

    @property
    def encoder_stands_alone(self) -> bool:
        """Whether the encoder can be trained alone (`train.target: encoder`)."""
        return False

    @property
    def tells_difficulty(self) -> bool:
        """Whether tiles of an image can be told to be easy (`sampler.adaptive`)."""
        return False

    @property
    def can_be_taught(self) -> bool:
        """Whether a student with its encoder can learn from it (`train.target: distill`)."""
        return False


class AlignedModel(VitSettings, ModelSection):
    """Each window sees the features that lie under it; lean U-Net. The default family."""

    family: Literal["aligned"] = Field("aligned", description="which family of model this is")
    window_px: int = Field(48, ge=16, le=4096, multiple_of=4, description="side of a window on "
                           "the HR grid; may be changed after training")
    encoder: Literal["conv", "vit"] = Field(
        "conv", description="conv: convolutions; the vector that describes the whole image is made "
        "of the mean of their features. vit: a vision transformer beside them (thesis 4.2.3): its "
        "class token makes the vector, its patches add to the features above them")
    encoder_channels: int = Field(48, gt=0, le=WIDEST, description="width of the encoder")
    encoder_blocks: int = Field(8, gt=0, le=DEEPEST, description="EDSR blocks of the encoder")
    feature_channels: int = Field(16, gt=0, le=WIDEST, description="channels of the features on "
                                  "the HR grid")
    global_channels: int = Field(32, ge=0, le=WIDEST, description="length of the vector that "
                                 "describes the whole image; 0: none")
    unet_channels: list[Width] = Field([48, 96], min_length=2, max_length=4, description="widths "
                                       "of the U-Net, one a resolution, the finest first")
    unet_blocks: int = Field(1, gt=0, le=DEEPEST, description="residual blocks per resolution")
    attention_heads: int = Field(4, gt=0, description="heads of the self-attention at the lowest "
                                 "resolution")
    residual_gain: float = Field(16.0, ge=1e-6, le=1e6, description="x_0 = (HR - regression) * "
                                 "residual_gain, images in -1..1")
    noise_aware: bool = Field(False, description="the encoder is told how strong the noise of the "
                              "LR image is, and learns on LR images with noise: see data.noise")
    difficulty_head: bool = Field(False, description="a head beside the regression that expects "
                                  "its error, for sampler.adaptive; it does not bend the rest")

    @model_validator(mode="after")
    def network_can_be_built(self):
        widths = self.unet_channels
        steps = 2 ** len(widths)
        check_widths(widths, self.attention_heads)
        if self.window_px % steps:
            raise ValueError(f"window_px in multiples of {steps} with {len(widths)} resolutions, "
                             f"not {self.window_px}")
        return self

    @property
    def window_is_work_enough(self) -> bool:
        """Whether a window costs a CPU so much that calls of one are worth it, to share them."""
        return False

    @property
    def draws_freely(self) -> bool:
        """Whether training windows drawn one by one lie anywhere, on no frame."""
        return True

    @property
    def residual_channels(self) -> int:
        """Channels of the regression's residual where windows are told it."""
        return self.channels

    @property
    def regresses(self) -> bool:
        return True

    @property
    def joins_edges(self) -> bool:
        return True

    @property
    def keeps_to_lr(self) -> bool:
        return True

    @property
    def can_be_taught(self) -> bool:
        return True

    @property
    def tells_difficulty(self) -> bool:
        return True

    @property
    def encoder_stands_alone(self) -> bool:
        return True


class CoarserModel(AlignedModel):
    """What families share that are as aligned, but diffuse something else than pixels, on a
    coarser grid."""

    scale: Literal[2, 4] = Field(2, description="HR size / LR size; in training that of the pairs "
                                 "when absent")
    encoder: Literal["conv"] = Field("conv", description="transformers tell windows of families "
                                     "aligned and thesis")
    noise_aware: Literal[False] = Field(False, description="for family aligned")
    difficulty_head: Literal[False] = Field(False, description="for sampler.adaptive, which is "
                                            "for family aligned alone")

    @property
    def can_be_taught(self) -> bool:
        return False

    @property
    def tells_difficulty(self) -> bool:
        return False


class ThesisModel(VitSettings, ModelSection):
    """As published: a window is told the whole LR image and where it lies in it (a mask)."""

    family: Literal["thesis"] = Field("thesis", description="which family of model this is")
    window_px: int = Field(32, ge=16, le=4096, multiple_of=8, description="side of a window on "
                           "the HR grid; may be changed after training")
    encoder: Literal["conv", "rrdb", "vit", "none"] = Field(
        "rrdb", description="global feature extractor I (convolutions) or II (RRDB) of the thesis; "
        "vit: I, and a vision transformer over the LR image (4.2.3), whose class token and patches "
        "under a window add to the features; none: unconditional")
    condition_on: Literal["lr", "lr+x_t", "x_t"] = Field(
        "lr", description="what the encoder sees beside the mask; x_t alone: image synthesis, no "
        "LR")
    rrdb_blocks: int = Field(8, gt=0, le=DEEPEST, description="RRDB blocks of the encoder")
    rrdb_channels: int = Field(32, gt=0, le=WIDEST, description="width of the RRDB trunk")
    rrdb_growth: int = Field(32, gt=0, le=WIDEST, description="channels that each convolution of "
                             "a dense block adds")
    unet_channels: list[Width] = Field([64, 128, 256, 256], min_length=4, max_length=4,
                                       description="widths of the U-Net's four resolutions")
    bottleneck_channels: int = Field(512, gt=0, le=WIDEST, description="width of the bottleneck")
    attention_heads: int = Field(4, gt=0, validate_default=True, description="must divide all of "
                                 "unet_channels")
    mask_width: float = Field(1.5, ge=1e-3, le=1e3, description="sigma of the mask over half a "
                              "window")
    residual_gain: float = Field(2.0, ge=1e-6, le=1e6, description="x_0 = clip((HR - bicubic) * "
                                 "residual_gain, -1, 1)")
    layers: Literal["published", "text"] = Field(
        "published", description="published: as in the author's code, whose weights fit; text: as "
        "the thesis reads, and as models were that know no such setting: GELU for the second "
        "LayerNorm of the feed-forward, enlarging without aligned corners, an RRDB on -1..1 "
        "without last convolution and ninth feature, one convolution as projection, the mask's "
        "centre between the middle pixels")
    dropout: float = Field(0.1, ge=0, lt=1, description="part of the time embedding that training "
                           "leaves out (code)")

    @field_validator("attention_heads")
    @classmethod
    def divides_widths(cls, value, info):
        widths = info.data.get("unet_channels", [])
        if any(width < 1 or width % value for width in widths):
            raise ValueError(f"must divide every one of unet_channels {widths}")
        return value

    @property
    def takes_published_weights(self) -> bool:
        """Whether weights of the thesis's published code can be converted for it."""
        return self.as_published and self.encoder in ("rrdb", "none")

    @property
    def as_published(self) -> bool:
        """Whether the layers are those of the author's code."""
        return self.layers == "published"

    @property
    def regresses(self) -> bool:
        """Whether the encoder makes an HR image of its own."""
        return False

    @property
    def sees_whole_x_t(self) -> bool:
        """Whether a window is told about x_t outside of it."""
        return self.encoder != "none" and self.condition_on != "lr"

    @property
    def may_crop(self) -> bool:
        """Whether `sampler.shift.edge` crop_* makes sense for it."""
        return True

    @property
    def encoder_stands_alone(self) -> bool:
        """Whether the encoder can be trained alone (`train.target: encoder`)."""
        return self.encoder == "rrdb"


def check_widths(widths: Sequence[int], attention_heads: int) -> None:
    """ValueError unless a U-Net of normalised blocks with attention below can have these widths."""
    if any(width < 8 or width % 8 for width in widths):
        raise ValueError("unet_channels in multiples of 8 (the groups of the normalisation), "
                         f"not {widths}")
    if widths[-1] % attention_heads:
        raise ValueError(f"attention_heads that divide the last of unet_channels, {widths[-1]}, "
                         f"not {attention_heads}")


def as_meant(model: object) -> object:
    """The `model` section of a checkpoint, with what its version could not set yet as it was."""
    if isinstance(model, Mapping) and model.get("family") == "thesis" and "layers" not in model:
        return {**model, "layers": "text", "dropout": 0.0}
    return model
