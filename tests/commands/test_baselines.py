"""The thesis's baselines by the commands alone: prepare, train, sample, evaluate."""
import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from swinmpi.cli import evaluate, prepare, sample, train
from swinmpi.images.imresize import imresize
from swinmpi.storage.checkpoint import load_weights
from tests.support.sampling import smooth_stack, sr_of, write_checkpoint, write_stack
from tests.support.training import SRDIFF, VANILLA, as_arguments, log_of, settings

# 20 x 14 px become 40 x 28: no multiple of what the networks halve.
HEIGHT, WIDTH, NUM_IMAGES = 20, 14, 3
LAUNCH_TIMEOUT_S = 300
FAMILIES = {
    "srdiff": [*SRDIFF, "diffusion.prediction=eps", "diffusion.variance=posterior",
               "sampler.method=ddpm", "sampler.clip_x_0=1", "train.annealing=halve",
               "train.annealing_updates=2"],
    "srdiff, windows": [*SRDIFF, "model.window_px=16"],
    "vanilla": VANILLA,
    "vanilla, residual": [*VANILLA, "model.residual_gain=2"],
    "vanilla, unconditional": [*VANILLA, "model.conditional=false"],
}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Made by swinmpi-prepare from six pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    for number, picture in enumerate(smooth_stack(6, 48, 48, 3, "uint8")):
        Image.fromarray(picture).save(folder / f"{number}.png")
    made = folder / "pairs.h5"
    assert prepare.main([str(folder), "--output", str(made), *as_arguments(
        ["data.size_px=32", "data.crops_per_image=3", "data.validate_share=0.2"])]) == 0
    return made


@pytest.fixture(scope="module")
def stacks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stacks")
    hr = smooth_stack(NUM_IMAGES, HEIGHT * 2, WIDTH * 2, 3, "uint8", seed=1)
    lr = np.stack([imresize(image, scale=0.5) for image in hr])
    return write_stack(folder / "lr.h5", lr), write_stack(folder / "hr.h5", hr)


def trained(pairs: Path, folder: Path, model: list[str], *overrides: str) -> Path:
    """The best checkpoint of a run of swinmpi-train."""
    assert train.main(as_arguments(settings(pairs, folder, *overrides, model=model))) == 0
    return folder / "best.safetensors"


def sampled(lr: Path, output: Path, *arguments: str) -> np.ndarray:
    assert sample.main([str(lr), "--output", str(output), *arguments]) == 0
    return sr_of(output)


def judged(sr: Path, stacks: tuple[Path, Path], folder: Path) -> dict:
    lr, hr = stacks
    assert evaluate.main([str(sr), "--reference", str(hr), "--lr", str(lr), "--output",
                          str(folder)]) == 0
    return json.loads((folder / "evaluate.json").read_text())


@pytest.mark.parametrize("name", list(FAMILIES))
def test_from_pictures_to_figures(name, pairs, stacks, tmp_path, capsys):
    model = FAMILIES[name]
    checkpoint = trained(pairs, tmp_path / "run", model)
    for at in ("root", "torus"):
        sampled(stacks[0], tmp_path / f"{at}.h5", "--checkpoint", str(checkpoint),
                "--set", f"parallel.exchange={at}")
    sr = sr_of(tmp_path / "root.h5")
    assert sr.shape == (NUM_IMAGES, HEIGHT * 2, WIDTH * 2, 3)
    assert np.array_equal(sr, sr_of(tmp_path / "torus.h5"))
    whole = "window_px" not in " ".join(model)
    assert ("1 window of 64 px" in capsys.readouterr().out) == whole
    figures = judged(tmp_path / "root.h5", stacks, tmp_path / "figures")
    assert np.isfinite([figures["mean"]["sr"][name] for name in ("psnr", "ssim", "detail")]).all()
    assert ("no seam score: no windows were put together" in figures["remarks"]) == whole


def test_srdiff_as_published_trains_its_encoder_first(pairs, stacks, tmp_path):
    model = FAMILIES["srdiff"]
    alone = trained(pairs, tmp_path / "encoder", SRDIFF, "train.target=encoder", "train.updates=12")
    checkpoint = trained(pairs, tmp_path / "diffuser", model, "train.freeze_encoder=true",
                         f"train.encoder_checkpoint={alone}")
    log = log_of(tmp_path / "diffuser")
    assert all("regression" not in record for record in log)
    losses = [record["loss"] for record in log if "loss" in record]
    assert log[-1]["loss_validation"] < 1.5 * max(losses), "the same parts in both"
    before, after = load_weights(alone)[0], load_weights(checkpoint)[0]
    assert all(torch.equal(weight, after[f"encoder.{name}"]) for name, weight in before.items())
    made = {name: sampled(stacks[0], tmp_path / f"{name}.h5", "--checkpoint", str(path))
            for name, path in (("regression", alone), ("srdiff", checkpoint))}
    assert not np.array_equal(made["regression"], made["srdiff"])
    for name in made:
        assert judged(tmp_path / f"{name}.h5", stacks, tmp_path / name)["mean"]["sr"]["psnr"] > 5


def test_the_rate_is_halved(pairs, tmp_path):
    trained(pairs, tmp_path / "run", FAMILIES["srdiff"], "train.warmup_updates=0")
    rates = [record["learning_rate"] for record in log_of(tmp_path / "run") if "loss" in record]
    assert rates == pytest.approx([1e-3, 1e-3, 5e-4, 5e-4, 2.5e-4, 2.5e-4])


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_bicubic_is_a_model_without_a_checkpoint(dtype, tmp_path):
    hr = smooth_stack(2, 46, 34, 1, dtype)
    lr = np.stack([imresize(image, scale=0.5) for image in hr])
    stacks = write_stack(tmp_path / "lr.h5", lr), write_stack(tmp_path / "hr.h5", hr)
    sr = sampled(stacks[0], tmp_path / "sr.h5", "--model", "bicubic_x2")
    wanted = np.stack([imresize(image.astype(float), scale=2.0) for image in lr])
    if dtype != "float32":
        wanted = np.rint(wanted).clip(0, np.iinfo(dtype).max)
    assert np.abs(sr - wanted).max() <= (1e-5 if dtype == "float32" else 1)
    mean = judged(tmp_path / "sr.h5", stacks, tmp_path / "out")["mean"]
    assert mean["sr"]["psnr"] == pytest.approx(mean["bicubic"]["psnr"], abs=1e-3)


@pytest.mark.parametrize("overrides, said", [
    (["model.family=bicubic"], "has no weights; sample with it at once: swinmpi-sample --model "
     "bicubic_x2"),
    ([*VANILLA, "train.target=encoder"], "got vanilla, which has none"),
    ([*VANILLA, "train.encoder_checkpoint=any.safetensors"], "got vanilla, which has none"),
    ([*SRDIFF, "sampler.shift.pattern=circular"], "expected none, because one window is the whole"),
    ([*VANILLA, "model.conditional=false", "model.residual_gain=2"], "knows no bicubic image"),
    ([*SRDIFF, "model.unet_channels=[8, 8, 8, 12]"], "multiples of 8"),
    ([*SRDIFF, "model.scale=3"], "model.scale: expected 2, 4 or 8, got 3"),
])
def test_what_cannot_be_trained_is_told_in_a_line(overrides, said, pairs, tmp_path, capfd):
    assert train.main(as_arguments([*overrides, f"train.data={pairs}",
                                    f"train.output={tmp_path / 'run'}"])) == 2
    told = capfd.readouterr()
    assert (told.out, told.err.count("\n")) == ("", 1) and said in told.err
    assert not (tmp_path / "run").exists()


def test_the_one_window_does_not_move(tmp_path, stacks, capfd):
    checkpoint = write_checkpoint(tmp_path / "vanilla.safetensors", model=VANILLA)
    assert sample.main([str(stacks[0]), "--output", str(tmp_path / "sr.h5"), "--checkpoint",
                        str(checkpoint), "--set", "sampler.shift.pattern=random"]) == 2
    assert "expected none, because one window is the whole image" in capfd.readouterr().err
    assert not (tmp_path / "sr.h5").exists()


@pytest.mark.slow
@pytest.mark.parametrize("num_ranks", [2, 3])
@pytest.mark.parametrize("exchange", ["root", "torus"])
@pytest.mark.parametrize("name", ["srdiff", "vanilla"])
def test_images_are_shared_where_windows_cannot_be(mpirun, stacks, tmp_path, name, exchange,
                                                   num_ranks):
    """Two images on three ranks leave one without work, and say so."""
    lr = write_stack(tmp_path / "lr.h5", h5py.File(stacks[0])["images"][:2])
    model = {"srdiff": SRDIFF, "vanilla": VANILLA}[name]
    checkpoint = write_checkpoint(tmp_path / "model.safetensors", model=model)
    alone = sampled(lr, tmp_path / "alone.h5", "--checkpoint", str(checkpoint))
    finished = mpirun(num_ranks, "-m", "swinmpi.cli.sample", str(lr), "--output",
                      tmp_path / "sr.h5", "--checkpoint", checkpoint, "--set",
                      f"parallel.exchange={exchange}", timeout_s=LAUNCH_TIMEOUT_S)
    assert (finished.code, finished.err) == (0, ""), finished
    assert np.array_equal(sr_of(tmp_path / "sr.h5"), alone)
    assert "one rank per image, because it has no windows to share" in finished.out
    assert ("1 of 3 ranks stay idle" in finished.out) == (num_ranks == 3)
