"""swinmpi-merge: the shards of one run -> one stack, the same as if one job had made it."""
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from swinmpi.cli.options import bare_parser, parse, run_command, works_alone
from swinmpi.errors import SomeImagesFailed


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(run, argv)


def run(argv: Sequence[str] | None) -> None:
    options = parse(parser(), argv)
    if not works_alone("merge"):
        return
    from swinmpi.reports.tables import listed
    from swinmpi.sampling import merge
    plan = merge.plan(options.shards, options.output, options.virtual, options.overwrite)
    if options.dry_run:
        from swinmpi.sampling.looks.merged import describe_merged
        picture = describe_merged(plan, options.output, options.overwrite)
        print("\n".join([merge.describe(plan), *picture]))
        return
    merge.run(plan)
    # Imported here, as torch comes along: without it an error is told within a second.
    from swinmpi.sampling.looks.merged import draw_merged
    written = [options.output, *draw_merged(plan, options.output, options.overwrite)]
    print(f"written: {', '.join(map(str, written))}", flush=True)
    if plan.failed:
        raise SomeImagesFailed(f"{options.output}: written, "
                               f"but images {listed(plan.failed)} could not be read")


def parser() -> ArgumentParser:
    made = bare_parser("merge", "Put the files of swinmpi-sample --shard together. "
                       "The images' bytes are those of one run.", "swinmpi-merge "
                       "scan_x2.shard-1-of-2.h5 scan_x2.shard-2-of-2.h5 --output scan_x2.h5")
    made.add_argument("shards", nargs="+", type=Path, metavar="SHARD",
                      help="all shards of one run, in any order")
    made.add_argument("--output", required=True, type=Path, metavar="OUT",
                      help="HDF5 file to write")
    made.add_argument("--virtual", action="store_true", help="refer to the images in the shards, "
                      "which must stay where they are, instead of copying them; "
                      "commands of swinmpi read such a file only with --allow-external")
    made.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    made.add_argument("--dry-run", action="store_true",
                      help="validate everything, print the plan, do nothing")
    return made


if __name__ == "__main__":
    sys.exit(main())
