"""The encoder of the `aligned` family: features on the HR grid, and a regression
of the HR image."""
from torch import Tensor, nn
from torch.nn import functional

from swinmpi.config import AlignedModel

HEAD_CHANNELS = 32
LOG_DIFFICULTY = (-9.0, 1.0)
"""Limits of what is expected: a sixtieth of a grey level of 8 bit, and more than the range."""


class AlignedEncoder(nn.Module):
    """LR image -> features and regression residual on the HR grid, and the image's global vector.

    EDSR body (Lim et al. 2017, no normalisation) at LR size, then sub-pixel convolution
    (Shi et al. 2016).
    """

    def __init__(self, config: AlignedModel):
        super().__init__()
        width = config.encoder_channels
        self.scale, self.image_channels = config.scale, config.channels
        self.head = nn.Conv2d(config.channels, width, 3, padding=1)
        self.body = nn.Sequential(*[EdsrBlock(width) for _ in range(config.encoder_blocks)],
                                  nn.Conv2d(width, width, 3, padding=1))
        self.tail = nn.Conv2d(width, (config.feature_channels + config.channels) * config.scale**2,
                              3, padding=1)
        self.to_global = nn.Linear(width, config.global_channels)
        self.difficulty = difficulty_head(self.num_features) if config.difficulty_head else None

    @property
    def num_features(self) -> int:
        """F + C, the channels of `upsample`."""
        return self.tail.out_channels // self.scale**2

    @property
    def radius_px(self) -> int:
        """How far, in LR px, an output can see: one pixel per 3x3 convolution on the way."""
        return sum(module.kernel_size[0] // 2 for module in self.modules()
                   if isinstance(module, nn.Conv2d))

    def trunk(self, lr: Tensor) -> Tensor:
        """lr: (N, C, h, w) in -1..1 -> (N, width, h, w)."""
        shallow = self.head(lr)
        return shallow + self.body(shallow)

    def upsample(self, trunk: Tensor) -> Tensor:
        """(N, width, h, w) -> (N, F + C, h * scale, w * scale): F features, then
        the regression residual."""
        return functional.pixel_shuffle(self.tail(trunk), self.scale)

    def log_difficulty(self, features: Tensor) -> Tensor:
        """Features and residual (N, F + C, H, W) -> the logarithm of the expected |HR -
        regression|, images in -1..1: (N, 1, H, W). Only where there is a head."""
        return self.difficulty(features).clamp(*LOG_DIFFICULTY)

    def global_vector(self, trunk_mean: Tensor) -> Tensor:
        """Mean of the trunk over the image, (N, width) -> (N, G)."""
        return self.to_global(trunk_mean)

    def forward(self, lr: Tensor) -> tuple[Tensor, Tensor]:
        """The whole image at once: (features and residual, global vector)."""
        trunk = self.trunk(lr)
        return self.upsample(trunk), self.global_vector(trunk.mean(dim=(2, 3)))


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
