"""swinmpi-sample with the published process: its start, its end, its precision, older models."""
import numpy as np
import pytest
import torch

from swinmpi.cli.sample import main
from swinmpi.config import load_config
from swinmpi.sampling.settings import deciding
from swinmpi.storage.checkpoint import load_weights, save_weights
from tests.support.sampling import arguments, smooth_stack, sr_of, write_checkpoint, write_stack
from tests.support.training import THESIS

LATER = {"model": ("layers", "dropout"), "diffusion": ("beta_start", "beta_end"),
         "sampler": ("clip_result", "start", "quiet_steps", "coherence")}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    write_stack(folder / "in.h5", smooth_stack(2, 16, 16, 3, "uint8"))
    write_checkpoint(folder / "thesis.safetensors", model=THESIS)
    write_checkpoint(folder / "short.safetensors", "diffusion.schedule=thesis64", model=THESIS)
    return folder


@pytest.fixture
def sample(inputs, tmp_path, capsys):
    def run(*settings, name="out", checkpoint="thesis"):
        code = main(arguments(inputs / "in.h5", tmp_path / f"{name}.h5",
                              inputs / f"{checkpoint}.safetensors", *settings))
        return code, capsys.readouterr().err

    return run


@pytest.mark.parametrize("setting", ["start=unit", "clip_result=0.1", "shift.circular=drawn"])
@pytest.mark.parametrize("exchange", ["root", "torus"])
def test_each_setting_of_the_sampler_shows_in_the_pixels(sample, tmp_path, setting, exchange):
    # one whose schedule leaves something of the image in x_T
    where = {"checkpoint": "short"}
    assert sample(f"parallel.exchange={exchange}", **where)[0] == 0
    asked = (f"sampler.{setting}", f"parallel.exchange={exchange}")
    assert sample(*asked, name="other", **where)[0] == 0
    assert not np.array_equal(sr_of(tmp_path / "out.h5"), sr_of(tmp_path / "other.h5"))


def test_quiet_steps_add_no_noise(sample, tmp_path):
    ddpm = ("sampler.method=ddpm", "sampler.steps=4")
    assert sample(*ddpm)[0] == sample(*ddpm, "sampler.quiet_steps=2", name="quiet")[0] == 0
    assert not np.array_equal(sr_of(tmp_path / "out.h5"), sr_of(tmp_path / "quiet.h5"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this node has a GPU")
def test_fp16_on_a_cpu_is_fp32_and_says_so(sample, tmp_path):
    assert sample()[0] == 0
    code, error = sample("parallel.precision=fp16", name="half")
    assert code == 0 and error.count("computing with fp32") == 1, error
    np.testing.assert_array_equal(sr_of(tmp_path / "half.h5"), sr_of(tmp_path / "out.h5"))


def test_another_window_than_in_training_is_told(sample):
    code, error = sample("model.window_px=32", "--dry-run")
    assert code == 0 and error == ("swinmpi: model.window_px: the network was trained on windows "
                                   "of 16 px, with 32 px its results may be worse\n")
    assert sample("--dry-run") == (0, "")


def test_a_checkpoint_of_an_older_version_samples_as_it_did(inputs, sample, tmp_path):
    made = write_checkpoint(inputs / "text.safetensors", "model.layers=text", "model.dropout=0.0",
                            model=THESIS)
    tensors, header = load_weights(made)
    for section, names in LATER.items():
        for name in names:
            del header[section][name]
    save_weights(inputs / "older.safetensors", tensors, header)
    assert sample(checkpoint="text") == (0, "")
    assert sample(checkpoint="older", name="older") == (0, "")
    np.testing.assert_array_equal(sr_of(tmp_path / "older.h5"), sr_of(tmp_path / "out.h5"))
    code, error = sample("model.layers=published", checkpoint="older", name="other")
    assert code == 2 and "layers published, as configured, but it was trained with text" in error


def test_a_fingerprint_names_new_settings_only_where_they_are_used():
    before = deciding(load_config(overrides=["model.family=thesis"]))
    assert not any(name in before[section] for section, names in LATER.items() for name in names)
    assert "circular" not in before["sampler"]["shift"]
    used = deciding(load_config(overrides=["sampler.start=unit", "diffusion.schedule=linear",
                                           "diffusion.beta_start=0.1", "diffusion.beta_end=0.2",
                                           "sampler.shift.circular=drawn"]))
    assert (used["sampler"]["start"], used["diffusion"]["beta_end"]) == ("unit", 0.2)
    assert used["sampler"]["shift"]["circular"] == "drawn"
