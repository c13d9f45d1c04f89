"""The outputs that can be verified: one HDF5 file, or a folder of pictures."""
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from swinmpi.errors import ConfigError, StackError
from swinmpi.images.pictures import Pixels, read_page, read_pages
from swinmpi.sampling.plan import SamplingPlan
from swinmpi.sampling.plan import plan as plan_sampling
from swinmpi.sampling.request import PictureJob, SampleRequest, open_stack, output_plan
from swinmpi.sampling.verifying.compared import UNKNOWN, Verdict
from swinmpi.sampling.verifying.recorded import (
    Asked,
    Making,
    find_input,
    images_to_make,
    making_of,
    marks_of,
    one_of,
)
from swinmpi.sampling.verifying.remake import Remaking
from swinmpi.storage.layout import in_letters, to_chw
from swinmpi.storage.metadata.frames import View
from swinmpi.storage.outputs.carrying import DATA
from swinmpi.storage.outputs.contents import pixel_datasets
from swinmpi.storage.outputs.result import find_failed, find_sibling, read_process
from swinmpi.storage.pictures.encoding import enlarged
from swinmpi.storage.pictures.journal import NAME, Memory, read_memory
from swinmpi.storage.pictures.listing import find_files, look_at, reason_of
from swinmpi.storage.pictures.source import PictureGroup, PictureSet, PictureStack
from swinmpi.storage.probe import inspect_stacks
from swinmpi.storage.stack import Stack


@dataclass(frozen=True)
class Found:
    """What is to be made again, and what cannot be."""

    remakings: tuple[Remaking, ...]
    unknown: tuple[Verdict, ...] = ()


@dataclass(frozen=True)
class StoredStack:
    """The data sets of an output file, seen as its run saw its input; `names`: beside `sr`;
    allow_external: as of `Stack.open`."""

    address: str
    view: View
    names: tuple[str, ...]
    allow_external: bool = False

    def read(self, image_index: int) -> Mapping[str, np.ndarray]:
        """See `Stored`."""
        images = {}
        allowed = self.allow_external
        with Stack.open(self.address, allowed, self.view) as sr:
            images["sr"] = to_chw(sr.read_stored(image_index), sr.layout)
            like = replace(self.view, axes=in_letters(sr.arrangement.layout))
            for name in self.names:
                with Stack.open(find_sibling(sr, name), allowed, like) as beside:
                    images[name] = to_chw(beside.read_stored(image_index), beside.layout)
        return images

    def completed(self, image_index: int,
                  made: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """See `Stored`."""
        return made


@dataclass(frozen=True)
class StoredPictures:
    """The pages of a folder's pictures that belong to those of a group."""

    folder: Path
    group: PictureGroup

    def read(self, image_index: int) -> Mapping[str, np.ndarray]:
        """See `Stored`."""
        picture, number = PictureStack(self.group).member(image_index)
        path = self.folder / picture.target
        try:
            count, page = len(read_pages(path)), in_planes(read_page(path, number))
        except Exception as error:  # noqa: BLE001 - decoders raise anything on damaged files
            raise StackError(f"{path} ({reason_of(error)})") from None
        if count != len(picture.pages):
            raise StackError(f"{path} (it has {count} pages, of which {len(picture.pages)} were "
                             "made)")
        return page

    def completed(self, image_index: int,
                  made: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """See `Stored`; with the alpha of the LR page, enlarged."""
        picture, number = PictureStack(self.group).member(image_index)
        return in_planes(enlarged(picture, number, np.moveaxis(made["sr"], 0, -1)))


def in_planes(page: Pixels) -> dict[str, np.ndarray]:
    """(C, H, W) by name."""
    planes = {"sr": np.moveaxis(page.colour, -1, 0)}
    return planes if page.alpha is None else planes | {"alpha": page.alpha[None]}


def find_remakings(asked: Asked, num_ranks: int) -> Found:
    """What of an output is made again, everything validated. On one process; StackError,
    ConfigError, CheckpointError where nothing can be."""
    if not os.path.isdir(asked.output):
        return of_file(asked, num_ranks)
    if not (asked.output / NAME).is_file():
        raise StackError(f"{asked.output}: expected an output of swinmpi-sample, a file or a "
                         f"folder with {NAME}, got a folder without; name its HDF5 files one by "
                         "one")
    return of_pictures(asked, num_ranks)


def of_file(asked: Asked, num_ranks: int) -> Found:
    """Of one HDF5 file."""
    allowed = asked.allow_external
    inspect_stacks([str(asked.output)], allowed)
    with Stack.open(str(asked.output), allowed) as sr:
        process, output = read_process(sr), f"{sr.address.path}::{DATA}/sr"
    if not process:
        raise StackError(f"{asked.output}: expected an output of swinmpi-sample, which tells how "
                         "it was made, got a stack that does not")
    making = making_of(process, asked)
    request, data = request_of(making, asked), making.config.data
    inspect_stacks([request.stack], allowed, request.view)
    sampling = plan_sampling(request, making.config, num_ranks)
    axes = data.axes if sees(output, allowed, data.axes) else None
    view = View(axes, calibration=data.calibration)
    with Stack.open(output, allowed, view) as sr, open_stack(request) as lr:
        making.check_input(lr.identity(), request.stack)
        check_size(sr, lr, making.config.model.scale)
        failed = find_failed(sr)
        made = [index for index in range(sr.num_images) if index not in failed]
        chosen = images_to_make(asked, made, sr.num_images, marks_of(sr.address.path))
        names = tuple(name for name in beside(sampling) if find_sibling(sr, name))
        unknown = tuple(Verdict(lr.short_name_of(index), UNKNOWN, "was given up by the run: there "
                                "is nothing to compare") for index in chosen if index in failed)
    images = tuple(index for index in chosen if index not in failed)
    stored = StoredStack(output, view, names, allowed)
    return Found((remaking(sampling, images, stored, making),), unknown)


def check_size(sr: Stack, lr: Stack | PictureStack, scale: int) -> None:
    """StackError unless the one can be made of the other."""
    wanted = lr.num_images, lr.channels, lr.height * scale, lr.width * scale
    came = sr.num_images, sr.channels, sr.height, sr.width
    if wanted != came:
        told = ["{} images of {} channels, {} x {} px".format(*facts) for facts in (wanted, came)]
        raise StackError(f"{lr.address}: gives {told[0]}, but {sr.address.path} has {told[1]}; "
                         "name what it was made of with --input")


def sees(address: str, allow_external: bool, axes: str | None) -> bool:
    """Whether a stack can be seen with these axes, which those of its input need not fit."""
    try:
        inspect_stacks([address], allow_external, View(axes))
    except StackError:
        return False
    return axes is not None


def beside(sampling: SamplingPlan) -> list[str]:
    """The data sets of a run, but for `sr`."""
    plan = output_plan(sampling.request, sampling.config)
    return [name for name in pixel_datasets(plan, sampling.stack.dtype) if name != "sr"]


def request_of(making: Making, asked: Asked) -> SampleRequest:
    """What the run was asked for."""
    config = making.config
    view = View(config.data.axes, making.frames, config.data.calibration)
    return SampleRequest(find_input(making.process, asked), None, making.checkpoint,
                         making.ensemble, allow_external=asked.allow_external,
                         shard=making.shard, trust=making.trust,
                         no_data=config.data.no_data_values, view=view)


def remaking(sampling: SamplingPlan, images: tuple[int, ...], stored: Any,
             making: Making) -> Remaking:
    version = str(one_of(making.process.get("version", "")))
    return Remaking(sampling, images, stored, making.machine, version)


def of_pictures(asked: Asked, num_ranks: int) -> Found:
    """Of a folder."""
    memory = read_memory(asked.output)
    if not (memory.made and memory.pictures):
        raise StackError(f"{asked.output}: expected pictures of a run that came to its end, got "
                         "none; start the same swinmpi-sample again")
    making = making_of({"version": "", **memory.made[-1]}, asked)
    inputs = inputs_of(making, asked)
    sound, _ = look_at(find_files(inputs, asked.output).pictures)
    named = [picture for picture in sound if picture.target in memory.pictures]
    groups = PictureSet(" ".join(inputs), tuple(named)).groups()
    places = [(at, index) for at, group in enumerate(groups)
              for index in range(len(group.members))]
    chosen = images_to_make(asked, range(len(places)), len(places),
                            marks_of(asked.output / NAME))
    remakings, unknown = [], []
    for at, group in enumerate(groups):
        stack = PictureStack(group)
        wanted = [index for one, index in (places[number] for number in chosen) if one == at]
        same = [index for index in wanted if is_input(memory, stack, index)]
        unknown += [Verdict(stack.short_name_of(index), UNKNOWN, "cannot be compared: it is another"
                            " picture now than the one that was enlarged")
                    for index in wanted if index not in same]
        if same:
            remakings.append(of_group(group, tuple(same), making, memory, asked, num_ranks))
    return Found(tuple(remakings), tuple(unknown))


def is_input(memory: Memory, stack: PictureStack, index: int) -> bool:
    """Whether a picture is the one that was enlarged."""
    target = stack.member(index)[0].target
    return memory.pictures[target]["input"] == stack.content_of(index)


def inputs_of(making: Making, asked: Asked) -> Sequence[str]:
    """Files and folders that the pictures were made of; StackError where they are gone."""
    recorded = str(making.process.get("input", ""))
    for inputs in (asked.inputs, (recorded,), recorded.split(" ")):
        if inputs and (asked.inputs or all(one and os.path.exists(one) for one in inputs)):
            return inputs
    raise StackError(f"{recorded or 'its input'}: {asked.output} was made of it, but it is not "
                     "there any more; name it with --input")


def of_group(group: PictureGroup, images: tuple[int, ...], making: Making, memory: Memory,
             asked: Asked, num_ranks: int) -> Remaking:
    """Of pictures of one size and kind."""
    config, stack = making.config, PictureStack(group)
    if (kept := memory.ranges.get(stack.dtype.str)) is not None:
        config = config.replaced(output={"value_range": list(kept)})
    request = SampleRequest(group.whole.name, None, making.checkpoint,
                            no_data=config.data.no_data_values,
                            pictures=PictureJob(group, {}))
    try:
        sampling = plan_sampling(request, config, num_ranks)
    except ValueError as error:
        raise ConfigError(f"{asked.output}: cannot be made again ({error})") from None
    return remaking(sampling, images, StoredPictures(asked.output, group), making)
