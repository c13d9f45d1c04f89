"""Between a stack's raw values and the network's -1..1: one image on its way in, one finished image on its way out."""
from collections.abc import Mapping

import numpy as np

from swinmpi.config import Config
from swinmpi.errors import SwinmpiError
from swinmpi.images.metrics import lr_psnr, seam_score
from swinmpi.storage.values import ValueRange, mask_invalid, restore_invalid


def to_network(raw: np.ndarray, value_range: ValueRange, channels: int) -> np.ndarray:
    """(C, h, w) raw -> (channels, h, w) float32: NaNs filled, a grey image as three equal channels where three are wanted."""
    filled, _ = mask_invalid(raw, value_range.low)
    return np.broadcast_to(value_range.to_unit(filled), (channels, *raw.shape[1:]))


def from_network(samples: np.ndarray, base: np.ndarray, raw: np.ndarray, value_range: ValueRange,
                 datasets: Mapping[str, np.dtype], config: Config) -> tuple[np.ndarray, dict[str, float]]:
    """One finished image: (its images by `datasets`, stacked, as float32 raw values; its figures).

    samples: (K, C, H, W), base: (C, H, W), both in -1..1; raw: the LR image as read. Pixels over an LR pixel that is not
    finite take its value again. Raises SwinmpiError when the network's answer is not finite.
    """
    if not np.isfinite(samples).all():
        raise SwinmpiError("the network's answer is not finite: expected numbers; try parallel.precision=fp32, else the "
                           "checkpoint is damaged")
    if len(raw) == 1:
        samples, base = samples.mean(axis=1, keepdims=True), base.mean(axis=0, keepdims=True)
    span = value_range.high - value_range.low
    made = {"sr": lambda dtype: value_range.from_unit(samples[0], dtype),
            "regression": lambda dtype: value_range.from_unit(base, dtype),
            "sr_mean": lambda dtype: value_range.from_unit(samples.mean(axis=0), dtype),
            "sr_std": lambda dtype: samples.std(axis=0) * span / 2}
    images = {name: restore_invalid(made[name](dtype).astype(np.float32), raw, config.model.scale)
              for name, dtype in datasets.items()}
    sr, lr, first, reference = (np.moveaxis(image, 0, -1) for image in (images["sr"], raw, samples[0], base))
    figures = {"lr_psnr": lr_psnr(sr, lr, span), "seam_score": seam_score(first, reference, config.model.window_px)}
    return np.stack(list(images.values())), figures
