"""`parallel.shares`: ranks that own other numbers of windows, and the same bytes; also where MPI is
given what a rank computes with itself (`parallel.staging`)."""
import json
import sys
from pathlib import Path

import h5py
import pytest
import torch

from swinmpi.cli import benchmark, merge, verify
from swinmpi.cli.sample import main
from tests.commands.test_sample_mpi import PROGRAMS, pixels
from tests.support.sampling import arguments, smooth_stack, write_checkpoint, write_stack

TORUS, DIRECT = "parallel.exchange=torus", "parallel.staging=device"
# Settings, with the windows of an image that each of 3 ranks then owns, of 9.
JOBS = {"given": (["[3, 1, 1]"], [5, 2, 2]),
        "root owns nothing": (["[1e-9, 1, 2]", DIRECT], [0, 3, 6]),
        "torus": (["[1, 2, 1e-9]", TORUS, DIRECT], [3, 6, 0]),
        "measured": (["measured", TORUS], None)}


@pytest.fixture(autouse=True)
def keep_threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("shares")
    write_stack(made / "in.h5", smooth_stack(2, 40, 36))
    write_checkpoint(made / "model.safetensors", "model.window_px=32")
    assert main(command(made, "alone.h5")) == 0
    return made


def command(folder: Path, output: str, shares: str = "equal", *settings: str) -> list[str]:
    return arguments(folder / "in.h5", folder / output, folder / "model.safetensors",
                     "parallel.threads=1", f"parallel.shares={shares}", *settings)


def process_of(path: Path) -> dict:
    with h5py.File(path) as file:
        return {name: json.loads(item[()]) for name, item in file["entry/process"].items()
                if name.endswith("_of_ranks")}


def test_shares_cannot_be_seen_but_are_told(mpirun, folder):
    commands = folder / "commands.json"
    commands.write_text(json.dumps([command(folder, f"{name}.h5", *settings)
                                    for name, (settings, _) in JOBS.items()]))
    finished = mpirun(3, PROGRAMS / "sample_many.py", commands)
    assert (finished.code, finished.err) == (0, ""), finished.err
    lines = finished.out.splitlines()
    assert any("1 of 3 ranks stay idle" in line and "not alike" in line for line in lines), lines
    for name, (_, owned) in JOBS.items():
        output = folder / f"{name}.h5"
        assert pixels(output) == pixels(folder / "alone.h5"), name
        told = process_of(output)
        if owned is not None:
            assert told == {"windows_of_ranks": owned}
            assert f"windows of an image by rank: {' '.join(map(str, owned))}" in lines
        else:
            assert sum(told.pop("windows_of_ranks")) == 9
            assert min(told.pop("windows_per_second_of_ranks")) > 0 and told == {}
    assert verify.main([str(folder / "given.h5"), "--images", "1"]) == 0


def test_shards_of_different_ranks_merge(folder):
    shards = []
    for number, settings in ((1, ["[2]"]), (2, ["equal"])):
        assert main([*command(folder, "part.h5", *settings), "--shard", f"{number}/2"]) == 0
        shards.append(str(folder / f"part.shard-{number}-of-2.h5"))
    assert merge.main([*shards, "--output", str(folder / "merged.h5")]) == 0
    with h5py.File(folder / "merged.h5") as file:
        assert file["entry/process/windows_of_ranks"].asstr()[()].tolist() == ["[9]", ""]


def test_nothing_is_measured_where_nothing_is_shared(folder):
    assert main(command(folder, "one.h5", "measured")) == 0
    assert pixels(folder / "one.h5") == pixels(folder / "alone.h5")
    assert process_of(folder / "one.h5") == {}


def test_a_dry_run_tells_the_shares(folder, capsys, monkeypatch):
    monkeypatch.setenv("PMI_SIZE", "3")
    monkeypatch.setattr(sys, "argv", ["swinmpi-sample"])
    for shares, words in [("[3, 1, 1]", "5 2 2 of each image on the ranks of a group"),
                          ("measured", "3 3 3 of each image on the ranks of a group if all are as "
                           "fast, else as measured when the run starts")]:
        assert main([*command(folder, "never.h5", shares), "--dry-run"]) == 0
        assert f"windows     {words}\n" in capsys.readouterr().out


@pytest.mark.parametrize(("shares", "line"), [
    ("[1, 2]", "parallel.shares: expected a number for each of 1 rank, got 2; give as many"),
    ("[]", "parallel.shares: expected a number for each of 1 rank, got 0"),
    *((wrong, "parallel.shares: expected equal, measured or a list of numbers above 0, one for "
       "each rank") for wrong in ("[0]", "[1, -1]", "[.inf]", "[.nan]", "fast", "[a]", "3",
                                   "[true]", "[[1]]", "{}", ""))])
def test_wrong_shares_are_one_line(folder, capsys, shares, line):
    for more in ([], ["--dry-run"]):
        assert main([*command(folder, "never.h5", shares), *more]) == 2
        told = capsys.readouterr()
        assert line in told.err and told.err.count("\n") == 1 and not told.out, told
    assert not list(folder.glob("never*"))


def test_a_benchmark_compares_ranks_that_are_alike(capsys):
    assert benchmark.main(["sample", "--set", "parallel.shares=measured"]) == 2
    assert "parallel.shares: expected equal" in capsys.readouterr().err
