"""swinmpi-evaluate with several SR stacks, ensembles, without the truth; what it writes and what it
leaves alone."""
import csv
import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from swinmpi.cli.evaluate import main
from swinmpi.evaluation.statistics import bootstrap_interval
from swinmpi.images import metrics
from swinmpi.images.imresize import imresize
from tests.support.evaluating import complaint, report_of, smooth_images, write_ours, write_stack
from tests.support.lpips import write_backbone

MADE_BY = {"checkpoint_sha256": "ab" * 32, "seed": 7, "git_revision": "c0ffee",
           "value_range": [0.0, 255.0]}


@pytest.fixture(autouse=True)
def no_backbone(tmp_path, monkeypatch):
    """A torch home without AlexNet."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.chdir(tmp_path)


def worse(hr: np.ndarray, by: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(-by, by + 1, hr.shape)
    return (hr.astype(int) + noise).clip(0, 255).astype(np.uint8)


@pytest.fixture
def stacks(tmp_path):
    """Four images: HR, LR, a good and a bad SR stack of swinmpi."""
    hr = smooth_images(num_images=4)
    lr = write_stack(tmp_path / "lr.h5", np.stack([imresize(image, scale=0.5) for image in hr]))
    made = {name: write_ours(tmp_path / f"{name}.h5", lr, {"sr": worse(hr, by)}, **MADE_BY)
            for name, by in (("good", 2), ("bad", 4))}
    return {"hr": write_stack(tmp_path / "hr.h5", hr), "lr": lr, "images": hr, **made}


def psnrs(report: dict, version: str) -> np.ndarray:
    return np.array([image[version]["psnr"] for image in report["images"]])


# several stacks

def test_several_stacks_are_compared_image_by_image(stacks, tmp_path, capsys):
    both = [stacks["good"], stacks["bad"], "--reference", stacks["hr"]]
    assert main([*both, "--output", "out"]) == 0
    text, report = capsys.readouterr().out, report_of(tmp_path / "out")
    assert list(report["mean"]) == ["bicubic", "good", "bad"]
    assert report["sr"] == {name: f"{stacks[name]}::/entry/data/sr" for name in ("good", "bad")}
    apart = psnrs(report, "bad") - psnrs(report, "good")
    (told,) = report["differences"]
    assert (told["of"], told["minus"]) == ("bad", "good")
    assert told["psnr"]["mean"] == pytest.approx(apart.mean())
    assert told["psnr"]["standard_error"] == pytest.approx(apart.std(ddof=1) / 2)
    assert told["psnr"]["interval_95"] == pytest.approx(bootstrap_interval(apart))
    assert told["psnr"]["standard_error"] < report["standard_error"]["good"]["psnr"]
    assert "bad - good" in text and f"bad is {-apart.mean():.2f} dB below good" in text
    with Image.open(tmp_path / "out/plots.png") as plots:
        assert plots.width > 600


def test_every_mean_has_its_error_and_how_it_was_found(stacks, tmp_path, capsys):
    assert main([stacks["good"], "--reference", stacks["hr"], "--output", "out"]) == 0
    text, report = capsys.readouterr().out, report_of(tmp_path / "out")
    values = psnrs(report, "sr")
    assert report["standard_error"]["sr"]["psnr"] == pytest.approx(values.std(ddof=1) / 2)
    assert report["interval_95"]["sr"]["psnr"] == pytest.approx(bootstrap_interval(values))
    assert report["bootstrap"] == {"resamples": 2000, "seed": 0, "over": "images"}
    assert "2000 bootstrap resamples of the images, seed 0" in text
    assert f"{values.std(ddof=1) / 2:.2f}" in text and "data range 255 (0 to 255, of uint8)" in text


def test_pixels_missing_in_one_stack_count_in_none(tmp_path):
    hr = smooth_images("float32", channels=1, num_images=2)
    lr = write_stack(tmp_path / "lr.h5", np.stack([imresize(image, scale=0.5) for image in hr]))
    one, other = hr + np.float32(0.1), hr + np.float32(0.2)
    other[0, 4:20, 4:20] += 50
    one[0, 4:20, 4:20] = np.nan
    made = [write_stack(tmp_path / f"{name}.h5", images)
            for name, images in (("one", one), ("other", other), ("hr", hr))]
    assert main([*made[:2], "--reference", made[2], "--lr", lr, "--output", "out"]) == 0
    first, second = report_of(tmp_path / "out")["images"]
    assert first["nan_pixels"] == 256 and second["nan_pixels"] == 0
    assert first["other"]["psnr"] == pytest.approx(second["other"]["psnr"], abs=1e-3)


def test_only_images_that_every_run_made(stacks, tmp_path, capsys):
    some = write_ours(tmp_path / "some.h5", stacks["lr"], {"sr": stacks["images"]}, failed=(1,))
    others = write_ours(tmp_path / "others.h5", stacks["lr"], {"sr": stacks["images"]},
                        failed=(0, 2, 3))
    assert main([stacks["good"], some, "--reference", stacks["hr"], "--output", "out"]) == 0
    assert [one["image"] for one in report_of(tmp_path / "out")["images"]] == [0, 2, 3]
    assert "gave them up: images 1" in capsys.readouterr().out
    told = complaint(capsys, some, others, "--reference", stacks["hr"])
    assert "expected an image that every run made" in told


def test_stacks_get_the_shortest_names_that_tell_them_apart(stacks, tmp_path):
    (tmp_path / "deep").mkdir()
    twin = write_ours(tmp_path / "deep/good.h5", stacks["lr"], {"sr": stacks["images"]})
    bicubic = write_ours(tmp_path / "bicubic.h5", stacks["lr"], {"sr": stacks["images"]})
    assert main([stacks["good"], twin, "--reference", stacks["hr"], "--output", "twins"]) == 0
    assert [*report_of(tmp_path / "twins")["mean"]] == ["bicubic", f"{tmp_path.name}/good",
                                                        "deep/good"]
    assert main([stacks["good"], bicubic, "--reference", stacks["hr"], "--output", "named"]) == 0
    assert len(report_of(tmp_path / "named")["mean"]) == 3


def test_stacks_that_cannot_be_compared_are_one_line(stacks, tmp_path, capsys):
    good, hr = stacks["good"], stacks["hr"]
    few = write_ours(tmp_path / "few.h5", write_stack(tmp_path / "small.h5", np.zeros(
        (2, 32, 24, 3), np.uint8)), {"sr": stacks["images"][:2]})
    assert "got it twice" in complaint(capsys, good, good, "--reference", hr)
    assert "got it twice" in complaint(capsys, good, f"{good}::/entry/data/sr", "--reference", hr)
    assert "expected 2 images" in complaint(capsys, good, few, "--reference", hr)
    assert "expected images as of" in complaint(capsys, good, few)
    assert "absent.h5" in complaint(capsys, good, "absent.h5", "--reference", hr)


def test_one_range_for_all_floats(tmp_path, capsys):
    hr = smooth_images("float32", channels=1, num_images=2)
    lr = write_stack(tmp_path / "lr.h5", np.stack([imresize(image, scale=0.5)[..., 0]
                                                   for image in hr]))
    truth = write_stack(tmp_path / "hr.h5", hr)
    made = [write_ours(tmp_path / f"{name}.h5", lr, {"sr": hr + np.float32(0.1)},
                       value_range=values)
            for name, values in (("narrow", [0.0, 1.0]), ("wide", [-10.0, 10.0]))]
    assert main([*made, "--reference", truth, "--output", "out"]) == 0
    report = report_of(tmp_path / "out")
    assert report["mean"]["narrow"]["psnr"] == report["mean"]["wide"]["psnr"]
    assert "because the SR files record different ones" in capsys.readouterr().out


# what is written

def test_the_report_tells_what_made_each_stack(stacks, tmp_path):
    plain = write_stack(tmp_path / "plain.h5", worse(stacks["images"], 3))
    words = [stacks["good"], plain, "--reference", stacks["hr"], "--lr", stacks["lr"]]
    assert main([*words, "--output", "out"]) == 0
    report = report_of(tmp_path / "out")
    made = report["made_by"]["good"]
    assert made["checkpoint_sha256"] == "ab" * 32 and made["seed"] == 7
    assert made["program"] == "swinmpi" and {"version", "date"} <= set(made)
    assert made["settings"]["model"]["window_px"] == 16
    assert report["made_by"]["plain"] == {}
    assert {"swinmpi", "git_revision", "numpy", "torch"} <= set(report["evaluated_by"])


def test_csv_has_every_image_in_full(stacks, tmp_path):
    assert main([stacks["good"], stacks["bad"], "--reference", stacks["hr"], "--output",
                 "out"]) == 0
    with open(tmp_path / "out/evaluate.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * 3 and "lpips" not in rows[0] and rows[0]["nan_pixels"] == "0"
    told = {(int(row["image"]), row["version"]): float(row["psnr"]) for row in rows}
    for image in report_of(tmp_path / "out")["images"]:
        for version in ("bicubic", "good", "bad"):
            assert told[image["image"], version] == image[version]["psnr"]


@pytest.mark.parametrize("name", ["evaluate.json", "evaluate.csv", "evaluate.png", "plots.png"])
def test_nothing_is_overwritten_unasked(stacks, tmp_path, capsys, name):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("precious")
    words = [stacks["good"], "--reference", stacks["hr"], "--output", "out"]
    for more in ([], ["--dry-run"]):
        assert main([*words, *more]) == 2
        told = capsys.readouterr()
        assert "exists already" in told.err and "--overwrite" in told.err and not told.out
    assert (tmp_path / "out" / name).read_text() == "precious"
    assert [path.name for path in (tmp_path / "out").iterdir()] == [name]
    assert main([*words, "--overwrite"]) == 0
    assert (tmp_path / "out" / name).read_bytes() != b"precious"


def test_long_tables_and_columns_without_weights_only_where_asked_for(stacks, tmp_path, capsys):
    words = [stacks["good"], "--reference", stacks["hr"], "--output", "out", "--overwrite"]
    assert main(words) == 0
    short = capsys.readouterr().out
    assert main([*words, "--per-image"]) == 0
    long = capsys.readouterr().out
    assert long.count("\n") - short.count("\n") == 4 * 2 + 3
    assert not any("LPIPS" in line and "PSNR" in line for line in short.splitlines())
    write_backbone(tmp_path / "torch")
    assert main(words) == 0
    assert any("LPIPS" in line and "PSNR" in line for line in
               capsys.readouterr().out.splitlines())


# without the truth

def test_without_the_truth(stacks, tmp_path, capsys):
    assert main([stacks["good"], "--lr", stacks["lr"], "--output", "out"]) == 0
    text, report = capsys.readouterr().out, report_of(tmp_path / "out")
    assert report["reference"] is None and "without the truth" in text
    assert set(report["mean"]["sr"]) == {"lr_psnr", "seam", "fine"}
    with h5py.File(stacks["lr"]) as lr, h5py.File(stacks["good"]) as sr:
        image, small = sr["entry/data/sr"][1], lr["images"][1]
    told = report["images"][1]["sr"]
    assert told["lr_psnr"] == pytest.approx(metrics.lr_psnr(image, small, 255))
    assert told["seam"] == pytest.approx(
        metrics.seam_score(image, imresize(small, size=image.shape[:2]), 16), rel=0.01)
    assert told["fine"] == pytest.approx(metrics.fine_share(image, 2))
    assert set(report["spectra"]) == {"bicubic", "sr"}
    assert report["spectra"]["sr"][-1] > report["spectra"]["bicubic"][-1]


def test_without_truth_and_lr_there_is_no_consistency(stacks, tmp_path, capsys):
    assert main([stacks["good"], stacks["bad"], "--output", "out"]) == 0
    text, report = capsys.readouterr().out, report_of(tmp_path / "out")
    assert list(report["mean"]) == ["good", "bad"] and report["mean"]["good"]["lr_psnr"] is None
    assert report["mean"]["bad"]["fine"] > report["mean"]["good"]["fine"]
    assert "name the LR stack that SR was made from with --lr" in text
    plain = write_stack(tmp_path / "plain.h5", stacks["images"])
    assert "does not tell its scale" in complaint(capsys, plain)
    for option in (["--split", "test"], ["--inception", "weights.pth"]):
        assert "name it with --reference" in complaint(capsys, stacks["good"], *option)


# ensembles

def ensemble_of(tmp_path: Path, spread: float, kept: bool = True, name: str = "ens") -> list[str]:
    """[SR, HR, LR] of two float images; HR is drawn as the five samples are, if spread is 1."""
    random, count = np.random.default_rng(3), 5
    centre = smooth_images("float32", channels=1, num_images=2)
    width = random.uniform(0.05, 0.2, centre.shape)
    hr = (centre + width * random.standard_normal(centre.shape)).astype(np.float32)
    samples = (centre + spread * width * random.standard_normal((count, *centre.shape))).astype(
        np.float32)
    lr = write_stack(tmp_path / f"lr-{name}.h5", np.stack([imresize(image, scale=0.5)[..., 0]
                                                          for image in hr]))
    versions = {"sr": samples[0], "sr_mean": samples.mean(axis=0),
                "sr_spread": samples.std(axis=0, ddof=1)}
    versions |= {f"member_{k}": samples[k] for k in range(1, count)} if kept else {}
    return [write_ours(tmp_path / f"{name}.h5", lr, versions, ensemble=count),
            write_stack(tmp_path / f"hr-{name}.h5", hr), lr]


def test_an_ensemble_drawn_like_the_truth_is_right(tmp_path, capsys):
    sr, hr, _ = ensemble_of(tmp_path, 1.0)
    assert main([sr, "--reference", hr, "--output", "out"]) == 0
    found = report_of(tmp_path / "out")["ensembles"]["sr"]
    mean = {name: one["mean"] for name, one in found["figures"].items()}
    assert mean["spread_skill"] == pytest.approx(1, abs=0.03)
    for level in (50, 90, 99):
        assert mean[f"coverage_{level}"] == pytest.approx(level / 100, abs=0.02)
    assert len(found["ranks"]) == 6 and np.allclose(found["ranks"], 1 / 6, atol=0.02)
    assert len(found["images"]) == 2 and found["samples_kept"]
    stated, seen = (np.array(found["reliability"][name]) for name in ("stated", "found"))
    assert len(stated) == 10 and np.all(np.diff(stated) > 0) and seen[-1] > seen[0]
    text = capsys.readouterr().out
    assert "CRPS" in text and "no error bar" in text and "std~error" in text


def test_too_narrow_an_ensemble_is_told(tmp_path, capsys):
    sr, hr, _ = ensemble_of(tmp_path, 0.4)
    assert main([sr, "--reference", hr, "--output", "out"]) == 0
    figures = report_of(tmp_path / "out")["ensembles"]["sr"]["figures"]
    assert figures["spread_skill"]["mean"] < 0.6 and figures["coverage_90"]["mean"] < 0.75
    held = figures["coverage_90"]["mean"]
    assert f"90 % intervals made of it hold {held:.0%} of the truth" in capsys.readouterr().out


def test_moments_alone_tell_all_but_crps_and_ranks(tmp_path, capsys):
    whole, moments = (ensemble_of(tmp_path, 1.0, kept, name)
                      for kept, name in ((True, "whole"), (False, "moments")))
    for sr, hr, _ in (whole, moments):
        assert main([sr, "--reference", hr, "--output", Path(sr).stem]) == 0
    text = capsys.readouterr().out
    told, other = (report_of(tmp_path / name)["ensembles"]["sr"] for name in ("moments", "whole"))
    assert "crps" not in told["figures"] and told["ranks"] == []
    for name in ("spread_skill", "coverage_90", "correlation"):
        assert told["figures"][name]["mean"] == pytest.approx(other["figures"][name]["mean"],
                                                              abs=1e-4)
    assert text.count("sample with --set output.members=true") == 1


def test_deviations_of_older_versions_are_corrected(tmp_path):
    sr, hr, _ = ensemble_of(tmp_path, 1.0, kept=False)
    assert main([sr, "--reference", hr, "--output", "new"]) == 0
    with h5py.File(sr, "r+") as file:
        data = file["entry/data"]
        data["sr_std"] = data["sr_spread"][()] * np.float32(np.sqrt(4 / 5))
        del data["sr_spread"]
    assert main([sr, "--reference", hr, "--output", "old"]) == 0
    new, old = (report_of(tmp_path / name)["ensembles"]["sr"]["figures"]
                for name in ("new", "old"))
    assert old["spread_skill"]["mean"] == pytest.approx(new["spread_skill"]["mean"], rel=1e-5)


def test_what_no_run_writes_beside_the_samples_is_one_line(tmp_path, capsys):
    sr, hr, _ = ensemble_of(tmp_path, 1.0)
    with h5py.File(sr, "r+") as file:
        data = file["entry/data"]
        data.move("sr_spread", "sr_std")
        data["sr_std"].attrs["calibrated_on"] = "hearsay"
    assert "expected the numbers that it was calibrated with" in complaint(
        capsys, sr, "--reference", hr)
    with h5py.File(sr, "r+") as file:
        del file["entry/data/member_2"], file["entry/data/sr_std"]
        file["entry/data/member_2"] = np.zeros((2, 8, 8), np.float32)
        file["entry/data/sr_spread"] = file["entry/data/sr_mean"][()]
    assert "member_2: expected" in complaint(capsys, sr, "--reference", hr)


def test_the_spread_without_the_truth(tmp_path, capsys):
    sr, _, lr = ensemble_of(tmp_path, 1.0)
    assert main([sr, "--lr", lr, "--output", "out"]) == 0
    figures = report_of(tmp_path / "out")["ensembles"]["sr"]["figures"]
    with h5py.File(sr) as file:
        expected = file["entry/data/sr_spread"][()].mean()
    assert set(figures) == {"spread"}
    assert figures["spread"]["mean"] == pytest.approx(expected, rel=1e-5)
    assert "told with --reference" in capsys.readouterr().out


def test_the_mean_of_an_ensemble_of_integers_can_be_judged(stacks, tmp_path):
    hr = stacks["images"]
    samples = np.stack([worse(hr, 6, seed) for seed in range(4)])
    versions = {"sr": samples[0], "sr_mean": samples.mean(axis=0).astype(np.float32),
                "sr_spread": samples.std(axis=0, ddof=1).astype(np.float32)}
    sr = write_ours(tmp_path / "ens.h5", stacks["lr"], versions, ensemble=4,
                    value_range=[0.0, 255.0])
    assert main([sr, f"{sr}::/entry/data/sr_mean", "--reference", stacks["hr"], "--output",
                 "out"]) == 0
    report = report_of(tmp_path / "out")
    assert report["mean"]["ens::sr_mean"]["psnr"] > report["mean"]["ens"]["psnr"] + 3
    assert set(report["ensembles"]) == {"ens"}
    assert json.loads((tmp_path / "out/evaluate.json").read_text())["data_range"] == 255
