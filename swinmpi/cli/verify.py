"""swinmpi-verify: make some images of an output again, from what it says of its making, and compare
the bytes."""
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from swinmpi.cli.options import bare_parser, parse, run_command
from swinmpi.parallel.comm import World
from swinmpi.parallel.launch import StopFlag, launcher_rank, launcher_size, start_mpi


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(verify_command, argv)


def verify_command(argv: Sequence[str] | None) -> None:
    options = parse(parser(), argv)
    if not options.dry_run:
        with start_mpi() as world, StopFlag() as stop:
            verify_on(world, stop, options)
    elif not launcher_rank():
        # Imported here: torch takes seconds to import; --help must not.
        from swinmpi.sampling.verifying.verify import describe, plan
        print(describe(plan(asked_of(options), launcher_size() or 1)))


def parser() -> ArgumentParser:
    made = bare_parser("verify", "Make some images of an output of swinmpi-sample again, from the "
                       "settings, input and checkpoint that it names, and compare the bytes. Exit "
                       "code 1: other ones; 2: cannot be compared.",
                       "swinmpi-verify scan_x2.h5\n  "
                       "mpirun -n 4 swinmpi-verify scan_x2.h5 --input moved/scan.h5 --images 10")
    made.add_argument("output", type=Path, metavar="OUT",
                      help="HDF5 file, or folder of pictures, of swinmpi-sample")
    made.add_argument("--input", action="append", default=[], metavar="INPUT",
                      help="what it was made of, where that was moved (of pictures repeatable)")
    made.add_argument("--checkpoint", type=Path, metavar="FILE",
                      help="what it was made with, where that was moved")
    which = made.add_mutually_exclusive_group()
    which.add_argument("--images", type=int, default=3, metavar="N",
                       help="how many: the first, the last, others drawn (default: 3)")
    which.add_argument("--frames", metavar="LIST",
                       help="these images of OUT, such as 4: or 0,10,-1")
    made.add_argument("--allow-external", action="store_true",
                      help="follow links into other HDF5 files, of a virtual OUT as well")
    made.add_argument("--dry-run", action="store_true",
                      help="validate everything, print the plan, do nothing")
    return made


def asked_of(options: Namespace):
    """What the command line asks for, not validated."""
    from swinmpi.sampling.verifying.recorded import Asked
    return Asked(options.output, tuple(options.input), options.checkpoint, options.images,
                 options.frames, options.allow_external)


def verify_on(world: World, stop: StopFlag, options: Namespace) -> None:
    """Validate on rank 0, make images on all ranks, print on rank 0. Collective."""
    from swinmpi.sampling.verifying.verify import check, plan, run
    made = world.on_root(lambda: plan(asked_of(options), world.size))
    verdicts = run(made, world, stop)

    def conclude() -> None:
        print("\n".join(map(str, verdicts)), flush=True)
        check(made, verdicts)

    world.on_root(conclude)


if __name__ == "__main__":
    sys.exit(main())
