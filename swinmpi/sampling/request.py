"""What swinmpi-sample was asked to read and write, and whether it may; answered within a second,
because torch is not needed."""
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from swinmpi.config import Config
from swinmpi.errors import ConfigError, StackError
from swinmpi.images.likeness.usual import usual_in
from swinmpi.parallel.shares import Shard
from swinmpi.storage.address import parse_address
from swinmpi.storage.error_bars import ErrorBars, error_bars_of
from swinmpi.storage.files import check_by_trying
from swinmpi.storage.header import read_header
from swinmpi.storage.metadata.frames import AS_STORED, View
from swinmpi.storage.outputs.contents import OutputPlan, pixel_datasets
from swinmpi.storage.outputs.extending import Members, check_extended
from swinmpi.storage.outputs.output import beside, check_output
from swinmpi.storage.outputs.partial import check_room
from swinmpi.storage.pictures.source import PictureGroup, PictureStack
from swinmpi.storage.probe import inspect_stacks
from swinmpi.storage.stack import Stack
from swinmpi.storage.trust import TrustAsked

MOST_SAMPLES = 1000
KEPT_SUFFIXES = (".h5", ".hdf5", ".hdf", ".nxs", ".nx", ".nc")  # names of files as we write them


@dataclass(frozen=True)
class PictureJob:
    """Pictures of one size and kind. settings: what the folder they go to is begun with, see
    `folder_settings`."""

    group: PictureGroup
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class SampleRequest:
    """What to read and write.

    output: None for the default; once validated the file to write, of the shard if there is one.
    shard: the part of the stack that this job does. keeps_regression: store the encoder's
    regression as well, where the model has one. no_data: stored values that mean no data, beside
    those that the file tells. view: what the axes are and which frames are taken. pictures: instead
    of a stack; `stack` is what the user called them, `output` a folder. trust: which pixels
    to mark. members: those to add to the ensemble that `output` is, of `ensemble` in all then.
    """

    stack: str
    output: Path | None
    checkpoint: Path
    ensemble: int = 1
    overwrite: bool = False
    allow_external: bool = False
    shard: Shard | None = None
    keeps_regression: bool = False
    no_data: tuple[float, ...] = ()
    view: View = AS_STORED
    pictures: PictureJob | None = None
    trust: TrustAsked | None = None
    members: Members | None = None

    @property
    def first_sampled(self) -> int:
        """The first member of the ensemble that has to be sampled."""
        return self.members.first if self.members and self.members.known else 0

    @property
    def unfinished(self) -> str:
        """Where an interrupted run goes on."""
        return f"{self.output}.partial" if self.pictures is None else str(self.output)


def open_stack(request: SampleRequest) -> Stack | PictureStack:
    """The images to do: the stack, or the shard's part of it. On any process; StackError where it
    cannot be used."""
    if request.pictures is not None:
        return PictureStack(request.pictures.group, request.no_data)
    stack = Stack.open(request.stack, request.allow_external, request.view, request.no_data)
    return (stack if request.shard is None
            else stack.narrowed(request.shard.images(stack.num_images)))


def is_calibration(stack: Stack | PictureStack, image_index: int) -> bool:
    """Whether the image is a tomogram's dark or flat, to be enlarged without the network."""
    return (isinstance(stack, Stack)
            and stack.described.is_calibration(stack.first_image + image_index))


def shard_path(output: Path, shard: Shard) -> Path:
    """out.h5 -> out.shard-2-of-4.h5 beside it."""
    return output.with_name(f"{output.stem}.shard-{shard.number}-of-{shard.of}{output.suffix}")


def default_output(address: str, scale: int) -> Path:
    """scan.nxs::/entry/data -> scan_x2.nxs in the current folder."""
    path = Path(address.partition("::")[0])
    suffix = path.suffix if path.suffix.lower() in KEPT_SUFFIXES else ".h5"
    return Path(f"{path.stem}_x{scale}{suffix}")


def describe_shard(request: SampleRequest) -> str:
    """Which images the shard does, in words. On one process."""
    with open_stack(request) as stack:
        total, done = stack.whole.num_images, stack.images
    told = (f"images {done.start} to {done.stop - 1} of {total}" if done
            else f"none of {total} images, its file will be empty")
    return f"{request.shard}: {told}"


def check_stack(request: SampleRequest) -> None:
    """StackError unless the input is a stack of images that can be read without harm to the ranks.
    On one process."""
    if request.pictures is None:
        inspect_stacks([request.stack], request.allow_external, request.view)


def check_destination(request: SampleRequest) -> None:
    """OutputError unless the output may be written where it was asked for. Leaves nothing behind.
    On one process."""
    check_by_trying(check_output(request.output, parse_address(request.stack).path,
                                 request.overwrite or request.members is not None))
    if request.members is not None:
        check_extended(request.output, request.members)


def check_fit(request: SampleRequest, config: Config) -> None:
    """ConfigError, StackError or OutputError where request, stack, model and disk do not fit.
    On one process."""
    model, shift = config.model, config.sampler.shift
    if not 1 <= request.ensemble <= MOST_SAMPLES:
        raise ConfigError(f"--ensemble: expected 1 to {MOST_SAMPLES} samples, "
                          f"got {request.ensemble}")
    if request.ensemble > 1 and not config.sampler.diffuses:
        raise ConfigError("--ensemble: expected 1 with sampler.method regression (--preset "
                          f"regression), which draws no samples, got {request.ensemble}; use "
                          "another preset")
    if config.output.members and request.ensemble == 1:
        raise ConfigError("output.members: expected an ensemble of at least 2 samples to keep the "
                          "members of, got 1; give --ensemble K, or set it to false")
    if config.output.lr and request.shard is not None:
        raise ConfigError("output.lr: expected false with --shard, as parts are merged without, "
                          "got true; set it to false")
    if request.members is not None and config.output.backend != "gather":
        raise ConfigError("output.backend: expected gather with --members, which compares what was "
                          f"there, got {config.output.backend}; set it to gather")
    with open_stack(request) as stack:
        if stack.channels > model.channels:
            raise StackError(f"{stack.address}: expected images of one channel, as the model has, "
                             f"got {stack.channels}")
        size_px = min(stack.height, stack.width) * model.scale
        if shift.edge != "roll" and size_px <= max(model.window_px, shift.max_px or 0):
            raise ConfigError(f"sampler.shift.edge: {shift.edge} would cut too much off SR images "
                              f"of {size_px} px; use roll")
        partial = beside(Path(os.path.realpath(request.output)), ".partial")
        if not partial.exists():
            check_room(partial, stack, model.scale,
                       pixel_datasets(output_plan(request, config), stack.dtype))


def check_reference(request: SampleRequest, config: Config, reference: str) -> None:
    """StackError unless the HR stack at `reference` is what the output can be compared with.
    On one process."""
    inspect_stacks([reference], view=request.view)
    with (Stack.open(request.stack, request.allow_external, request.view) as lr,
          Stack.open(reference, view=request.view) as hr):
        scale = config.model.scale
        wanted = (lr.num_images, lr.channels, lr.height * scale, lr.width * scale,
                  lr.dtype.newbyteorder("="))
        came = (hr.num_images, hr.channels, hr.height, hr.width, hr.dtype.newbyteorder("="))
        if came != wanted:
            told = ["{} images of {} channels, {} x {} px, {}".format(*facts)
                    for facts in (wanted, came)]
            raise StackError(f"{hr.address}: expected {told[0]}, {scale} times {lr.address}, "
                             f"got {told[1]}; name the HR stack that belongs to it")


def output_plan(request: SampleRequest, config: Config, span: float | None = None) -> OutputPlan:
    """What the output will hold. span: the data range, None where it is not known yet; ConfigError
    where pixels cannot be trusted as asked."""
    return OutputPlan(config.model.scale, request.ensemble > 1, config.output.regression,
                      config.output.compression,
                      kept_members=request.ensemble - 1 if config.output.members else 0,
                      error_bars=error_bars_for(request, config, span),
                      samples=request.ensemble, exact=config.output.members == "exact",
                      lr=config.output.lr,
                      extends=request.members.first if request.members else 0,
                      usual=usual_in(read_header(request.checkpoint)),
                      noise=config.model.told_noise)


def error_bars_for(request: SampleRequest, config: Config, span: float | None) -> ErrorBars | None:
    """Of the run, with its mask of trust where one is asked for; see `output_plan`."""
    bars, asked = error_bars_of(request.checkpoint, request.ensemble, config), request.trust
    if asked is None:
        return bars
    if request.ensemble == 1:
        raise ConfigError("--trust: expected an ensemble, whose samples tell where to trust it, "
                          "got one sample; give --ensemble K")
    if bars is None or bars.table is None:
        how = "for these settings" if bars is None else "by a version that learned masks of trust"
        raise ConfigError(f"--trust: expected a checkpoint calibrated {how}, got "
                          f"{request.checkpoint}; make one: swinmpi-calibrate "
                          f"{request.checkpoint} --pairs FILE")
    if request.ensemble < bars.table.samples:
        raise ConfigError(f"--trust: expected at least {bars.table.samples} samples, with which "
                          f"the checkpoint was calibrated, got --ensemble {request.ensemble}; give "
                          f"--ensemble {bars.table.samples}")
    return replace(bars, trust=bars.table.trust(asked, span))
