"""What the network computes with: on a CPU what is for GPUs gives way in a line, a compiled run
gives the same pictures and says what it was."""
from pathlib import Path

import numpy as np
import pytest

from swinmpi.cli.sample import main
from swinmpi.config import load_config
from swinmpi.parallel.device import settled_compile
from swinmpi.sampling.provenance import folder_settings
from swinmpi.sampling.request import SampleRequest
from swinmpi.storage.outputs.result import read_process
from swinmpi.storage.stack import Stack
from tests.support.sampling import arguments, smooth_stack, sr_of, write_checkpoint, write_stack

REQUEST = SampleRequest("photos", None, Path("weights.safetensors"))
ONE_SHAPE = ["sampler.steps=2", "sampler.shift.pattern=none", "parallel.micro_batch=4"]


@pytest.fixture
def sample(tmp_path, capsys):
    write_stack(tmp_path / "in.h5", smooth_stack(1, 16, 16, 3, "uint8"))
    write_checkpoint(tmp_path / "aligned.safetensors")

    def run(name, *settings):
        code = main(arguments(tmp_path / "in.h5", tmp_path / f"{name}.h5",
                              tmp_path / "aligned.safetensors", *ONE_SHAPE,
                              "parallel.device=cpu", *settings))
        return code, capsys.readouterr().err

    return run


def configuration_of(path):
    with Stack.open(str(path)) as stack:
        return read_process(stack)["configuration"]


def test_tf32_on_a_cpu_is_fp32_and_says_so_in_a_line(sample, tmp_path):
    assert sample("plain") == sample("named", "parallel.precision=fp32") == (0, "")
    code, error = sample("tf32", "parallel.precision=tf32")
    assert code == 0 and len(error.splitlines()) == 1
    assert "tf32 is arithmetic of newer GPUs" in error and "computing with fp32 instead" in error
    for name in ("named", "tf32"):
        np.testing.assert_array_equal(sr_of(tmp_path / f"{name}.h5"), sr_of(tmp_path / "plain.h5"))
        assert "precision: fp32" in configuration_of(tmp_path / f"{name}.h5")


@pytest.mark.parametrize("setting", ["precision=tf16", "precision=float32", "compile=maybe"])
def test_what_is_none_is_refused_in_a_line(sample, tmp_path, setting):
    code, error = sample("out", f"parallel.{setting}")
    assert code == 2 and len(error.splitlines()) == 1 and "expected" in error
    assert not (tmp_path / "out.h5").exists()


def settings_of(*overrides):
    config = load_config(overrides=["parallel.device=cpu", *overrides])
    return folder_settings(REQUEST, config, "sha")


def test_a_fingerprint_is_that_of_before_the_new_settings():
    plain = settings_of()
    assert plain["precision"] == "fp32" and "compile" not in plain
    assert plain == settings_of("parallel.precision=fp32", "parallel.compile=false")


@pytest.mark.slow
def test_a_compiled_run_gives_the_same_pictures_and_says_what_it_was(sample, tmp_path):
    if not settled_compile(True, "cpu"):
        pytest.skip("nothing can be compiled here")
    assert sample("plain")[0] == sample("compiled", "parallel.compile=true")[0] == 0
    plain, compiled = (sr_of(tmp_path / f"{name}.h5").astype(int) for name in ("plain", "compiled"))
    assert np.abs(plain - compiled).max() <= 1
    assert "compile: true" in configuration_of(tmp_path / "compiled.h5")
    assert settings_of("parallel.compile=true") == settings_of() | {"compile": True}
