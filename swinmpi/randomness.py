"""Random numbers that are a function of a key: the one home of the counter-based generator Philox.

Philox 4x64 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") encrypts a counter
of four words under a key of two; the results are the numbers. Nothing is stored between draws, so
any process can draw any part in any order. What each word means decides results and files that are
on disk already, so each use states its words, and they never change:

    use                               key                      counter
    diffusion.noise, a window         (seed, image index)      (0, window position, step + 1, 0)
    diffusion.noise, a shift          (seed, image index)      (0, 0, step + 1, 1)
    diffusion.noise, an anchor        (seed, anchor index)     (0, window position, step + 1, 3)
    training.batches                  (seed, 0)                (0, number, stream, 0)
    training.preparation, crops       (seed, image index)      (0, 0, 0, 0)
    training.preparation, the split   (seed, 2^64 - 1)         (0, 0, 0, 0)
    training.preparation.degradation  (seed, image index)      (0, crop number, 0, 2)
    storage.values, sampled pixels    (image index, 0)         (0, 0, 0, 0)
    evaluation.statistics, resampling (seed, 2^64 - 2)         (0, 0, 0, 0)

The first counter word counts the blocks of four numbers drawn; from 0 it has room for 2^64 of
them, so two generators that differ in any other word never share a block.
"""
from collections.abc import Mapping, Sequence

import numpy as np

KEY_WORDS, COUNTER_WORDS = 2, 4


def generator(key: Sequence[int], counter: Sequence[int] = (0, 0, 0, 0)) -> np.random.Generator:
    """A generator that starts at `counter` (4 words) under `key` (2 words), each 0..2^64 - 1.

    ValueError for another number of words, or one out of range.
    """
    for name, words, wanted in (("key", key, KEY_WORDS), ("counter", counter, COUNTER_WORDS)):
        if len(words) != wanted:
            raise ValueError(f"{name}: expected {wanted} words, got {len(words)}")
        check_words({f"{name} word {place}": word for place, word in enumerate(words)})
    bits = np.random.Philox(key=np.array(key, np.uint64), counter=np.array(counter, np.uint64))
    return np.random.Generator(bits)


def check_words(words: Mapping[str, int]) -> None:
    """ValueError with the name of the first word that is not in 0..2^64 - 1."""
    for name, word in words.items():
        if not 0 <= word < 2 ** 64:
            raise ValueError(f"{name}: expected 0..2^64 - 1, got {word}")
