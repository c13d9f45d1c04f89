"""A diffuser: the encoder that makes the condition and the U-Net that is told it, for both families."""
import torch
from torch import Tensor, nn

from swinmpi.config import AlignedModel, ModelConfig, ThesisModel
from swinmpi.models.aligned import AlignedEncoder, AlignedUNet
from swinmpi.models.blocks import set_fused_attention
from swinmpi.models.thesis_encoders import make_encoder
from swinmpi.models.thesis_unet import ThesisUNet


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
    """What the thesis's encoder sees, (n, ., w, w): LR image (x_t in synthesis mode), Gaussian mask, x_t where asked for."""
    parts = {"lr": [lr, masks], "lr+x_t": [lr, masks, x_t], "x_t": [x_t, masks]}[config.condition_on]
    return torch.cat(parts, dim=1)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Mixed precision by name (fp32, bf16, fp16) around a network call; fp32 leaves everything as it is."""
    kinds = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    return torch.autocast(device.type, dtype=kinds[precision], enabled=precision != "fp32")
