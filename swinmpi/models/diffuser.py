"""A diffuser: the encoder that makes the condition and the U-Net that is told it, for both families."""
import torch
from torch import Tensor, nn

from swinmpi.config import AlignedModel, ModelConfig, ThesisModel
from swinmpi.models.aligned import AlignedEncoder, AlignedUNet
from swinmpi.models.blocks import set_fused_attention
from swinmpi.models.encoders import make_encoder
from swinmpi.models.unet import ThesisUNet


class Diffuser(nn.Module):
    """`encoder` runs once per image (aligned) or once per image and shift (thesis), `unet` on every window and step."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        if isinstance(config, AlignedModel):
            self.encoder, self.unet = AlignedEncoder(config), AlignedUNet(config)
        else:
            self.encoder, self.unet = make_encoder(config), ThesisUNet(config)

    def prepare(self, device: torch.device, channels_last: bool, fused_attention: bool) -> "Diffuser":
        """Move to where and how it will be evaluated; returns self in eval mode."""
        set_fused_attention(self, fused_attention)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        return self.to(device=device, memory_format=layout).eval()


def thesis_condition(config: ThesisModel, lr: Tensor | None, masks: Tensor, x_t: Tensor | None) -> Tensor:
    """Join what the thesis's encoder sees, all (n, ., w, w): LR image and/or current x_t, then the Gaussian mask."""
    parts = {"lr": [lr], "lr+x_t": [lr, x_t], "x_t": [x_t]}[config.condition_on]
    return torch.cat([*parts, masks], dim=1)
