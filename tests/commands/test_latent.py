"""The family `latent` by the commands alone: an autoencoder, then a diffuser of its latents, then
samples."""
import json

import h5py
import numpy as np
import pytest
import torch

from swinmpi.cli.evaluate import main as evaluate
from swinmpi.cli.sample import main as sample
from swinmpi.cli.train import main as train
from swinmpi.families.loading import load_family
from swinmpi.storage.checkpoint import load_weights
from swinmpi.storage.pairs import PairReader
from swinmpi.training.batches import BatchSource
from swinmpi.training.latents import measured
from tests.support.sampling import arguments, smooth_stack, sr_of, write_checkpoint, write_stack
from tests.support.training import (
    ALIGNED,
    LATENT,
    as_arguments,
    log_of,
    losses_of,
    settings,
    tiny,
    write_pairs,
)

LAUNCH_TIMEOUT_S = 300


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """`pairs.h5`, and the runs `autoencoder` and `diffuser`."""
    made = tmp_path_factory.mktemp("latent")
    write_pairs(made / "pairs.h5")
    assert trains(made, "autoencoder", "train.target=encoder", "train.updates=30") == 0
    assert trains(made, "diffuser", *given(made)) == 0
    return made


def given(folder):
    return [f"train.encoder_checkpoint={folder / 'autoencoder' / 'best.safetensors'}"]


def trains(folder, run, *overrides, options=()):
    return train([*as_arguments(settings(folder / "pairs.h5", folder / run, *overrides,
                                         model=LATENT)), *options])


def test_the_autoencoder_learns_and_says_what_it_keeps(folder):
    losses = [record["autoencoder"] for record in log_of(folder / "autoencoder")
              if "loss" in record]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    figures = log_of(folder / "autoencoder")[-1]
    assert figures["psnr_autoencoder"] > figures["psnr_regression"] > 0
    assert "psnr_sample" not in figures and "psnr_autoencoder" in log_of(folder / "diffuser")[-1]


def test_the_diffuser_keeps_the_autoencoder_and_latents_of_unit_deviation(folder):
    before, after = (load_weights(folder / run / "best.safetensors")[0]
                     for run in ("autoencoder", "diffuser"))
    kept = {name: value for name, value in before.items() if name.startswith("autoencoder.")}
    scale = kept.pop("autoencoder.deviation")
    assert len(kept) > 4 and all(torch.equal(after[f"encoder.{name}"], value)
                                 for name, value in kept.items())
    assert (scale == 1).all() and (after["encoder.autoencoder.deviation"] != 1).all()
    config = tiny(folder / "pairs.h5", folder / "other", model=LATENT)
    family = load_family(folder / "diffuser" / "best.safetensors", config.model, True)
    # As it was when they were measured: the encoder has learned on since.
    family.model.encoder.load_state_dict(
        before | {"autoencoder.deviation": after["encoder.autoencoder.deviation"]})
    with PairReader(folder / "pairs.h5") as pairs:
        found = measured(family, BatchSource(config, family, pairs, 0, 1), torch.device("cpu"))
    torch.testing.assert_close(found, torch.ones(4), rtol=1e-4, atol=0)


def test_a_stopped_diffuser_goes_on_as_if_it_had_not_been(folder, tmp_path):
    """Without the autoencoder's file, which its states hold."""
    aside = (folder / "autoencoder" / "best.safetensors").read_bytes()
    (tmp_path / "best.safetensors").write_bytes(aside)
    mine = [f"train.encoder_checkpoint={tmp_path / 'best.safetensors'}", "train.annealing=none"]
    for run, *updates in (("parts", 3), ("whole", 6)):
        assert trains(folder, tmp_path / run, *mine, f"train.updates={updates[0]}",
                      "train.validate_every=3") == 0
    (tmp_path / "best.safetensors").unlink()
    assert trains(folder, tmp_path / "parts", *mine, "train.updates=6", "train.validate_every=3",
                  options=["--resume"]) == 0
    assert log_of(tmp_path / "parts") == log_of(tmp_path / "whole")
    parts, whole = (load_weights(tmp_path / run / "update-00000006" / "ema.safetensors")[0]
                    for run in ("parts", "whole"))
    assert all(torch.equal(parts[name], whole[name]) for name in whole)


def test_samples_do_not_tell_the_exchange_and_can_be_judged(folder, tmp_path):
    stack = write_stack(tmp_path / "lr.h5", smooth_stack(2, 27, 19, channels=3, dtype="uint8"))
    checkpoint = folder / "diffuser" / "best.safetensors"
    for at in ("root", "torus"):
        assert sample(arguments(stack, tmp_path / f"{at}.h5", checkpoint,
                                f"parallel.exchange={at}")) == 0
    sr = sr_of(tmp_path / "root.h5")
    assert sr.shape == (2, 54, 38, 3) and np.array_equal(sr, sr_of(tmp_path / "torus.h5"))
    assert evaluate([str(tmp_path / "root.h5"), "--lr", str(stack), "--output",
                     str(tmp_path / "figures")]) == 0
    # Windows of 16 px of latents have seams every 32 px of the image.
    assert json.loads((tmp_path / "figures" / "evaluate.json").read_text())["window_px"] == 32
    with h5py.File(tmp_path / "root.h5") as file:
        assert np.isfinite(file["entry/per_image/seam_score"][()]).all()


@pytest.mark.parametrize("target", ["encoder", "diffuser"])
def test_a_dry_run_tells_what_a_stage_costs(folder, tmp_path, capsys, target):
    more = given(folder) if target == "diffuser" else []
    assert trains(folder, tmp_path / "run", f"train.target={target}", *more,
                  options=["--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "model   latent, " in told and f"trained for {target}" in told and "TFLOP" in told
    assert not (tmp_path / "run").exists()


def test_an_autoencoder_alone_samples_its_regression(folder, tmp_path):
    stack = write_stack(tmp_path / "lr.h5", smooth_stack(1, 22, 18, channels=3, dtype="uint8"))
    alone = folder / "autoencoder" / "best.safetensors"
    assert sample(arguments(stack, tmp_path / "alone.h5", alone)) == 0
    assert sr_of(tmp_path / "alone.h5").shape == (1, 44, 36, 3)


@pytest.mark.parametrize("overrides, said", [
    ([*LATENT], "train.encoder_checkpoint: expected the autoencoder that model.family latent"),
    ([*LATENT, "model.latent_factor=4"], "a latent_factor that divides scale 2, not 4"),
    ([*LATENT, "model.scale=3"], "model.scale: expected 2 or 4, got 3"),
    ([*LATENT, "model.autoencoder_blocks=9"], "autoencoder_blocks: expected at most 8"),
    ([*LATENT, "train.target=distill", "train.teacher=photos_x2"], "family aligned"),
    ([*LATENT, "model.window_px=20", "train.target=encoder"], "at least a window of 40 px"),
    ([*ALIGNED, "model.latent_factor=2"], "it belongs to another model.family"),
])
def test_what_cannot_be_trained_is_told_in_a_line(folder, tmp_path, capfd, overrides, said):
    more = [f"train.data={folder / 'pairs.h5'}", f"train.output={tmp_path / 'run'}",
            "train.crop_px=32"]
    assert train(as_arguments([*overrides, *more])) == 2
    told = capfd.readouterr()
    assert (told.out, told.err.count("\n")) == ("", 1) and said in told.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["aligned", "other latents"])
def test_an_encoder_of_another_kind_is_refused(folder, tmp_path, capfd, kind):
    model = ALIGNED if kind == "aligned" else [*LATENT, "model.latent_channels=5"]
    other = write_checkpoint(tmp_path / "other.safetensors", model=model, target="encoder")
    assert trains(folder, tmp_path / "run", f"train.encoder_checkpoint={other}") == 2
    told = capfd.readouterr().err
    assert told.count("\n") == 1 and "does not fit the configured model" in told
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_two_ranks_train_and_sample_the_same(mpirun, folder, tmp_path):
    command = as_arguments(settings(folder / "pairs.h5", tmp_path / "run", *given(folder),
                                    model=LATENT))
    finished = mpirun(2, "-m", "swinmpi.cli.train", *command, timeout_s=LAUNCH_TIMEOUT_S)
    assert finished.code == 0, finished
    assert losses_of(tmp_path / "run") == pytest.approx(losses_of(folder / "diffuser"), rel=1e-3)
    mine, others = (load_weights(at / "best.safetensors")[0]["encoder.autoencoder.deviation"]
                    for at in (tmp_path / "run", folder / "diffuser"))
    assert torch.equal(mine, others)
    stack = write_stack(tmp_path / "lr.h5", smooth_stack(1, 41, 37, channels=3, dtype="uint8"))
    words = [stack, "--checkpoint", folder / "diffuser" / "best.safetensors", "--set",
             "parallel.threads=1", "--set", "output.picture=false"]
    made = []
    for ranks, at in ((1, "root"), (2, "root"), (2, "torus")):
        output = tmp_path / f"{ranks}-{at}.h5"
        finished = mpirun(ranks, "-m", "swinmpi.cli.sample", *words, "--output", output, "--set",
                          f"parallel.exchange={at}", timeout_s=LAUNCH_TIMEOUT_S)
        assert (finished.code, finished.err) == (0, ""), finished
        made.append(sr_of(output))
    assert all(np.array_equal(made[0], other) for other in made[1:])
