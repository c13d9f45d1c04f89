"""swinmpi-info: what swinmpi finds on this machine and, under a launcher, where every rank runs."""
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from swinmpi.cli.options import bare_parser, parse, run_command, speaks_for_all
from swinmpi.errors import LaunchError
from swinmpi.parallel.launch import start_mpi


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(run, argv)


def run(argv: Sequence[str] | None) -> None:
    options = parse(parser(), argv)
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
                       "line for every rank.", "swinmpi-info\n  mpirun -n 4 swinmpi-info --json")
    made.add_argument("--json", action="store_true", help="the same for programs")
    return made


def show(options: Namespace, places: Sequence, is_first: bool = True) -> None:
    from swinmpi.reports.info import as_json, as_text, gather_info
    info = gather_info(places)
    if is_first:
        print(as_json(info) if options.json else as_text(info), flush=True)


if __name__ == "__main__":
    sys.exit(main())
