"""Promise 1 for what makes results trusted: the same bytes for any number of ranks, both exchanges
and groups of ranks, of everything at once that can be asked for together."""
import csv
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from swinmpi.cli import calibrate
from swinmpi.cli.sample import main
from tests.commands.test_merge import contents
from tests.commands.test_sample_mpi import LAUNCH_TIMEOUT_S, PROGRAMS
from tests.commands.test_trust import write_half
from tests.support.sampling import arguments, smooth_stack, write_checkpoint, write_stack
from tests.support.training import as_arguments, write_pairs

pytestmark = pytest.mark.slow

DIAL = ["sampler.steps=2", "sampler.coherence=2.5", "sampler.overlap=2",
        "sampler.shift.pattern=circular", "sampler.shift.max_px=8"]
HALFWAY = "output.consistent=0.5"
TORUS, GROUPS = "parallel.exchange=torus", ["--ranks-per-image=2", "parallel.images_per_step=2"]
LAYOUTS = {1: [[TORUS]], 2: [[], [TORUS]], 3: [[], [TORUS, *GROUPS]], 5: [[TORUS], GROUPS]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """in.h5, a checkpoint that is calibrated and knows its training's images, and `alone` of one
    process."""
    folder, threads = tmp_path_factory.mktemp("trusted"), torch.get_num_threads()
    write_stack(folder / "in.h5", smooth_stack(3, 20, 18, channels=3, dtype="uint8"))
    write_pairs(folder / "pairs.h5", num_train=0, num_validate=9)
    write_checkpoint(folder / "raw.safetensors")
    assert calibrate.main(calibration(folder, "raw-calibrated")) == 0
    write_half(folder)
    for words in commands(folder, "alone"):
        assert main(words) == 0
    torch.set_num_threads(threads)
    return folder


def calibration(folder: Path, name: str) -> list[str]:
    return [str(folder / "raw.safetensors"), "--pairs", str(folder / "pairs.h5"), "--preset",
            "balanced", "--ensemble", "3", *as_arguments([*DIAL, HALFWAY]), "--output",
            str(folder / f"{name}.safetensors")]


def commands(folder: Path, name: str, layout: Sequence[str] = ()) -> list[list[str]]:
    """A calibrated ensemble with a mask that then grows; the regression; a sweep."""
    def words(output: str, *settings: str) -> list[str]:
        return arguments(folder / "in.h5", folder / output, folder / "half.safetensors", *DIAL,
                         "parallel.threads=1", *layout, *settings)

    marked = ["--trust=0.4", "--tolerance=51", HALFWAY, "output.members=exact", "output.lr=true",
              "--preset=balanced"]
    return [words(f"{name}.h5", "--ensemble=3", *marked),
            words(f"{name}.h5", "--members=3:4", *marked),
            words(f"{name}-regression.h5", "output.consistent=true", "--preset=regression"),
            [*words(f"{name}-sweep"), "--sweep", "output.consistent=true,0.5", "--sweep",
             "sampler.noise_scale=0.5", "--frames=0,-1"]]


def made(folder: Path, name: str) -> dict:
    """All that was written but for how long it took."""
    with open(folder / f"{name}-sweep/sweep.csv", newline="") as file:
        rows = [{key: value for key, value in row.items() if "seconds" not in key}
                for row in csv.DictReader(file)]
    return {"ensemble": contents(folder / f"{name}.h5"),
            "regression": contents(folder / f"{name}-regression.h5"), "table": rows,
            "sheet": (folder / f"{name}-sweep/sweep.png").read_bytes()}


@pytest.mark.parametrize("num_ranks", LAYOUTS)
def test_neither_ranks_nor_exchange_can_be_seen(mpirun, folder, num_ranks):
    names = {f"{num_ranks}-{number}": layout for number, layout in enumerate(LAYOUTS[num_ranks])}
    given = folder / f"commands-{num_ranks}.json"
    given.write_text(json.dumps([words for name, layout in names.items()
                                 for words in commands(folder, name, layout)]))
    finished = mpirun(num_ranks, PROGRAMS / "sample_many.py", given, timeout_s=LAUNCH_TIMEOUT_S)
    assert finished.code == 0, finished.err
    assert finished.out.count("written: ") == 4 * len(names), "rank 0 alone tells"
    wanted = made(folder, "alone")
    for name in names:
        found = made(folder, name)
        assert [what for what in wanted if found[what] != wanted[what]] == [], name


def test_everything_is_there(folder):
    """Else the comparison above would compare nothing."""
    wanted = made(folder, "alone")
    assert {f"entry/{name}" for name in (
        "data/sr_std", "data/sr_mean", "data/sr_trust", "data/member_3", "data/exact_3", "lr",
        "per_image/unlike_spectrum")} <= wanted["ensemble"].keys()
    trusted = wanted["ensemble"]["entry/data/sr_trust"]["bytes"]
    assert 0 < trusted.count(1) < len(trusted)
    assert len({row["lr_misfit"] for row in wanted["table"]}) == 7, "2 images, their mean, bicubic"
