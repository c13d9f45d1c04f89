"""Whether the work of a job is finished, by its files, not by an exit code: argv
is sample|train|evaluate|experiment and its arguments, or merged and a file.

Prints how many images, updates, or arms and updates of an experiment, are done. Exit 0: all, by
this job; 1: not, and a line on stderr tells why. A launcher may return 0 although it lost a node,
and an older file may lie where the output belongs.
"""
import os
import sys
from argparse import Namespace
from pathlib import Path

from swinmpi.cli import evaluate, experiment, sample, train


def main(command: str, arguments: list[str]) -> tuple[int, str | None]:
    """(images or updates done, what is missing); None when nothing is."""
    if command == "merged":
        return of_merging(Path(arguments[0]))
    options = {"sample": sample, "evaluate": evaluate, "experiment": experiment,
               "train": train}[command].parser().parse_args(arguments)
    if options.dry_run:
        return 0, None
    return {"sample": of_sampling, "evaluate": of_evaluation, "experiment": of_experiment,
            "train": of_training}[command](options)


def of_sampling(options: Namespace) -> tuple[int, str | None]:
    from swinmpi.sampling.many import default_folder
    from swinmpi.sampling.settings import resolve_config
    from swinmpi.sampling.validation import with_output
    from swinmpi.storage.header import read_header
    request, given = sample.request_of(options), sample.settings_given(options)
    header = read_header(request.checkpoint)
    config = resolve_config(header, request.checkpoint, given.files, given.overrides, given.preset)
    if sample.writes_folder(options):
        scale = config.model.scale
        return of_folder(options, request.output or default_folder(options.inputs, scale), scale)
    return of_stack(with_output(request, config).output)


def of_folder(options: Namespace, folder: Path, scale: int) -> tuple[int, str | None]:
    """Of pictures and of several stacks: those of HDF5 count by their files, pictures by the
    folder's journal, whose last line is written when nothing more can be made."""
    from swinmpi.sampling.many import output_of
    from swinmpi.storage.pictures.journal import read_memory
    from swinmpi.storage.pictures.listing import find_files
    found, memory = find_files(options.inputs, folder), read_memory(folder)
    outputs = {address: output_of(folder, address, name, scale) for address, name in found.stacks}
    done = len(memory.pictures) + len(memory.pages)
    done += sum(images_done(path) + images_done(path.with_name(f"{path.name}.partial"))
                for path in outputs.values())
    if found.pictures and not memory.is_over:
        return done, f"{folder}: not all pictures are there"
    for address, output in outputs.items():
        if not output.exists() and is_sound(address, options.allow_external):
            return done, f"{output}: is not there"
    return done, None


def is_sound(address: str, allow_external: bool) -> bool:
    """Whether an HDF5 stack can be read; what is written of one that cannot is nothing."""
    from swinmpi.errors import StackError
    from swinmpi.storage.probe import inspect_stacks
    try:
        inspect_stacks([address], allow_external)
    except StackError:
        return False
    return True


def of_evaluation(options: Namespace) -> tuple[int, str | None]:
    """Of its sampling; the report comes after it and takes a moment."""
    report, sr = options.output / "evaluate.json", options.output / "sr.h5"
    done, missing = of_stack(sr)
    if missing is None and not (report.exists() and report.stat().st_mtime >= sr.stat().st_mtime):
        missing = f"{report}: not written"
    return done, missing


def of_stack(output: Path) -> tuple[int, str | None]:
    """An output gets its name when it is complete, and tells which job made it: an OUT.partial
    beside it was only not removed any more."""
    partial = output.with_name(output.name + ".partial")
    maker = maker_of(output, "process/job_id")
    if maker is not None and maker == os.environ.get("SLURM_JOB_ID"):
        return images_done(output), None
    if partial.exists():
        return images_done(partial), f"{partial}: still there"
    return 0, (f"{output}: not there, or not the output of a job" if maker is None else
               f"{output}: made by job {maker}, not by this one")


def of_merging(output: Path) -> tuple[int, str | None]:
    """A merged output tells which array put it together."""
    maker = maker_of(output, "process/merge/array_job_id")
    if maker is not None and maker == os.environ.get("SLURM_ARRAY_JOB_ID"):
        return images_done(output), None
    return 0, f"{output}: not put together by this array"


def maker_of(output: Path, name: str) -> str | None:
    """The job that an output names; None where there is none, or a list of them."""
    try:
        return entry(output, name).decode()
    except (OSError, KeyError, AttributeError):
        return None


def images_done(path: Path) -> int:
    try:
        return int(entry(path, "per_image/done").sum())
    except (OSError, KeyError):
        return 0


def entry(path: Path, name: str):
    import h5py
    with h5py.File(path, locking=False) as file:
        return file["entry"][name][()]


def of_experiment(options: Namespace) -> tuple[int, str | None]:
    """Of the arms of this job: those with a result, and the updates of trainings on the way."""
    runs = experiment.plan_of(options, 1).mine
    folders = {one.folder for one in runs if one.folder is not None}
    made = sum(newest_update(folder) + newest_update(folder.with_name(f"{folder.name}-encoder"))
               for folder in folders)
    left = [one.name for one in runs if not one.result.exists()]
    return (made + len(runs) - len(left),
            f"{experiment.output_of(options)}: {len(left)} of {len(runs)} arms are not done"
            if left else None)


def newest_update(folder: Path) -> int:
    return max((int(state.name.removeprefix("update-")) for state in folder.glob("update-*")),
               default=0)


def of_training(options: Namespace) -> tuple[int, str | None]:
    settings = train.configured(options).train
    newest = newest_update(Path(settings.output))
    return (newest, None if newest >= settings.updates else f"{settings.output}: "
            f"{newest} of {settings.updates} updates")


if __name__ == "__main__":
    count, told = main(sys.argv[1], sys.argv[2:])
    print(count)
    sys.exit(told)
