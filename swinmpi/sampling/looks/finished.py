"""The images of a finished run, read again in parts small enough to be looked at."""
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from swinmpi.errors import StackError
from swinmpi.images.imresize import imresize
from swinmpi.images.pictures import read_page
from swinmpi.sampling.request import SampleRequest, is_calibration, open_stack
from swinmpi.storage.address import Address
from swinmpi.storage.layout import in_letters
from swinmpi.storage.outputs.carrying import DATA
from swinmpi.storage.outputs.result import (
    find_failed,
    find_sibling,
    read_figures,
    read_process,
)
from swinmpi.storage.pictures.journal import read_memory
from swinmpi.storage.pictures.source import PictureStack
from swinmpi.storage.stack import Stack
from swinmpi.storage.values import mask_invalid

SR, STD, SPREAD, TRUST = "sr", "sr_std", "sr_spread", "sr_trust"
LARGEST_PX, SHOWN_PX = 2048, 1024  # of an SR image that is shown whole; of a part of a larger one
MARGIN_LR_PX = 4  # bicubic looks 2 px beyond
Reader = Callable[[int, range], np.ndarray]
"""(image index, SR rows) -> (C, len(rows), W) raw values, NaN for no data."""


@dataclass(frozen=True)
class Finished:
    """Open images of one size and what a run made of them.

    made: how to read it, by dataset name. limits: the raw values that are black and white. figures:
    by image index, of those that were made by the network.
    """

    lr: Stack | PictureStack
    scale: int
    made: Mapping[str, Reader]
    limits: tuple[float, float]
    figures: Mapping[int, Mapping[str, float]]


@dataclass(frozen=True)
class Seen:
    """A part of an image, raw values (h, w, C). rows, cols: of the LR image; versions: SR-sized,
    by name."""

    rows: range
    cols: range
    lr: np.ndarray
    versions: Mapping[str, np.ndarray]


def finished_stack(request: SampleRequest, scale: int, opened: ExitStack) -> Finished:
    """Of an HDF5 output, open until `opened` closes. StackError where it does not fit its input."""
    lr = opened.enter_context(open_stack(request))
    address = Address(Path(request.output), f"{DATA}/{SR}")
    view = replace(request.view, frames=None)
    # This job wrote it, whatever files it refers to.
    sr = opened.enter_context(Stack.open(address, True, view, request.no_data))
    if (sr.num_images, sr.height) != (lr.num_images, lr.height * scale):
        raise StackError(f"{sr.address}: expected {scale} times {lr.address}, got {sr.words}")
    view = replace(view, axes=in_letters(sr.arrangement.layout))
    made = {SR: reader(sr)}
    for name in (STD, SPREAD, TRUST):
        beside = find_sibling(sr, name)
        if beside is not None:
            made[name] = reader(opened.enter_context(Stack.open(beside, True, view)))
    failed, figures = set(find_failed(sr)), read_figures(sr)
    return Finished(lr, scale, made, tuple(read_process(sr)["value_range"]), {
        index: {name: values[index] for name, values in figures.items()}
        for index in range(lr.num_images) if index not in failed and not is_calibration(lr, index)})


def finished_pictures(request: SampleRequest, scale: int, given: object) -> Finished:
    """Of pictures of one size and kind in their folder. given: the setting output.value_range."""
    lr = PictureStack(request.pictures.group, request.no_data)
    memory, figures = read_memory(request.output), {}

    def read(image_index: int, rows: range) -> np.ndarray:
        picture, _ = lr.member(image_index)
        page = read_page(request.output / picture.target, place_of(lr, image_index))
        return np.moveaxis(page.colour[rows.start:rows.stop], -1, 0).astype(np.float64)

    for index in range(lr.num_images):
        told = memory.pictures.get(lr.member(index)[0].target)
        if told is not None:
            figures[index] = told["figures"][place_of(lr, index)]
    kept = memory.ranges.get(lr.dtype.str)
    limits = given if isinstance(given, list) else kept or (0, np.iinfo(lr.dtype).max)
    return Finished(lr, scale, {SR: read}, tuple(limits), figures)


def place_of(lr: PictureStack, image_index: int) -> int:
    """Which page of its SR picture an image is."""
    picture, number = lr.member(image_index)
    return [page.number for page in picture.pages].index(number)


def reader(stack: Stack) -> Reader:
    return lambda image_index, rows: stack.no_data.hide(stack.read_rows(image_index, rows))


def seen_part(finished: Finished, image_index: int) -> Seen:
    """A whole image with everything beside it; of a large one the middle. StackError where it
    cannot be read."""
    lr, scale = finished.lr, finished.scale
    rows, cols = (middle(size, scale, max(lr.height, lr.width)) for size in (lr.height, lr.width))
    known = [range(max(0, line.start - MARGIN_LR_PX), min(size, line.stop + MARGIN_LR_PX))
             for line, size in ((rows, lr.height), (cols, lr.width))]
    raw = lr.no_data.hide(lr.read_rows(image_index, known[0]))[:, :, known[1].start:known[1].stop]
    inner = tuple(slice(line.start - all_.start, line.stop - all_.start)
                  for line, all_ in zip((rows, cols), known, strict=True))
    versions = {"bicubic": hwc(enlarged(raw, inner, scale))}
    for name, read in finished.made.items():
        part = read(image_index, range(rows.start * scale, rows.stop * scale))
        versions[name] = hwc(part[:, :, cols.start * scale:cols.stop * scale])
    return Seen(rows, cols, hwc(raw[:, *inner]), versions)


def middle(size: int, scale: int, longest: int) -> range:
    """The LR pixels shown of a side; all but for images with a very long one."""
    if longest * scale <= LARGEST_PX:
        return range(size)
    shown = min(size, SHOWN_PX // scale)
    return range((size - shown) // 2, (size - shown) // 2 + shown)


def enlarged(raw: np.ndarray, inner: tuple[slice, slice], scale: int) -> np.ndarray:
    """Bicubic, of the part `inner` of (C, h, w); NaN where LR is."""
    missing = ~np.isfinite(raw)
    large = np.moveaxis(imresize(hwc(mask_invalid(raw)[0]),
                                 size=[side * scale for side in raw.shape[1:]]), -1, 0)
    large = np.where(missing.repeat(scale, axis=1).repeat(scale, axis=2), np.nan, large)
    return large[:, *(slice(line.start * scale, line.stop * scale) for line in inner)]


def hwc(image: np.ndarray) -> np.ndarray:
    return np.moveaxis(image, 0, -1)
