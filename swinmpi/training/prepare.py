"""Photographs or an HR stack -> one HDF5 file of (HR, LR) training pairs.

Sources -> crops, keyed by (seed, image index) -> PSF, MATLAB's imresize, noise, all of one image in
one process -> PairWriter, in the order of the sources.
"""
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from swinmpi import __version__
from swinmpi.config import DataConfig
from swinmpi.config.data_section import SPREADS
from swinmpi.errors import ConfigError, OutputError, StackError
from swinmpi.images.photographs import to_photograph
from swinmpi.reports.progress import Progress
from swinmpi.storage.metadata.frames import View, check_frames
from swinmpi.storage.pair_writing import LrWriter, PairWriter, check_output
from swinmpi.storage.pairs import TEST, TRAIN, VALIDATE
from swinmpi.storage.pictures.listing import MOST_NAMED, named
from swinmpi.storage.stack import memory_bytes
from swinmpi.training.preparation.cutting import cut_crops
from swinmpi.training.preparation.decoding import (
    Decoded,
    ImageUnusable,
    Pair,
    Summary,
    converted,
    crop_limit,
    lr_size_px,
    say,
)
from swinmpi.training.preparation.degradation import in_words as degradation_in_words
from swinmpi.training.preparation.foreseen import foreseen
from swinmpi.training.preparation.lr_stacks import write_lr
from swinmpi.training.preparation.own_pairs import check_own_lr, cut_pairs
from swinmpi.training.preparation.pairing import with_own_lr
from swinmpi.training.preparation.processes import spread
from swinmpi.training.preparation.sources import Reading, Source, find_sources, in_words, left_out
from swinmpi.training.preparation.splits import assign_splits
from swinmpi.training.preparation.values import CommonValues


@dataclass(frozen=True)
class PrepareRequest:
    """What to read and write. sources: folders, pictures, .tsv lists whose paths start at `root`,
    HDF5 addresses, of which only `frames` are taken. lr: where the LR images are, if they are not
    to be made; lr_only: a stack of whole LR images instead of pairs; workers: processes that decode
    and cut, at most one for each image."""

    sources: tuple[str, ...]
    output: Path
    root: Path | None = None
    overwrite: bool = False
    frames: str | None = None
    lr: str | None = None
    lr_only: bool = False
    workers: int | None = None
    cores: int = 1


@dataclass(frozen=True)
class PreparePlan:
    """A request that can be done, as far as can be told without decoding an image. skipped: which
    images will not be used, and why; dtype: of the first image; num_workers: processes, each of
    which holds `image_bytes` at most, about."""

    request: PrepareRequest
    config: DataConfig
    num_validate: int
    most_pairs: int
    words: str
    skipped: tuple[str, ...]
    dtype: np.dtype
    num_test: int = 0
    num_workers: int = 1
    image_bytes: int = 0

    @property
    def most_bytes(self) -> int:
        """Of the pairs, which are 8 bit where the first image is, else 16 bit."""
        pixels = self.config.size_px**2 + lr_size_px(self.config)**2
        item_bytes = 1 if self.dtype == np.uint8 else 2
        return self.most_pairs * self.config.channels * pixels * item_bytes


def plan(request: PrepareRequest, config: DataConfig) -> PreparePlan:
    """Everything that can be validated without decoding an image. One process.

    Raises ConfigError, StackError or OutputError.
    """
    with ExitStack() as opened:
        sources = validated_sources(request, config, opened)
        words = in_words(sources)
        told = foreseen(sources, config, request.lr_only)
    if len(told.skipped) == len(sources):
        raise StackError(f"none of the {len(sources)} images could be used; the first: "
                         f"{told.skipped[0]}")
    return PreparePlan(request, config, sum(source.split == VALIDATE for source in sources),
                       sum(crop_limit(config, source.split) for source in sources), words,
                       told.skipped, told.dtype, sum(source.split == TEST for source in sources),
                       workers_for(request, len(sources), told.image_bytes), told.image_bytes)


def workers_for(request: PrepareRequest, num_images: int, image_bytes: int) -> int:
    """As many as asked for, else as cores, as far as half of the memory has room for their images;
    never more than images."""
    room = memory_bytes() // 2 // max(1, image_bytes)
    return min(num_images, request.workers or max(1, min(request.cores, room)))


def describe(plan: PreparePlan) -> str:
    """What `run` would do, in a few lines."""
    request, config = plan.request, plan.config
    more = degradation_in_words(config.degradation)
    degraded = [f"degrade  {more}; drawn for each {'image' if request.lr_only else 'crop'}"
                f" by seed {config.seed}"] if more else []
    skipped = [f"skipped  {len(plan.skipped)} of them: {'; '.join(plan.skipped[:MOST_NAMED])}"
               + f"; and {len(plan.skipped) - MOST_NAMED} more" * (len(plan.skipped) > MOST_NAMED)
               ] * bool(plan.skipped)
    workers = (f"workers  {plan.num_workers}, each with one image at a time: at most about "
               f"{plan.num_workers * plan.image_bytes / 2**20:.0f} MiB of images")
    if request.lr_only:
        return "\n".join([
            f"input    {' '.join(request.sources)}: {plan.words}", *skipped, *degraded, workers,
            f"output   {request.output}: their LR images, {config.scale:g} times smaller, "
            f"{config.kernel}"])
    range_words = ("0 to 255, of 8 bit" if plan.dtype == np.uint8 else
                   f"the robust range of all images, measured by the run ({plan.dtype})")
    return "\n".join([
        f"input    {' '.join(request.sources)}: {plan.words}, "
        f"{plan.num_validate} of them for validation"
        + f", {plan.num_test} to test on" * bool(plan.num_test), *skipped,
        f"pairs    at most {plan.most_pairs}; {how(config)} {config.size_px} px -> "
        f"{lr_size_px(config)} px, {config.channels} channels, {config.kernel}, seed {config.seed}",
        *degraded,
        f"range    {range_words}",
        workers,
        f"output   {request.output}: at most {plan.most_bytes / 2**20:.0f} MiB"])


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
                      "data_config": recorded(config), "creator": f"swinmpi {__version__}",
                      **{name: list(both) for name, both in config.degradation.items()}}
        if request.lr_only:
            writer = opened.enter_context(LrWriter(request.output, attributes, request.overwrite))
            return write_lr(sources, config, writer, plan.num_workers)
        if request.lr is not None:
            attributes["kernel"] = "own LR images"
        writer = opened.enter_context(PairWriter(request.output, attributes, request.overwrite))
        return write_pairs(sources, config, writer, plan.num_workers)


def recorded(config: DataConfig) -> str:
    """As JSON; what says how a file is read only where it says something."""
    default = DataConfig()
    unsaid = {name for name in ("axes", "calibration", "no_data", "resize", "validate_count",
                                "test_share", "test_count", *SPREADS)
              if getattr(config, name) == getattr(default, name)}
    return config.model_dump_json(exclude=unsaid)


def write_pairs(sources: Sequence[Source], config: DataConfig, writer: PairWriter,
                num_workers: int) -> Summary:
    """Append the pairs of every image; one that cannot be used is named and skipped."""
    counts, failed = {TRAIN: 0, VALIDATE: 0, TEST: 0}, []
    values = CommonValues(sources, config.channels, config.no_data_values)
    work = partial(pairs_of, sources, config, values)
    with (spread(work, sources, num_workers, values, writer) as made_of,
          Progress(len(sources), "images") as progress):
        for image_index, source in enumerate(sources):
            try:
                for made in made_of(image_index):
                    if isinstance(made, Decoded):
                        values.tell_unlike(made.name, made.kind)
                        continue
                    hr, lr, drawn = made
                    writer.append(hr, lr, source.split, source.name, drawn)
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


def pairs_of(sources: Sequence[Source], config: DataConfig, values: CommonValues,
             image_index: int) -> Iterator[Decoded | Pair]:
    """One image decoded, cut and degraded; ImageUnusable where it cannot be."""
    source = sources[image_index]
    photograph = to_photograph((yield from converted(source, values)))
    cut = cut_crops if source.lr is None else partial(cut_pairs, values=values)
    yield from cut(photograph, source, config, image_index)


def validated_sources(request: PrepareRequest, config: DataConfig, opened: ExitStack,
                      inspected: bool = False) -> list[Source]:
    """All that can be wrong before the first image is decoded, found now;
    every source has a split."""
    lr_size_px(config)
    view = View(config.axes, request.frames)  # darks and flats are never learned from
    check_frames(view.frames)
    check_output(request.output, request.overwrite)
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
