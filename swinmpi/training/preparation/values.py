"""One rule of range for a data set, whatever it comes as: 8 bit as it is, all else by the robust
range of all its images."""
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property

import numpy as np
from tqdm import tqdm

from swinmpi.errors import StackError
from swinmpi.images.likeness.usual import usual_of
from swinmpi.images.no_data import NoData, as_stored
from swinmpi.images.photographs import with_channels, with_depth
from swinmpi.storage.pairs import PairReader
from swinmpi.storage.values import (
    BLOCK_ROWS,
    Survey,
    ValueRange,
    each_readable,
    exact_float,
    mask_invalid,
    survey,
)
from swinmpi.training.preparation.sources import Source

DEPTHS = (np.uint8, np.uint16)  # between which images are converted, full range to full range
USUAL_IMAGES = 512  # that are looked at
Kind = tuple[np.dtype, int]
"""Dtype, in the machine's byte order, and channels of a decoded image."""


class CommonValues:
    """Brings every image of a data set to the configured channels and the values of pairs.

    Those are uint8 where the first image is, else uint16, from the low to the high end of the
    range; the dtype of the first image is that of all. Pixels without a number take their
    neighbour's value.
    """

    def __init__(self, sources: Sequence[Source], channels: int, no_data: Sequence[float] = ()):
        self.sources, self.channels, self.no_data = sources, channels, no_data
        self.said, self.each = False, each_readable

    @cached_property
    def kind(self) -> Kind:
        """Dtype and channels of the first image that can be read; StackError where none can."""
        for source in self.sources:
            try:
                first = source.read()
            except Exception:  # noqa: BLE001 - decoders raise anything, and it is told elsewhere
                continue
            return kind_of(first)
        raise StackError(f"none of the {len(self.sources)} images can be read; the first: "
                         f"{self.sources[0].name}")

    @cached_property
    def survey(self) -> Survey:
        """Of all images, each read once, unless they are 8 bit; `each` looks at them."""
        return survey(self, self.each)

    @property
    def range(self) -> ValueRange:
        return self.survey.range

    @property
    def highest(self) -> int:
        """What the high end of the range becomes."""
        return 255 if self.dtype == np.uint8 else 65535

    @property
    def attributes(self) -> dict[str, str | list[float]]:
        """What the pairs tell of it."""
        return {"value_range": [self.range.low, self.range.high], "value_dtype": self.dtype.name}

    def convert(self, source: Source, image: np.ndarray) -> np.ndarray:
        """(H, W, C) as `source` gives it -> (H, W, channels) uint8 or uint16; ValueError where it
        cannot be."""
        if image.dtype == self.dtype == np.uint8 and not self.hides(source, image.dtype):
            return with_channels(image, self.channels)
        numbers = self.numbers(source, image)
        if not np.isfinite(numbers).any():
            raise ValueError("holds not one finite number")
        filled = np.moveaxis(mask_invalid(numbers, self.range.low)[0], 0, -1)
        if self.dtype == np.uint8:
            return with_channels(filled.astype(np.uint8), self.channels)
        mapped = np.empty(filled.shape, np.uint16)
        for top in range(0, len(filled), BLOCK_ROWS):
            unit = self.range.to_unit(filled[top:top + BLOCK_ROWS]).clip(-1, 1)
            mapped[top:top + BLOCK_ROWS] = np.rint((unit + 1) * 32767.5)
        return with_channels(mapped, self.channels)

    def tell_unlike(self, name: str, kind: Kind) -> None:
        """A line on the first image that is unlike the first."""
        if kind != self.kind and not self.said:
            self.said = True
            tqdm.write(f"warning: {name} is {in_words(kind)}, the first image is "
                       f"{in_words(self.kind)}; all become "
                       f"{in_words((self.dtype, self.channels))}", file=sys.stderr)

    def numbers(self, source: Source, image: np.ndarray) -> np.ndarray:
        """(H, W, C) as `source` gives it -> (C, H, W) floats in the first image's units, NaN for no
        data."""
        kind = image.dtype.newbyteorder("=")
        exact = np.moveaxis(image, -1, 0).astype(exact_float(kind))
        missing = (source.no_data.marks(exact) | self.told(kind).marks(exact)
                   if self.hides(source, kind) else None)
        if kind != self.dtype:
            if kind not in DEPTHS or self.dtype not in DEPTHS:
                raise ValueError(unlike(kind, self.dtype))
            exact = np.moveaxis(with_depth(image, self.dtype), -1, 0).astype(exact.dtype)
        return exact if missing is None else np.where(missing, exact.dtype.type(np.nan), exact)

    def hides(self, source: Source, dtype: np.dtype) -> bool:
        """Whether some value of an image of this dtype means no data."""
        return bool(source.no_data) or bool(self.told(dtype))

    def told(self, dtype: np.dtype) -> NoData:
        """What `data.no_data` means in images of this dtype."""
        return NoData(tuple({one for value in self.no_data for one in as_stored(value, dtype)}))

    # What `survey` looks at

    @property
    def num_images(self) -> int:
        return len(self.sources)

    @property
    def dtype(self) -> np.dtype:
        return self.kind[0]

    def read(self, image_index: int) -> np.ndarray:
        """(C, H, W) floats; StackError where it cannot be."""
        source = self.sources[image_index]
        try:
            return self.numbers(source, source.read())
        except Exception as error:  # as above
            raise StackError(f"{source.name}: cannot be read ({error})") from None


def unlike(kind: np.dtype, first: np.dtype) -> str:
    """Why an image of this dtype cannot stand beside a first one of that."""
    return f"is {kind}, the first image {first}; prepare them apart"


def kind_of(image: np.ndarray) -> Kind:
    """Of an image (H, W, C)."""
    return image.dtype.newbyteorder("="), image.shape[2]


def in_words(kind: Kind) -> str:
    """8-bit grey, 16-bit RGB, float32 grey."""
    dtype, channels = kind
    depth = f"{dtype.itemsize * 8}-bit" if dtype in DEPTHS else dtype.name
    return f"{depth} {'grey' if channels == 1 else 'RGB'}"


def usual_of_pairs(pairs: PairReader, crop_px: int,
                   others: Sequence[Iterable[np.ndarray]] = ()) -> dict:
    """What a checkpoint keeps of what LR images are like that it was trained on and chosen by, if
    they can be read. crop_px: of the HR crops that are trained on; others: groups of images
    (C, h, w), -1..1, that it knows as well."""
    lr_px = min(round(crop_px / pairs.scale), *pairs.lr.shape[1:3])
    splits = (pairs.train_indices, pairs.validate_indices)
    return usual_of([*(in_unit(pairs, indices) for indices in splits), *others], lr_px,
                    str(pairs.path))


def in_unit(pairs: PairReader, indices: Sequence[int]) -> Iterator[np.ndarray]:
    """LR images, evenly over those of the indices, (C, h, w), -1..1; damaged ones are passed
    over."""
    last = len(indices) - 1
    for place in sorted({round(at) for at in np.linspace(0, last, USUAL_IMAGES)} if last >= 0
                        else ()):
        with suppress(StackError):
            stored = pairs.read(pairs.lr, int(indices[place]), ...)
            yield np.moveaxis(stored, -1, 0).astype(np.float32) / pairs.value_max * 2 - 1
