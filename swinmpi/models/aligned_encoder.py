"""The encoder of the `aligned` family: features on the HR grid, and a regression
of the HR image."""
from torch import Tensor, nn
from torch.nn import functional

from swinmpi.config import AlignedModel
from swinmpi.models.vit import ImageTransformer, Overview

HEAD_CHANNELS = 32
LOG_DIFFICULTY = (-9.0, 1.0)
"""Limits of what is expected: a sixtieth of a grey level of 8 bit, and more than the range."""


class AlignedEncoder(nn.Module):
    """LR image -> features and regression residual on the HR grid, and the image's global vector.

    EDSR body (Lim et al. 2017, no normalisation) at LR size, then sub-pixel convolution
    (Shi et al. 2016). With `noise_aware` the LR image has one more channel, its noise level, which
    convolutions see. With `encoder: vit` a transformer sees the whole image as well: its patches
    add to the trunk, from which features and regression are made, and its class token is the
    global vector, else the mean of the trunk.
    """

    def __init__(self, config: AlignedModel, folded: int = 1):
        """folded: HR px along one px of what it makes, each of which then has the residual of
        all of them, as of `pixel_unshuffle`."""
        super().__init__()
        width = config.encoder_channels
        self.scale, self.image_channels = config.scale // folded, config.channels
        self.head = nn.Conv2d(config.channels + config.noise_aware, width, 3, padding=1)
        self.body = nn.Sequential(*[EdsrBlock(width) for _ in range(config.encoder_blocks)],
                                  nn.Conv2d(width, width, 3, padding=1))
        made = config.feature_channels + config.channels * folded**2
        self.tail = nn.Conv2d(width, made * self.scale**2, 3, padding=1)
        self.transformer, self.to_global = None, None
        if config.encoder == "vit":
            self.transformer = ImageTransformer(config, width, config.global_channels)
        elif config.global_channels:
            self.to_global = nn.Linear(width, config.global_channels)
        self.difficulty = difficulty_head(self.num_features) if config.difficulty_head else None

    @property
    def num_features(self) -> int:
        """F + C, the channels of `upsample`."""
        return self.tail.out_channels // self.scale**2

    @property
    def radius_px(self) -> int:
        """How far, in LR px, an output can see: one pixel per 3x3 convolution on the way."""
        return sum(module.kernel_size[0] // 2 for part in (self.head, self.body, self.tail)
                   for module in part.modules() if isinstance(module, nn.Conv2d))

    def trunk(self, lr: Tensor, overview: Overview | None = None,
              place: tuple[range, range] | None = None) -> Tensor:
        """lr: (N, C, h, w) in -1..1, C one more where noise is told -> (N, width, h, w).
        overview: with a transformer, of the images of which lr is the part at `place`, rows and
        columns, by default all."""
        shallow = self.head(lr)
        trunk = shallow + self.body(shallow)
        if overview is None:
            return trunk
        return trunk + overview.beneath(*(place or map(range, lr.shape[-2:])))

    def upsample(self, trunk: Tensor) -> Tensor:
        """(N, width, h, w) -> (N, F + C, h * scale, w * scale): F features, then
        the regression residual."""
        return functional.pixel_shuffle(self.tail(trunk), self.scale)

    def log_difficulty(self, features: Tensor) -> Tensor:
        """Features and residual (N, F + C, H, W) -> the logarithm of the expected |HR -
        regression|, images in -1..1: (N, 1, H, W). Only where there is a head."""
        return self.difficulty(features).clamp(*LOG_DIFFICULTY)

    def global_vector(self, trunk_mean: Tensor) -> Tensor:
        """Without a transformer, mean of the trunk over the image, (N, width) -> (N, G)."""
        return trunk_mean[:, :0] if self.to_global is None else self.to_global(trunk_mean)

    @property
    def vector_layer(self) -> nn.Linear | None:
        """What makes the global vector; None where it has no length."""
        return self.to_global if self.transformer is None else self.transformer.to_vector

    def forward(self, lr: Tensor) -> tuple[Tensor, Tensor]:
        """The whole image at once: (features and residual, global vector)."""
        overview = self.overview(lr)
        trunk = self.trunk(lr, overview)
        return self.upsample(trunk), (self.global_vector(trunk.mean(dim=(2, 3)))
                                      if overview is None else overview.vector)

    def overview(self, lr: Tensor, joins: tuple[bool, bool] = (False, False)) -> Overview | None:
        """Of whole images, (N, C, h, w); None without a transformer."""
        return None if self.transformer is None else self.transformer.of(lr, joins)


def difficulty_head(num_features: int) -> nn.Sequential:
    """Pixel by pixel, so that the encoder sees no farther with it. It starts at the mean error of a
    network that has learned nothing yet."""
    head = nn.Sequential(nn.Conv2d(num_features, HEAD_CHANNELS, 1), nn.ReLU(),
                         nn.Conv2d(HEAD_CHANNELS, 1, 1))
    nn.init.constant_(head[-1].bias, -4.0)
    return head


class EdsrBlock(nn.Module):
    """x + conv(relu(conv(x)))."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(functional.relu(self.conv1(x)))
