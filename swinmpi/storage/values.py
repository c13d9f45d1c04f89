"""Pixel values: the range that is mapped to -1..1, how it is measured, pixels without a number."""
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import h5py
import numpy as np

from swinmpi.errors import ConfigError, StackError
from swinmpi.images.no_data import NoData
from swinmpi.randomness import generator
from swinmpi.storage.attributes import text_attribute

# One pixel in a thousand may be dead or hot on each side: more than a sound detector has, and so
# few that the darkest and brightest structures stay inside (values beyond the range are not
# clipped, they only map beyond -1..1).
LOW_QUANTILE, HIGH_QUANTILE = 0.001, 0.999
# Floats kept of a whole stack (16 MiB): 4000 of them lie beyond each quantile.
SAMPLED_VALUES = 1 << 22
# Extreme values that may mean no data: at most so many at an end, beside at least so many others;
# one that occurs seldom must be farther away.
MOST_APART, FEWEST_OTHERS, MANY, FEW_FARTHER = 3, 4, 8, 10
UINT16_VALUES = 1 << 16
BLOCK_ROWS = 128  # looked at together: memory that is asked for again and again stays small
Look = Callable[[int, np.ndarray], Any]
"""(image index, image (C, H, W)) -> what is found in it."""
# Its square is a float32; -3.4e38 for "no data" among numbers of 0..1 goes beyond it.
FARTHEST_UNIT = 1e15

# Looked for first; where there is no stack of these, the others are.
USUAL_DTYPES = tuple(map(np.dtype, ("uint8", "uint16", "float32")))
DTYPES = (*USUAL_DTYPES,
          *map(np.dtype, ("int8", "int16", "int32", "uint32", "float16", "float64")))
CONVERSIONS = {
    "b": "yes and no have no brightness between them, convert it to uint8 (0 and 255)",
    "c": "complex numbers have no brightness, convert it to float32, for example its magnitude",
    "i": "convert it to int32, or to float64 where its values are larger",
    "u": "convert it to uint32, or to float64 where its values are larger",
    "f": "convert it to float64"}


@dataclass(frozen=True)
class ValueRange:
    """The raw values mapped to -1 and 1, the same for every image of a stack.

    no_data: the raw values that are no numbers, and so are not mapped at all.
    """

    low: float
    high: float
    no_data: NoData = NoData()

    def __post_init__(self):
        if not (self.low < self.high and 0 < self.gain < math.inf and math.isfinite(self.offset)):
            raise ConfigError("value range: expected two finite numbers low < high, got "
                              f"[{self.low}, {self.high}]; set output.value_range=[low, high]")

    def to_unit(self, raw: np.ndarray) -> np.ndarray:
        """Raw values -> float32, low to -1 and high to 1.

        Not clipped, but for what float32 cannot be computed with.
        """
        unit = np.asarray(raw, np.float64) * self.gain + self.offset
        return unit.clip(-FARTHEST_UNIT, FARTHEST_UNIT).astype(np.float32)

    def from_unit(self, unit: np.ndarray, dtype: np.dtype) -> np.ndarray:
        """-1..1 -> raw values of `dtype`. Finite input only.

        Integers are rounded half to even; all are clipped to what their type can hold.
        """
        raw = self.raw_of(unit)
        if np.dtype(dtype).kind == "f":
            limits = np.finfo(dtype)
            return raw.clip(limits.min, limits.max).astype(dtype)
        limits = np.iinfo(dtype)
        return np.clip(np.rint(raw), limits.min, limits.max).astype(dtype)

    def raw_of(self, unit: np.ndarray) -> np.ndarray:
        """-1..1 -> float64 raw values, neither rounded nor clipped."""
        return (np.asarray(unit, np.float64) - self.offset) / self.gain

    def __str__(self) -> str:
        return f"{self.low:.6g} to {self.high:.6g}"

    @property
    def span(self) -> float:
        """The data range of figures."""
        return self.high - self.low

    @property
    def gain(self) -> float:
        return 2 / self.span

    @property
    def offset(self) -> float:
        return -1 - self.low * self.gain


@dataclass(frozen=True)
class Survey:
    """What all values of a stack are like.

    apart: extreme values that stand far from all others; others: lowest and highest of those.
    is_empty: whether there is not one number.
    """

    range: ValueRange
    apart: tuple[str, ...] = ()
    others: tuple[float, float] = (0.0, 0.0)
    is_empty: bool = False

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a user should know of them, in a line, if anything."""
        if self.is_empty:
            return ("not one of its pixels is a number, so that there is nothing to compute",)
        if not self.apart:
            return ()
        named, low, high = ",".join(self.apart), *self.others
        one, they, setting = (("value", "stands", named) if len(self.apart) == 1 else
                              ("values", "stand", f"[{named}]"))
        what = "it means" if len(self.apart) == 1 else "they mean"
        return (f"the {one} {' and '.join(self.apart)} {they} far apart from all others "
                f"({low:.6g} to {high:.6g}); if {what} no data, give "
                f"--set data.no_data={setting}",)


def measure_range(stack) -> ValueRange:
    """The range of a whole stack, see `survey`."""
    return survey(stack).range


def each_readable(stack, look: Look) -> Iterator[Any]:
    """What `look` finds in every image that can be read, in their order."""
    for index in range(stack.num_images):
        try:
            image = stack.read(index)
        except StackError:
            continue
        yield look(index, image)


def survey(stack, each: Callable[[Any, Look], Iterator[Any]] = each_readable) -> Survey:
    """The range of a whole stack: (0, 255) for uint8, else its 0.1 % and 99.9 % quantiles.

    `stack` has num_images, dtype and read(i). Every image is read once, one at a time. uint16
    exactly, by histogram; others from up to SAMPLED_VALUES finite pixels whose places depend on
    the image index alone, so the result does not depend on order or ranks. A stack too sparse for
    its quantiles to differ gets its extremes; a constant one v..v+1. Images that cannot be read
    count nowhere. each: looks at all images, in their order, as `each_readable` does.
    """
    kind = np.dtype(stack.dtype).newbyteorder("=")
    if kind == np.uint8:
        return Survey(ValueRange(0.0, 255.0))
    return (survey_of_counts(each(stack, counts_of)) if kind == np.uint16
            else survey_of_samples(stack, each))


def find_dtype_problem(dataset) -> str | None:
    """Why values of a dataset's dtype are not those of images, and what to do; None if they are."""
    dtype = dataset.dtype
    if h5py.check_enum_dtype(dtype) is not None:
        return (f"dtype {dtype} with names for its numbers (an enumeration); names have no "
                "brightness between them, write it without")
    if dtype.newbyteorder("=") not in DTYPES:
        return f"dtype {dtype}; {CONVERSIONS.get(dtype.kind, 'convert it to numbers')}"
    told = text_attribute(dataset, "_Unsigned")  # of netCDF
    if told is not None and dtype.kind != "f" and (told.lower() == "true") != (dtype.kind == "u"):
        return (f"dtype {dtype}, but its attribute _Unsigned says {told}; write it with the type "
                "that its values have")
    return None


def most_usual(datasets: Mapping[str, np.dtype]) -> list[str]:
    """Of datasets that look like images those with the dtypes of most detectors and pictures; all
    where there are none of these."""
    usual = [name for name, dtype in datasets.items() if dtype.newbyteorder("=") in USUAL_DTYPES]
    return usual or [*datasets]


def exact_float(dtype: np.dtype) -> np.dtype:
    """The floating type that images of `dtype` are read as: float32 if it holds all of its values,
    else float64."""
    return np.dtype("float32" if np.can_cast(dtype, np.float32) else "float64")


def mask_invalid(image: np.ndarray,
                 fill_value: float = 0.0) -> tuple[np.ndarray, np.ndarray | None]:
    """Give every non-finite pixel the value of the nearest finite one of its channel.

    image: (C, H, W) float. Returns (filled, mask), mask (C, H, W) bool and true where a pixel was
    not finite; (image, None) when all are. A channel without a finite pixel becomes `fill_value`
    (the low end of the range, say).
    """
    mask = ~np.isfinite(image)
    if not mask.any():
        return image, None
    # As slow to import as all else that opening a stack needs.
    from scipy.ndimage import distance_transform_edt
    filled = image.copy()
    for channel, invalid in zip(filled, mask, strict=True):
        if invalid.all():
            channel[:] = fill_value
        elif invalid.any():
            rows, cols = distance_transform_edt(invalid, return_distances=False,
                                                return_indices=True)
            channel[:] = channel[rows, cols]
    return filled, mask


def restore_invalid(sr: np.ndarray, lr_raw: np.ndarray, scale: int,
                    mask: np.ndarray | None = None) -> np.ndarray:
    """Put the input's pixels without a number back: SR pixels over one take its value.

    sr: (C, scale * H, scale * W) float; lr_raw: (C, H, W) as read, before `mask_invalid`; mask:
    which of its pixels, those that are not finite where it is None.
    """
    mask = ~np.isfinite(lr_raw) if mask is None else mask
    if not mask.any():
        return sr
    above = [np.repeat(np.repeat(plane, scale, axis=1), scale, axis=2) for plane in (mask, lr_raw)]
    return np.where(above[0], above[1], sr).astype(sr.dtype)


def survey_of_counts(of_images: Iterable[np.ndarray]) -> Survey:
    """Of a uint16 stack, from its exact histogram."""
    counts = sum(of_images, np.zeros(UINT16_VALUES, np.int64))
    if not counts.any():
        return Survey(ValueRange(0.0, 1.0), is_empty=True)
    cumulative = np.cumsum(counts)
    low, high = (int(np.searchsorted(cumulative, math.ceil(share * cumulative[-1])))
                 for share in (LOW_QUANTILE, HIGH_QUANTILE))
    present = np.flatnonzero(counts)
    found = first_range((low, high), (present[0], present[-1]))
    return Survey(found, *stand_apart(present, counts[present]))


def survey_of_samples(stack, each: Callable[[Any, Look], Iterator[Any]]) -> Survey:
    """Of any other stack, from an equal number of pixels of every image."""
    per_image = max(1, SAMPLED_VALUES // stack.num_images)
    samples, extremes = [], []
    for sample, ends in each(stack, partial(sample_of, per_image)):
        extremes += ends
        samples += [sample] if sample.size else []
    if not samples:
        return Survey(ValueRange(0.0, 1.0), is_empty=True)
    values = np.concatenate(samples)
    quantiles = np.quantile(values, (LOW_QUANTILE, HIGH_QUANTILE), method="inverted_cdf")
    found = first_range(tuple(quantiles), (min(extremes), max(extremes)))
    distinct, counts = np.unique(np.append(values, [min(extremes), max(extremes)]).astype(
        values.dtype), return_counts=True)
    is_whole = np.dtype(stack.dtype).kind in "iu"
    return Survey(found, *stand_apart(distinct.astype(np.int64) if is_whole else distinct, counts))


def stand_apart(distinct: np.ndarray, counts: np.ndarray) -> tuple[tuple[str, ...],
                                                                   tuple[float, float]]:
    """(the extreme values that stand far apart from all others, as they are to be written; the
    lowest and highest of the others). distinct: ascending, each `counts` times.

    Up to MOST_APART at each end. Far: farther from the next value than all others from each other,
    or, where it may be a few hot pixels, many times as far.
    """
    exact = distinct.astype(np.float64)
    for low, high in sorted(product(range(MOST_APART + 1), repeat=2), key=sum):
        end = len(exact) - high
        if low + high == 0 or end - low < FEWEST_OTHERS:
            continue
        width = exact[end - 1] - exact[low]
        gaps = [(exact[low] - exact[low - 1], counts[low - 1])] if low else []
        gaps += [(exact[end] - exact[end - 1], counts[end])] if high else []
        if all(gap > width * (1 if count >= MANY else FEW_FARTHER) for gap, count in gaps):
            apart = (*distinct[:low], *distinct[end:])
            return tuple(map(as_written, apart)), (float(exact[low]), float(exact[end - 1]))
    return (), (0.0, 0.0)


def as_written(value: np.generic) -> str:
    """A number as a setting has it: the shortest that becomes this value of its type."""
    text = str(value)
    return text.replace("e", ".0e") if "e" in text and "." not in text else text


def counts_of(_: int, image: np.ndarray) -> np.ndarray:
    """How often an image has each uint16 value, int64; NaN counts nowhere."""
    counts = np.zeros(UINT16_VALUES, np.int64)
    for top in range(0, image.shape[1], BLOCK_ROWS):
        rows = image[:, top:top + BLOCK_ROWS]
        counts += np.bincount(rows[np.isfinite(rows)].astype(np.int64), minlength=UINT16_VALUES)
    return counts


def sample_of(per_image: int, image_index: int, image: np.ndarray) -> tuple[np.ndarray, list]:
    """(up to so many finite pixels of an image, its lowest and highest one)."""
    pixels = image.ravel()
    finite = pixels[np.isfinite(pixels)]
    if not finite.size:
        return finite, []
    sample = (finite if finite.size <= per_image
              else finite[sample_places(image_index, finite.size, per_image)])
    return sample, [finite.min(), finite.max()]


def sample_places(image_index: int, num_pixels: int, num_samples: int) -> np.ndarray:
    """Places of the sampled pixels of one image, which depend on its index and these numbers."""
    return generator((image_index, 0)).integers(num_pixels, size=num_samples)


def first_range(*candidates: tuple[float, float]) -> ValueRange:
    """The first candidate that is not empty, else one that starts at the last."""
    for low, high in candidates:
        if low < high:
            return ValueRange(float(low), float(high))
    low = float(candidates[-1][0])
    return ValueRange(low, low + max(1.0, abs(low) * 1e-3))
