"""Photographs or an HR stack -> one HDF5 file of (HR, LR) training pairs.

Sources one at a time -> crops, keyed by (seed, image index) -> MATLAB's imresize -> PairWriter.
"""
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from swinmpi import __version__
from swinmpi.config import DataConfig
from swinmpi.errors import ConfigError, OutputError, StackError
from swinmpi.images.imresize import imresize
from swinmpi.images.photographs import Photograph, to_photograph
from swinmpi.reports.progress import Progress
from swinmpi.storage.files import check_place
from swinmpi.storage.metadata.frames import View, check_frames
from swinmpi.storage.pairs import PLACE, TEST, TRAIN, VALIDATE, LrWriter, PairWriter
from swinmpi.storage.pictures.listing import named
from swinmpi.training.decoding import (
    MAX_DRAWS,
    ImageUnusable,
    Summary,
    converted,
    crop_limit,
    is_flat,
    keyed_random,
    lr_size_px,
    num_crops,
    say,
)
from swinmpi.training.own_pairs import check_own_lr, cut_pairs, with_own_lr, write_lr
from swinmpi.training.sources import Reading, Source, find_sources, in_words, left_out
from swinmpi.training.splits import assign_splits
from swinmpi.training.values import CommonValues


@dataclass(frozen=True)
class PrepareRequest:
    """What to read and write. sources: folders, pictures, .tsv lists whose paths start at `root`,
    HDF5 addresses, of which only `frames` are taken. lr: where the LR images are, if they are not
    to be made; lr_only: a stack of whole LR images instead of pairs."""

    sources: tuple[str, ...]
    output: Path
    root: Path | None = None
    overwrite: bool = False
    frames: str | None = None
    lr: str | None = None
    lr_only: bool = False


@dataclass(frozen=True)
class PreparePlan:
    """A request that can be done, as far as can be told without decoding an image."""

    request: PrepareRequest
    config: DataConfig
    num_images: int
    num_validate: int
    most_pairs: int
    words: str
    num_test: int = 0

    @property
    def most_bytes(self) -> int:
        """Of the pairs, 8 bit; 16 bit takes twice as many."""
        return self.most_pairs * self.config.channels * (self.config.size_px**2
                                                         + lr_size_px(self.config)**2)


def plan(request: PrepareRequest, config: DataConfig) -> PreparePlan:
    """Everything that can be validated without decoding an image. One process.

    Raises ConfigError, StackError or OutputError.
    """
    with ExitStack() as opened:
        sources = validated_sources(request, config, opened)
        words = in_words(sources)
    if request.lr_only:
        return PreparePlan(request, config, len(sources), 0, 0, words)
    return PreparePlan(request, config, len(sources),
                       sum(source.split == VALIDATE for source in sources),
                       sum(crop_limit(config, source.split) for source in sources), words,
                       sum(source.split == TEST for source in sources))


def describe(plan: PreparePlan) -> str:
    """What `run` would do, in three lines."""
    request, config = plan.request, plan.config
    if request.lr_only:
        return (f"input    {' '.join(request.sources)}: {plan.words}\n"
                f"output   {request.output}: their LR images, {config.scale:g} times smaller, "
                f"{config.kernel}")
    return "\n".join([
        f"input    {' '.join(request.sources)}: {plan.words}, "
        f"{plan.num_validate} of them for validation"
        + (f", {plan.num_test} to test on" if plan.num_test else ""),
        f"pairs    at most {plan.most_pairs}; {how(config)} {config.size_px} px -> "
        f"{lr_size_px(config)} px, {config.channels} channels, {config.kernel}, seed {config.seed}",
        f"output   {request.output}: at most {plan.most_bytes / 2**20:.0f} MiB (8 bit; "
        "twice that for 16 bit)"])


def how(config: DataConfig) -> str:
    """What is done to an image."""
    if config.resize is None:
        return config.mode
    return {"squash": "whole images squashed to", "square": "central squares shrunk to"}[
        config.resize]


def run(plan: PreparePlan) -> Summary:
    """Cut and degrade every image into the file of pairs. One process.

    Ends by Interrupted, and without a file, when a signal comes.
    """
    request, config = plan.request, plan.config
    with ExitStack() as opened:
        sources = validated_sources(request, config, opened, inspected=True)
        attributes = {"scale": config.scale, "kernel": config.kernel, "seed": config.seed,
                      "data_config": recorded(config), "creator": f"swinmpi {__version__}"}
        if request.lr_only:
            return write_lr(sources, config, opened.enter_context(
                LrWriter(request.output, attributes, request.overwrite)))
        if request.lr is not None:
            attributes["kernel"] = "own LR images"
        writer = opened.enter_context(PairWriter(request.output, attributes, request.overwrite))
        return write_pairs(sources, config, writer)


def recorded(config: DataConfig) -> str:
    """As JSON; what says how a file is read only where it says something."""
    default = DataConfig()
    unsaid = {name for name in ("axes", "calibration", "no_data", "resize", "validate_count",
                                "test_share", "test_count")
              if getattr(config, name) == getattr(default, name)}
    return config.model_dump_json(exclude=unsaid)


def write_pairs(sources: Sequence[Source], config: DataConfig,
                writer: PairWriter) -> Summary:
    """Decode, cut, degrade and append; an image that cannot be used is named and skipped."""
    counts, failed = {TRAIN: 0, VALIDATE: 0, TEST: 0}, []
    values = CommonValues(sources, config.channels, config.no_data_values)
    with Progress(len(sources), "images") as progress:
        for image_index, source in enumerate(sources):
            try:
                photograph = to_photograph(converted(source, values))
                cut = cut_crops if source.lr is None else partial(cut_pairs, values=values)
                for hr, lr in cut(photograph, source, config, image_index):
                    writer.append(hr, lr, source.split, source.name)
                    counts[source.split] += 1
            except ImageUnusable as reason:
                failed.append(f"{source.name}: {reason}")
                say(f"skipped {failed[-1]}")
            progress.advance(note=f"{writer.num_images} pairs")
    if not writer.num_images:
        raise StackError(f"none of the {len(sources)} images could be used; the first: {failed[0]}")
    writer.note(values.attributes)
    say(f"values {values.range} of {values.dtype} become 0 to {values.highest}")
    for remark in values.survey.remarks:
        say(f"warning: {remark}")
    return Summary(counts[TRAIN], counts[VALIDATE], tuple(failed), counts[TEST])


def cut_crops(photograph: Photograph, source: Source, config: DataConfig,
              image_index: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """HR images (size_px, size_px, C) of one photograph and the LR images made of them; what is
    drawn depends on (seed, image index) alone."""
    random = keyed_random(config.seed, image_index)
    height, width = photograph.height_px / source.reduce, photograph.width_px / source.reduce
    if config.resize is not None:
        hr = resized(photograph, config)
        yield hr, degrade(hr, config)
        return
    if config.mode == "whole":
        hr = whole_image(photograph, draw_reduce(random, source, config, math.inf), config.size_px)
        yield hr, degrade(hr, config)
        return
    most_reduce = min(photograph.height_px, photograph.width_px) / config.size_px
    if most_reduce < source.reduce:
        raise ImageUnusable(f"{photograph.width_px} x {photograph.height_px} px shrunk by "
                            f"{source.reduce:g} is smaller than a crop of {config.size_px} px; "
                            "lower data.size_px or use data.mode=whole")
    for number in range(num_crops(config, source.split, height * width)):
        crop = draw_crop(photograph, source, config, random, most_reduce)
        if crop is None:
            if number == 0:
                raise ImageUnusable(f"{MAX_DRAWS} crops were flat; "
                                    "see data.flat_reject and data.flat_threshold")
            return
        yield crop, degrade(crop, config)


def draw_crop(photograph: Photograph, source: Source, config: DataConfig,
              random: np.random.Generator, most_reduce: float) -> np.ndarray | None:
    """One crop at a random place and reduction; flat ones are drawn again with probability
    flat_reject, at most MAX_DRAWS times (then None)."""
    for _ in range(MAX_DRAWS):
        reduce = draw_reduce(random, source, config, most_reduce)
        room = [length - config.size_px * reduce
                for length in (photograph.height_px, photograph.width_px)]
        top_px, left_px = (int(random.integers(0, max(0, math.floor(length)), endpoint=True))
                           for length in room)
        crop = photograph.cut(top_px, left_px, reduce, config.size_px, config.size_px)
        if not (is_flat(crop, config.flat_threshold) and random.random() < config.flat_reject):
            return crop
    return None


def draw_reduce(random: np.random.Generator, source: Source, config: DataConfig,
                most: float) -> float:
    """Uniform between reduce and reduce * reduce_spread, never more than `most`."""
    return float(random.uniform(
        source.reduce, max(source.reduce, min(source.reduce * config.reduce_spread, most))))


def whole_image(photograph: Photograph, reduce: float, size_px: int) -> np.ndarray:
    """The whole image shrunk by `reduce`, then cropped or padded (mirrored) around its
    centre to a square."""
    shape = [max(1, int(length / reduce)) for length in (photograph.height_px, photograph.width_px)]
    image = photograph.cut(0, 0, reduce, *shape)
    for axis, length in enumerate(shape):
        before = abs(size_px - length) // 2
        if length >= size_px:
            image = image.take(range(before, before + size_px), axis=axis)
        else:
            widths = [(before, size_px - length - before) if a == axis else (0, 0)
                      for a in range(3)]
            image = np.pad(image, widths, mode="reflect")
    return image


def resized(photograph: Photograph, config: DataConfig) -> np.ndarray:
    """The whole image, or its middle square, shrunk to (size_px, size_px, C)."""
    sides = photograph.height_px, photograph.width_px
    if min(sides) < config.size_px:
        raise ImageUnusable(f"{sides[1]} x {sides[0]} px is smaller than {config.size_px} px; "
                            "lower data.size_px")
    whole = photograph if config.resize == "squash" else photograph.middle_square()
    return whole.shrunk((0, 0), (whole.height_px, whole.width_px), (config.size_px,) * 2)


def degrade(hr: np.ndarray, config: DataConfig) -> np.ndarray:
    return imresize(hr, size=(lr_size_px(config),) * 2, kernel=config.kernel)


def validated_sources(request: PrepareRequest, config: DataConfig, opened: ExitStack,
                      inspected: bool = False) -> list[Source]:
    """All that can be wrong before the first image is decoded, found now;
    every source has a split."""
    lr_size_px(config)
    view = View(config.axes, request.frames, config.calibration)
    check_frames(view.frames)
    check_place(request.output, PLACE, request.overwrite)
    for text in request.sources:
        if Path(text.split("::")[0]).resolve() == request.output.resolve():
            raise OutputError(f"{request.output}: is the input as well; choose another --output")
    reading = Reading(opened, inspected, view, config.no_data_values)
    found = find_sources(request.sources, request.root, reading)
    check_resize(config, found, request)
    check_own_lr(request.lr, request.lr_only, config)
    if request.lr is not None:
        found = with_own_lr(found, request.sources, request.lr, reading)
    if not inspected and (unread := left_out(request.sources)):
        say(f"left out: {named(unread)}")
    return assign_splits(found, config)


def check_resize(config: DataConfig, sources: Sequence[Source], request: PrepareRequest) -> None:
    """ConfigError where data.resize contradicts what else is asked for."""
    if config.resize is None:
        return
    if config.reduce_spread != 1 or any(source.reduce != 1 for source in sources):
        raise ConfigError("data.resize: expected images that are not shrunk otherwise "
                          "(data.reduce_spread and the list's reduce of 1), got others; leave it "
                          "out, or those")
    if request.lr_only:
        raise ConfigError("data.resize: expected pairs, got --lr-only, whose images keep their "
                          "shape; leave out one of them")
