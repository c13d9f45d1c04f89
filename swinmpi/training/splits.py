"""Which images are trained on, validated with and tested on, where nobody says it of each."""
from collections.abc import Sequence
from dataclasses import replace

from swinmpi.config import DataConfig
from swinmpi.errors import ConfigError
from swinmpi.storage.pairs import TEST, TRAIN, VALIDATE
from swinmpi.training.decoding import keyed_random
from swinmpi.training.sources import Source

SPLIT_STREAM = 2**64 - 1  # an image index that no image has


def assign_splits(sources: Sequence[Source], config: DataConfig) -> list[Source]:
    """Whole images go to validation and test, so that no crop of them shares pixels with training:
    parts or numbers of those without a split of their own. ConfigError where numbers leave none to
    train on."""
    free = [index for index, source in enumerate(sources) if source.split is None]
    validate = wanted_of(len(free), config.validate_share, config.validate_count)
    test = wanted_of(len(free), config.test_share, config.test_count)
    by_number = (config.validate_count, config.test_count) != (None, None) or config.test_share
    if free and by_number and validate + test >= len(free):
        raise ConfigError("data.validate_* and data.test_*: expected to leave some of "
                          f"{len(free)} images to train on, got {validate} to validate and "
                          f"{test} to test")
    drawn = keyed_random(config.seed, SPLIT_STREAM).permutation(free).tolist()
    splits = dict.fromkeys(drawn[:validate], VALIDATE)
    splits |= dict.fromkeys(drawn[validate:validate + test], TEST)
    return [source if source.split is not None else replace(source, split=splits.get(index, TRAIN))
            for index, source in enumerate(sources)]


def wanted_of(num_images: int, share: float, count: int | None) -> int:
    """How many of so many images a split gets: for a share above 0 at least one where there are
    several."""
    if count is not None:
        return count
    wanted = round(share * num_images)
    return max(1, wanted) if share > 0 and num_images > 1 else wanted
