"""A diffuser: the encoder that makes the condition, and the U-Net that is told it."""
import torch
from torch import nn

from swinmpi.models.blocks import set_fused_attention


class Diffuser(nn.Module):
    """`encoder` runs once per image, or once per image and shift; `unet` on every window and step.

    encoder: None for an unconditional U-Net.
    """

    def __init__(self, encoder: nn.Module | None, unet: nn.Module):
        super().__init__()
        self.encoder, self.unet = encoder, unet


def prepare(model: nn.Module, device: torch.device, channels_last: bool,
            fused_attention: bool) -> nn.Module:
    """Move a network to where and how it will be evaluated; returns it in eval mode."""
    set_fused_attention(model, fused_attention)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return model.to(device=device, memory_format=memory_format).eval()


def autocast(device: torch.device, precision: str, keeps_casts: bool = True) -> torch.autocast:
    """The arithmetic of a precision by name, around a network call; fp32 leaves everything as it
    is. keeps_casts: of weights, until the end of the context.

    On a GPU it also says, from here on, whether float32 may be multiplied in TF32 (10 bits of
    mantissa, sums in float32): for every precision but fp32.
    """
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = precision != "fp32"
        torch.backends.cudnn.allow_tf32 = precision != "fp32"
    mixed = MIXED.get(precision)
    return torch.autocast(device.type, dtype=mixed or torch.bfloat16, enabled=mixed is not None,
                          cache_enabled=keeps_casts)


MIXED = {"bf16": torch.bfloat16, "fp16": torch.float16}
