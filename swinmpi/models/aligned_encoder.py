"""The encoder of the `aligned` family: features on the HR grid, and a regression
of the HR image."""
from torch import Tensor, nn
from torch.nn import functional

from swinmpi.config import AlignedModel


class AlignedEncoder(nn.Module):
    """LR image -> features and regression residual on the HR grid, and the image's global vector.

    EDSR body (Lim et al. 2017, no normalisation) at LR size, then sub-pixel convolution
    (Shi et al. 2016).
    """

    def __init__(self, config: AlignedModel, folded: int = 1):
        """folded: HR px along one px of what it makes, each of which then has the residual of
        all of them, as of `pixel_unshuffle`."""
        super().__init__()
        width = config.encoder_channels
        self.scale, self.image_channels = config.scale // folded, config.channels
        self.head = nn.Conv2d(config.channels, width, 3, padding=1)
        self.body = nn.Sequential(*[EdsrBlock(width) for _ in range(config.encoder_blocks)],
                                  nn.Conv2d(width, width, 3, padding=1))
        made = config.feature_channels + config.channels * folded**2
        self.tail = nn.Conv2d(width, made * self.scale**2, 3, padding=1)
        self.to_global = nn.Linear(width, config.global_channels)

    @property
    def num_features(self) -> int:
        """F + C, the channels of `upsample`."""
        return self.tail.out_channels // self.scale**2

    @property
    def radius_px(self) -> int:
        """How far, in LR px, an output can see: one pixel per 3x3 convolution on the way."""
        return sum(module.kernel_size[0] // 2 for part in (self.head, self.body, self.tail)
                   for module in part.modules() if isinstance(module, nn.Conv2d))

    def trunk(self, lr: Tensor) -> Tensor:
        """lr: (N, C, h, w) in -1..1 -> (N, width, h, w)."""
        shallow = self.head(lr)
        return shallow + self.body(shallow)

    def upsample(self, trunk: Tensor) -> Tensor:
        """(N, width, h, w) -> (N, F + C, h * scale, w * scale): F features, then
        the regression residual."""
        return functional.pixel_shuffle(self.tail(trunk), self.scale)

    def global_vector(self, trunk_mean: Tensor) -> Tensor:
        """Mean of the trunk over the image, (N, width) -> (N, G)."""
        return self.to_global(trunk_mean)

    def forward(self, lr: Tensor) -> tuple[Tensor, Tensor]:
        """The whole image at once: (features and residual, global vector)."""
        trunk = self.trunk(lr)
        return self.upsample(trunk), self.global_vector(trunk.mean(dim=(2, 3)))


class EdsrBlock(nn.Module):
    """x + conv(relu(conv(x)))."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(functional.relu(self.conv1(x)))
