"""Kills swinmpi-sample at random moments and checks that nothing is lost: python
tests/machines/faults/kill.py --kills 200

Every trial starts a run under mpirun, kills a part of it at a moment drawn from (seed, trial),
and checks: all its processes are gone within 20 s, OUT.partial opens, every image marked done
holds the bytes of an undisturbed run, the same command then finishes with those bytes and leaves
nothing else behind. The long form may be run in pieces: `--first 100` goes on with trial 100,
`--records FILE` keeps what was seen, and the table is of everything in FILE.
"""
import argparse
import json
import os
import random
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import mkdtemp

sys.path.insert(0, str(Path(__file__).parents[3]))
import h5py  # noqa: E402

from tests.support.programs import LAUNCHER_VARIABLES, descendants, kill  # noqa: E402
from tests.support.sampling import (  # noqa: E402
    arguments,
    smooth_stack,
    write_checkpoint,
    write_stack,
)

KILLS, SIGNALS = ("rank", "mpirun", "daemon", "job"), ("TERM", "USR2")
NUM_IMAGES, HEIGHT_PX, WIDTH_PX = 24, 40, 36
GONE_LIMIT_S, RUN_LIMIT_S, POLL_S = 20.0, 600.0, 0.005
PACKING_EVERY, PACKING_S = 8, 0.03
SETTINGS = ("parallel.threads=1", "parallel.images_per_step=1")
DONE = b"\1"
MARK = "SWINMPI_FAULT_TRIAL"


class Broken(AssertionError):
    """A promise that was not kept."""


@dataclass
class Bench:
    """What all trials share: inputs, the bytes of an undisturbed run, how long a run takes.
    Made by `make_bench`."""

    folder: Path
    launcher: list[str]
    settings: tuple[str, ...]
    expected: dict[str, list[bytes]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)

    def command(self, ranks: int, output: Path) -> list[str]:
        return [*self.launcher, "-n", str(ranks), sys.executable, "-m", "swinmpi.cli.sample",
                *arguments(self.folder / "in.h5", output, self.folder / "model.safetensors",
                           *self.settings)]

    @property
    def duration_s(self) -> float:
        """Of a whole run, by the last ones: the machine may have become slower or
        faster meanwhile."""
        return statistics.median(self.seconds[-5:])


@dataclass(frozen=True)
class Trial:
    """What one kill met. found: `nothing`, `partial` or `finished`; done: images in OUT.partial,
    if any; code: of the end."""

    number: int
    kind: str
    ranks: int
    code: int
    after_s: float
    found: str
    done: int | None
    end_s: float
    restart_s: float | None


def make_bench(folder: Path, launcher: list[str], settings: tuple[str, ...] = ()) -> Bench:
    """Write the inputs and run once undisturbed."""
    write_stack(folder / "in.h5", smooth_stack(NUM_IMAGES, HEIGHT_PX, WIDTH_PX))
    write_checkpoint(folder / "model.safetensors", "model.window_px=32")
    bench = Bench(folder, launcher, SETTINGS + settings)
    output = folder / "undisturbed.h5"
    bench.seconds.append(run_to_the_end(bench, 2, output))
    bench.expected.update(images_of(output))
    return bench


def attempt(bench: Bench, number: int, kind: str, seed: int) -> Trial:
    """One trial. Broken when a promise was not kept; the folder of the trial is then kept."""
    rng = random.Random(f"{seed}/{number}/{kind}")
    folder = bench.folder / f"trial-{number}"
    folder.mkdir()
    output = folder / "out.h5"
    ranks = rng.choice((2, 2, 2, 2, 3))
    try:
        code, after_s, end_s = disturb(bench, kind, ranks, output, rng,
                                       aim=number % PACKING_EVERY == 0)
        found, done = inspect(bench, output)
        if (found != "finished" and code != 75
                and (code == 0 or kind in SIGNALS and found == "partial")):
            raise Broken(f"ended with exit code {code} and left {found}")
        restart_s = None
        if found != "finished":
            restart_s = run_to_the_end(bench, rng.choice((1, 1, 2, 3)), output)
            bench.seconds.append(restart_s)
            if images_of(output) != bench.expected:
                raise Broken("the restart wrote other bytes")
            if [path.name for path in folder.iterdir() if path.suffix != ".log"] != ["out.h5"]:
                raise Broken(f"the restart left {sorted(path.name for path in folder.iterdir())}")
    except Broken as broken:
        raise Broken(f"trial {number} (seed {seed}), {kind} of {ranks} ranks: {broken}; "
                     f"see {folder}") from None
    return Trial(number, kind, ranks, code, after_s, found, done, end_s, restart_s)


def disturb(bench: Bench, kind: str, ranks: int, output: Path, rng: random.Random,
            aim: bool) -> tuple[int, float, float]:
    """Start a run and disturb it: (its exit code, seconds after its start, seconds until its last
    process was gone).

    A run that ended before its moment came is started again. aim: the moment is while
    the output is packed.
    """
    packing = output.with_name(output.name + ".packing")
    while True:
        moment_s = rng.uniform(0, bench.duration_s) if not aim else rng.uniform(0, PACKING_S)
        with Run(bench.command(ranks, output)) as run:
            started = time.monotonic()
            if aim:
                run.wait_until(packing.exists)
                started_aim = time.monotonic()
                run.wait_until(lambda at=started_aim + moment_s: time.monotonic() >= at)
            else:
                run.wait_until(lambda at=started + moment_s: time.monotonic() >= at)
            after_s = time.monotonic() - started
            if hit(run, kind, rng):
                # A signal asks for an end after the image at work, or after start-up;
                # a kill does not ask.
                end_s = run.wait_until_gone(GONE_LIMIT_S
                                            + (bench.duration_s if kind in SIGNALS else 0))
                return run.process.returncode, after_s, end_s
        output.unlink(missing_ok=True)


def hit(run: "Run", kind: str, rng: random.Random) -> bool:
    """Kill or signal what `kind` says; False when the run was over before."""
    if kind in ("rank", "daemon", "USR2"):
        run.wait_until(run.ranks)
    run.processes()  # noted before the first of them dies
    victims = {"rank": lambda: rng.sample(run.ranks(), min(1, len(run.ranks()))),
               "mpirun": lambda: [run.process.pid], "daemon": run.daemons, "job": run.processes,
               "TERM": lambda: [run.process.pid], "USR2": run.ranks}[kind]()
    if run.process.poll() is not None or not victims:
        return False
    for pid in victims:
        if kind in SIGNALS:
            os.kill(pid, signal.Signals[f"SIG{kind}"])
        else:
            kill(pid)
    return True


def inspect(bench: Bench, output: Path) -> tuple[str, int | None]:
    """(what was left, images marked done); Broken when any of it is wrong."""
    partial = output.with_name(output.name + ".partial")
    if output.exists():
        if images_of(output) != bench.expected:
            raise Broken("OUT is there and wrong")
        return "finished", None
    if not partial.exists():
        return "nothing", None
    try:
        left = images_of(partial)
    except OSError as error:
        raise Broken(f"OUT.partial does not open: {error}") from None
    for index, image in enumerate(left["sr"]):
        if left["done"][index] == DONE and image != bench.expected["sr"][index]:
            raise Broken(f"image {index} is marked done and is not what it should be")
    return "partial", left["done"].count(DONE)


def images_of(path: Path) -> dict[str, list[bytes]]:
    """Every image and its `done` flag, as bytes."""
    with h5py.File(path) as file:
        return {"sr": [image.tobytes() for image in file["entry/data/sr"]],
                "done": [flag.tobytes() for flag in file["entry/per_image/done"]]}


def run_to_the_end(bench: Bench, ranks: int, output: Path) -> float:
    """Seconds of an undisturbed run; Broken unless it ends with 0."""
    with Run(bench.command(ranks, output)) as run:
        started = time.monotonic()
        run.wait_until(lambda: False)
        seconds = time.monotonic() - started
        if run.process.returncode:
            raise Broken(f"ended with {run.process.returncode}: {run.told()}")
        return seconds


class Run:
    """A program and all processes that come of it, known by a mark in their environment.
    Leaving kills what is left."""

    def __init__(self, command: list[str]):
        self.mark, self.seen = uuid.uuid4().hex, set()
        inherited = {name: value for name, value in os.environ.items()
                     if not name.startswith(LAUNCHER_VARIABLES)}
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, text=True, start_new_session=True,
                                        env=inherited | {"OMP_NUM_THREADS": "1", MARK: self.mark})

    def processes(self) -> list[int]:
        """Process ids, the launcher's and its daemons' included; not of those that only
        wait to be reaped."""
        marked = {int(folder.name) for folder in Path("/proc").glob("[0-9]*")
                  if self.mark.encode() in content(folder / "environ")}
        # One that is dying has no environment any more, and still holds its files.
        self.seen = {pid for pid in self.seen | marked if is_alive(pid)}
        return sorted(self.seen)

    def ranks(self) -> list[int]:
        commands = {pid: content(Path(f"/proc/{pid}/cmdline")).split(b"\0")
                    for pid in self.processes()}
        return [pid for pid, words in commands.items() if b"python"
                in Path(words[0].decode()).name.encode() and b"swinmpi.cli.sample" in words]

    def daemons(self) -> list[int]:
        """What stands between the launcher and the ranks on this node; the launcher itself where
        it has no daemon."""
        ranks = set(self.ranks())
        return [pid for pid in self.processes()
                if pid not in ranks and ranks & set(descendants(pid))][-1:]

    def wait_until(self, happened: Callable[[], object]) -> None:
        """Return when it has happened or the launcher has ended; Broken when neither comes."""
        deadline = time.monotonic() + RUN_LIMIT_S
        while not happened() and self.process.poll() is None:
            if time.monotonic() > deadline:
                raise Broken(f"still running after {RUN_LIMIT_S:.0f} s")
            time.sleep(POLL_S)

    def wait_until_gone(self, limit_s: float) -> float:
        """Seconds until the last process was gone; Broken when one is still there
        after `limit_s`."""
        started = time.monotonic()
        while self.process.poll() is None or self.processes():
            if time.monotonic() - started > limit_s:
                raise Broken(f"processes {self.processes()} are still there after {limit_s:.0f} s")
            time.sleep(POLL_S)
        return time.monotonic() - started

    def told(self) -> str:
        return self.process.stdout.read()

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *error) -> None:
        for pid in self.processes():
            kill(pid)
        self.process.wait()
        self.process.stdout.close()


def is_alive(pid: int) -> bool:
    """False for a process that is gone, or has no thread left and waits for its parent
    to take notice."""
    state = content(Path(f"/proc/{pid}/stat")).rpartition(b")")[2].split()
    return bool(state) and (state[0] != b"Z" or len(list(Path(f"/proc/{pid}/task").glob("*"))) > 1)


def content(path: Path) -> bytes:
    """Of a file under /proc; empty when the process is gone."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def table(trials: list[Trial]) -> str:
    """One line per kind: how many, what they met, the slowest end and restart."""
    lines = ["kill     times  nothing yet  images done  finished  slowest end  slowest restart"]
    for kind in dict.fromkeys(trial.kind for trial in trials):
        of_kind = [trial for trial in trials if trial.kind == kind]
        found = [trial.found for trial in of_kind]
        done = [trial.done for trial in of_kind if trial.done is not None]
        reached = f"{len(done)} x {min(done)}..{max(done)}" if done else "-"
        restart = max((trial.restart_s for trial in of_kind if trial.restart_s is not None),
                      default=0.0)
        lines.append(f"{kind:7}  {len(of_kind):5}  {found.count('nothing'):11}  "
                     f"{reached:>11}  {found.count('finished'):8}  "
                     f"{max(trial.end_s for trial in of_kind):9.2f} s  {restart:13.2f} s")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="number of trials")
    parser.add_argument("--first", type=int, default=0, help="number of the first trial")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default=",".join(KILLS),
                        help=f"in turn, of {', '.join(KILLS + SIGNALS)}")
    parser.add_argument("--set", action="append", default=[], dest="settings",
                        metavar="SECTION.KEY=VALUE")
    parser.add_argument("--launcher", default=str(Path(sys.executable).with_name("mpirun")),
                        help="with its options")
    parser.add_argument("--records", type=Path, help="file of JSON lines to add to")
    options = parser.parse_args()
    kinds = options.kinds.split(",")
    folder = Path(mkdtemp(prefix="swinmpi-kill-"))
    records = options.records or folder / "records.jsonl"
    bench = make_bench(folder, shlex.split(options.launcher), tuple(options.settings))
    print(f"an undisturbed run takes {bench.duration_s:.2f} s; records in {records}", flush=True)
    broken = 0
    for number in range(options.first, options.first + options.kills):
        try:
            trial = attempt(bench, number, kinds[number % len(kinds)], options.seed)
        except Broken as error:
            broken += 1
            print(f"BROKEN: {error}", flush=True)
            continue
        with records.open("a") as file:
            file.write(json.dumps(asdict(trial)) + "\n")
        print(trial, flush=True)
    print(table([Trial(**json.loads(line)) for line in records.read_text().splitlines()]))
    print(f"{broken} of these {options.kills} broke a promise")
    if not broken:
        shutil.rmtree(folder)
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
