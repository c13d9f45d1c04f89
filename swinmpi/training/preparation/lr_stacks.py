"""Whole LR images alone, as stacks to test with."""
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from swinmpi.config import DataConfig
from swinmpi.errors import StackError
from swinmpi.images.no_data import NoData
from swinmpi.reports.progress import Progress
from swinmpi.storage.pair_writing import LrWriter
from swinmpi.storage.values import mask_invalid
from swinmpi.training.preparation.decoding import ImageUnusable, Summary, decode, say
from swinmpi.training.preparation.degradation import make_lr
from swinmpi.training.preparation.processes import spread
from swinmpi.training.preparation.sources import Source
from swinmpi.training.preparation.values import CommonValues

Kind = tuple[tuple[int, ...], np.dtype]


def write_lr(sources: Sequence[Source], config: DataConfig, writer: LrWriter,
             num_workers: int = 1) -> Summary:
    """Shrink every whole image, with its values as stored, into a stack of images like the first;
    others are named and skipped. Pixels without a number take their neighbour's value."""
    values = CommonValues(sources, config.channels, config.no_data_values)
    failed, first = [], None
    work = partial(lr_of, sources, config, values)
    measured = bool(config.degradation)
    with (spread(work, sources, num_workers, values, writer, measured) as made_of,
          Progress(len(sources), "images") as progress):
        for image_index, source in enumerate(sources):
            try:
                made = made_of(image_index)
                kind = next(made)
                check_like(kind, first, round(config.scale))
                first = first or kind
                for lr, drawn in made:
                    writer.append(lr[..., 0] if lr.shape[2] == 1 else lr, source.name, drawn)
            except ImageUnusable as reason:
                failed.append(f"{source.name}: {reason}")
                say(f"skipped {failed[-1]}")
            progress.advance()
    if not writer.num_images:
        raise StackError(f"none of the {len(sources)} images could be used; the first: {failed[0]}")
    if config.degradation:
        writer.note(values.attributes)
    return Summary(writer.num_images, 0, tuple(failed))


def lr_of(sources: Sequence[Source], config: DataConfig, values: CommonValues,
          image_index: int) -> Iterator[Kind | tuple[np.ndarray, dict[str, float]]]:
    """Shape and dtype of one image, then, if it can be shrunk, its LR image and what was drawn for
    that."""
    source = sources[image_index]
    hr = decode(source.read)
    yield hr.shape, hr.dtype
    check_like((hr.shape, hr.dtype), None, round(config.scale))
    yield whole_lr(hr, source, config, image_index, values)


def check_like(kind: Kind, first: Kind | None, scale: int) -> None:
    """ImageUnusable where an image of this shape and dtype cannot be shrunk by `scale`, or is
    unlike the first one."""
    height, width, _ = kind[0]
    if height % scale or width % scale:
        raise ImageUnusable(f"{width} x {height} px, expected multiples of data.scale = {scale}")
    if first is not None and kind != first:
        raise ImageUnusable(f"{kind[0]} of {kind[1]}, the first image is {first[0]} of {first[1]}; "
                            "a stack holds images of one size")


def whole_lr(hr: np.ndarray, source: Source, config: DataConfig, image_index: int,
             values: CommonValues) -> tuple[np.ndarray, dict[str, float]]:
    """The LR image of a whole image as stored, and what was drawn for it. Noise makes no value that
    means no data."""
    numbers = mask_invalid(values.numbers(source, hr))[0]
    filled = np.moveaxis(numbers, 0, -1).astype(hr.dtype)
    size = [side // round(config.scale) for side in hr.shape[:2]]
    if not config.degradation:
        return make_lr(filled, size, config, (image_index, 0), (0, 1))
    lr, drawn = make_lr(filled, size, config, (image_index, 0),
                        (values.range.low, values.range.high))
    told = source.no_data
    none = NoData((*told.values, *values.told(hr.dtype).values), told.low, told.high)
    return none.avoid(lr.astype(np.float64), hr.dtype).astype(hr.dtype), drawn
