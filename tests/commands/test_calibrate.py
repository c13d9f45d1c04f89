"""swinmpi-calibrate: what it learns makes intervals hold what they say, where it applies."""
import json

import h5py
import numpy as np
import pytest

from swinmpi.cli import calibrate, evaluate, sample
from swinmpi.storage.header import read_header
from tests.support.sampling import arguments, write_checkpoint
from tests.support.training import write_pairs

# The samples of an untrained network differ where they are wrong only before they meet LR.
FEW = ["--set", "sampler.steps=2", "--set", "output.consistent=false"]


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A folder with pairs, a checkpoint and its calibrated copy for the preset balanced."""
    folder = tmp_path_factory.mktemp("learned")
    write_pairs(folder / "pairs.h5", size_px=32, num_train=2, num_validate=8)
    write_checkpoint(folder / "raw.safetensors", "model.window_px=32")
    assert calibrate.main([str(folder / "raw.safetensors"), "--pairs", str(folder / "pairs.h5"),
                           "--preset", "balanced", "--ensemble", "4", *FEW]) == 0
    return folder


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.chdir(tmp_path)


def made(learned, *options: str, checkpoint: str = "raw-calibrated") -> dict[str, np.ndarray]:
    """An ensemble of the validated images in out.h5: its datasets."""
    assert sample.main([*arguments(f"{learned / 'pairs.h5'}::/lr", "out.h5",
                                   learned / f"{checkpoint}.safetensors",
                                   "output.consistent=false", *options),
                        "--frames", "2:", "--preset", "balanced", "--overwrite"]) == 0
    with h5py.File("out.h5") as file:
        return {name: item[()] for name, item in file["entry/data"].items()}


def test_the_copy_tells_how_it_was_learned_and_the_rest_is_as_before(learned):
    before, after = (read_header(learned / f"{name}.safetensors")
                     for name in ("raw", "raw-calibrated"))
    (entry,) = after.pop("error_bars")
    usual = after.pop("lr_images")
    assert (usual["images"], usual["crop_px"]) == (10, 16) and usual["source"].endswith("pairs.h5")
    assert after == before
    assert (entry["preset"], entry["samples"], entry["images"]) == ("balanced", 4, 8)
    assert "split validate" in entry["source"] and entry["settings"]["sampler"]["steps"] == 2
    assert "seed" not in entry["settings"]["sampler"]
    assert entry["held_out"]["coverage_90"] == pytest.approx(0.9, abs=0.1)
    assert abs(entry["held_out"]["coverage_90"] - 0.9) < abs(entry["before"]["coverage_90"] - 0.9)
    assert sorted(path.name for path in learned.iterdir()) == [
        "pairs.h5", "raw-calibrated.safetensors", "raw.safetensors"]


def test_an_ensemble_of_the_calibrated_model_has_error_bars(learned, capsys):
    raw = made(learned, "--ensemble=4", "sampler.steps=2", checkpoint="raw")
    assert "no error bar" in capsys.readouterr().out
    found = made(learned, "--ensemble=4", "sampler.steps=2", "output.members=true")
    assert "sr_std is calibrated on 8 images" in capsys.readouterr().out
    assert "sr_spread" not in found and "sr_std" not in raw
    with h5py.File("out.h5") as file:
        told = dict(file["entry/data/sr_std"].attrs)
    floor = 255 * told["floor_of_range"]
    np.testing.assert_allclose(found["sr_std"], np.hypot(told["factor"] * raw["sr_spread"], floor),
                               rtol=1e-5)
    assert np.array_equal(found["sr"], raw["sr"]) and "8 images" in told["calibrated_on"]
    with h5py.File(learned / "pairs.h5") as file:
        truth = file["hr"][2:].astype(float)
    if found["sr_mean"].shape != truth.shape:
        truth = np.moveaxis(truth, 1, -1)
    held = np.abs(truth - found["sr_mean"]) <= 1.645 * found["sr_std"]
    assert held.mean() == pytest.approx(0.9, abs=0.01), "on the images it was learned from"
    assert evaluate.main(["out.h5", "--reference", f"{learned / 'pairs.h5'}::/hr", "--split",
                          "validate", "--output", "figures"]) == 0
    ensemble = json.loads(open("figures/evaluate.json").read())["ensembles"]["sr"]
    assert ensemble["figures"]["coverage_90"]["mean"] == pytest.approx(held.mean(), abs=1e-4)
    assert "crps" in ensemble["figures"] and "8 images" in ensemble["calibrated"]


def test_other_settings_are_not_calibrated(learned, capsys):
    assert "sr_std" not in made(learned, "--ensemble=4", "sampler.steps=3")
    assert "no error bar" in capsys.readouterr().out
    assert "sr_std" in made(learned, "--ensemble=3", "sampler.steps=2", "sampler.seed=5")


def test_the_checkpoints_own_settings_are_learned_where_they_are_others(learned, capsys):
    words = [str(learned / "raw.safetensors"), "--pairs", str(learned / "pairs.h5"), "--output",
             "new.safetensors", "--dry-run"]
    assert calibrate.main(words) == 0
    assert "for balanced, detailed, faithful, fast, default;" in capsys.readouterr().out
    assert calibrate.main([*words, "--set", "sampler.steps=10"]) == 0
    assert "for balanced;" in capsys.readouterr().out, "--set is for all of them"


def test_it_can_be_learned_again_from_the_copy(learned, tmp_path):
    words = [str(learned / "raw-calibrated.safetensors"), "--pairs", str(learned / "pairs.h5"),
             "--ensemble", "4", *FEW]
    assert calibrate.main([*words, "--preset", "balanced", "--output", "again.safetensors"]) == 0
    assert calibrate.main([*words, "--preset", "detailed", "--output", "more.safetensors"]) == 0
    (first,) = read_header(learned / "raw-calibrated.safetensors")["error_bars"]
    (second,) = read_header("again.safetensors")["error_bars"]
    assert second["factor"] == pytest.approx(first["factor"], rel=1e-3)
    assert second["floor"] == pytest.approx(first["floor"], rel=1e-3)
    more = read_header("more.safetensors")["error_bars"]
    assert len({json.dumps(one["settings"]) for one in more}) == len(more)


@pytest.mark.parametrize("words, told", [
    (["--ensemble", "1"], "expected at least 2 samples"),
    (["--split", "test"], "expected images of split test, got none"),
    (["--output", "there.safetensors"], "exists already"),
    (["--output", "absent/out.safetensors"], "expected a file name in a folder that is there"),
    (["--output", "{raw}"], "would overwrite the checkpoint"),
    (["--pairs", "absent.h5"], "absent.h5"),
    (["--pairs", "few.h5"], "expected at least 4 images of split validate"),
])
def test_bad_input_is_one_line(learned, tmp_path, capsys, words, told):
    (tmp_path / "there.safetensors").write_text("precious")
    write_pairs(tmp_path / "few.h5", num_train=2, num_validate=3)
    raw = str(learned / "raw.safetensors")
    before = sorted(path.name for path in tmp_path.iterdir())
    words = [word.replace("{raw}", raw) for word in words]
    given = [raw, "--pairs", str(learned / "pairs.h5"), "--preset", "balanced", *FEW]
    for more in ([], ["--dry-run"]):
        assert calibrate.main([*given, "--output", "new.safetensors", *words, *more]) == 2
        said = capsys.readouterr()
        assert told in said.err and said.err.count("\n") == 1 and not said.out
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_an_encoder_alone_has_no_ensemble(learned, tmp_path, capsys):
    alone = write_checkpoint(tmp_path / "alone.safetensors", target="encoder")
    assert calibrate.main([str(alone), "--pairs", str(learned / "pairs.h5")]) == 2
    assert "expected a diffuser" in capsys.readouterr().err
