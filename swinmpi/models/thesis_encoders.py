"""The thesis's global feature extractors: what a window is told besides x_t and t, on the U-Net's
first feature map.

A condition is (n, channels, w, w) at window size: the image (LR, or x_t in synthesis mode) first,
then what tells the windows apart, the Gaussian mask (1) and optionally the current x_t (C).
It does not depend on t.
"""
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from swinmpi.config import ThesisModel
from swinmpi.errors import CheckpointError
from swinmpi.models.rrdb import RRDB, UPSAMPLING_STAGES, RRDBHead, seen_by_rrdb
from swinmpi.models.vit import ImageTransformer

CONV_LAYERS = 4


def make_encoder(config: ThesisModel) -> nn.Module | None:
    """The encoder that `config` names; None for `encoder: none`, the unconditional U-Net."""
    extractors = {"conv": ConvEncoder, "rrdb": RRDBEncoder, "vit": VitEncoder}
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


class VitEncoder(ConvEncoder):
    """Extractor I, and a transformer that sees the LR image itself: the family adds what it makes
    of the image, and of the patches under a window, to the features of the window."""

    def __init__(self, config: ThesisModel):
        super().__init__(config)
        self.transformer = ImageTransformer(config, *[config.unet_channels[0]] * 2)


class RRDBEncoder(nn.Module):
    """Extractor II: the RRDB trunk; (n, condition channels, w, w) -> (n, unet_channels[0], w, w).

    A convolution of concatenated channels is the sum of the convolutions of its parts: the trunk
    convolves the image alone, as in RRDBSuperResolver, and `join` the rest. `join` starts at zero,
    so a loaded trunk goes on as it learnt.

    As published it also carries the `head` that makes an image of the trunk's features, which no
    diffuser looks at: 3,351,395 parameters without `project`, which has 202,880, at scale 2.
    """

    def __init__(self, config: ThesisModel):
        super().__init__()
        self.config, self.trunk = config, RRDB(config)
        self.join = nn.Conv2d(extra_channels(config), config.rrdb_channels, 3, padding=1,
                              bias=False)
        features, width = self.trunk.num_features, config.unet_channels[0]
        self.project: nn.Module = nn.Conv2d(features, width, 3, padding=1)
        if config.as_published:
            self.project = Projection(features, width, len(UPSAMPLING_STAGES[config.scale]))
            self.head = RRDBHead()
            self.head.add_head(config)
            self.head.requires_grad_(False)
        nn.init.zeros_(self.join.weight)

    def forward(self, condition: Tensor) -> Tensor:
        seen = seen_by_rrdb(self.config, condition)
        image, extra = seen[:, :self.config.channels], seen[:, self.config.channels:]
        return self.project(self.trunk(image, self.join(extra)))

    def load_trunk(self, super_resolver: Mapping[str, Tensor]) -> None:
        """Take over trunk and head from the state_dict of an RRDBSuperResolver; CheckpointError
        when it does not fit."""
        prefix = "trunk."
        weights = {key.removeprefix(prefix): value for key, value in super_resolver.items()
                   if key.startswith(prefix)}
        if shapes(weights) != shapes(self.trunk.state_dict()):
            raise CheckpointError("expected the weights of an RRDB super-resolver with "
                                  "the same model.channels, model.rrdb_* and model.layers, got "
                                  "others; "
                                  "pre-train this model with train.target=encoder")
        self.trunk.load_state_dict(weights)
        if self.config.as_published:
            self.head.load_state_dict({key: value for key, value in super_resolver.items()
                                       if not key.startswith(prefix)})

    def freeze_trunk(self) -> None:
        """Train `join` and `project` only: the trunk no longer changes."""
        self.trunk.requires_grad_(False)


class Projection(nn.Module):
    """Convolution, then GELU and a second convolution once, or as often as the RRDB doubles the
    size, always with the same weights."""

    def __init__(self, inputs: int, outputs: int, repeats: int):
        super().__init__()
        self.repeats = repeats
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        x = self.first(features)
        for _ in range(self.repeats):
            x = self.second(functional.gelu(x))
        return x


def extra_channels(config: ThesisModel) -> int:
    """Channels that come after the image: the mask, and x_t where it joins the LR image."""
    return 1 + (config.channels if config.condition_on == "lr+x_t" else 0)


def shapes(weights: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(weight.shape) for name, weight in weights.items()}
