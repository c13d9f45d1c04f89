"""swinmpi-benchmark gpu-check: every question is answered, on a CPU in small."""
import json
from pathlib import Path

import pytest
import torch

from swinmpi.benchmarks.gpu_check import (
    TABLES,
    check_tables,
    difference,
    launched,
)
from swinmpi.cli.benchmark import main
from swinmpi.errors import SwinmpiError

SMALL = ["--set", "parallel.device=cpu", "--size", "64", "--images", "1", "--repeats", "1",
         "--steps", "2"]


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=[
    pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")])])
def test_every_question_is_answered(tmp_path, capsys, device):
    threads = torch.get_num_threads()
    words = ["gpu-check", *SMALL, "--set", f"parallel.device={device}", "--output", str(tmp_path)]
    assert main(words) == 0
    torch.set_num_threads(threads)
    report, printed = json.loads((tmp_path / "benchmark.json").read_text()), capsys.readouterr().out
    for name, *_ in TABLES:
        assert "failed" not in report[name], report[name]
        assert not report[name] or name.replace("_", " ") in printed
    assert set(report["asked_s"]) == {"card", *(name for name, *_ in TABLES)}
    assert all(one["over_bare_network"]["median"] > 0 for one in report["settings"])
    assert all(one["same_bytes"] for one in report["ranks"])
    assert {one["exchange"] for one in report["ranks"]} == {"root", "torus"}
    assert {one["ranks"] for one in report["ranks"]} >= {1, 2}
    assert report["against_cpu"][0]["most_levels"] <= 1
    assert report["training"]["windows_per_second"] > 0


@pytest.mark.slow
def test_it_starts_its_ranks_itself(mpirun, tmp_path):
    finished = mpirun(2, "-m", "swinmpi.cli.benchmark", "gpu-check", *SMALL, "--output",
                      tmp_path / "out")
    assert finished.code == 2 and not (tmp_path / "out").exists()
    assert "gpu-check: expected one rank, got 2; start it without mpirun" in finished.err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_a_line_says_what_to_do(tmp_path, capsys):
    assert main(["gpu-check", "--output", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert "expected a GPU for `gpu-check`, found none; set parallel.device=cpu" in told
    assert len(told.splitlines()) == 1 and not (tmp_path / "out").exists()


def test_the_dry_run_says_what_is_asked(capsys):
    assert main(["gpu-check", *SMALL, "--dry-run"]) == 0
    assert "gpu-check on cpu: every precision, 1 repeats x 1 images of 64 px" in (
        capsys.readouterr().out)


def test_a_question_that_failed_is_printed_beside_the_others():
    answers = {name: {"failed": "OSError: no room"} for name, *_ in TABLES}
    printed = check_tables(answers | {"training": {
        "precision": "bf16", "batch_images": 64, "images_per_second": 100.0,
        "windows_per_second": 400.0}})
    assert "ranks: failed: OSError: no room" in printed and "400" in printed


@pytest.mark.slow
def test_a_command_that_fails_is_told_by_its_last_line():
    with pytest.raises(SwinmpiError, match="^swinmpi-sample ended with 2: swinmpi: .*missing.h5"):
        launched("sample", [str(Path("/nowhere/missing.h5"))])


def test_differences_are_those_of_8_bits():
    expected = torch.zeros(3, 4, 4)
    made = expected.clone()
    made[0, 0, 0], made[1, 1, 1] = 2.1 / 127.5, 0.1 / 127.5
    found = difference(made, expected)
    assert found["most_levels"] == 2 and found["levels_that_differ"] == pytest.approx(1 / 48)
