"""What every command shares: common options, configuration from them, and errors turned
into exit codes."""
import argparse
import io
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout

from swinmpi import __version__
from swinmpi.config import PRESETS, Config, load_config
from swinmpi.errors import SwinmpiError
from swinmpi.interruption import Interruptible, uninterrupted
from swinmpi.parallel.launch import launched_by_torchrun, launcher_rank, launcher_size


def make_parser(command: str, purpose: str, example: str,
                presets: bool = False) -> argparse.ArgumentParser:
    """A parser with --config, --set, --dry-run, --version (and --preset); `example` closes
    the --help text."""
    parser = bare_parser(command, purpose, example)
    parser.add_argument("--config", action="append", default=[], metavar="FILE",
                        help="YAML configuration (repeatable)")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE",
                        dest="overrides", help="override one setting (repeatable)")
    if presets:
        parser.add_argument("--preset", choices=sorted(PRESETS),
                            help="dial between fidelity and detail")
    parser.add_argument("--dry-run", action="store_true",
                        help="validate everything, print the plan, do nothing")
    return parser


def bare_parser(command: str, purpose: str, example: str) -> argparse.ArgumentParser:
    """A parser with --version only, for a command without configuration."""
    parser = argparse.ArgumentParser(prog=f"swinmpi-{command}", description=purpose,
                                     epilog=f"example:\n  {example}",
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", action="version", version=f"swinmpi {__version__}")
    return parser


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse; under a launcher only its first process says what is wrong or helps, all end alike."""
    argv = joined(sys.argv[1:] if argv is None else argv)
    if launcher_rank():
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
            return parser.parse_args(argv)
    return parser.parse_args(argv)


def joined(argv: Sequence[str]) -> list[str]:
    """`--frames -3:` as `--frames=-3:`, which argparse would take for another option."""
    made: list[str] = []
    for word in argv:
        if made and made[-1] == "--frames" and re.match(r"-\d", word):
            made[-1] += f"={word}"
        else:
            made.append(word)
    return made


def config_from(options: argparse.Namespace, base: dict | None = None) -> Config:
    """The resolved configuration of a parsed command line."""
    return load_config(options.config, options.overrides, preset=getattr(options, "preset", None),
                       base=base)


def run_command(action: Callable[[Sequence[str] | None], int | None],
                argv: Sequence[str] | None = None) -> int:
    """Call `action`; an expected error becomes one line on stderr and its exit code."""
    open_streams()
    try:
        with Interruptible(), warnings_in_one_line():
            return action(argv) or 0
    except SwinmpiError as error:
        if not getattr(error, "echo", False):
            print(f"swinmpi: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    except BrokenPipeError:
        return 1
    except KeyboardInterrupt as error:
        print(f"swinmpi: {str(error) or 'interrupted'}", file=sys.stderr, flush=True)
        return getattr(error, "exit_code", 128 + signal.SIGINT)


def open_streams() -> None:
    """Standard streams that are closed lead nowhere from now on, else the next file that is opened
    would take their place; names that are not UTF-8 can be printed."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - as long as the process
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is getattr(sys, f"__{name}__") and stream is not None:
            stream.flush()
            unfailing = io.BufferedWriter(Unfailing(stream.fileno(), "w", closefd=False))
            stream = io.TextIOWrapper(unfailing, stream.encoding, line_buffering=True)
            setattr(sys, name, stream)
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


class Unfailing(io.FileIO):
    """A log or a terminal. It may be on a full disk, or gone: no reason to lose a run. Only nobody
    reading a pipe any more ends it, as everywhere."""

    @uninterrupted
    def write(self, data) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError:
            return len(data)


@contextmanager
def warnings_in_one_line() -> Iterator[None]:
    """Warnings inside are one plain line each, printed once and by the first process."""
    printed: set[str] = set()

    def show(message, *_) -> None:
        said = " ".join(str(message).split())
        if said not in printed:
            printed.add(said)
            print(f"swinmpi: {said}", file=sys.stderr, flush=True)

    with warnings.catch_warnings():
        warnings.simplefilter("always" if speaks_for_all() else "ignore")
        for of_developers in (DeprecationWarning, PendingDeprecationWarning, ImportWarning,
                              ResourceWarning):
            warnings.simplefilter("ignore", of_developers)
        warnings.showwarning = show
        yield


def works_alone(command: str) -> bool:
    """Whether this process does the work of a command that needs only one: the first of those that
    were started together, which says so."""
    first = speaks_for_all()
    started = int(os.environ["WORLD_SIZE"]) if launched_by_torchrun() else launcher_size() or 1
    if first and started > 1:
        print(f"swinmpi: swinmpi-{command} needs one process: rank 0 does it, "
              f"the other {started - 1} have nothing to do", file=sys.stderr, flush=True)
    return first


def speaks_for_all() -> bool:
    """Whether this is the first of the processes that were started together."""
    return os.environ["RANK"] == "0" if launched_by_torchrun() else not launcher_rank()
