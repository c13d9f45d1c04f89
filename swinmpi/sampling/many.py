"""Many inputs in, a folder out: pictures of any size become pictures, every HDF5 file one of its
own, one run after the other with one model."""
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from swinmpi.config import Config, dump_yaml
from swinmpi.errors import ConfigError, OutputError, StackError
from swinmpi.parallel.comm import World
from swinmpi.parallel.launch import StopFlag
from swinmpi.reports.timing import RunReport
from swinmpi.sampling.plan import SamplingPlan, describe, plan
from swinmpi.sampling.provenance import folder_settings, trusted
from swinmpi.sampling.request import (
    PictureJob,
    SampleRequest,
    check_destination,
    check_fit,
    default_output,
)
from swinmpi.sampling.validation import GivenSettings, resolved, validated
from swinmpi.storage.checkpoint import file_sha256
from swinmpi.storage.files import OTHER_KINDS, beside, remove, tell
from swinmpi.storage.locking import open_locked
from swinmpi.storage.outputs.result import read_process
from swinmpi.storage.pictures.listing import (
    HDF5_SUFFIXES,
    Found,
    find_files,
    has_suffix,
    look_at,
    named,
)
from swinmpi.storage.pictures.source import PictureSet
from swinmpi.storage.pictures.store import begin_afresh, check_folder, end_run
from swinmpi.storage.stack import Stack


@dataclass(frozen=True)
class ManyPlan:
    """Runs one after the other. request: of them all; found: the files; broken: those that cannot
    be read, with the reason; before: runs whose output this command made before."""

    request: SampleRequest
    plans: tuple[SamplingPlan, ...]
    num_pictures: int
    broken: dict[str, str]
    found: Found
    before: tuple[SamplingPlan, ...]


def plan_many(inputs: Sequence[str], asked: SampleRequest, given: GivenSettings,
              num_ranks: int) -> ManyPlan:
    """Everything that can be validated without decoding a picture. On one process.

    asked: with `output` None or the folder. ConfigError, StackError, CheckpointError, OutputError.
    """
    config = resolved(asked, given)
    asked = replace(asked, output=asked.output or default_folder(inputs, config.model.scale))
    check_name(asked.output)
    found = find_files(inputs, asked.output)
    sound, broken = look_at(found.pictures)
    pictures = PictureSet(" ".join(inputs), tuple(sound))
    stacks, before = stack_plans(found.stacks, asked, given, num_ranks, broken)
    if broken and not (sound or stacks or before):
        path, reason = next(iter(broken.items()))
        raise StackError(f"none of {len(broken)} files can be read, the first: {path}: {reason}")
    plans = (*stacks, *picture_plans(pictures, asked, config, num_ranks))
    return ManyPlan(asked, plans, len(sound), broken, found, before)


def check_name(output: Path) -> None:
    """OutputError where a file is meant, or is there."""
    is_meant = has_suffix(output.name, (*OTHER_KINDS, *HDF5_SUFFIXES))
    # os.path answers no for names that are too long, which Path raises for
    if (is_meant or os.path.exists(output)) and not os.path.isdir(output):
        raise OutputError(f"{output}: expected a folder, as there are many inputs or pictures, got "
                          "a file; use --output FOLDER")


def default_folder(inputs: Sequence[str], scale: int) -> Path:
    """photos/ -> photos_x2, a.png -> a_x2, in the current folder; ConfigError for several."""
    if len(inputs) > 1:
        raise ConfigError(f"--output: expected a folder for {len(inputs)} inputs, got none; "
                          "give --output FOLDER")
    path = Path(os.path.abspath(inputs[0]))
    return Path(f"{path.name if path.is_dir() else path.stem}_x{scale}")


def stack_plans(stacks: Sequence[tuple[str, str]], asked: SampleRequest, given: GivenSettings,
                num_ranks: int, broken: dict[str, str]
                ) -> tuple[list[SamplingPlan], tuple[SamplingPlan, ...]]:
    """(plans for HDF5 files, those whose output is there from this command). Validated; stacks as
    in `Found`; those that cannot be read are added to `broken`."""
    plans, before, outputs = [], [], {}
    scale = resolved(asked, given).model.scale
    for address, name in stacks:
        output = output_of(asked.output, address, name, scale)
        if output in outputs:
            raise OutputError(f"{outputs[output]} and {address} would both be written to {output}; "
                              "use two commands with two --output folders")
        outputs[output] = address
        request = replace(asked, stack=address, output=output,
                          overwrite=asked.overwrite or output.exists())
        try:
            made = plan(*validated(request, given), num_ranks)
        except StackError as error:
            broken[address] = str(error).removeprefix(f"{address}: ")
            continue
        if output.exists() and not asked.overwrite:
            if was_made(made):
                before.append(replace(made, request=replace(made.request, overwrite=False)))
                continue
            check_destination(replace(made.request, overwrite=False))
        plans.append(replace(made, request=replace(made.request, overwrite=asked.overwrite)))
    return plans, tuple(before)


def output_of(folder: Path, address: str, name: str, scale: int) -> Path:
    """What is written for an HDF5 file with that name below its input folder."""
    return folder / Path(name).with_name(default_output(address, scale).name)


def was_made(made: SamplingPlan) -> bool:
    """Whether the output is there, made by this plan from its input as it is now."""
    output, request = made.request.output, made.request
    try:
        with Stack.open(str(output)) as stack:
            process = read_process(stack)
        newer = output.stat().st_mtime >= Path(request.stack.partition("::")[0]).stat().st_mtime
    except (StackError, OSError):
        return False
    wanted = {"input": made.stack.address, "configuration": dump_yaml(made.config),
              "checkpoint_sha256": file_sha256(request.checkpoint), "ensemble": request.ensemble,
              "frames": request.view.frames, "trust": trusted(request).get("trust")}
    return newer and all(process.get(name) == value for name, value in wanted.items())


def picture_plans(pictures: PictureSet, asked: SampleRequest, config: Config,
                  num_ranks: int) -> list[SamplingPlan]:
    """A plan for each size and kind of pictures. Validated."""
    if not pictures.pictures:
        return []
    check_possible(asked, config)
    asked = replace(asked, no_data=config.data.no_data_values)
    settings = folder_settings(asked, config, file_sha256(asked.checkpoint))
    check_folder(asked.output, pictures, settings, asked.overwrite)
    plans = []
    for group in pictures.groups():
        request = replace(asked, stack=pictures.name, pictures=PictureJob(group, settings))
        check_fit(request, config)
        plans.append(plan(request, config, num_ranks))
    return plans


def check_possible(asked: SampleRequest, config: Config) -> None:
    """ConfigError for what makes sense in HDF5 only."""
    problem = None
    if asked.ensemble > 1:
        problem = f"--ensemble: expected 1 for pictures, got {asked.ensemble}"
    elif asked.trust is not None:
        problem = f"--trust: expected HDF5 stacks, got pictures; leave out {asked.trust.risk:g}"
    elif asked.shard is not None:
        problem = f"--shard: expected one HDF5 stack, got pictures; name some for {asked.shard}"
    elif asked.view.frames is not None:
        problem = f"--frames: expected HDF5 stacks, got pictures; leave out {asked.view.frames}"
    elif config.output.backend != "gather":
        problem = f"output.backend: expected gather for pictures, got {config.output.backend}"
    elif config.output.regression:
        problem = "output.regression: expected false for pictures, got true"
    elif config.output.lr:
        problem = "output.lr: expected false for pictures, got true"
    elif config.output.members:
        problem = "output.members: expected false for pictures, got true"
    if problem is not None:
        raise ConfigError(f"{problem}; or put the pictures into an HDF5 stack")


def describe_many(made: ManyPlan, ranges: Sequence[str]) -> str:
    """What the runs will do: every plan with a line on its range, and what is left out."""
    kinds = [f"{describe(one)}\n{told}" for one, told in zip(made.plans, ranges, strict=True)]
    total = f"{made.num_pictures} pictures, " if made.num_pictures else ""
    return "\n\n".join([*kinds, "\n".join([f"{total}{len(made.plans)} runs into "
                                           f"{made.request.output}", *notes(made)])])


def notes(made: ManyPlan) -> list[str]:
    """Lines on what will not be made."""
    lines = [f"{path}: cannot be read ({reason})" for path, reason in made.broken.items()]
    if made.found.others:
        lines.append("left out, since they are neither PNG, JPEG, WebP, TIFF nor HDF5: "
                     f"{named(made.found.others)}")
    if made.found.results:
        lines.append("left out, since swinmpi-sample made them (name them to use them): "
                     f"{named(made.found.results)}")
    return lines + [f"{one.request.output}: was made by this command before" for one in made.before]


def run_many(made: ManyPlan, world: World, stop: StopFlag) -> tuple[RunReport, list[str]]:
    """Carry out all plans. Collective; (this rank's report, on rank 0 what could not be made)."""
    from swinmpi.sampling.sample import load_model, run
    folder, has_pictures = made.request.output, bool(made.num_pictures)
    world.on_root(lambda: begin(made))
    reports, family = [], None
    for one in made.plans:
        family = family or load_model(one)
        reports.append(named_fully(run(one, world, stop, family), one))
    if has_pictures:
        world.on_root(lambda: end_run(folder))
    failed = [reason for report in reports for _, reason in sorted(report.failed.items())]
    failed += [f"{path}: cannot be read ({reason})" for path, reason in made.broken.items()]
    return summed(reports), failed


def begin(made: ManyPlan) -> None:
    """Say what is left out, and make room. On one process."""
    for line in notes(made):
        print(f"swinmpi: {line}", file=sys.stderr, flush=True)
    for one in made.before:
        clear(one)
    if made.num_pictures and made.request.overwrite:
        begin_afresh(made.request.output)


def clear(made: SamplingPlan) -> None:
    """Remove the OUT.partial of a run that was killed when its output was in place; that of another
    run stays."""
    from swinmpi.sampling.results import rehearse
    partial = beside(made.request.output, ".partial")
    if not partial.exists():
        return
    with suppress(OutputError):
        rehearse(made)
        with open_locked(partial) or nullcontext():
            tell(remove(partial) or f"{partial}: was left by a kill, is removed")


def named_fully(report: RunReport, made: SamplingPlan) -> RunReport:
    """The report with images of a stack named after its output: there may be others."""
    if made.request.pictures is not None:
        return report
    return replace(report, figures={f"{made.request.output.name}: {name}": figures
                                    for name, figures in report.figures.items()})


def spared_of(reports: Sequence[RunReport]) -> float | None:
    """Of all runs, weighed by their images."""
    spared = [(report.spared, report.num_images) for report in reports
              if report.spared is not None and report.num_images]
    total = sum(images for _, images in spared)
    return sum(share * images for share, images in spared) / total if spared else None


def summed(reports: Sequence[RunReport]) -> RunReport:
    """All runs as one."""
    seconds = sum(report.seconds for report in reports)
    names = reports[0].share if reports else ()
    share = {name: sum(report.share[name] * report.seconds for report in reports) / seconds
             for name in names}
    figures = {name: own for report in reports for name, own in report.figures.items()}
    return RunReport(sum(report.num_images for report in reports), seconds, share,
                     figures=figures, spared=spared_of(reports))
