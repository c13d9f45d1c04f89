"""Pairs whose LR images are given, not made."""
from collections.abc import Iterator

import numpy as np

from swinmpi.config import DataConfig
from swinmpi.errors import ConfigError
from swinmpi.images.photographs import Photograph
from swinmpi.training.preparation.decoding import (
    MAX_DRAWS,
    Decoded,
    ImageUnusable,
    Pair,
    converted,
    is_flat,
    keyed_random,
    num_crops,
)
from swinmpi.training.preparation.sources import Source
from swinmpi.training.preparation.values import CommonValues


def check_own_lr(lr: str | None, lr_only: bool, config: DataConfig) -> None:
    """ConfigError for settings that contradict LR images of one's own, or whole ones."""
    if (lr is not None or lr_only) and config.scale != round(config.scale):
        raise ConfigError(f"data.scale: expected a whole number with --lr and --lr-only, "
                          f"got {config.scale:g}")
    if lr is not None and (config.takes_whole or config.reduce_spread != 1):
        raise ConfigError("--lr: expected data.mode=crop and data.reduce_spread=1, as given LR "
                          f"images are not shrunk, got {'whole' if config.takes_whole else 'crop'}"
                          f", {config.reduce_spread:g}")
    if lr is not None and config.degradation:
        given = " and ".join(f"data.{name}" for name in config.degradation)
        raise ConfigError("--lr: expected nothing that degrades, as given LR images are taken as "
                          f"they are, got {given}; leave out one or the other")


def cut_pairs(photograph: Photograph, source: Source, config: DataConfig, image_index: int,
              values: CommonValues) -> Iterator[Decoded | Pair]:
    """(HR, LR, nothing drawn) crops that lie over each other, both by the range of the HR images;
    places depend on (seed, image index) alone. First word of the LR image."""
    check_own_dtype(source.page().dtype, source.lr.page().dtype)
    lr, scale = (yield from converted(source.lr, values)), round(config.scale)
    height, width = lr.shape[:2]
    check_own_size((photograph.height_px, photograph.width_px), (height, width), config)
    size = config.size_px // scale
    random = keyed_random(config.seed, image_index)
    for number in range(num_crops(config, source.split, height * width * scale**2)):
        for _ in range(MAX_DRAWS):
            top, left = (int(random.integers(0, side - size, endpoint=True))
                         for side in (height, width))
            hr = photograph.cut(top * scale, left * scale, 1.0, config.size_px, config.size_px)
            if not (is_flat(hr, config.flat_threshold) and random.random() < config.flat_reject):
                yield hr, lr[top:top + size, left:left + size], {}
                break
        else:
            if number == 0:
                raise ImageUnusable(f"{MAX_DRAWS} crops were flat; "
                                    "see data.flat_reject and data.flat_threshold")
            return


def check_own_size(hr: tuple[int, int], lr: tuple[int, int], config: DataConfig) -> None:
    """ImageUnusable where an LR image does not lie under its HR image, both (height, width), or is
    smaller than a crop."""
    scale = round(config.scale)
    if hr != (lr[0] * scale, lr[1] * scale):
        factor = hr[0] // lr[0]
        other = hr == (lr[0] * factor, lr[1] * factor) and factor > 1
        raise ImageUnusable(f"{hr[1]} x {hr[0]} px, expected {scale} times its LR image of {lr[1]} "
                            f"x {lr[0]} px" + (f"; set data.scale={factor}" if other else ""))
    size = config.size_px // scale
    if min(lr) < size:
        raise ImageUnusable(f"LR image of {lr[1]} x {lr[0]} px is smaller than a crop of {size} "
                            "px; lower data.size_px")


def check_own_dtype(hr: np.dtype, lr: np.dtype) -> None:
    """ImageUnusable where the values of an LR image are on another scale than those of its HR
    image."""
    if hr != lr:
        raise ImageUnusable(f"is {hr}, but its LR image {lr}; convert one of them, so that equal "
                            "brightness is an equal value")
