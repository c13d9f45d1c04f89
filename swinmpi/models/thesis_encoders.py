"""The thesis's global feature extractors: what a window is told besides x_t and t, on the U-Net's
first feature map.

A condition is (n, channels, w, w) at window size: the image (LR, or x_t in synthesis mode) first,
then what tells the windows apart, the Gaussian mask (1) and optionally the current x_t (C).
It does not depend on t.
"""
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from swinmpi.config import ThesisModel
from swinmpi.errors import CheckpointError
from swinmpi.models.rrdb import RRDB

CONV_LAYERS = 4


def make_encoder(config: ThesisModel) -> nn.Module | None:
    """The encoder that `config` names; None for `encoder: none`, the unconditional U-Net."""
    extractors = {"conv": ConvEncoder, "rrdb": RRDBEncoder}
    return extractors[config.encoder](config) if config.encoder != "none" else None


def condition_channels(config: ThesisModel) -> int:
    """Channels of the condition: image and mask, and x_t where it joins the LR image."""
    return config.channels + extra_channels(config)


def thesis_condition(config: ThesisModel, lr: Tensor | None, masks: Tensor,
                     x_t: Tensor | None) -> Tensor:
    """What the encoder sees, (n, ., w, w): LR image (x_t in synthesis mode), mask,
    x_t where asked for."""
    parts = {"lr": [lr, masks], "lr+x_t": [lr, masks, x_t],
             "x_t": [x_t, masks]}[config.condition_on]
    return torch.cat(parts, dim=1)


class ConvEncoder(nn.Module):
    """Extractor I: a few convolutions; (n, condition channels, w, w) ->
    (n, unet_channels[0], w, w)."""

    def __init__(self, config: ThesisModel):
        super().__init__()
        width = config.unet_channels[0]
        layers: list[nn.Module] = [nn.Conv2d(condition_channels(config), width, 3, padding=1)]
        for _ in range(CONV_LAYERS - 1):
            layers += [nn.GELU(), nn.Conv2d(width, width, 3, padding=1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, condition: Tensor) -> Tensor:
        return self.layers(condition)


class RRDBEncoder(nn.Module):
    """Extractor II: the RRDB trunk; (n, condition channels, w, w) -> (n, unet_channels[0], w, w).

    A convolution of concatenated channels is the sum of the convolutions of its parts: the trunk
    convolves the image alone, as in RRDBSuperResolver, and `join` the rest. `join` starts at zero,
    so a loaded trunk goes on as it learnt.
    """

    def __init__(self, config: ThesisModel):
        super().__init__()
        self.image_channels = config.channels
        self.trunk = RRDB(config.channels, config.rrdb_channels, config.rrdb_growth,
                          config.rrdb_blocks)
        self.join = nn.Conv2d(extra_channels(config), config.rrdb_channels, 3, padding=1,
                              bias=False)
        self.project = nn.Conv2d(config.rrdb_blocks * config.rrdb_channels, config.unet_channels[0],
                                 3, padding=1)
        nn.init.zeros_(self.join.weight)

    def forward(self, condition: Tensor) -> Tensor:
        image, extra = condition[:, :self.image_channels], condition[:, self.image_channels:]
        return self.project(self.trunk(image, self.join(extra)))

    def load_trunk(self, super_resolver: Mapping[str, Tensor]) -> None:
        """Take over the trunk from the state_dict of an RRDBSuperResolver; CheckpointError when
        it does not fit."""
        prefix = "trunk."
        weights = {key.removeprefix(prefix): value for key, value in super_resolver.items()
                   if key.startswith(prefix)}
        if shapes(weights) != shapes(self.trunk.state_dict()):
            raise CheckpointError("expected the weights of an RRDB super-resolver with "
                                  "the same model.channels and model.rrdb_*, got others; "
                                  "pre-train this model with train.target=encoder")
        self.trunk.load_state_dict(weights)

    def freeze_trunk(self) -> None:
        """Train `join` and `project` only: the trunk no longer changes."""
        self.trunk.requires_grad_(False)


def extra_channels(config: ThesisModel) -> int:
    """Channels that come after the image: the mask, and x_t where it joins the LR image."""
    return 1 + (config.channels if config.condition_on == "lr+x_t" else 0)


def shapes(weights: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(weight.shape) for name, weight in weights.items()}
