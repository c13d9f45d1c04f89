"""Every experiment from beginning to end at budget smoke, and what its report says."""
import json
import math

import pytest
from PIL import Image

from swinmpi.experiments.definition import load_experiment, names
from tests.support.experiments import run_here

pytestmark = pytest.mark.slow
BY_KIND = {kind: [name for name in names() if load_experiment(name).kind == kind]
           for kind in ("quality", "time", "pictures")}


def report_of(folder, name: str, capsys) -> dict:
    code, said = run_here(name, "--output", folder), capsys.readouterr()
    assert code == 0, said.err
    assert f"written: {folder / 'report.json'}" in said.out
    return json.loads((folder / "report.json").read_text())


def check_page(folder, report: dict) -> None:
    """The page has the title, a line for every arm, and pictures that can be opened."""
    page = (folder / "report.md").read_text()
    assert page.startswith(f"# {report['title']} (thesis {report['section']})")
    assert all(arm["name"] in page for arm in report["arms"])
    for path in folder.glob("*.png"):
        with Image.open(path) as picture:
            assert min(picture.size) > 100, path


@pytest.mark.parametrize("name", BY_KIND["quality"])
def test_quality(tmp_path, capsys, name):
    folder = tmp_path / "run"
    report = report_of(folder, name, capsys)
    experiment = load_experiment(name)
    assert [arm["name"] for arm in report["arms"]] == [arm.name for arm in experiment.arms]
    assert report["num_test_images"] == experiment.budgets["smoke"].test_images
    for arm in report["arms"]:
        check_figures(arm["figures"])
        assert arm["seconds_per_image"][0] > 0
        if arm["training"]:
            assert arm["training"]["updates"] == experiment.budgets["smoke"].updates
            assert 0 < arm["final_loss"] < 10
    reference, = (arm for arm in report["arms"] if arm["name"] == report["reference"])
    assert reference["difference"]["psnr"] == {"mean": 0.0, "standard_error": 0.0,
                                               "images": report["num_test_images"]}
    check_figures(report["baselines"]["bicubic"])
    check_page(folder, report)
    assert (folder / "contact_sheet.png").exists()
    assert (folder / "bands.png").exists() == experiment.bands
    assert (folder / "losses.png").exists() == any(arm["training"] for arm in report["arms"])


def check_figures(figures: dict) -> None:
    """Numbers that an image other than the truth can have, and how sure they are."""
    worst = {"psnr": (0, 60), "ssim": (-1, 0.9999), "lr_psnr": (0, 80), "detail": (0, 100)}
    for figure, (low, high) in worst.items():
        told = figures[figure]
        assert low < told["mean"] < high, (figure, told)
        assert 0 < told["standard_error"] < math.inf, (figure, told)
    assert figures["lpips"]["mean"] is None or 0 < figures["lpips"]["mean"] < 2


@pytest.mark.parametrize("name", BY_KIND["time"])
def test_time(mpirun, tmp_path, name):
    folder = tmp_path / "run"
    finished = mpirun(2, "-m", "swinmpi.cli.experiment", name, "--output", folder, timeout_s=900)
    assert finished.code == 0, finished.err
    report = json.loads((folder / "report.json").read_text())
    assert [arm["name"] for arm in report["arms"]] == [
        arm.name for arm in load_experiment(name).arms]
    for arm in report["arms"]:
        ranks = [one["ranks"] for one in arm["ranks"]]
        assert ranks == ([1] if arm["windows"] == 1 else [1, 2]), "one window cannot be shared"
        for one in arm["ranks"]:
            assert one["seconds"]["mean"] > 0 and one["cpu_seconds"]["mean"] > 0
            assert one["seconds"]["standard_error"] > 0
            assert 0 < one["cores_used"] < 1.5 * one["ranks"]
            assert all(0 <= used < 2 * one["ranks"] for used in one["cores_over_time"])
        assert arm["ranks"][0]["speed_up"] == 1
    check_page(folder, report)
    assert (folder / "usage.png").exists()


@pytest.mark.parametrize("name", BY_KIND["pictures"])
def test_pictures(tmp_path, capsys, name):
    folder = tmp_path / "run"
    report = report_of(folder, name, capsys)
    for arm in report["arms"]:
        with Image.open(folder / arm["picture"]) as picture:
            assert min(picture.size) > 100
    versions = report["arms"][-1]["versions"]
    levels = [one["psnr"] for one in versions.values()]
    assert max(levels) - min(levels) < 0.3, "figure 3.1: one PSNR"
    kept, lost = (("brighter", "less contrast"), ("blur", "noise"))
    assert min(versions[name]["ssim"] for name in kept) > max(
        versions[name]["ssim"] for name in lost)
    check_page(folder, report)
