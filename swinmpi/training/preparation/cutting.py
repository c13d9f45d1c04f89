"""Photographs -> HR images of one size, and the LR images made of them."""
import math
from collections.abc import Iterator

import numpy as np

from swinmpi.config import DataConfig
from swinmpi.images.photographs import Photograph
from swinmpi.training.preparation.decoding import (
    MAX_DRAWS,
    ImageUnusable,
    Pair,
    check_resizable,
    check_room,
    is_flat,
    keyed_random,
    lr_size_px,
    num_crops,
)
from swinmpi.training.preparation.degradation import make_lr
from swinmpi.training.preparation.sources import Source


def cut_crops(photograph: Photograph, source: Source, config: DataConfig,
              image_index: int) -> Iterator[Pair]:
    """HR images (size_px, size_px, C) of one photograph, the LR images made of them, and what was
    drawn for that; all depends on (seed, image index) alone."""
    random = keyed_random(config.seed, image_index)
    height, width = photograph.height_px / source.reduce, photograph.width_px / source.reduce
    if config.resize is not None:
        hr = resized(photograph, config)
        yield hr, *degrade(hr, config, (image_index, 0))
        return
    if config.mode == "whole":
        hr = whole_image(photograph, draw_reduce(random, source, config, math.inf), config.size_px)
        yield hr, *degrade(hr, config, (image_index, 0))
        return
    most_reduce = check_room((photograph.height_px, photograph.width_px), source.reduce, config)
    for number in range(num_crops(config, source.split, height * width)):
        crop = draw_crop(photograph, source, config, random, most_reduce)
        if crop is None:
            if number == 0:
                raise ImageUnusable(f"{MAX_DRAWS} crops were flat; "
                                    "see data.flat_reject and data.flat_threshold")
            return
        yield crop, *degrade(crop, config, (image_index, number))


def draw_crop(photograph: Photograph, source: Source, config: DataConfig,
              random: np.random.Generator, most_reduce: float) -> np.ndarray | None:
    """One crop at a random place and reduction; flat ones are drawn again with probability
    flat_reject, at most MAX_DRAWS times (then None)."""
    for _ in range(MAX_DRAWS):
        reduce = draw_reduce(random, source, config, most_reduce)
        room = [length - config.size_px * reduce
                for length in (photograph.height_px, photograph.width_px)]
        top_px, left_px = (int(random.integers(0, max(0, math.floor(length)), endpoint=True))
                           for length in room)
        crop = photograph.cut(top_px, left_px, reduce, config.size_px, config.size_px)
        if not (is_flat(crop, config.flat_threshold) and random.random() < config.flat_reject):
            return crop
    return None


def draw_reduce(random: np.random.Generator, source: Source, config: DataConfig,
                most: float) -> float:
    """Uniform between reduce and reduce * reduce_spread, never more than `most`."""
    return float(random.uniform(
        source.reduce, max(source.reduce, min(source.reduce * config.reduce_spread, most))))


def whole_image(photograph: Photograph, reduce: float, size_px: int) -> np.ndarray:
    """The whole image shrunk by `reduce`, then cropped or padded (mirrored) around its
    centre to a square."""
    shape = [max(1, int(length / reduce)) for length in (photograph.height_px, photograph.width_px)]
    image = photograph.cut(0, 0, reduce, *shape)
    for axis, length in enumerate(shape):
        before = abs(size_px - length) // 2
        if length >= size_px:
            image = image.take(range(before, before + size_px), axis=axis)
        else:
            widths = [(before, size_px - length - before) if a == axis else (0, 0)
                      for a in range(3)]
            image = np.pad(image, widths, mode="reflect")
    return image


def resized(photograph: Photograph, config: DataConfig) -> np.ndarray:
    """The whole image, or its middle square, shrunk to (size_px, size_px, C)."""
    check_resizable((photograph.height_px, photograph.width_px), config)
    whole = photograph if config.resize == "squash" else photograph.middle_square()
    return whole.shrunk((0, 0), (whole.height_px, whole.width_px), (config.size_px,) * 2)


def degrade(hr: np.ndarray, config: DataConfig,
            place: tuple[int, int]) -> tuple[np.ndarray, dict[str, float]]:
    """The LR image of one HR image of pairs, and what was drawn for it. place: its image index and
    the number of the crop."""
    return make_lr(hr, (lr_size_px(config),) * 2, config, place, (0, np.iinfo(hr.dtype).max))
