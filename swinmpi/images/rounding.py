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
    rows, cols = height // scale, width // scale
    # A block is a column, so that all of them are worked on at a time.
    blocks = values.reshape(channels, rows, scale, cols, scale).transpose(2, 4, 0, 1, 3)
    blocks = within_limits(blocks.reshape(scale * scale, -1), *limits)
    whole = np.floor(blocks)
    remainders = blocks - whole
    whole += ranks(remainders) < np.rint(remainders.sum(axis=0))
    whole = whole.reshape(scale, scale, channels, rows, cols)
    return whole.transpose(2, 3, 0, 4, 1).reshape(values.shape)


def ranks(remainders: np.ndarray) -> np.ndarray:
    """The place of each of (k, n) among the k, the largest first; of equal ones the first is first.
    By comparing all pairs, which for a few is faster than to sort."""
    places = np.zeros(remainders.shape, np.uint16)
    for second in range(1, len(remainders)):
        is_before = remainders[:second] >= remainders[second]
        places[second] = is_before.sum(axis=0, dtype=np.uint16)
        places[:second] += ~is_before
    return places


def within_limits(blocks: np.ndarray, low: float, high: float) -> np.ndarray:
    """Blocks (k, n) clipped, the others of a block changed in proportion to their room so that it
    keeps its sum as far as there is room."""
    clipped = blocks.clip(low, high)
    outside = np.flatnonzero((clipped != blocks).any(axis=0))
    if outside.size:
        inside = clipped[:, outside]
        lacking = (blocks[:, outside] - inside).sum(axis=0)
        room = np.where(lacking > 0, high - inside, inside - low)
        share = np.abs(lacking) / room.sum(axis=0).clip(np.abs(lacking), None)
        clipped[:, outside] = inside + np.sign(lacking) * room * np.nan_to_num(share)
    return clipped
