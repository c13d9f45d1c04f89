"""Lets every file operation of a command fail, one after the other: python
tests/machines/faults/operations.py --commands sample,merge,prepare,train

A small library between the program and the system (interposer.c, compiled by cc) counts what
changes something below the folder of the output: opens, writes, fsyncs, renames, unlinks,
truncates. In every trial the n-th one kills the process, answers an error, once or from then on, or
a signal comes. Checked is that the command then ends with the right code and at most one line on
stderr, that no half of an output has the name of a whole one, and that the same command goes on and
ends with what an undisturbed one makes.
"""
import argparse
import errno
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT))
import h5py  # noqa: E402
import numpy as np  # noqa: E402
from safetensors import safe_open  # noqa: E402

from tests.support.programs import Finished, run_program  # noqa: E402
from tests.support.sampling import (  # noqa: E402
    arguments,
    smooth_stack,
    write_checkpoint,
    write_stack,
)
from tests.support.training import as_arguments, settings, write_pairs  # noqa: E402

DEEDS = {"kill": "kill", "int": f"signal {int(signal.SIGINT)}",
         "term": f"signal {int(signal.SIGTERM)}",
         **{f"{name.lower()}{more}": f"{word} {getattr(errno, name)}"
            for name in ("EIO", "ENOSPC", "EDQUOT")
            for more, word in (("", "error"), ("-for-ever", "errors"))}}
# A signal may come too late to matter; sample and train save and ask to be started again.
CODES = {"kill": {-9, 0}, "int": {130, 0}, "term": {143, 75, 0}}
COMMANDS = ("sample", "merge", "prepare", "train")
PATIENCE_S = 120
IGNORED = (".lock", "curves.png")


class Broken(AssertionError):
    """A promise that was not kept."""


@dataclass(frozen=True)
class Bench:
    """Inputs of all commands, and the compiled library. Made by `make_bench`."""

    folder: Path
    library: Path

    def command(self, name: str, output: Path) -> list[str]:
        """What to run; its outputs lie below `output`."""
        inside, small = self.folder, ["--set", "parallel.threads=1"]
        words = {
            "sample": lambda: arguments(inside / "in.h5", output / "out.h5",
                                        inside / "model.safetensors", "parallel.threads=1"),
            "merge": lambda: [*map(str, sorted(inside.glob("part.shard-*.h5"))),
                              "--output", str(output / "out.h5")],
            "prepare": lambda: [str(inside / "hr.h5"), "--output", str(output / "out.h5"),
                                *as_arguments(["data.size_px=8", "data.crops_per_image=2",
                                               "data.flat_reject=0.0"])],
            "train": lambda: [*as_arguments(settings(inside / "pairs.h5", output / "run",
                                                     "train.updates=2",
                                                     "train.checkpoint_every=1")),
                              *small, "--resume"]}[name]()
        return [sys.executable, "-m", f"swinmpi.cli.{name}", *words]

    def run(self, name: str, output: Path, at: int = 0, deed: str = "") -> Finished:
        environ = {"PYTHONPATH": str(ROOT), "LD_PRELOAD": str(self.library),
                   "FAULT_FOLDER": f"{output}/", "FAULT_AT": str(at), "FAULT_DEED": deed,
                   "FAULT_LOG": str(output.with_suffix(".log")), "MPLBACKEND": "agg"}
        return run_program(self.command(name, output), PATIENCE_S, environ)

    def count(self, name: str) -> tuple[int, dict]:
        """(operations of an undisturbed run, what it makes)."""
        output = fresh(self.folder / f"undisturbed-{name}")
        finished = self.run(name, output)
        if finished.code:
            raise Broken(f"{name} undisturbed: {finished}")
        return len(output.with_suffix(".log").read_text()), contents(output)


def make_bench(folder: Path) -> Bench:
    """Compile the library, write the inputs."""
    library = folder / "interposer.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library,
                    Path(__file__).with_name("interposer.c"), "-ldl"], check=True)
    bench = Bench(folder, library)
    write_stack(folder / "in.h5", smooth_stack(2, 24, 28))
    write_stack(folder / "hr.h5", smooth_stack(2, 24, 28, seed=1))
    write_checkpoint(folder / "model.safetensors", "model.window_px=32")
    write_pairs(folder / "pairs.h5")
    for number in (1, 2):
        made = arguments(folder / "in.h5", folder / "part.h5", folder / "model.safetensors",
                         "parallel.threads=1", f"--shard={number}/2")
        subprocess.run([sys.executable, "-m", "swinmpi.cli.sample", *made], check=True,
                       capture_output=True, cwd=ROOT)
    return bench


def attempt(bench: Bench, name: str, at: int, deed: str, expected: dict) -> Finished:
    """One trial; Broken when a promise was not kept."""
    output = fresh(bench.folder / f"{name}-{at}-{deed}")
    finished = bench.run(name, output, at, DEEDS[deed])
    try:
        check_end(finished, deed)
        whole = finished.code == 0
        made = contents(output)
        if whole or made and name != "train":
            check_same(made, expected)
        if not whole and not made or name == "train":
            again = bench.run(name, output)
            if again.code:
                raise Broken(f"the next start ended with {again.code}: {again.err}")
            check_same(contents(output), expected)
            left = [path.name for path in output.rglob("*") if is_leftover(path)]
            if left:
                raise Broken(f"the next start left {left}")
    except Broken as broken:
        raise Broken(f"{name}, operation {at}, {deed}: {broken}; it ended with {finished.code} "
                     f"and said {finished.err!r}") from None
    shutil.rmtree(output)
    return finished


def check_end(finished: Finished, deed: str) -> None:
    """The exit code, and one line at most."""
    codes = CODES.get(deed, {0, 2})
    said = [line for line in finished.err.splitlines() if line.startswith("swinmpi:")]
    if finished.code not in codes:
        raise Broken(f"expected one of {sorted(codes)}")
    if "Traceback" in finished.err or len(said) > 2 or (finished.code and deed != "kill"
                                                        and not said):
        raise Broken("expected one line")


def check_same(made: dict, expected: dict) -> None:
    if made != expected:
        differing = [name for name in expected if made.get(name) != expected[name]]
        raise Broken(f"made something else: {differing or sorted(made)}")


def contents(output: Path) -> dict:
    """What counts of an output folder: the pixels of finished files, weights of the training."""
    found = {}
    for path in sorted(output.rglob("*")):
        if path.name == "out.h5":
            with h5py.File(path) as file:
                file.visititems(lambda name, item: note(found, name, item))
        elif path.suffix == ".safetensors" and not is_leftover(path):
            with safe_open(path, framework="np") as file:
                found[str(path.relative_to(output))] = {
                    name: file.get_tensor(name).tobytes() for name in file.keys()}
    return found


def note(found: dict, name: str, item) -> None:
    if isinstance(item, h5py.Dataset) and "process" not in name:
        value = item[()]
        found[name] = (str(item.dtype), np.shape(value), value.tobytes()
                       if value.dtype.kind != "O" else value.tolist())


def is_leftover(path: Path) -> bool:
    """Of what a kill or a failure may leave, and the next start removes."""
    inside = any(part.startswith((".filling-", ".emptying-")) for part in path.parts)
    return inside or path.name.endswith((".partial", ".packing", ".new")) or (
        path.name.startswith(".") and path.name not in IGNORED)


def fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    folder.with_suffix(".log").unlink(missing_ok=True)
    return folder


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", default=",".join(COMMANDS))
    parser.add_argument("--deeds", default=",".join(DEEDS), help=f"of {', '.join(DEEDS)}")
    parser.add_argument("--first", type=int, default=1, help="number of the first operation")
    parser.add_argument("--every", type=int, default=1, help="only every N-th operation")
    options = parser.parse_args()
    folder, broken = Path(mkdtemp(prefix="swinmpi-operations-")), 0
    bench = make_bench(folder)
    for name in options.commands.split(","):
        number, expected = bench.count(name)
        for deed in options.deeds.split(","):
            ends: dict = {}
            for at in range(options.first, number + 1, options.every):
                try:
                    code = attempt(bench, name, at, deed, expected).code
                    ends[code] = ends.get(code, 0) + 1
                except Broken as error:
                    broken += 1
                    print(f"BROKEN: {error}", flush=True)
            print(f"{name}, {deed}: {number} operations, ended with "
                  f"{', '.join(f'{code} ({times} times)' for code, times in ends.items())}",
                  flush=True)
    print(f"{broken} broke a promise")
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
