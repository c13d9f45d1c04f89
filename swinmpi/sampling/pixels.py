"""Between a stack's raw values and the network's -1..1: images on their way in, finished rectangles on their way out."""
from collections.abc import Mapping

import numpy as np

from swinmpi.config import Config
from swinmpi.errors import SwinmpiError
from swinmpi.families.lr_rows import LrStrip
from swinmpi.images.metrics import consistency_sums, psnr_of_sums, seam_of_sums, seam_sums
from swinmpi.sampling.superresolve import Shown
from swinmpi.storage.values import ValueRange, mask_invalid, restore_invalid

NUM_FIGURE_SUMS = 6


def to_network(raw: np.ndarray, value_range: ValueRange, channels: int) -> np.ndarray:
    """(C, h, w) raw -> (channels, h, w) float32: NaNs filled, a grey image as three equal channels where three are wanted."""
    filled, _ = mask_invalid(raw, value_range.low)
    return np.broadcast_to(value_range.to_unit(filled), (channels, *raw.shape[1:]))


def from_network(shown: Shown, lr: LrStrip, value_range: ValueRange, datasets: Mapping[str, np.dtype],
                 config: Config) -> tuple[np.ndarray, np.ndarray]:
    """A rectangle of a finished image: (its images by `datasets`, stacked, as float32 raw values; its part of the figures).

    lr: the rows under it, with `raw`. Pixels over an LR pixel that is not finite take its value again. Raises SwinmpiError
    when the network's answer is not finite.
    """
    samples, base, scale = shown.samples.numpy(), shown.base.numpy(), config.model.scale
    if not np.isfinite(samples).all():
        raise SwinmpiError("the network's answer is not finite: expected numbers; try parallel.precision=fp32, else the "
                           "checkpoint is damaged")
    if len(lr.raw) == 1:
        samples, base = samples.mean(axis=1, keepdims=True), base.mean(axis=0, keepdims=True)
    made = {"sr": lambda dtype: value_range.from_unit(samples[0], dtype),
            "regression": lambda dtype: value_range.from_unit(base, dtype),
            "sr_mean": lambda dtype: value_range.from_unit(samples.mean(axis=0), dtype),
            "sr_std": lambda dtype: samples.std(axis=0) * (value_range.high - value_range.low) / 2}
    raw = lr.raw_part(*(shrunk(line, scale) for line in shown.seen))
    images = {name: restore_invalid(made[name](dtype).astype(np.float32), raw, scale) for name, dtype in datasets.items()}
    rows, cols = (slice(line.start - seen.start, line.stop - seen.start)
                  for line, seen in zip((shown.rows, shown.cols), shown.seen, strict=True))
    pixels = np.stack([image[:, rows, cols] for image in images.values()])
    return pixels, figure_sums(shown, images["sr"], samples[0], base, raw, lr, config)


def figure_sums(shown: Shown, sr: np.ndarray, first: np.ndarray, base: np.ndarray, raw: np.ndarray, lr: LrStrip,
                config: Config) -> np.ndarray:
    """What `figures_of` adds up over an image: float64 (NUM_FIGURE_SUMS,). All images (C, h, w) over `shown.seen`."""
    scale, (rows, cols) = config.model.scale, shown.seen
    sr, first, base, raw = (np.moveaxis(image, 0, -1) for image in (sr, first, base, raw))
    consistency = consistency_sums(sr, (rows.start, cols.start), (lr.height * scale, lr.width * scale),
                                   raw, (rows.start // scale, cols.start // scale), (lr.height, lr.width),
                                   [shrunk(line, scale) for line in (shown.rows, shown.cols)])
    seams = seam_sums(first, base, (rows.start, cols.start), (shown.rows, shown.cols), config.model.window_px)
    return np.concatenate([consistency, seams])


def figures_of(sums: np.ndarray, value_range: ValueRange) -> dict[str, float]:
    """The figures of an image out of the `figure_sums` of its rectangles, added up."""
    return {"lr_psnr": psnr_of_sums(sums[:2], value_range.high - value_range.low), "seam_score": seam_of_sums(sums[2:])}


def shrunk(line: range, scale: int) -> range:
    """The LR pixels whose first SR pixel lies in `line`."""
    return range(-(-line.start // scale), -(-line.stop // scale))
