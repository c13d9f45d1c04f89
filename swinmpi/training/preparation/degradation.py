"""How an LR image is made of an HR image: point spread function, shrinking, shot and read noise.

LR = P(shrink(PSF * HR) photons) / photons + N(0, read_noise^2), values from 0 (the low end of the
range) to 1 (the high end): the usual model of a camera that counts photons and is read with noise
of its own (Foi et al. 2008, "Practical Poissonian-Gaussian noise modeling", eq. 1). Without
settings it is MATLAB's imresize alone.
"""
import math
from collections.abc import Mapping, Sequence

import numpy as np

from swinmpi.config import DataConfig
from swinmpi.images.imresize import imresize
from swinmpi.randomness import generator

STREAM = 2
UNITS = {"psf_px": "PSF of sigma {} HR px", "photons": "shot noise of {} photons at full scale",
         "read_noise": "read noise of sigma {} of the range"}


def make_lr(hr: np.ndarray, size: Sequence[int], config: DataConfig, place: tuple[int, int],
            ends: tuple[float, float]) -> tuple[np.ndarray, dict[str, float]]:
    """The LR image of `size` (h, w) and what was drawn for it, by the names of the settings.

    hr: (H, W, C) of any dtype of images, finite; LR has its dtype, rounded and clipped to what that
    holds. place: (image index, crop number), which with the seed decides what is drawn. ends: the
    values that are the low and high end of the range. What lies beyond the image is its mirror
    image. Grey that was copied to RGB stays grey: a camera counts its photons once.
    """
    if not config.degradation:
        return imresize(hr, size=size, kernel=config.kernel), {}
    if hr.shape[2] > 1 and (hr == hr[..., :1]).all():
        lr, drawn = make_lr(hr[..., :1], size, config, place, ends)
        return lr.repeat(hr.shape[2], axis=2), drawn
    random = generator((config.seed, place[0]), (0, place[1], 0, STREAM))
    drawn = draw(config.degradation, random)
    lr = imresize(blurred(hr, drawn.get("psf_px", 0.0)), size=size, kernel=config.kernel)
    if drawn.keys() & {"photons", "read_noise"}:
        low, span = ends[0], ends[1] - ends[0]
        lr = low + span * noisy((lr - low) / span, drawn, random)
    return to_dtype(lr, hr.dtype), drawn


def draw(ranges: Mapping[str, tuple[float, float]],
         random: np.random.Generator) -> dict[str, float]:
    """A value of every range: evenly, photons evenly in their logarithm. Each has its place in the
    stream whichever others there are."""
    shares = dict(zip(UNITS, random.random(len(UNITS)), strict=True))
    drawn = {name: low + (high - low) * shares[name] for name, (low, high) in ranges.items()}
    if "photons" in ranges:
        low, high = ranges["photons"]
        drawn["photons"] = low * math.exp(math.log(high / low) * shares["photons"])
    return {name: float(min(max(value, ranges[name][0]), ranges[name][1]))
            for name, value in drawn.items()}


def blurred(image: np.ndarray, sigma_px: float) -> np.ndarray:
    """(H, W, C) convolved with a Gaussian, float64."""
    # Imported here: as slow to import as all that only some preparations need.
    from scipy.ndimage import gaussian_filter
    exact = image.astype(np.float64)
    return gaussian_filter(exact, (sigma_px, sigma_px, 0)) if sigma_px else exact


def noisy(unit: np.ndarray, drawn: Mapping[str, float], random: np.random.Generator) -> np.ndarray:
    """Values around 0..1 with shot and read noise. Below 0 there are no photons to count, and what
    is there stays."""
    if "photons" in drawn:
        light = unit.clip(0, None)
        unit = unit - light + random.poisson(light * drawn["photons"]) / drawn["photons"]
    if "read_noise" in drawn:
        unit = unit + random.standard_normal(unit.shape) * drawn["read_noise"]
    return unit


def to_dtype(image: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Floats as `dtype`, clipped to what it holds; to integers halves up, as imresize rounds."""
    if dtype.kind == "f":
        limits = np.finfo(dtype)
        return image.clip(limits.min, limits.max).astype(dtype)
    limits = np.iinfo(dtype)
    return np.floor(image + 0.5).clip(limits.min, limits.max).astype(dtype)


def in_words(ranges: Mapping[str, Sequence[float]]) -> str:
    """What LR images are made with beside shrinking; empty where that is all."""
    def number(low: float, high: float) -> str:
        return f"{low:g}" if low == high else f"{low:g} to {high:g}"

    return ", ".join(words.format(number(*ranges[name])) for name, words in UNITS.items()
                     if name in ranges)
