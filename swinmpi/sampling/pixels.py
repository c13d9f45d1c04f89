"""Between a stack's raw values and the network's -1..1: images in, finished rectangles out."""
from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np

from swinmpi.config import ModelConfig
from swinmpi.errors import SwinmpiError
from swinmpi.images.figures import FIGURES, Figures, ImagePart, lr_range, sums_of_part
from swinmpi.images.imresize import imresize
from swinmpi.images.lr_rows import LrRows
from swinmpi.images.no_data import NoData
from swinmpi.images.rounding import rounded_in_blocks
from swinmpi.sampling.exchange import FinishedPart
from swinmpi.storage.error_bars import ErrorBars
from swinmpi.storage.outputs.partial import MOMENTS, exact_name, is_exact, member_name
from swinmpi.storage.trust import NAME as TRUST
from swinmpi.storage.values import ValueRange, exact_float, mask_invalid, restore_invalid


def to_network(raw: np.ndarray, value_range: ValueRange, channels: int) -> np.ndarray:
    """(C, h, w) raw -> (channels, h, w) float32; pixels without a number are filled.

    A grey image becomes three equal channels where three are wanted.
    """
    filled, _ = mask_invalid(value_range.no_data.hide(raw), value_range.low)
    return np.broadcast_to(value_range.to_unit(filled), (channels, *raw.shape[1:]))


def from_network(part: FinishedPart, lr: LrRows, value_range: ValueRange,
                 datasets: Mapping[str, np.dtype], model: ModelConfig,
                 figures: Figures = FIGURES,
                 error_bars: ErrorBars | None = None) -> tuple[np.ndarray, np.ndarray]:
    """A rectangle of a finished image: (its images by `datasets`, stacked, as raw values in floats
    that hold them all; what it adds to the sums of `figures`).

    lr: the rows under it, with `raw`. error_bars: of an ensemble. Pixels over an LR pixel without a
    number take its value again, those of means and deviations NaN for no data. Raises SwinmpiError
    when the network's answer is not finite.
    """
    samples, base, scale = part.samples.numpy(), part.base.numpy(), model.scale
    if not np.isfinite(samples).all():
        raise SwinmpiError("the network's answer is not finite: expected numbers; "
                           "try parallel.precision=fp32, else the checkpoint is damaged")
    if len(lr.raw) == 1:
        samples = samples.mean(axis=1, keepdims=True)
        base = base.mean(axis=0, keepdims=True)
    if part.before is not None:
        samples = np.concatenate([part.before, samples])
    raw = lr.raw_part(*(lr_range(line, scale) for line in part.seen))
    numbers = value_range.no_data.hide(raw)
    made = dict(raw_images(samples, base, value_range, datasets, scale if part.agrees else 1,
                           error_bars))
    missing = ~np.isfinite(numbers)
    images = {name: image if is_exact(name) else
              restore_invalid(image, over_missing(name, raw, numbers), scale, missing)
              for name, image in made.items()}
    placed = ImagePart(hwc(restore_invalid(made["sr"], numbers, scale)), hwc(numbers),
                       hwc(samples[0]), hwc(base),
                       (part.rows, part.cols), part.seen, (lr.height, lr.width), scale,
                       model.seam_px)
    rows, cols = (slice(line.start - seen.start, line.stop - seen.start)
                  for line, seen in zip(placed.wanted, placed.held, strict=True))
    pixels = np.stack([image[:, rows, cols] for image in images.values()])
    return pixels, sums_of_part(placed, figures)


def raw_images(samples: np.ndarray, base: np.ndarray, value_range: ValueRange,
               datasets: Mapping[str, np.dtype],
               block_px: int = 1,
               error_bars: ErrorBars | None = None) -> Iterator[tuple[str, np.ndarray]]:
    """(name, image) of each dataset, (C, h, w) of values that its dtype can hold and that mean
    numbers, all in the floating type that holds the values of every dataset.

    samples: (K, C, h, w), base: (C, h, w), around -1..1. block_px: side of the blocks of a sample
    that keep their sum where it is rounded to integers. error_bars: of an ensemble, for
    sr_std and sr_trust.
    """
    exact = np.result_type(*map(exact_float, datasets.values()))
    made = {"sr": partial(sr_of, samples[0], value_range, block_px=block_px),
            "regression": lambda dtype: value_range.from_unit(base, dtype),
            "sr_mean": lambda dtype: value_range.from_unit(samples.mean(axis=0), dtype),
            "sr_spread": lambda dtype: samples.std(axis=0, ddof=1) * value_range.span / 2,
            "sr_std": lambda dtype: error_bars.of(made["sr_spread"](dtype), len(samples),
                                                  value_range.span),
            TRUST: lambda dtype: error_bars.trust.of(made["sr_spread"](dtype), value_range.span)}
    for k, sample in enumerate(samples[1:], 1):
        made[member_name(k)] = partial(sr_of, sample, value_range, block_px=block_px)
    made |= {exact_name(k): sample.astype for k, sample in enumerate(samples)}
    for name, dtype in datasets.items():
        image = made[name](dtype).astype(exact)
        yield name, (image if name in (*MOMENTS, TRUST) or is_exact(name) else
                     value_range.no_data.avoid(image, dtype))


def over_missing(name: str, raw: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """LR (C, h, w) as a dataset has its pixels without a number. numbers: raw, there NaN."""
    if name == TRUST:
        return np.zeros_like(numbers)
    return numbers if name in MOMENTS else raw


def sr_of(sample: np.ndarray, value_range: ValueRange, dtype: np.dtype, *,
          block_px: int) -> np.ndarray:
    """A sample (C, h, w) as raw values; as integers blocks of it keep their sum."""
    if block_px == 1 or dtype.kind == "f":
        return value_range.from_unit(sample, dtype)
    limits = np.iinfo(dtype)
    return rounded_in_blocks(value_range.raw_of(sample), (limits.min, limits.max),
                             block_px).astype(dtype)


def without_network(raw: np.ndarray, no_data: NoData, datasets: Mapping[str, np.dtype],
                    scale: int) -> np.ndarray:
    """(C, h, w) raw -> its images by `datasets`, stacked, (D, C, H, W): enlarged by bicubic
    interpolation, in floats that hold the values of all; the mean is that, the deviation 0, none
    is trusted.

    Pixels over an LR pixel without a number take its value, as in `from_network`.
    """
    numbers = no_data.hide(raw)
    exact = np.result_type(*map(exact_float, datasets.values()))
    bicubic = enlarged(mask_invalid(numbers)[0], scale, datasets["sr"]).astype(exact)
    bicubic = no_data.avoid(bicubic, datasets["sr"])
    nothing = np.zeros_like(bicubic)
    return np.stack([restore_invalid(
        nothing if name in ("sr_spread", "sr_std", TRUST) or is_exact(name) else bicubic,
        over_missing(name, raw, numbers), scale, ~np.isfinite(numbers)) for name in datasets])


def enlarged(image: np.ndarray, scale: int, dtype: np.dtype) -> np.ndarray:
    """Numbers (C, h, w) -> (C, H, W) of `dtype` by MATLAB's bicubic imresize."""
    kind, size = np.dtype(dtype).newbyteorder("="), [side * scale for side in image.shape[1:]]
    if kind.kind != "f":
        return np.moveaxis(imresize(hwc(image).astype(kind), size=size), -1, 0)
    limits = np.finfo(kind)
    made = imresize(hwc(image).astype(np.float64), size=size).clip(limits.min, limits.max)
    return np.moveaxis(made.astype(kind), -1, 0)


def hwc(image: np.ndarray) -> np.ndarray:
    """(C, h, w) -> (h, w, C), a view."""
    return np.moveaxis(image, 0, -1)
