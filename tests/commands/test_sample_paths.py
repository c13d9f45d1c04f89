"""swinmpi-sample with a model of the straight path: few steps, presets, and what does not fit."""
import pytest

from swinmpi.cli.sample import main
from swinmpi.config import load_config
from swinmpi.sampling.request import SampleRequest
from swinmpi.sampling.settings import presets_of, settings_of
from swinmpi.sampling.validation import GivenSettings, resolved
from swinmpi.storage.header import read_header
from tests.support.sampling import arguments, smooth_stack, sr_of, write_checkpoint, write_stack


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("paths")
    write_stack(made / "lr.h5", smooth_stack(1, 20, 18, channels=3, dtype="float32"))
    write_checkpoint(made / "straight.safetensors", "diffusion.path=straight",
                     "diffusion.start_std=0.4")
    write_checkpoint(made / "curved.safetensors")
    return made


def words(folder, output, *settings, model="straight"):
    return arguments(folder / "lr.h5", output, folder / f"{model}.safetensors", *settings)


@pytest.mark.slow
def test_it_is_walked_in_any_number_of_steps_by_both_methods(folder, tmp_path):
    made = {}
    for number, settings in enumerate((["sampler.steps=1"], ["sampler.steps=2"],
                                       ["sampler.steps=2", "sampler.method=heun"],
                                       ["sampler.steps=8"], ["sampler.steps=1",
                                                             "sampler.noise_scale=0"])):
        output = tmp_path / f"{number}.h5"
        assert main(words(folder, output, *settings)) == 0
        made[number] = sr_of(output).tobytes()
    assert len(set(made.values())) == len(made)


@pytest.mark.parametrize("preset, steps", [("faithful", 1), ("balanced", 10), ("detailed", 25)])
def test_presets_take_its_method(folder, preset, steps):
    request = SampleRequest("", None, folder / "straight.safetensors")
    sampler = resolved(request, GivenSettings((), (), preset)).sampler
    assert (sampler.method, sampler.steps) == ("euler", steps)
    curved = SampleRequest("", None, folder / "curved.safetensors")
    assert resolved(curved, GivenSettings((), (), preset)).sampler.method == "ddim"


def test_presets_give_a_prediction_of_eps_a_few_steps(folder):
    header = read_header(folder / "curved.safetensors")
    for prediction, steps in (("v", 1), ("eps", 5)):
        trained = load_config(base=settings_of(header)).replaced(
            diffusion={"prediction": prediction})
        assert presets_of(header, trained)["faithful"]["sampler"]["steps"] == steps


@pytest.mark.parametrize("model, setting, told", [
    ("straight", "sampler.method=ddim", "sampler.method: expected euler or heun"),
    ("straight", "sampler.start=unit", "sampler.start: expected as_trained"),
    ("straight", "sampler.steps=51", "expected at most diffusion.steps = 50"),
    ("straight", "diffusion.start_std=0.5", "expected a model with diffusion.start_std 0.5"),
    ("straight", "diffusion.path=curved", "it was trained with straight"),
    ("curved", "diffusion.path=straight", "it was trained with curved"),
    ("curved", "sampler.method=euler", "sampler.method: expected ddim or ddpm or dpmpp_2m or heun"),
    ("curved", "sampler.overlap=3", "expected 1, 2 or 4, got 3"),
])
def test_what_does_not_fit_its_path_is_told_and_nothing_written(folder, tmp_path, capsys, model,
                                                                setting, told):
    assert main(words(folder, tmp_path / "sr.h5", setting, model=model)) == 2
    line, = capsys.readouterr().err.splitlines()
    assert told in line
    assert list(tmp_path.iterdir()) == []
