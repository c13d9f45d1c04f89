"""Between a stack's raw values and the network's -1..1: images on their way in, finished rectangles on their way out."""
from collections.abc import Mapping

import numpy as np

from swinmpi.config import ModelConfig
from swinmpi.errors import SwinmpiError
from swinmpi.images.lr_rows import LrRows
from swinmpi.images.metrics import consistency_sums, psnr_of_sums, seam_of_sums, seam_sums
from swinmpi.sampling.exchange import FinishedPart
from swinmpi.storage.values import ValueRange, mask_invalid, restore_invalid

NUM_FIGURE_SUMS = 6


def to_network(raw: np.ndarray, value_range: ValueRange, channels: int) -> np.ndarray:
    """(C, h, w) raw -> (channels, h, w) float32: NaNs filled, a grey image as three equal channels where three are wanted."""
    filled, _ = mask_invalid(raw, value_range.low)
    return np.broadcast_to(value_range.to_unit(filled), (channels, *raw.shape[1:]))


def from_network(finished: FinishedPart, lr: LrRows, value_range: ValueRange, datasets: Mapping[str, np.dtype],
                 model: ModelConfig) -> tuple[np.ndarray, np.ndarray]:
    """A rectangle of a finished image: (its images by `datasets`, stacked, as float32 raw values; its part of the figures).

    lr: the rows under it, with `raw`. Pixels over an LR pixel that is not finite take its value again. Raises SwinmpiError
    when the network's answer is not finite.
    """
    samples, base, scale = finished.samples.numpy(), finished.base.numpy(), model.scale
    if not np.isfinite(samples).all():
        raise SwinmpiError("the network's answer is not finite: expected numbers; try parallel.precision=fp32, else the "
                           "checkpoint is damaged")
    if len(lr.raw) == 1:
        samples, base = samples.mean(axis=1, keepdims=True), base.mean(axis=0, keepdims=True)
    made = {"sr": lambda dtype: value_range.from_unit(samples[0], dtype),
            "regression": lambda dtype: value_range.from_unit(base, dtype),
            "sr_mean": lambda dtype: value_range.from_unit(samples.mean(axis=0), dtype),
            "sr_std": lambda dtype: samples.std(axis=0) * (value_range.high - value_range.low) / 2}
    raw = lr.raw_part(*(shrunk(line, scale) for line in finished.seen))
    images = {name: restore_invalid(made[name](dtype).astype(np.float32), raw, scale) for name, dtype in datasets.items()}
    rows, cols = (slice(line.start - seen.start, line.stop - seen.start)
                  for line, seen in zip((finished.rows, finished.cols), finished.seen, strict=True))
    pixels = np.stack([image[:, rows, cols] for image in images.values()])
    return pixels, figure_sums(finished, images["sr"], samples[0], base, raw, lr, model)


def figure_sums(finished: FinishedPart, sr: np.ndarray, first: np.ndarray, base: np.ndarray, raw: np.ndarray, lr: LrRows,
                model: ModelConfig) -> np.ndarray:
    """What `figures_of` adds up over an image: float64 (NUM_FIGURE_SUMS,). All images (C, h, w) over `finished.seen`."""
    scale, (rows, cols) = model.scale, finished.seen
    sr, first, base, raw = (np.moveaxis(image, 0, -1) for image in (sr, first, base, raw))
    consistency = consistency_sums(sr, (rows.start, cols.start), (lr.height * scale, lr.width * scale),
                                   raw, (rows.start // scale, cols.start // scale), (lr.height, lr.width),
                                   [shrunk(line, scale) for line in (finished.rows, finished.cols)])
    seams = seam_sums(first, base, (rows.start, cols.start), (finished.rows, finished.cols), model.window_px)
    return np.concatenate([consistency, seams])


def figures_of(sums: np.ndarray, value_range: ValueRange) -> dict[str, float]:
    """The figures of an image out of the `figure_sums` of its rectangles, added up."""
    return {"lr_psnr": psnr_of_sums(sums[:2], value_range.high - value_range.low), "seam_score": seam_of_sums(sums[2:])}


def shrunk(line: range, scale: int) -> range:
    """The LR pixels whose first SR pixel lies in `line`."""
    return range(-(-line.start // scale), -(-line.stop // scale))
