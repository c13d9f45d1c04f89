"""Randomness that belongs to a window of a step of an image, not to a rank.

Noise is a function of its key, never a stream: there is no state between draws, so the order in
which ranks draw, or how many ranks there are, cannot be seen in the numbers. The generator is the
counter-based Philox (Salmon et al. 2011), see `swinmpi.randomness`; its words here are

    key      (seed, image index)
    counter  (0, window position, step + 1, stream)      stream 0: noise, 1: shift, 3: anchor

Where neighbouring images are to agree, the noise of an image lies between that of two anchors, and
the image index of their keys counts anchors.
"""
import math

import numpy as np

from swinmpi.randomness import check_words, generator

X_T_STEP = -1
NOISE_STREAM = 0
SHIFT_STREAM = 1
ANCHOR_STREAM = 3


def draw_window(seed: int, stack_index: int, step: int, position: int, out: np.ndarray,
                coherence: float | None = None) -> None:
    """Fill `out`, contiguous float32 (C, w, w), with the N(0, 1) noise of one window.

    step counts the sampler's steps from 0 (it is not t); step -1 is x_T. position is the window's
    in the step's frame. coherence: None for noise of every image's own, else so many images lie
    from one anchor to the next. Between them, at a share s of the way, the noise is
    cos(pi s / 2) times the one before and sin(pi s / 2) times the one after, of variance 1.
    """
    def draw(index: int, stream: int, out: np.ndarray) -> np.ndarray:
        random = _generator(seed, index, step, position, stream)
        return random.standard_normal(out.shape, dtype=np.float32, out=out)

    if coherence is None:
        draw(stack_index, NOISE_STREAM, out)
        return
    before, share = divmod(stack_index / coherence, 1)
    draw(int(before), ANCHOR_STREAM, out)
    if share:
        angle = share * math.pi / 2
        out *= np.float32(math.cos(angle))
        out += np.float32(math.sin(angle)) * draw(int(before) + 1, ANCHOR_STREAM,
                                                  np.empty_like(out))


def random_shift(seed: int, stack_index: int, step: int, max_px: int) -> tuple[int, int]:
    """The step's shift (dy, dx), each uniform in 0..max_px pixels, both ends included."""
    random = _generator(seed, stack_index, step, 0, SHIFT_STREAM)
    dy, dx = random.integers(0, max_px, size=2, endpoint=True)
    return int(dy), int(dx)


def drawn_turn(seed: int, stack_index: int, step: int) -> int:
    """Which of the four circular shifts a step has, where they are drawn: 0..3."""
    return int(_generator(seed, stack_index, step, 0, SHIFT_STREAM).integers(4))


def _generator(seed: int, stack_index: int, step: int, position: int,
               stream: int) -> np.random.Generator:
    check_words({"seed": seed, "image index": stack_index, "window position": position,
                 "step + 1": step + 1})
    return generator((seed, stack_index), (0, position, step + 1, stream))
