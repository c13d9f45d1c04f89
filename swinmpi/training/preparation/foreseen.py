"""What a run of swinmpi-prepare will skip, told by the headers of its images before it starts."""
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from swinmpi.config import DataConfig
from swinmpi.images.pictures import Page
from swinmpi.training.preparation.decoding import ImageUnusable, check_resizable, check_room, decode
from swinmpi.training.preparation.lr_stacks import check_like
from swinmpi.training.preparation.own_pairs import check_own_dtype, check_own_size
from swinmpi.training.preparation.sources import Source
from swinmpi.training.preparation.values import DEPTHS, unlike

# Held at once for a pixel while an image is decoded, converted and cut: seen with 8-bit colour,
# and with 16-bit colour, whose values go through floats.
BYTES_PER_PIXEL, BYTES_PER_DEEP_PIXEL = 24, 96


@dataclass(frozen=True)
class Foreseen:
    """skipped: `name: reason` of every image that will be, as far as headers tell; dtype: of the
    first that can be read; image_bytes: that preparing one image takes at most, about."""

    skipped: tuple[str, ...]
    dtype: np.dtype | None
    image_bytes: int


def foreseen(sources: Sequence[Source], config: DataConfig, lr_only: bool) -> Foreseen:
    """What headers tell. No pixel is decoded."""
    skipped, first, dtype, image_bytes = [], None, None, 0
    for source in sources:
        try:
            page = decode(source.page)
            image_bytes = max(image_bytes, bytes_of(page))
            dtype = page.dtype if dtype is None else dtype
            if lr_only:
                kind = (page.height, page.width, page.channels), page.dtype
                check_like(kind, first, round(config.scale))
                first = first or kind
            else:
                check_page(page, source, config, dtype)
        except ImageUnusable as reason:
            skipped.append(f"{source.name}: {reason}")
    return Foreseen(tuple(skipped), dtype, image_bytes)


def bytes_of(page: Page) -> int:
    """That are held while an image is prepared."""
    each = BYTES_PER_PIXEL if page.dtype == np.uint8 else BYTES_PER_DEEP_PIXEL
    return page.height * page.width * each


def check_page(page: Page, source: Source, config: DataConfig, first: np.dtype) -> None:
    """ImageUnusable where an image cannot become pairs. first: dtype of the first image."""
    if page.dtype != first and not (page.dtype in DEPTHS and first in DEPTHS):
        raise ImageUnusable(unlike(page.dtype, first))
    if source.lr is not None:
        lr = decode(source.lr.page)
        check_own_dtype(page.dtype, lr.dtype)
        check_own_size((page.height, page.width), (lr.height, lr.width), config)
    elif config.resize is not None:
        check_resizable((page.height, page.width), config)
    elif not config.takes_whole:
        check_room((page.height, page.width), source.reduce, config)
