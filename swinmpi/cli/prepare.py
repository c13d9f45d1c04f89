"""swinmpi-prepare: photographs or an HR stack -> one HDF5 file of training pairs."""
import sys
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Sequence
from pathlib import Path

from swinmpi.cli.options import (
    config_from,
    make_parser,
    parse,
    processes_started,
    run_command,
    works_alone,
)
from swinmpi.errors import ConfigError, SomeImagesFailed
from swinmpi.parallel.launch import allowed_cpus, cores_of

MOST_WORKERS = 1024


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(prepare_command, argv)


def parser() -> ArgumentParser:
    made = make_parser("prepare", __doc__.partition(": ")[2], "swinmpi-prepare photos/ --output "
                       "pairs.h5 --set data.scale=2 --set data.crops_per_image=50")
    made.add_argument("inputs", nargs="+", metavar="INPUT",
                      help="folder of images (PNG, JPEG, TIFF, WebP) or of HDF5 files, a picture, "
                      "HDF5 stack as file.h5::/path, or list of files: .tsv with the columns path, "
                      "reduce, split (train, validate, test), or .txt with a path in each line; "
                      "CelebA's folder with its partition list")
    made.add_argument("--output", required=True, type=Path, metavar="FILE",
                      help="HDF5 file to write")
    made.add_argument("--root", type=Path, metavar="DIR",
                      help="where the paths of a list start (its own folder)")
    made.add_argument("--frames", metavar="LIST",
                      help="of an HDF5 stack only these images, such as 4: or 0,10,-1")
    lr = made.add_mutually_exclusive_group()
    lr.add_argument("--lr", metavar="INPUT",
                    help="your own LR images: a folder with the names of the HR images, or, of one "
                    "file, an HDF5 stack or TIFF in their order")
    lr.add_argument("--lr-only", action="store_true",
                    help="write a stack of whole LR images, to test with")
    made.add_argument("--workers", type=workers, metavar="N",
                      help="processes that decode and cut, one image each at a time (as many as "
                      "cores may be used and memory has room for); any number gives the same bytes")
    made.add_argument("--overwrite", action="store_true", help="replace FILE if it exists")
    return made


def workers(text: str) -> int:
    """A number of processes."""
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MOST_WORKERS):
        raise ArgumentTypeError(f"expected a whole number from 1 to {MOST_WORKERS}, got {text!r}")
    return int(text)


def prepare_command(argv: Sequence[str] | None) -> None:
    options = parse(parser(), argv)
    if not works_alone("prepare"):
        return
    config = config_from(options).data
    if config.noise is not None or config.blur_px is not None:
        raise ConfigError("data.noise, data.blur_px: expected none, as swinmpi-train draws them "
                          "for every crop anew; give them to it, or data.read_noise and "
                          "data.psf_px to swinmpi-prepare")

    # Imported here: torch takes seconds to import; --help must not.
    from swinmpi.training.prepare import PrepareRequest, describe, plan, run
    request = PrepareRequest(tuple(options.inputs), options.output, options.root,
                             options.overwrite, options.frames, options.lr, options.lr_only,
                             options.workers, usable_cores())
    made = plan(request, config)
    if options.dry_run:
        print(describe(made))
        return
    summary = run(made)
    print(f"{options.output}: " + (
        f"{summary.num_train} LR images" if options.lr_only else
        f"{summary.num_train} pairs to train, {summary.num_validate} to validate"
        + (f", {summary.num_test} to test" if summary.num_test else "")))
    if summary.failed:
        raise SomeImagesFailed(f"{len(summary.failed)} images skipped: {'; '.join(summary.failed)}")


def usable_cores() -> int:
    """Of this process: under a launcher that started several one, as the others are of ranks."""
    return 1 if processes_started() > 1 else cores_of(allowed_cpus())


if __name__ == "__main__":
    sys.exit(main())
