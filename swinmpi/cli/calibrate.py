"""swinmpi-calibrate: make the spread of a model's ensembles an error bar, with images that it was
not trained on."""
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from swinmpi.cli.options import make_parser, parse, run_command
from swinmpi.config import PRESETS
from swinmpi.parallel.comm import World
from swinmpi.parallel.launch import StopFlag, launcher_rank, start_mpi

# A regression has no spread.
NAMES = (*sorted(PRESETS.keys() - {"regression"}), "default")


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(calibrate_command, argv)


def calibrate_command(argv: Sequence[str] | None) -> None:
    options = parse(parser(), argv)
    if not options.dry_run:
        with start_mpi() as world, StopFlag() as stop:
            calibrate_on(world, stop, options)
    elif not launcher_rank():
        # Imported here: torch takes seconds to import; --help must not.
        from swinmpi.training.error_bars import describe, plan
        print(describe(plan(request_of(options))))


def parser() -> ArgumentParser:
    made = make_parser("calibrate", "Learn how the spread of an ensemble becomes an error bar, for "
                       "every preset, and write it into a copy of the checkpoint.",
                       "mpirun -n 4 swinmpi-calibrate runs/mine/best.safetensors --pairs pairs.h5")
    made.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="weights to calibrate")
    made.add_argument("--pairs", required=True, metavar="FILE",
                      help="HDF5 file of swinmpi-prepare")
    made.add_argument("--split", choices=("validate", "test"), default="validate",
                      help="images to learn from (default: validate)")
    made.add_argument("--output", type=Path, metavar="OUT",
                      help="checkpoint to write (default: CHECKPOINT's name with -calibrated)")
    made.add_argument("--ensemble", type=int, default=8, metavar="K",
                      help="samples of every image (default: 8)")
    made.add_argument("--preset", action="append", choices=NAMES, dest="presets",
                      help="learn for this one (repeatable; default: all, and the checkpoint's own "
                      "settings where they are others)")
    made.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    return made


def request_of(options: Namespace):
    """What the command line asks for, not validated."""
    from swinmpi.sampling.validation import GivenSettings
    from swinmpi.training.error_bars import Request
    source = options.checkpoint
    output = options.output or source.with_name(f"{source.stem}-calibrated.safetensors")
    presets = tuple(dict.fromkeys(options.presets or NAMES))
    return Request(source, options.pairs, output, options.ensemble, presets, options.split,
                   GivenSettings(options.config, options.overrides), options.overwrite)


def calibrate_on(world: World, stop: StopFlag, options: Namespace) -> None:
    """Validate on rank 0, sample on all ranks, learn and print on rank 0. Collective."""
    from swinmpi.training.error_bars import as_text, describe, plan, run
    made = world.on_root(lambda: plan(request_of(options)))
    world.on_root(lambda: print(describe(made), flush=True))
    entries = run(made, world, stop)
    world.on_root(lambda: print(f"{as_text(entries)}\nwritten: {made.request.output}", flush=True))


if __name__ == "__main__":
    sys.exit(main())
