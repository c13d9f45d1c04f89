"""Between a stack's raw values and the network's -1..1: images in, finished rectangles out."""
from collections.abc import Iterator, Mapping

import numpy as np

from swinmpi.config import ModelConfig
from swinmpi.errors import SwinmpiError
from swinmpi.images.figures import FIGURES, Figures, ImagePart, lr_range, sums_of_part
from swinmpi.images.lr_rows import LrRows
from swinmpi.sampling.exchange import FinishedPart
from swinmpi.storage.values import ValueRange, mask_invalid, restore_invalid


def to_network(raw: np.ndarray, value_range: ValueRange, channels: int) -> np.ndarray:
    """(C, h, w) raw -> (channels, h, w) float32, NaNs filled.

    A grey image becomes three equal channels where three are wanted.
    """
    filled, _ = mask_invalid(raw, value_range.low)
    return np.broadcast_to(value_range.to_unit(filled), (channels, *raw.shape[1:]))


def from_network(part: FinishedPart, lr: LrRows, value_range: ValueRange,
                 datasets: Mapping[str, np.dtype], model: ModelConfig,
                 figures: Figures = FIGURES) -> tuple[np.ndarray, np.ndarray]:
    """A rectangle of a finished image: (its images by `datasets`, stacked, as float32 raw values;
    what it adds to the sums of `figures`).

    lr: the rows under it, with `raw`. Pixels over an LR pixel that is not finite take its value
    again. Raises SwinmpiError when the network's answer is not finite.
    """
    samples, base, scale = part.samples.numpy(), part.base.numpy(), model.scale
    if not np.isfinite(samples).all():
        raise SwinmpiError("the network's answer is not finite: expected numbers; "
                           "try parallel.precision=fp32, else the checkpoint is damaged")
    if len(lr.raw) == 1:
        samples = samples.mean(axis=1, keepdims=True)
        base = base.mean(axis=0, keepdims=True)
    raw = lr.raw_part(*(lr_range(line, scale) for line in part.seen))
    images = {name: restore_invalid(image, raw, scale)
              for name, image in raw_images(samples, base, value_range, datasets)}
    placed = ImagePart(hwc(images["sr"]), hwc(raw), hwc(samples[0]), hwc(base),
                     (part.rows, part.cols), part.seen, (lr.height, lr.width), scale,
                     model.window_px)
    rows, cols = (slice(line.start - seen.start, line.stop - seen.start)
                  for line, seen in zip(placed.wanted, placed.held, strict=True))
    pixels = np.stack([image[:, rows, cols] for image in images.values()])
    return pixels, sums_of_part(placed, figures)


def raw_images(samples: np.ndarray, base: np.ndarray, value_range: ValueRange,
               datasets: Mapping[str, np.dtype]) -> Iterator[tuple[str, np.ndarray]]:
    """(name, image) of each dataset, (C, h, w) float32 of values that its dtype can hold.

    samples: (K, C, h, w), base: (C, h, w), around -1..1.
    """
    made = {"sr": lambda dtype: value_range.from_unit(samples[0], dtype),
            "regression": lambda dtype: value_range.from_unit(base, dtype),
            "sr_mean": lambda dtype: value_range.from_unit(samples.mean(axis=0), dtype),
            "sr_std": lambda dtype: samples.std(axis=0) * value_range.span / 2}
    for name, dtype in datasets.items():
        yield name, made[name](dtype).astype(np.float32)


def hwc(image: np.ndarray) -> np.ndarray:
    """(C, h, w) -> (h, w, C), a view."""
    return np.moveaxis(image, 0, -1)
