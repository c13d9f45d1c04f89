"""LR images that are given, not made; and whole LR images alone, as stacks to test with."""
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

import numpy as np

from swinmpi.config import DataConfig
from swinmpi.errors import ConfigError, StackError
from swinmpi.images.imresize import imresize
from swinmpi.images.photographs import Photograph
from swinmpi.reports.progress import Progress
from swinmpi.storage.pairs import LrWriter
from swinmpi.storage.values import mask_invalid
from swinmpi.training.decoding import (
    MAX_DRAWS,
    ImageUnusable,
    Summary,
    converted,
    decode,
    is_flat,
    keyed_random,
    num_crops,
    say,
)
from swinmpi.training.sources import Reading, Source, find_sources
from swinmpi.training.values import CommonValues


def check_own_lr(lr: str | None, lr_only: bool, config: DataConfig) -> None:
    """ConfigError for settings that contradict LR images of one's own, or whole ones."""
    if (lr is not None or lr_only) and config.scale != round(config.scale):
        raise ConfigError(f"data.scale: expected a whole number with --lr and --lr-only, "
                          f"got {config.scale:g}")
    if lr is not None and (config.takes_whole or config.reduce_spread != 1):
        raise ConfigError("--lr: expected data.mode=crop and data.reduce_spread=1, as given LR "
                          f"images are not shrunk, got {'whole' if config.takes_whole else 'crop'}"
                          f", {config.reduce_spread:g}")


def with_own_lr(hr: Sequence[Source], hr_inputs: Sequence[str], lr: str,
                reading: Reading) -> list[Source]:
    """Every HR image with its LR image."""
    return [replace(source, lr=own)
            for source, own in zip(hr, lr_sources(hr, hr_inputs, lr, reading), strict=True)]


def lr_sources(hr: Sequence[Source], hr_inputs: Sequence[str], lr: str,
               reading: Reading) -> list[Source]:
    """The LR image of every HR image: by name (a.png to a.tif, a_x2.png or ax2.png), of HDF5
    stacks by index. StackError where one has none."""
    if any(source.reduce != 1 for source in hr):
        raise StackError("--lr: expected HR images that are not shrunk (reduce of 1), as their LR "
                         "images are given")
    found = find_sources([lr], None, reading)
    if "[" in found[0].name and "::" in found[0].name:
        if len(hr_inputs) != 1 or "::" not in hr[0].name:
            raise StackError(f"{lr}: expected pictures like the HR images, got an HDF5 stack; "
                             "put both into HDF5 stacks")
        if len(found) != len(hr):
            raise StackError(f"{lr}: expected {len(hr)} images as in {hr_inputs[0]}, "
                             f"got {len(found)}")
        return found
    by_name: dict[str, Source] = {}
    for source in found:
        by_name.setdefault(bare(source.name), source)
    missing = [source.name for source in hr if bare(source.name) not in by_name]
    if missing:
        raise StackError(f"{lr}: expected an LR image for every HR image, found none for "
                         f"{missing[0]} and {len(missing) - 1} others; name both alike")
    return [by_name[bare(source.name)] for source in hr]


def bare(name: str) -> str:
    """deep/a_x2.png, deep/a.tif -> deep/a; the page of a TIFF stays."""
    path, bracket, page = name.partition("[")
    stem = str(PurePosixPath(path).with_suffix(""))
    return re.sub(r"[_-]?x\d$", "", stem, flags=re.IGNORECASE) + bracket + page


def cut_pairs(photograph: Photograph, source: Source, config: DataConfig, image_index: int,
              values: CommonValues) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(HR, LR) crops that lie over each other, both by the range of the HR images; places depend on
    (seed, image index) alone."""
    lr, scale = converted(source.lr, values), round(config.scale)
    height, width = lr.shape[:2]
    if (photograph.height_px, photograph.width_px) != (height * scale, width * scale):
        raise ImageUnusable(f"{photograph.width_px} x {photograph.height_px} px, expected {scale} "
                            f"times its LR image of {width} x {height} px")
    size = config.size_px // scale
    if min(height, width) < size:
        raise ImageUnusable(f"LR image of {width} x {height} px is smaller than a crop of {size} "
                            "px; lower data.size_px")
    random = keyed_random(config.seed, image_index)
    for number in range(num_crops(config, source.split, height * width * scale**2)):
        for _ in range(MAX_DRAWS):
            top, left = (int(random.integers(0, side - size, endpoint=True))
                         for side in (height, width))
            hr = photograph.cut(top * scale, left * scale, 1.0, config.size_px, config.size_px)
            if not (is_flat(hr, config.flat_threshold) and random.random() < config.flat_reject):
                yield hr, lr[top:top + size, left:left + size]
                break
        else:
            if number == 0:
                raise ImageUnusable(f"{MAX_DRAWS} crops were flat; "
                                    "see data.flat_reject and data.flat_threshold")
            return


def write_lr(sources: Sequence[Source], config: DataConfig, writer: LrWriter) -> Summary:
    """Shrink every whole image, with its values as stored, into a stack of images like the first;
    others are named and skipped. Pixels without a number take their neighbour's value."""
    values = CommonValues(sources, config.channels, config.no_data_values)
    failed, first, scale = [], None, round(config.scale)
    with Progress(len(sources), "images") as progress:
        for source in sources:
            try:
                hr = decode(source.read)
                if hr.shape[0] % scale or hr.shape[1] % scale:
                    raise ImageUnusable(f"{hr.shape[1]} x {hr.shape[0]} px, expected multiples of "
                                        f"data.scale = {scale}")
                kind = hr.shape, hr.dtype
                first = first or kind
                if kind != first:
                    raise ImageUnusable(f"{kind[0]} of {kind[1]}, the first image is {first[0]} "
                                        f"of {first[1]}; a stack holds images of one size")
                size = [side // scale for side in hr.shape[:2]]
                numbers = mask_invalid(values.numbers(source, hr))[0]
                hr = np.moveaxis(numbers, 0, -1).astype(hr.dtype)
                lr = imresize(hr, size=size, kernel=config.kernel)
                writer.append(lr[..., 0] if lr.shape[2] == 1 else lr, source.name)
            except ImageUnusable as reason:
                failed.append(f"{source.name}: {reason}")
                say(f"skipped {failed[-1]}")
            progress.advance()
    if not writer.num_images:
        raise StackError(f"none of the {len(sources)} images could be used; the first: {failed[0]}")
    return Summary(writer.num_images, 0, tuple(failed))
