"""Networks that are told the noise level: how it is measured, told and kept, and what is
refused."""
import h5py
import numpy as np
import pytest

from swinmpi.cli.sample import main
from swinmpi.config import load_config
from swinmpi.images.likeness.noise import noise_level, trained_levels
from swinmpi.sampling.settings import consistency
from swinmpi.storage.checkpoint import load_weights, save_weights
from tests.support.sampling import arguments, sr_of, write_checkpoint, write_stack
from tests.support.training import ALIGNED

AWARE = "model.noise_aware=true"


def level_of(image):
    """Of (h, w), -1..1."""
    return noise_level(lambda rows: image[None, rows.start:rows.stop], image.shape)


def smooth(size=96):
    line = np.sin(np.linspace(0, 5, size, dtype=np.float32))
    return 0.8 * line[:, None] * line


@pytest.mark.parametrize("level", [0.005, 0.02, 0.1])
def test_noise_on_a_smooth_image_is_measured(level):
    noise = np.random.default_rng(0).standard_normal((96, 96))
    assert level_of(smooth() + 2 * level * noise) == pytest.approx(level, rel=0.15, abs=0.001)


def test_what_is_cut_off_missing_or_blank_is_no_sign_of_silence():
    rng, level = np.random.default_rng(1), 0.05
    image = smooth() + 2 * level * rng.standard_normal((96, 96))
    image[:, :48] = -1  # a background that is all the same
    image[:32, 48:60] = np.nan
    assert level_of(image) == pytest.approx(level, rel=0.2)
    assert level_of(np.full((96, 96), 0.5)) == level_of(np.full((96, 96), np.nan)) == 0
    assert level_of(rng.standard_normal((10, 10))) == 0


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A stack of an image without and one with noise, and checkpoints that are told and not."""
    folder = tmp_path_factory.mktemp("noise")
    images = np.stack([smooth(64), smooth(64)])
    images[1] += np.random.default_rng(2).normal(0, 0.1, images[1].shape)
    write_stack(folder / "lr.h5", images)
    write_checkpoint(folder / "aware.safetensors", AWARE)
    write_checkpoint(folder / "plain.safetensors")
    return folder


def sampled(made, output, *settings, checkpoint="aware"):
    return main(arguments(made / "lr.h5", output, made / f"{checkpoint}.safetensors",
                          "output.value_range=[-1,1]", "--overwrite", *settings))


def told(output):
    with h5py.File(output) as file:
        return file["entry/per_image/noise"][()]


def test_every_image_s_level_is_measured_told_and_kept(made, tmp_path, capsys):
    output, given = tmp_path / "out.h5", tmp_path / "given.h5"
    assert sampled(made, output) == 0
    quiet, loud = told(output)
    assert quiet < 0.01 and loud == pytest.approx(0.05, rel=0.2)
    assert f"noise told to the network: {quiet:.3g} to {loud:.3g} of" in capsys.readouterr().out
    assert sampled(made, given, f"data.noise={loud:.4f}") == 0
    assert told(given) == pytest.approx([loud, loud])
    before, after = sr_of(output), sr_of(given)
    assert np.array_equal(before[1], after[1]) and not np.array_equal(before[0], after[0])


def test_what_is_told_stays_within_what_was_learned(made, tmp_path, capsys):
    tensors, header = load_weights(made / "aware.safetensors")
    save_weights(made / "learned.safetensors", tensors, header | {"noise": [0.01, 0.03]})
    output = tmp_path / "out.h5"
    assert sampled(made, output, checkpoint="learned") == 0
    assert told(output) == pytest.approx([0.01, 0.03])
    assert sampled(made, output, "data.noise=0.04", checkpoint="learned") == 0
    assert told(output) == pytest.approx([0.04, 0.04])
    assert "levels from 0.01 to 0.03, with 0.04" in capsys.readouterr().err
    assert [trained_levels(spoilt) for spoilt in (
        {}, {"noise": "x"}, {"noise": [1, 0]}, {"noise": [0, float("nan")]})] == [(0.0, 1.0)] * 4


def test_a_dry_run_says_what_is_told(made, tmp_path, capsys):
    assert sampled(made, tmp_path / "out.h5", "--dry-run") == 0
    assert "noise       measured in every image" in capsys.readouterr().out


@pytest.mark.parametrize(("checkpoint", "setting", "expected"), [
    ("plain", "data.noise=0.1", "a checkpoint that is told how noisy"),
    ("plain", "data.noise=measure", "a checkpoint that is told how noisy"),
    ("aware", "data.noise=[0,0.1]", "one level, or measure"),
    ("aware", "data.noise=-1", "a number from 0 to 1"),
    ("aware", "data.noise=loud", "or measure"),
    ("aware", "data.blur_px=1", "data.blur_px: expected none to sample with"),
    ("plain", "data.blur_px=1", "data.blur_px: expected none to sample with"),
    ("plain", "model.noise_aware=true", "model with model.noise_aware True"),
])
def test_a_level_that_cannot_be_told_is_refused(made, tmp_path, capsys, checkpoint, setting,
                                                expected):
    assert sampled(made, tmp_path / "out.h5", setting, checkpoint=checkpoint) == 2
    refusal = capsys.readouterr().err
    assert expected in refusal and refusal.count("\n") == 1
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(("settings", "expected"), [
    ([], False), (["data.noise=0"], True), (["data.noise=0.01"], False),
    (["output.consistent=0.5"], 0.5)])
def test_noise_is_not_brought_back_by_agreeing_with_lr(settings, expected):
    config = load_config(overrides=[*ALIGNED, AWARE, *settings])
    assert consistency(config, {"noise": [0, 0.1]}) == expected
    assert not consistency(config.replaced(output={"consistent": None}), {"blur_px": [0, 1]})
