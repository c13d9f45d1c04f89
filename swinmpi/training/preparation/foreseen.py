"""What a run of swinmpi-prepare will skip, told by the headers of its images before it starts."""
from collections.abc import Sequence

import numpy as np

from swinmpi.config import DataConfig
from swinmpi.images.pictures import Page
from swinmpi.training.preparation.decoding import ImageUnusable, check_resizable, check_room, decode
from swinmpi.training.preparation.lr_stacks import check_like
from swinmpi.training.preparation.own_pairs import check_own_dtype, check_own_size
from swinmpi.training.preparation.sources import Source
from swinmpi.training.preparation.values import DEPTHS, unlike


def foreseen(sources: Sequence[Source], config: DataConfig,
             lr_only: bool) -> tuple[list[str], np.dtype | None]:
    """(`name: reason` of every image that will be skipped, as far as headers tell; the dtype of the
    first that can be read). No pixel is decoded."""
    skipped, first, dtype = [], None, None
    for source in sources:
        try:
            page = decode(source.page)
            dtype = page.dtype if dtype is None else dtype
            if lr_only:
                kind = (page.height, page.width, page.channels), page.dtype
                check_like(kind, first, round(config.scale))
                first = first or kind
            else:
                check_page(page, source, config, dtype)
        except ImageUnusable as reason:
            skipped.append(f"{source.name}: {reason}")
    return skipped, dtype


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
