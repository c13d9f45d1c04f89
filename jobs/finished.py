"""Whether the work of a job is finished, by its files, not by an exit code: argv is sample|train|evaluate and its arguments.

Exit 0: finished by this job; 1: not, and a line on stderr tells why. A launcher may return 0 although it lost a node, and an
older file may lie where the output belongs.
"""
import os
import sys
from argparse import Namespace
from pathlib import Path

from swinmpi.cli import evaluate, sample, train


def main(command: str, arguments: list[str]) -> str | None:
    """What is missing; None when nothing is."""
    options = {"sample": sample, "evaluate": evaluate, "train": train}[command].parser().parse_args(arguments)
    if options.dry_run:
        return None
    return {"sample": missing_sample, "evaluate": missing_evaluation, "train": missing_training}[command](options)


def missing_sample(options: Namespace) -> str | None:
    from swinmpi.pipelines.request import shard_path
    from swinmpi.pipelines.settings import resolve_config
    from swinmpi.storage.header import read_header
    request = sample.request_of(options)
    output = request.output
    if options.input is not None and options.output is None:
        header = read_header(request.checkpoint)
        config = resolve_config(header, request.checkpoint, options.config, options.overrides, options.preset)
        output = sample.default_output(options.input, config.model.scale)
    return missing_stack(output if request.shard is None else shard_path(output, request.shard))


def missing_stack(output: Path) -> str | None:
    """An output gets its name when it is complete, and tells which job made it."""
    import h5py
    try:
        with h5py.File(output) as file:
            maker = file["entry/process/job_id"].asstr()[()]
    except (OSError, KeyError) as error:
        return f"{output}: not a finished output ({error})"
    job = os.environ.get("SLURM_JOB_ID")
    return None if maker == job else f"{output}: made by job {maker}, not by this one"


def missing_evaluation(options: Namespace) -> str | None:
    report, sr = options.output / "evaluate.json", options.output / "sr.h5"
    if options.checkpoint is not None:
        missing = missing_stack(sr)
        if missing:
            return missing
    if not report.exists() or options.checkpoint is not None and report.stat().st_mtime < sr.stat().st_mtime:
        return f"{report}: not written"
    return None


def missing_training(options: Namespace) -> str | None:
    from swinmpi.storage.checkpoint import CheckpointFolder
    settings = train.configured(options).train
    newest = CheckpointFolder(Path(settings.output), settings.keep_last).latest()
    if newest is None or newest.name != f"update-{settings.updates:08d}":
        reached = "no checkpoint" if newest is None else newest.name
        return f"{settings.output}: expected {settings.updates} updates, found {reached}"
    return None


if __name__ == "__main__":
    told = main(sys.argv[1], sys.argv[2:])
    sys.exit(told and f"finished.py: {told}")
