"""Starts two jobs on one output, over and over, and checks that one finishes and the other
is refused in one line: python tests/machines/faults/twins.py --times 60

The second starts at the same moment as the first in half of the trials, else at
any moment while that one runs. Every other trial is on a file system without locks
(as NFS without a lock daemon: flock fails).
"""
import argparse
import random
import shutil
import sys
import time
from pathlib import Path
from tempfile import mkdtemp

sys.path.insert(0, str(Path(__file__).parents[3]))
from tests.machines.faults.kill import Bench, Broken, Run, images_of, make_bench  # noqa: E402

WITHOUT_LOCKS = Path(__file__).parents[2] / "programs" / "without_locks.py"


def attempt(bench: Bench, number: int, seed: int) -> str:
    """One trial, in a word how the second was refused; Broken when not exactly one did the work."""
    rng = random.Random(f"{seed}/{number}")
    folder = bench.folder / f"trial-{number}"
    folder.mkdir()
    program = bench.command(1, folder / "out.h5")
    if number % 2:
        at = program.index(sys.executable)
        program[at + 1:at + 1] = [str(WITHOUT_LOCKS)]
    with Run(program) as first:
        moment = time.monotonic() + (rng.uniform(0, bench.duration_s) if number % 4 > 1 else 0)
        first.wait_until(lambda: time.monotonic() >= moment)
        with Run(program) as second:
            ended = []
            for run in (first, second):
                run.wait_until(lambda: False)
                ended.append((run.process.returncode, run.told()))
    (code, told), (refused_code, refusal) = sorted(ended)
    refusal = [line for line in refusal.splitlines() if line.startswith("swinmpi: ")]
    reasons = {"another run is writing it": "busy", "exists already": "finished"}
    reason = ([word for text, word in reasons.items() if text in refusal[0]] if len(refusal) == 1
              else [])
    if (code, refused_code) != (0, 2) or not reason:
        raise Broken(f"trial {number} (seed {seed}): expected exit codes 0 and 2, got {ended}")
    if (images_of(folder / "out.h5") != bench.expected
            or [path.name for path in folder.iterdir()] != ["out.h5"]):
        raise Broken(f"trial {number} (seed {seed}): wrong output; see {folder}")
    return reason[0]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    folder = Path(mkdtemp(prefix="swinmpi-twins-"))
    bench = make_bench(folder, [str(Path(sys.executable).with_name("mpirun"))])
    reasons = [attempt(bench, number, options.seed) for number in range(options.times)]
    for locks in (True, False):
        own = reasons[0 if locks else 1::2]
        print(f"{'with' if locks else 'without'} locks: {len(own)} times one finished and the "
              f"other was refused, because the first was at work {own.count('busy')} times, "
              f"because it had finished {own.count('finished')} times")
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
