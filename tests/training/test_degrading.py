"""Noise and blur that are drawn for every crop that is trained on: what is drawn, what is told,
what is refused."""
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from swinmpi.cli.prepare import main as prepare
from swinmpi.errors import ConfigError
from swinmpi.families.loading import make_family
from swinmpi.images.imresize import imresize
from swinmpi.images.likeness.usual import usual_in
from swinmpi.storage.header import read_header
from swinmpi.storage.pair_writing import PairWriter
from swinmpi.storage.pairs import TRAIN, PairReader
from swinmpi.training.batches import BatchSource
from swinmpi.training.degrading import Degrading, Textures, blurred
from swinmpi.training.plan import plan
from swinmpi.training.train import Trainer, run
from tests.support.training import ALONE, log_of, tiny, write_pairs

AWARE = ["model.noise_aware=true", "data.noise=[0,0.1]"]
BLURRED = [*AWARE, "data.blur_px=[0.2,1]"]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("pairs") / "pairs.h5", size_px=48, channels=1,
                       num_train=12)


def batch(pairs, *overrides, update=3, rank=0, size=1):
    config = tiny(pairs, "run", "model.channels=1", *overrides)
    with PairReader(pairs) as reader:
        return BatchSource(config, make_family(config.model), reader, rank, size).batch(update, 0)


def test_noise_is_added_to_the_batch_as_it_is_without_and_its_level_told(pairs):
    plain, noisy = batch(pairs), batch(pairs, *AWARE)
    for name in ("hr", "eps", "t"):
        assert torch.equal(getattr(plain, name), getattr(noisy, name))
    added = (noisy.lr - plain.lr).std(dim=(1, 2, 3)) / 2
    assert plain.noise is None and (noisy.noise >= 0.8 * added).all() and noisy.noise.max() <= 0.1
    assert noisy.seen.shape[1] == 2 and torch.equal(noisy.seen[:, :1], noisy.lr)


@pytest.mark.parametrize("asked", [AWARE, BLURRED])
def test_noise_is_that_of_seed_update_and_crop_whoever_makes_it(pairs, asked):
    whole = batch(pairs, *asked)
    parts = [batch(pairs, *asked, rank=rank, size=2) for rank in range(2)]
    for name in ("lr", "noise"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]),
                           getattr(whole, name))
    assert not torch.equal(batch(pairs, *asked, update=4).noise, whole.noise)


def test_low_levels_are_drawn_more_often():
    rngs = [np.random.default_rng(seed) for seed in range(400)]
    levels, sigmas, told = Degrading((0.02, 0.06), (0.5, 1.0)).draw(rngs, [0.03] * 400)
    assert 0.02 <= levels.min() and levels.max() <= 0.06 and np.median(levels) < 0.035
    assert 0.5 <= sigmas.min() and sigmas.max() <= 1.0 and (told >= levels).all()
    measured = np.isclose(told, np.hypot(levels, 0.03).clip(0, 0.06), rtol=1e-5)
    assert 0.4 < measured.mean() < 0.75 and told.max() <= 0.06 + 1e-7


def test_what_would_be_measured_without_noise_is_told_as_such(pairs):
    with PairReader(pairs) as reader:
        textures = Textures(reader)
        levels = [textures.of(index) for index in range(3)]
        assert len(set(levels)) > 1 and min(levels) > 0 and [textures.of(1)] == levels[1:2]


def test_blur_is_a_gaussian_s_and_what_lies_beyond_is_mirrored():
    images = np.random.default_rng(1).standard_normal((2, 1, 12, 10))
    made = blurred(torch.from_numpy(images), torch.tensor([0.8, 0.0]), reach=4).numpy()
    wanted = gaussian_filter(images[0, 0], 0.8, mode="reflect", truncate=5)
    np.testing.assert_allclose(made[0, 0], wanted, atol=1e-6)
    np.testing.assert_allclose(made[1], images[1], atol=1e-6)


def test_a_run_keeps_the_levels_and_resumes_to_the_same_losses(pairs, tmp_path):
    def config(folder, *more):
        return tiny(pairs, tmp_path / folder, *BLURRED, *more)

    def trained(made, resume=False):
        return run(plan(made, 1, resume), ALONE, lambda: False)

    whole = trained(config("whole"))
    trained(config("parts", "train.updates=3"))
    parts = trained(config("parts"), resume=True)
    assert [one["loss"] for one in log_of(whole) if "loss" in one] == [
        one["loss"] for one in log_of(parts) if "loss" in one]
    header = trained_header(whole)
    assert header["model"]["noise_aware"] and header["noise"] == [0.0, 0.1]
    assert header["blur_px"] == [0.2, 1.0]
    usual = usual_in(header).quantiles["noise"]
    assert usual[-1] > np.log2(2 * 0.08) - 0.5  # the loudest is known


def trained_header(folder):
    return read_header(folder / "update-00000006" / "ema.safetensors")


def test_a_network_that_is_told_nothing_says_nothing_of_it(pairs):
    header = Trainer(tiny(pairs, "run", "model.channels=1"), ALONE, 12).header()
    assert "noise_aware" not in header["model"]


@pytest.mark.parametrize(("asked", "told"), [
    (["data.noise=0.02"], "data.noise: expected model.noise_aware true"),
    (["data.blur_px=1"], "data.blur_px: expected model.noise_aware true"),
    (["model.noise_aware=true"], "data.noise: expected the levels to train on"),
    (["model.noise_aware=true", "data.noise=measure"], "got measure"),
])
def test_noise_and_a_network_that_is_told_belong_together(pairs, tmp_path, asked, told):
    with pytest.raises(ConfigError, match=told):
        plan(tiny(pairs, tmp_path / "run", *asked), 1, resume=False)


@pytest.mark.parametrize("spoilt", ["read_noise", "psf_px"])
def test_pairs_that_are_degraded_already_are_refused(tmp_path, spoilt):
    hr = np.zeros((48, 48, 1), np.uint8)
    with PairWriter(tmp_path / "pairs.h5", {"scale": 2.0, spoilt: [0.0, 0.5]}) as made:
        made.append(hr, imresize(hr, size=(24, 24)), TRAIN, "one")
    with pytest.raises(ConfigError, match=f"without {spoilt}"):
        plan(tiny(tmp_path / "pairs.h5", tmp_path / "run", *BLURRED), 1, resume=False)


def test_preparing_draws_no_such_noise(tmp_path, capsys):
    assert prepare([str(tmp_path), "--output", str(tmp_path / "p.h5"), "--set",
                    "data.noise=0.1"]) == 2
    assert "swinmpi-train draws them" in capsys.readouterr().err
