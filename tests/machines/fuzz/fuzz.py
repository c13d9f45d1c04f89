"""Damaged files against the commands: `python tests/machines/fuzz/fuzz.py --cases 2000`.

Every case is a pure function of (seed, number): a damaged file and a command that reads it,
in a process of its own. Long runs can be made in pieces (--first), a case repeated
(--first N --cases 1 --keep FOLDER). Ends with 1 when one of them had a traceback, a crash, a hang,
an exit code that does not fit, more than one line of error, or touched the output.
"""
import argparse
import hashlib
import importlib
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[3])]

import torch  # noqa: E402

from swinmpi.cli import evaluate, prepare, sample, train  # noqa: E402
from tests.machines.fuzz.photos import PHOTOS, SOUND  # noqa: E402
from tests.machines.fuzz.subjects import Subject, make_files, subjects  # noqa: E402

for module in ("evaluation.evaluate", "evaluation.demo", "training.prepare", "training.train",
               "sampling.sample"):
    importlib.import_module(f"swinmpi.{module}")  # once, not in every case

COMMANDS = {"sample": sample.main, "evaluate": evaluate.main, "prepare": prepare.main,
            "train": train.main}
# one case in so many is the command as a user starts it; the others start from
# this process's memory
WHOLE_EVERY = 20
HANG_S, MEMORY_BYTES = 300, 6 << 30
TRACEBACK = 97


@dataclass(frozen=True)
class Case:
    """One damaged file and the command line that reads it."""

    number: int
    seed: int
    subject: Subject

    def words(self, base: Path, folder: Path) -> list[str]:
        command = random.Random(f"{self.seed} {self.number} command").choice(self.subject.commands)
        damaged = (folder / "run" / Path(self.subject.file).relative_to("run") if self.in_run
                   else folder / self.subject.file)
        places = {"{file}": str(damaged), "{base}": str(base), "{run}": str(folder / "run"),
                  "{folder}": str(damaged.parent)}
        return [replace_all(word, places) for word in command]

    @property
    def in_run(self) -> bool:
        return self.subject.file.startswith("run/")

    def write(self, base: Path, folder: Path) -> None:
        """The damaged file, and outputs of an earlier run, which a refusal must leave alone."""
        folder.mkdir()
        if self.in_run:
            shutil.copytree(base / "run", folder / "run")
        if self.subject.file == "virtual.h5":
            shutil.copy(base / "source.h5", folder)
        if self.subject.kind == "pictures":
            (folder / PHOTOS).mkdir()
            shutil.copy(base / PHOTOS / SOUND, folder / PHOTOS)
        content = (base / self.subject.file).read_bytes()
        (folder / self.subject.file).write_bytes(
            self.subject.damage(content, random.Random(f"{self.seed} {self.number}")))
        (folder / "out.h5").write_bytes(b"from an earlier run")
        (folder / "out").mkdir()
        (folder / "out" / "evaluate.json").write_bytes(b"from an earlier run")


@dataclass(frozen=True)
class Outcome:
    """What became of a case: how it ended, in a word, and what is wrong with that, if anything."""

    case: Case
    ending: str
    problem: str | None
    seconds: float
    said: str


def main() -> int:
    options = parser().parse_args()
    torch.set_num_threads(1)
    work = Path(tempfile.mkdtemp(prefix="swinmpi-fuzz-"))
    started = time.monotonic()
    try:
        base = work / "base"
        make_files_apart(base)
        outcomes = [report(outcome, options)
                    for outcome in outcomes_of(range(options.first, options.first + options.cases),
                                               options, base, work)]
        if options.keep:
            shutil.copytree(work, options.keep, dirs_exist_ok=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(summary(outcomes, time.monotonic() - started))
    return int(any(outcome.problem for outcome in outcomes))


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    made.add_argument("--cases", type=int, default=2000)
    made.add_argument("--first", type=int, default=0, help="number of the first case")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--jobs", type=int, default=2, help="cases at a time")
    made.add_argument("--kinds", help="only these, such as pictures,HDF5 words")
    made.add_argument("--keep", type=Path, help="keep the files here")
    made.add_argument("--verbose", action="store_true")
    return made


def outcomes_of(numbers: range, options, base: Path, work: Path):
    """Run the cases, some at a time; yields an Outcome for each as it ends."""
    kinds, running = options.kinds and options.kinds.split(","), {}
    turns = [subject for subject in subjects() if not kinds or subject.kind in kinds]
    waiting = [Case(number, options.seed, turns[number % len(turns)])
               for number in reversed(numbers)]
    while waiting or running:
        while waiting and len(running) < options.jobs:
            case = waiting.pop()
            folder = work / str(case.number)
            case.write(base, folder)
            before = contents(folder)
            running[start(case, base, folder)] = case, folder, before, time.monotonic()
        pid, status, usage = os.wait4(-1, 0)
        case, folder, before, started = running.pop(pid)
        yield judge(case, folder, before, os.waitstatus_to_exitcode(status), usage.ru_maxrss << 10,
                    time.monotonic() - started)
        if work.name.startswith("swinmpi-fuzz-") and len(numbers) > 8:
            shutil.rmtree(folder)


def start(case: Case, base: Path, folder: Path) -> int:
    """Fork; the child runs the command in `folder` and ends with its exit code, or TRACEBACK."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    try:
        os.chdir(folder)
        for number, name in ((1, ".stdout"), (2, ".stderr")):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT), number)
        os.environ |= {"TORCH_HOME": str(folder), "OMP_NUM_THREADS": "1"}
        signal.alarm(HANG_S)
        command, *words = case.words(base, folder)
        if case.number % WHOLE_EVERY == 0:
            program = Path(sys.executable).with_name(f"swinmpi-{command}")
            os.execv(program, [str(program), *words])
        code = COMMANDS[command](words)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = TRACEBACK
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def judge(case: Case, folder: Path, before: dict, code: int, memory_bytes: int,
          seconds: float) -> Outcome:
    stderr = ((folder / ".stderr").read_text(errors="replace") if (folder / ".stderr").exists()
              else "")
    lines = stderr.splitlines()
    problem = None
    if code == -signal.SIGALRM:
        problem = f"hung for {HANG_S} s"
    elif code < 0:
        problem = f"died by {signal.Signals(-code).name}"
    elif code == TRACEBACK or "Traceback" in stderr:
        problem = "traceback"
    elif code not in (0, 1, 2, 3):
        problem = f"exit code {code}"
    elif code == 1 and not may_fail(case, stderr):
        problem = "exit code 1"
    elif (code and [line for line in lines if line.startswith("swinmpi:")] != lines[-1:]
          and not all(map(is_told, lines))):
        problem = "not one line"
    elif code == 2 and changed(before, contents(folder)):
        problem = f"refused, but touched {changed(before, contents(folder))}"
    elif memory_bytes > MEMORY_BYTES:
        problem = f"needed {memory_bytes / 2**30:.1f} GiB"
    ending = {0: "worked", 1: "ended by itself", 2: "refused", 3: "some images failed"}.get(
        code, "broke")
    for deed in ("crashed", "hung"):
        if f"library {deed} reading" in stderr:
            ending = f"HDF5 {deed} in the child"
    return Outcome(case, ending, problem, seconds, lines[-1][:300] if lines else "")


def may_fail(case: Case, stderr: str) -> bool:
    """Weights and training states can hold numbers that no network survives; that is found
    while computing."""
    computed = case.subject.kind in ("weights", "training state", "HDF5 pairs")
    return computed and any(words in stderr for words in (" is nan ", " is inf ", "not finite"))


def is_told(line: str) -> bool:
    """A line that a run writes on the way: a warning, an image left out, the bar."""
    return (line.startswith(("swinmpi:", "skipped ", "warning: ")) or "images" in line
            or "updates" in line or not line.strip())


def contents(folder: Path) -> dict[str, str]:
    """Digest of every file but what the harness writes."""
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in folder.rglob("*")
            if path.is_file() and path.name not in (".stdout", ".stderr", ".lock")}


def changed(before: dict, after: dict) -> list[str]:
    return sorted(name for name in before.keys() | after.keys()
                  if before.get(name) != after.get(name))


def report(outcome: Outcome, options) -> Outcome:
    case = outcome.case
    if outcome.problem or options.verbose:
        print(f"{case.number} {case.subject.kind} {case.subject.file}: "
              f"{outcome.problem or outcome.ending}, {outcome.seconds:.1f} s\n    {outcome.said}",
              flush=True)
    return outcome


def summary(outcomes: list[Outcome], seconds: float) -> str:
    """How the cases of each kind ended."""
    endings = Counter((outcome.case.subject.kind, outcome.ending) for outcome in outcomes)
    lines = []
    for kind in dict.fromkeys(kind for kind, _ in endings):
        own = {ending: count for (other, ending), count in sorted(endings.items()) if other == kind}
        lines.append(f"{kind}: {sum(own.values())} cases; "
                     + ", ".join(f"{count} {ending}" for ending, count in own.items()))
    longest = max(outcome.seconds for outcome in outcomes)
    problems = sum(outcome.problem is not None for outcome in outcomes)
    lines.append(f"{len(outcomes)} cases in {seconds:.0f} s, the longest {longest:.0f} s; "
                 f"{problems} with a problem")
    return "\n".join(lines)


def make_files_apart(base: Path) -> None:
    """The files to damage, made by a child without output: training leaves threads behind, and a
    process with threads cannot be forked safely."""
    pid = os.fork()
    if not pid:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        try:
            make_files(base)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    if status:
        raise RuntimeError("the files to damage cannot be made")
    threads = len(os.listdir("/proc/self/task"))
    assert threads == 1, f"expected one thread, got {threads}: a fork of these can hang"


def replace_all(word: str, places: dict[str, str]) -> str:
    for name, place in places.items():
        word = word.replace(name, place)
    return word


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.exit(main())
