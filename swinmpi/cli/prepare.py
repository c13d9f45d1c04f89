"""swinmpi-prepare: photographs or an HR stack -> one HDF5 file of training pairs."""
import signal
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from pathlib import Path

from swinmpi.cli.options import config_from, make_parser, parse, run_command
from swinmpi.errors import SomeImagesFailed


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(prepare_command, argv)


def parser() -> ArgumentParser:
    made = make_parser("prepare", __doc__.partition(": ")[2], "swinmpi-prepare photos/ --output "
                       "pairs.h5 --set data.scale=2 --set data.crops_per_image=50")
    made.add_argument("inputs", nargs="+", metavar="INPUT",
                      help="folder of images (PNG, JPEG, TIFF, WebP) or of HDF5 files, a picture, "
                      "HDF5 stack as file.h5::/path, or list .tsv with the columns path, reduce, "
                      "split")
    made.add_argument("--output", required=True, type=Path, metavar="FILE",
                      help="HDF5 file to write")
    made.add_argument("--root", type=Path, metavar="DIR",
                      help="where the paths of a list start (its own folder)")
    lr = made.add_mutually_exclusive_group()
    lr.add_argument("--lr", metavar="INPUT",
                    help="your own LR images: a folder with the names of the HR images, or an HDF5 "
                    "stack in their order")
    lr.add_argument("--lr-only", action="store_true",
                    help="write a stack of whole LR images, to test with")
    made.add_argument("--overwrite", action="store_true", help="replace FILE if it exists")
    return made


def prepare_command(argv: Sequence[str] | None) -> None:
    options = parse(parser(), argv)
    config = config_from(options).data

    # Imported here: torch takes seconds to import; --help must not.
    from swinmpi.training.prepare import PrepareRequest, describe, plan, run
    request = PrepareRequest(tuple(options.inputs), options.output, options.root,
                             options.overwrite, options.lr, options.lr_only)
    made = plan(request, config)
    if options.dry_run:
        print(describe(made))
        return
    summary = run(made, stopping=catch_signals())
    print(f"{options.output}: " + (
        f"{summary.num_train} LR images" if options.lr_only else
        f"{summary.num_train} pairs to train, {summary.num_validate} to validate"))
    if summary.failed:
        raise SomeImagesFailed(f"{len(summary.failed)} images skipped: {'; '.join(summary.failed)}")


def catch_signals() -> Callable[[], bool]:
    """Whether TERM or Ctrl-C came; a second one ends the process at once.

    A flag, because an exception out of a signal handler is lost when it lands in a destructor.
    """
    came = []

    def note(number, _frame):
        came.append(number)
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, note)
    return lambda: bool(came)
