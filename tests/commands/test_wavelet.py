"""The family `wavelet` by its commands: trained, stopped and resumed, sampled on one and two ranks,
judged; and what it refuses."""
import json

import numpy as np
import pytest
import torch

from swinmpi.cli import evaluate, sample, train
from swinmpi.families.wavelet import POWERS
from swinmpi.images.imresize import imresize
from swinmpi.storage.checkpoint import load_weights
from tests.support.sampling import arguments, smooth_stack, sr_of, write_stack
from tests.support.training import WAVELET, as_arguments, log_of, settings, write_pairs

pytestmark = pytest.mark.slow

# 15 x 11 px become 30 x 22, and bands of 15 x 11 px: no whole windows of 8.
HEIGHT, WIDTH = 15, 11
SHORT = ["train.updates=4", "train.checkpoint_every=2", "train.validate_every=4",
         "train.annealing=none", "train.ema_decay=0"]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("pairs") / "pairs.h5")


@pytest.fixture(scope="module")
def run(pairs, tmp_path_factory):
    """The folder of a training."""
    folder = tmp_path_factory.mktemp("run")
    assert trained(pairs, folder, *SHORT) == 0
    return folder


@pytest.fixture(scope="module")
def stacks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stacks")
    hr = smooth_stack(2, HEIGHT * 2, WIDTH * 2, 3, "uint8")
    lr = np.stack([imresize(image, scale=0.5) for image in hr])
    return write_stack(folder / "lr.h5", lr), write_stack(folder / "hr.h5", hr)


def trained(pairs, folder, *overrides, options=()):
    given = settings(pairs, folder, *overrides, model=WAVELET)
    return train.main([*as_arguments(given), *options])


def test_a_run_that_was_stopped_goes_on_to_the_same_weights_and_deviations(pairs, run, tmp_path):
    assert trained(pairs, tmp_path, *SHORT, "train.updates=2") == 0
    assert trained(pairs, tmp_path, *SHORT, options=["--resume"]) == 0
    losses = [record for record in log_of(run) if "loss" in record]
    assert [record for record in log_of(tmp_path) if "loss" in record] == losses
    mine, others = (load_weights(folder / "update-00000004" / "ema.safetensors")[0]
                    for folder in (tmp_path, run))
    assert all(torch.equal(mine[name], others[name]) for name in mine | others)
    last = torch.tensor([losses[-1][name] for name in POWERS])
    torch.testing.assert_close(mine["unet.deviations.values"], last.sqrt())


def test_samples_have_the_same_bytes_on_two_ranks_and_are_judged(run, stacks, tmp_path, mpirun,
                                                                 capsys):
    lr, hr = stacks
    checkpoint = run / "best.safetensors"
    assert sample.main(arguments(lr, tmp_path / "alone.h5", checkpoint)) == 0
    assert sample.main(arguments(lr, tmp_path / "torus.h5", checkpoint,
                                 "parallel.exchange=torus")) == 0
    finished = mpirun(2, "-m", "swinmpi.cli.sample",
                      *arguments(lr, tmp_path / "two.h5", checkpoint), timeout_s=600)
    assert finished.code == 0, finished
    images = sr_of(tmp_path / "alone.h5")
    assert images.shape == (2, HEIGHT * 2, WIDTH * 2, 3)
    for other in ("torus", "two"):
        assert np.array_equal(images, sr_of(tmp_path / f"{other}.h5")), other
    assert evaluate.main([str(tmp_path / "alone.h5"), "--reference", str(hr), "--output",
                          str(tmp_path / "judged")]) == 0
    told = json.loads((tmp_path / "judged" / "evaluate.json").read_text())
    assert told["window_px"] == 16, "seams lie where windows meet on the SR grid"
    capsys.readouterr()
    assert sample.main([*arguments(lr, tmp_path / "none.h5", checkpoint), "--dry-run"]) == 0
    assert "parts       24 of each image on the ranks of a group, 4 a window" in (
        capsys.readouterr().out)


def test_four_times_as_large_and_grey(tmp_path):
    pairs = write_pairs(tmp_path / "pairs.h5", 4, 1, size_px=32, num_train=4)
    assert trained(pairs, tmp_path / "run", *SHORT, "train.updates=1") == 0
    lr = write_stack(tmp_path / "lr.h5", smooth_stack(1, 9, 7))
    for exchange in ("root", "torus"):
        assert sample.main(arguments(lr, tmp_path / f"{exchange}.h5",
                                     tmp_path / "run" / "best.safetensors",
                                     f"parallel.exchange={exchange}")) == 0
    images = sr_of(tmp_path / "root.h5")
    assert images.shape == (1, 36, 28) and np.array_equal(images, sr_of(tmp_path / "torus.h5"))


@pytest.mark.parametrize(("overrides", "line"), [
    (["model.scale=3"], "model.scale: expected 2 or 4, got 3"),
    (["model.window_px=10"], "model.window_px: expected"),
    (["model.residual_gain=16"], "model.residual_gain: expected"),
    (["model.band_scaling=each"], "model.band_scaling: expected"),
    (["train.crop_px=14"], "train.crop_px: expected at least a window of 16 px"),
    (["train.target=distill", "train.teacher=photos_x2"], "wavelet"),
])
def test_what_cannot_be_is_told_in_a_line(pairs, tmp_path, capsys, overrides, line):
    assert trained(pairs, tmp_path / "run", *overrides) == 2
    told = capsys.readouterr().err
    assert line in told and told.count("\n") == 1 and not (tmp_path / "run").exists()
