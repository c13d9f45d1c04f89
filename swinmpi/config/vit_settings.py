"""Settings of the vision transformer that some families of model can have."""
from pydantic import Field, model_validator

from swinmpi.config.base import DEEPEST, WIDEST, Section


class VitSettings(Section):
    """Of families whose windows a vision transformer (`encoder: vit`) can tell of the image."""

    encoder: str
    vit_channels: int = Field(192, ge=4, le=WIDEST, multiple_of=4, description="encoder vit: width "
                              "of the transformer")
    vit_layers: int = Field(4, gt=0, le=DEEPEST, description="encoder vit: its layers")
    vit_heads: int = Field(4, gt=0, description="encoder vit: heads of its self-attention")
    vit_patch_px: int = Field(8, ge=1, le=64, description="encoder vit: side of a patch in LR px")
    vit_tokens: int = Field(1024, ge=16, le=4096, description="encoder vit: most patches of an "
                            "image; one that has more is halved, as often as it takes, before the "
                            "transformer sees it")

    @model_validator(mode="after")
    def transformer_can_be_built(self):
        if self.encoder != "vit":
            return self
        if self.vit_channels % self.vit_heads:
            raise ValueError(f"vit_heads that divide vit_channels, {self.vit_channels}, not "
                             f"{self.vit_heads}")
        if getattr(self, "condition_on", "lr") == "x_t":
            raise ValueError("condition_on lr or lr+x_t with encoder vit, which sees the LR image, "
                             "not x_t")
        return self

    @property
    def unsaid(self) -> set[str]:
        """See ModelSection. Where `encoder` is conv by default, there was no such setting."""
        unsaid = super().unsaid
        if self.encoder == "vit":
            return unsaid
        young = type(self).model_fields["encoder"].default == self.encoder == "conv"
        return unsaid | set(VitSettings.model_fields) - (set() if young else {"encoder"})
