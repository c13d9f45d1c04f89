"""Lets every file operation of a command fail, one after the other: python
tests/machines/faults/operations.py --jobs sample,pictures,merge

A small library between the program and the system (interposer.c, compiled by cc) counts what
changes something below the folder of the output: opens, writes, fsyncs, renames, unlinks,
truncates. In every trial the n-th one kills the process, answers an error, once or from then on, or
a signal comes. Checked is that the command then ends with the right code and at most one line on
stderr, that no half of an output has the name of a whole one, and that the same command goes on,
leaves nothing else behind, and ends with what an undisturbed one makes.
"""
import argparse
import errno
import random
import shutil
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT))
import h5py  # noqa: E402
import numpy as np  # noqa: E402
from safetensors import safe_open  # noqa: E402

from swinmpi.images.pictures import SUFFIXES  # noqa: E402
from tests.machines.faults.forking import Forks  # noqa: E402
from tests.machines.faults.jobs import JOBS, fresh, write_inputs  # noqa: E402

DEEDS = {"kill": "kill", "int": f"signal {int(signal.SIGINT)}",
         "term": f"signal {int(signal.SIGTERM)}",
         **{f"{name.lower()}{more}": f"{word} {getattr(errno, name)}"
            for name in ("EIO", "ENOSPC", "EDQUOT")
            for more, word in (("", "error"), ("-for-ever", "errors"))}}
# A signal may come too late to matter; sample and train save and ask to be started again.
CODES = {"kill": {-9, 0}, "int": {130, 0}, "term": {143, 75, 0}}
IGNORED = (".lock", "curves.png")


class Broken(AssertionError):
    """A promise that was not kept."""


@dataclass(frozen=True)
class Ended:
    """exit code, negative for a signal, and what was written to stderr."""

    code: int
    err: str


@dataclass(frozen=True)
class Bench:
    """Inputs of all jobs, and the process that runs them. Made by `make_bench`."""

    folder: Path
    forks: Forks

    def place(self, name: str, job: str) -> Path:
        """A folder for the outputs of a job, with what it is to replace."""
        return fresh(self.folder / name, self.folder / "before" if JOBS[job].over else None)

    def run(self, name: str, output: Path, at: int = 0, deed: str = "") -> Ended:
        job = JOBS[name]
        environ = {"FAULT_FOLDER": f"{output}/", "FAULT_AT": str(at), "FAULT_DEED": deed,
                   "FAULT_LOG": str(output.with_suffix(".log"))}
        return Ended(*self.forks.run(job.command, job.words(self.folder, output), environ,
                                     output.with_suffix(".err")))

    def count(self, name: str) -> tuple[str, dict]:
        """(operations of an undisturbed run, a letter each; what it makes)."""
        output = self.place(f"undisturbed-{name}", name)
        ended = self.run(name, output)
        if ended.code:
            raise Broken(f"{name} undisturbed: {ended}")
        return output.with_suffix(".log").read_text(), contents(output)


def make_bench(folder: Path) -> Bench:
    """Compile the library, write the inputs. `bench.forks` is to be closed."""
    library = folder / "interposer.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library,
                    Path(__file__).with_name("interposer.c"), "-ldl"], check=True)
    forks = Forks(library)

    def run(command: str, words: list[str]) -> None:
        code, said = forks.run(command, words, {}, folder / "inputs.err")
        if code:
            raise Broken(f"the inputs cannot be made: {said}")

    write_inputs(folder, run)
    return Bench(folder, forks)


def attempt(bench: Bench, name: str, at: int, deed: str, expected: dict) -> Ended:
    """One trial; Broken when a promise was not kept."""
    output = bench.place(f"{name}-{at}-{deed}", name)
    before, named_before, job = contents(output), names_in(output), JOBS[name]
    ended = bench.run(name, output, at, DEEDS[deed])
    try:
        check_end(ended, deed)
        made = contents(output)
        if ended.code == 0:
            check_same(made, expected)
        elif name != "train":
            check_whole(made, before, expected)
        if deed in ("int", "term") and job.command in ("merge", "prepare"):
            check_nothing_left(output, "ended by a signal it")
        # Where a kill came after the last renaming, OUT is there and would be refused; where
        # nothing is left, it would be a first start.
        if names_in(output) != named_before and (job.again or job.over or not made):
            again = bench.run(name, output)
            if again.code:
                raise Broken(f"the next start ended with {again.code}: {again.err}")
            check_same(contents(output), expected)
            check_nothing_left(output, "the next start")
    except Broken as broken:
        raise Broken(f"{name}, operation {at}, {deed}: {broken}; it ended with {ended.code} "
                     f"and said {ended.err!r}") from None
    shutil.rmtree(output)
    return ended


def check_end(ended: Ended, deed: str) -> None:
    """The exit code, and one line at most."""
    codes = CODES.get(deed, {0, 2})
    said = [line for line in ended.err.splitlines() if line.startswith("swinmpi:")]
    if ended.code not in codes:
        raise Broken(f"expected one of {sorted(codes)}")
    if "Traceback" in ended.err or len(said) > 2 or (ended.code and deed != "kill" and not said):
        raise Broken("expected one line")


def check_same(made: dict, expected: dict) -> None:
    if made != expected:
        differing = [name for name in expected if made.get(name) != expected[name]]
        raise Broken(f"made something else: {differing or sorted(made)}")


def check_whole(made: dict, before: dict, expected: dict) -> None:
    """Every file is as it was before, or as it is to be."""
    torn = [name for name, content in made.items()
            if content not in (before.get(name), expected.get(name))]
    gone = sorted(before.keys() - made.keys())
    if torn or gone:
        raise Broken(f"left {torn} neither as before nor whole, and lost {gone}")


def check_nothing_left(output: Path, who: str) -> None:
    left = [str(path.relative_to(output)) for path in output.rglob("*") if is_leftover(path)]
    if left:
        raise Broken(f"{who} left {left}")


def names_in(output: Path) -> set[Path]:
    return set(output.rglob("*"))


def contents(output: Path) -> dict:
    """What counts of an output folder, by file: the pixels of finished files, pictures, weights."""
    found = {}
    for path in sorted(output.rglob("*")):
        name = str(path.relative_to(output))
        if is_leftover(path):
            continue
        if path.suffix == ".h5":
            with h5py.File(path) as file:
                found[name] = datasets_of(file)
        elif path.suffix == ".safetensors":
            with safe_open(path, framework="np") as file:
                found[name] = {key: file.get_tensor(key).tobytes() for key in file.keys()}
        elif path.suffix in SUFFIXES and path.name not in IGNORED:
            found[name] = path.read_bytes()
    return found


def datasets_of(file: h5py.File) -> dict:
    """All but the process."""
    found = {}

    def note(name: str, item) -> None:
        if isinstance(item, h5py.Dataset) and "process" not in name:
            value = item[()]
            found[name] = (str(item.dtype), np.shape(value), value.tobytes()
                           if value.dtype.kind != "O" else value.tolist())

    file.visititems(note)
    return found


def is_leftover(path: Path) -> bool:
    """Of what a kill or a failure may leave, and the next start removes."""
    inside = any(part.startswith((".filling-", ".emptying-")) or part == ".partial"
                 for part in path.parts)
    return inside or path.name.endswith((".partial", ".packing", ".new")) or (
        path.name.startswith(".") and path.name not in IGNORED)


def chosen(operations: str, every: int) -> list[int]:
    """Numbers of operations, from 1: all but writes among writes, of which there is every N-th."""
    between = [number for number in range(1, len(operations) - 1)
               if operations[number - 1:number + 2] == "www"]
    left_out = {number for place, number in enumerate(between) if place % every}
    return [number + 1 for number in range(len(operations)) if number not in left_out]


def try_all(bench: Bench, name: str, deed: str, numbers: list[int], expected: dict) -> int:
    """Trials of one job and deed, and a line on how they ended; how many broke a promise."""
    ends, broken = Counter(), 0
    for at in numbers:
        try:
            ends[attempt(bench, name, at, deed, expected).code] += 1
        except Broken as error:
            broken += 1
            print(f"BROKEN: {error}", flush=True)
    told = ", ".join(f"{code} ({times} times)" for code, times in ends.items())
    print(f"{name}, {deed}: {len(numbers)} operations, ended with {told}", flush=True)
    return broken


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", default=",".join(JOBS), help=f"of {', '.join(JOBS)}")
    parser.add_argument("--deeds", default=",".join(DEEDS), help=f"of {', '.join(DEEDS)}")
    parser.add_argument("--most", type=int, metavar="N",
                        help="only N operations of a job and deed, drawn by --seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=1, 
                        help="of writes among writes only every N-th")
    options = parser.parse_args()
    folder, broken = Path(mkdtemp(prefix="swinmpi-operations-")), 0
    bench = make_bench(folder)
    with bench.forks:
        for name in options.jobs.split(","):
            operations, expected = bench.count(name)
            numbers = chosen(operations, options.every)
            for deed in options.deeds.split(","):
                drawn = random.Random(f"{options.seed} {name} {deed}").sample(
                    numbers, min(len(numbers), options.most or len(numbers)))
                broken += try_all(bench, name, deed, sorted(drawn), expected)
    print(f"{broken} broke a promise" + (f"; see {folder}" if broken else ""))
    if not broken:
        shutil.rmtree(folder)
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
