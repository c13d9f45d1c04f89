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


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Mixed precision by name around a network call; fp32 leaves everything as it is."""
    return torch.autocast(device.type, dtype=PRECISIONS[precision], enabled=precision != "fp32")


PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

