"""What every kind of preparation does with its images: decode and convert them, or name and skip
them, count their crops."""
import math
import sys
from collections.abc import Callable, Generator
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from swinmpi.config import DataConfig
from swinmpi.errors import ConfigError
from swinmpi.randomness import generator
from swinmpi.storage.pairs import TRAIN
from swinmpi.storage.pictures.listing import reason_of
from swinmpi.training.preparation.sources import Source
from swinmpi.training.preparation.values import CommonValues, Kind, kind_of

MAX_DRAWS = 100  # for one crop: an image that is flat everywhere must come to an end
Pair = tuple[np.ndarray, np.ndarray, dict[str, float]]
"""HR (H, W, C), LR (h, w, C) and what was drawn for that."""


class ImageUnusable(Exception):
    """This image cannot give a crop; the text says why, the others go on."""


@dataclass(frozen=True)
class Summary:
    """What was written; `failed` holds one line for each skipped image."""

    num_train: int
    num_validate: int
    failed: tuple[str, ...]
    num_test: int = 0


def decode(read: Callable[[], np.ndarray]) -> np.ndarray:
    """An image; ImageUnusable where it cannot be read."""
    try:
        return read()
    # decoders raise anything on damaged files, and one image must not end the run
    except Exception as error:
        raise ImageUnusable(f"cannot be read: {reason_of(error)}") from error


@dataclass(frozen=True)
class Decoded:
    """An image was decoded, and what it is: dtype and channels."""

    name: str
    kind: Kind


def converted(source: Source, values: CommonValues) -> Generator[Decoded, None, np.ndarray]:
    """A decoded image with the common values, and before that word of it; ImageUnusable where it
    cannot be."""
    image = decode(source.read)
    yield Decoded(source.name, kind_of(image))
    try:
        return values.convert(source, image)
    except ValueError as reason:
        raise ImageUnusable(str(reason)) from None


def num_crops(config: DataConfig, split: int, area_px: float) -> int:
    """Crops of an image of `area_px` after reduction."""
    most = crop_limit(config, split)
    if config.coverage is None:
        return most
    return min(most, math.ceil(config.coverage * area_px / config.size_px**2))


def crop_limit(config: DataConfig, split: int) -> int:
    if config.takes_whole:
        return 1
    return (config.crops_per_image if split == TRAIN
            else config.validate_crops or config.crops_per_image)


def lr_size_px(config: DataConfig) -> int:
    """size_px / scale, which must be whole for HR and LR pixels to lie over each other."""
    size = round(config.size_px / config.scale)
    if abs(size * config.scale - config.size_px) > 1e-6:
        raise ConfigError(f"data.size_px: expected a multiple of data.scale = {config.scale:g}, "
                          f"got {config.size_px}")
    return size


def check_room(size: tuple[int, int], reduce: float, config: DataConfig) -> float:
    """How much an image of this (height, width) may be shrunk for a crop to fit in; ImageUnusable
    where `reduce` is more."""
    most = min(size) / config.size_px
    if most < reduce:
        raise ImageUnusable(f"{size[1]} x {size[0]} px shrunk by {reduce:g} is smaller than a crop "
                            f"of {config.size_px} px; lower data.size_px or use data.mode=whole")
    return most


def check_resizable(size: tuple[int, int], config: DataConfig) -> None:
    """ImageUnusable where an image of this (height, width) is smaller than what data.resize makes
    of it."""
    if min(size) < config.size_px:
        raise ImageUnusable(f"{size[1]} x {size[0]} px is smaller than {config.size_px} px; "
                            "lower data.size_px")


def is_flat(crop: np.ndarray, threshold: float) -> bool:
    """Standard deviation of the brightness, on a scale of 0..1."""
    return crop.mean(axis=2).std() / np.iinfo(crop.dtype).max < threshold


def keyed_random(seed: int, stream: int) -> np.random.Generator:
    """stream: an image index, or SPLIT_STREAM."""
    return generator((seed, stream))


def say(text: str) -> None:
    tqdm.write(text, file=sys.stderr)
