"""The program under measurement: what swinmpi-sample samples with, and images for it."""
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from swinmpi.config import Config, ModelConfig
from swinmpi.families.family import Family
from swinmpi.families.loading import make_family
from swinmpi.images.imresize import imresize_tensor
from swinmpi.images.lr_rows import LrRows
from swinmpi.parallel.comm import Group
from swinmpi.sampling.superresolve import SuperResolver, make_resolver

WEIGHTS_SEED, IMAGES_SEED = 0, 1
SMOOTH_PX = 8


def quiet_resolver(config: Config, family: Family, device: str, group: Group) -> SuperResolver:
    """As swinmpi-sample makes it, without the warning that the published schedule ends early: that
    is part of what is reproduced."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make_resolver(config, family, device, group)


def random_family(config: ModelConfig) -> Family:
    """Seeded weights, none of them zero: an encoder that starts blind to the mask would hide
    windows mixed up."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(WEIGHTS_SEED)
        family = make_family(config)
        for parameter in family.model.parameters():
            if not parameter.any():
                nn.init.normal_(parameter, std=0.1)
    return family


def smooth_images(config: ModelConfig, size_px: int, num_images: int) -> list[Tensor]:
    """Smooth random LR images (C, h, w) in -1..1, the same on every rank. size_px: of SR."""
    side = size_px // config.scale
    coarse = max(1, side // SMOOTH_PX)
    draw = torch.rand(num_images, config.channels, coarse, coarse,
                      generator=torch.Generator().manual_seed(IMAGES_SEED))
    return list(imresize_tensor(draw * 2 - 1, size=(side, side)).clamp(-1, 1))


def whole(images: Sequence[Tensor]) -> list[LrRows]:
    """LR images as a SuperResolver takes them, all rows on every rank."""
    return [LrRows.whole(image) for image in images]
