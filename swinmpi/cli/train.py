"""swinmpi-train: train a model on pairs from swinmpi-prepare, started by mpirun, srun,
torchrun or alone."""
import os
import shlex
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from pathlib import Path

from swinmpi.cli.options import (
    config_from,
    make_parser,
    parse,
    processes_started,
    run_command,
    speaks_for_all,
    works_alone,
)
from swinmpi.config import Config
from swinmpi.errors import ConfigError, SwinmpiError
from swinmpi.parallel.comm import World
from swinmpi.parallel.launch import (
    StopFlag,
    init_torch_distributed,
    launched_by_torchrun,
    launcher_size,
    start_mpi,
)


def main(argv: Sequence[str] | None = None) -> int:
    code = run_command(run, argv)
    if code == 0 and (launched_by_torchrun() or launcher_size()):
        leave()
    return code


def run(argv: Sequence[str] | None) -> None:
    options = parse(parser(), argv)
    if options.convert is not None or options.output is not None:
        if works_alone("train --convert"):
            convert(options)
        return
    if options.dry_run:
        if speaks_for_all():
            show_plan(configured(options), options.resume)
        return
    # The signals of a job's end may come while torch is still being imported.
    with StopFlag() as stop, start_mpi(allow_torchrun=True) as world:
        try:
            # What was not given stays so: the pairs decide it.
            config = Config.model_validate(
                world.on_root(lambda: configured(options).model_dump(exclude_unset=True)))
        except SwinmpiError as error:
            if launched_by_torchrun():
                error.echo = not speaks_for_all()
            raise
        train_on(world, config, options.resume, lambda: stop.is_set)


def leave() -> None:
    """End this process with 0, without the destructors of its libraries: with torch 2.14
    a finished run under torchrun was seen to abort there, rarely, for a reason not found.
    Everything is written and MPI is finalised by now. Does not return.

    Not with another code: MPICH tells its launcher at the very end of a process that all is well,
    and a launcher that has not heard it takes any other code for a failure, kills the ranks that
    are not gone yet, and returns 9."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def parser() -> ArgumentParser:
    made = make_parser(
        "train", "Train a model on pairs from swinmpi-prepare.",
        "mpirun -n 2 swinmpi-train --config configs/train/photos_x2.yaml --set train.data=pairs.h5")
    made.add_argument("--resume", action="store_true",
                      help="go on from the newest checkpoint in train.output, if any")
    made.add_argument("--convert", type=Path, metavar="FILE",
                      help="train nothing: make a checkpoint of the published code's weights, a "
                      "state dict with its names, for the model of --config")
    made.add_argument("--output", type=Path, metavar="FILE",
                      help="with --convert: the checkpoint to write (.safetensors)")
    made.add_argument("--overwrite", action="store_true",
                      help="with --convert: replace FILE if it exists")
    return made


def configured(options: Namespace) -> Config:
    config = config_from(options)
    if config.train.data is None:
        raise ConfigError("train.data: expected the HDF5 file of swinmpi-prepare, got nothing; "
                          "add --set train.data=FILE")
    if config.train.init is None and config.train.teacher is None:
        return config
    from swinmpi.training.origin import settings_beneath
    return config_from(options, settings_beneath(config, options.resume))


def convert(options: Namespace) -> None:
    """Weights of the published code to a checkpoint. On one process."""
    if options.convert is None or options.output is None:
        raise ConfigError("--convert: expected --convert FILE and --output FILE together, "
                          "got one of them")
    config = config_from(options)
    from swinmpi.training.convert import describe, plan, run
    made = plan(config, options.convert, options.output, options.overwrite)
    print(describe(made), flush=True)
    if not options.dry_run:
        run(made)
        print(f"written: {options.output}", flush=True)


def train_on(world: World, config: Config, resume: bool,
             stop_requested: Callable[[], bool]) -> None:
    """Connect torch.distributed and train. Collective."""
    import torch

    from swinmpi.parallel.device import start_computing
    from swinmpi.parallel.worker import Worker, leave_torch_distributed
    from swinmpi.training.log import CURVES
    from swinmpi.training.plan import plan
    from swinmpi.training.train import run
    device = torch.device(start_computing(config.parallel.device, config.parallel.threads,
                                          world.node))
    alone = world.size == 1 and not launched_by_torchrun()
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    rank, size = (0, 1) if alone else init_torch_distributed(backend, world)
    worker = Worker(rank, size, device)
    worker.check_gpus()
    folder = run(worker.on_root(plan, config, size, resume), worker, stop_requested)
    if rank == 0:
        curves = ", log and curves" if (folder / CURVES).exists() else " and log"
        best = folder / "best.safetensors"
        if config.train.makes_diffuser and best.exists():
            if config.train.distils:
                print("students: " + ", ".join(f"{folder}/steps-{steps}.safetensors"
                                               for steps in config.train.student_steps))
            command = shlex.join(["swinmpi-calibrate", str(best), "--pairs", config.train.data])
            print(f"error bars for ensembles: {command}")
        print(f"trained {config.train.updates} updates; checkpoints{curves} in {folder}",
              flush=True)
    if not alone:
        # Only here: ranks that leave by an error do not wait for each other.
        leave_torch_distributed()


def show_plan(config: Config, resume: bool) -> None:
    """Validate everything, print what a run would do."""
    from swinmpi.training.plan import describe, plan
    print(describe(plan(config, processes_started(), resume)))


if __name__ == "__main__":
    sys.exit(main())
