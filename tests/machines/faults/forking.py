"""A process that has imported all commands and forks for each: a run takes a fraction of a second.

As a program it answers lines of JSON, [command, words, environment, file for stdout, for stderr],
with exit codes. A child ends as any Python program does.
"""
import faulthandler
import importlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
PATIENCE_S = 600
COMMANDS = ("sample", "merge", "prepare", "train")
# What they import late takes most of their time.
MODULES = ("swinmpi.sampling.sample", "swinmpi.sampling.many", "swinmpi.training.prepare",
           "swinmpi.training.train", "swinmpi.images.tiff", "swinmpi.images.plots",
           "torch._dynamo", "matplotlib.figure", "matplotlib.backends.backend_agg",
           *(f"swinmpi.cli.{command}" for command in COMMANDS))


class Forks:
    """The process seen from outside; a context manager. library: is loaded into it before all
    others."""

    def __init__(self, library: Path):
        environ = os.environ | {"PYTHONPATH": str(ROOT), "LD_PRELOAD": str(library),
                                "MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True, env=environ)

    def run(self, command: str, words: list[str], environ: dict[str, str],
            said: Path) -> tuple[int, str]:
        """(exit code, negative for a signal; what it wrote to stderr). said: a file for that."""
        asked = [command, words, environ, os.devnull, str(said)]
        print(json.dumps(asked), file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline()), said.read_text(errors="replace")

    def __enter__(self) -> "Forks":
        return self

    def __exit__(self, *_) -> None:
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def serve() -> int:
    """Answer until there is no more to do; in a child, do the one thing."""
    for name in MODULES:
        importlib.import_module(name)
    for line in sys.stdin:
        command, words, environ, *places = json.loads(line)
        pid = os.fork()
        if not pid:
            signal.alarm(PATIENCE_S)
            for number, place in enumerate(places, start=1):
                os.dup2(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            faulthandler.dump_traceback_later(PATIENCE_S - 10, file=2)
            os.environ |= environ
            sys.argv = [f"swinmpi-{command}", *words]
            return sys.modules[f"swinmpi.cli.{command}"].main(words)
        status = os.waitpid(pid, 0)[1]
        print(json.dumps(os.waitstatus_to_exitcode(status)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(serve())
