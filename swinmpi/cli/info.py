"""swinmpi-info: what swinmpi finds on this machine and, under a launcher, where every rank runs; or
how an output was made."""
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from swinmpi.cli.options import bare_parser, parse, run_command, speaks_for_all, works_alone
from swinmpi.errors import ConfigError, LaunchError
from swinmpi.parallel.launch import start_mpi


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(run, argv)


def run(argv: Sequence[str] | None) -> None:
    options = parse(parser(), argv)
    if options.output is not None or options.crate:
        if works_alone("info"):
            show_output(options)
        return
    try:
        world = start_mpi()
    except LaunchError:
        # Every process takes as long: a launcher may end the first as soon as another has given up.
        show(options, (), is_first=speaks_for_all())
        raise
    with world:
        from swinmpi.parallel.inquiry import gather_places
        places = gather_places(world)
        world.on_root(lambda: show(options, places))


def parser() -> ArgumentParser:
    made = bare_parser("info", "Versions, MPI, HDF5, GPUs, launcher and job; under a launcher a "
                       "line for every rank. With OUT how swinmpi-sample made it.",
                       "swinmpi-info\n  mpirun -n 4 swinmpi-info --json\n  "
                       "swinmpi-info scan_x2.h5 --crate")
    made.add_argument("output", nargs="?", type=Path, metavar="OUT",
                      help="HDF5 file, or folder of pictures, of swinmpi-sample")
    made.add_argument("--json", action="store_true", help="the same for programs")
    made.add_argument("--crate", action="store_true",
                      help="describe OUT for other programs in ro-crate-metadata.json (RO-Crate "
                      "1.1) beside it, which is made or added to")
    return made


def show_output(options: Namespace) -> None:
    """How an output was made. On one process; ConfigError, StackError, OutputError."""
    if options.output is None:
        raise ConfigError("--crate: expected the output to describe, got none; name it as OUT")
    from swinmpi.reports.making import as_json, as_text, read_making
    making = read_making(options.output)
    if options.crate:
        from swinmpi.reports.crate import write_crate
        print(f"written: {write_crate(making)}", flush=True)
    else:
        print(as_json(making) if options.json else as_text(making), flush=True)


def show(options: Namespace, places: Sequence, is_first: bool = True) -> None:
    from swinmpi.reports.info import as_json, as_text, gather_info
    info = gather_info(places)
    if is_first:
        print(as_json(info) if options.json else as_text(info), flush=True)


if __name__ == "__main__":
    sys.exit(main())
