"""Randomness that belongs to a window of a step of an image, not to a rank: every draw is a pure function of its key.

Layout of the counter-based generator Philox 4x64 (Salmon et al. 2011), all words uint64:
    key      (seed, image index)
    counter  (0, window position, step + 1, stream)      stream 0: noise, 1: shift
The first counter word counts the blocks drawn. It has 2^64 values, so no two windows ever share a block, and the order
in which ranks draw, or how many ranks there are, cannot be seen in the numbers.
"""
import numpy as np
import torch
from torch import Tensor

X_T_STEP = -1
NOISE_STREAM = 0
SHIFT_STREAM = 1


def window_noise(seed: int, image_index: int, step: int, position: int, shape: tuple[int, ...]) -> Tensor:
    """N(0, 1) noise of one window, float32 of the given shape, on the CPU.

    step counts the sampler's steps from 0 (it is not t); step -1 is x_T. position is the window's in the step's frame.
    """
    draw = _generator(seed, image_index, step, position, NOISE_STREAM).standard_normal(shape, dtype=np.float32)
    return torch.from_numpy(draw)


def random_shift(seed: int, image_index: int, step: int, max_px: int) -> tuple[int, int]:
    """The step's shift (dy, dx), each uniform in 0..max_px pixels, both ends included."""
    dy, dx = _generator(seed, image_index, step, 0, SHIFT_STREAM).integers(0, max_px, size=2, endpoint=True)
    return int(dy), int(dx)


def _generator(seed: int, image_index: int, step: int, position: int, stream: int) -> np.random.Generator:
    words = {"seed": seed, "image index": image_index, "window position": position, "step + 1": step + 1}
    for name, word in words.items():
        if not 0 <= word < 2 ** 64:
            raise ValueError(f"{name}: expected 0..2^64 - 1, got {word}")
    key = np.array([seed, image_index], dtype=np.uint64)
    counter = np.array([0, position, step + 1, stream], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))
