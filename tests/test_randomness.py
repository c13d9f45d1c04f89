"""The words of every use of Philox, against numpy's own; they decide results that are on disk."""
import numpy as np
import pytest
import torch
from numpy.random import Generator, Philox

from swinmpi.diffusion.noise import X_T_STEP, random_shift
from swinmpi.randomness import generator
from swinmpi.storage.values import sample_places
from swinmpi.training.batches import keyed_rng
from swinmpi.training.preparation.decoding import keyed_random
from swinmpi.training.preparation.splits import SPLIT_STREAM
from tests.support.windows import window_noise

LARGEST = 2 ** 64 - 1
SEEDS = (0, 3, 2 ** 40, LARGEST)
PINNED = [9255149540171158142, 2043208287545267464, 15009128581364441760]


def words(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.uint64)


def same(one: Generator, other: Generator) -> bool:
    """Whether two generators draw the same numbers."""
    return np.array_equal(one.integers(0, LARGEST, 9, np.uint64),
                          other.integers(0, LARGEST, 9, np.uint64))


def test_values_are_pinned():
    """Another version of numpy draws the same numbers, or this test says that it would not."""
    first = generator((1, 2), (3, 4, 5, 6)).integers(0, LARGEST, 3, np.uint64, endpoint=True)
    assert first.tolist() == PINNED


def test_the_counter_starts_at_zero():
    assert same(generator((1, 2)), Generator(Philox(key=words(1, 2))))
    assert same(generator((1, 2)), generator((1, 2), (0, 0, 0, 0)))


@pytest.mark.parametrize("seed", SEEDS)
def test_words_of_noise_and_shifts(seed):
    for image, step, position in ((0, X_T_STEP, 0), (7, 4, 2 ** 33), (LARGEST, 99, 1)):
        noise = Philox(key=words(seed, image), counter=words(0, position, step + 1, 0))
        expected = Generator(noise).standard_normal((2, 5), dtype=np.float32)
        drawn = window_noise(seed, image, step, position, (2, 5))
        assert torch.equal(drawn, torch.from_numpy(expected))
        shift = Philox(key=words(seed, image), counter=words(0, 0, step + 1, 1))
        expected = Generator(shift).integers(0, 9, size=2, endpoint=True)
        assert random_shift(seed, image, step, 9) == tuple(expected.tolist())


@pytest.mark.parametrize("number, stream", [(0, 0), (12, 1), (2 ** 50, 2)])
@pytest.mark.parametrize("seed", SEEDS)
def test_words_of_training_batches(seed, number, stream):
    expected = Generator(Philox(key=words(seed, 0), counter=words(0, number, stream, 0)))
    assert same(keyed_rng(seed, number, stream), expected)


@pytest.mark.parametrize("stream", [0, 12, SPLIT_STREAM])
@pytest.mark.parametrize("seed", SEEDS)
def test_words_of_training_pairs(seed, stream):
    assert same(keyed_random(seed, stream), Generator(Philox(key=words(seed, stream))))


@pytest.mark.parametrize("image_index", [0, 12, 2 ** 40])
def test_words_of_sampled_pixels(image_index):
    """numpy takes a single number as the first word of the key."""
    expected = Generator(Philox(key=image_index)).integers(10_000, size=50)
    assert np.array_equal(sample_places(image_index, 10_000, 50), expected)


@pytest.mark.parametrize("key, counter, message", [
    ((-1, 0), (0, 0, 0, 0), r"key word 0: expected 0\.\.2\^64 - 1, got -1"),
    ((0, 2 ** 64), (0, 0, 0, 0), r"key word 1: expected 0\.\.2\^64 - 1, got 18446744073709551616"),
    ((0, 0), (0, 0, -3, 0), r"counter word 2: expected 0\.\.2\^64 - 1, got -3"),
    ((0,), (0, 0, 0, 0), "key: expected 2 words, got 1"),
    ((0, 0), (0, 0, 0), "counter: expected 4 words, got 3")])
def test_impossible_words_are_refused(key, counter, message):
    with pytest.raises(ValueError, match=message):
        generator(key, counter)
