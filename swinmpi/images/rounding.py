"""SR values as integers that shrink to nearly what the floats do. Without torch at import."""
import numpy as np


def rounded_in_blocks(values: np.ndarray, limits: tuple[int, int], scale: int) -> np.ndarray:
    """Whole numbers within `limits`, float64, next to `values` (C, h, w), float64, and with the
    same sum over the scale x scale pixels above each LR pixel, as near as whole numbers come.

    Rounding each value by itself leaves errors of all frequencies, of which shrinking keeps the
    low ones; these are nearly gone where every block keeps its sum (the largest remainders are
    rounded up). What is clipped at a limit, the others of its block take over. h and w are whole
    blocks.
    """
    channels, height, width = values.shape
    blocks = values.reshape(channels, height // scale, scale, width // scale, scale)
    blocks = within_limits(blocks.swapaxes(2, 3).reshape(-1, scale * scale), *limits)
    whole = np.floor(blocks)
    remainders = blocks - whole
    num_up = np.rint(remainders.sum(axis=1, keepdims=True))
    # a stable order, since a pixel must not depend on what else is sorted
    rank = (-remainders).argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
    whole += rank < num_up
    whole = whole.reshape(channels, height // scale, width // scale, scale, scale)
    return whole.swapaxes(2, 3).reshape(values.shape)


def within_limits(blocks: np.ndarray, low: float, high: float) -> np.ndarray:
    """Blocks (n, k) clipped, the others of a block changed in proportion to their room so that it
    keeps its sum as far as there is room."""
    clipped = blocks.clip(low, high)
    outside = np.flatnonzero((clipped != blocks).any(axis=1))
    if outside.size:
        inside = clipped[outside]
        lacking = (blocks[outside] - inside).sum(axis=1, keepdims=True)
        room = np.where(lacking > 0, high - inside, inside - low)
        share = np.abs(lacking) / room.sum(axis=1, keepdims=True).clip(np.abs(lacking), None)
        clipped[outside] = inside + np.sign(lacking) * room * np.nan_to_num(share)
    return clipped
