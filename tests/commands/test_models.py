"""--model: what ships, told in a table, chosen by name and preset, and refused in a line."""
import re
import subprocess
import sys
from pathlib import Path

import pytest

from swinmpi import demo
from swinmpi.cli import evaluate, sample
from swinmpi.cli.models import (
    list_models,
    model_file,
    weights_of,
    words_on_grey,
    words_on_students,
)
from swinmpi.config import PRESETS, load_config
from swinmpi.demo import FILES, MODELS, SHIPPED, Shipped, shipped
from swinmpi.errors import ConfigError
from swinmpi.sampling.settings import presets_of, settings_of
from swinmpi.storage.checkpoint import load_weights, save_weights
from swinmpi.storage.header import read_header
from tests.support.sampling import arguments, smooth_stack, write_checkpoint, write_stack

MOST_MB = 20
PROVENANCE = Path(demo.__file__).with_name("PROVENANCE.md").read_text()
ROOT = Path(__file__).parents[2]


def test_every_file_that_ships_is_in_the_table_and_small():
    there = {path.name for path in shipped("").glob("*.safetensors")}
    assert there == set(FILES)
    assert {name for name in FILES if shipped(name).stat().st_size > MOST_MB * 1e6} == set()


@pytest.mark.parametrize("name", SHIPPED)
def test_every_model_says_where_it_comes_from(name):
    model, header = SHIPPED[name], read_header(shipped(MODELS[name]))
    for file in (model.file, *model.presets.values()):
        assert any(file in line or f" _{name.rpartition('_')[2]}" in line
                   for line in PROVENANCE.splitlines() if line.startswith("## ")), file
    assert model.licence and model.trained_on
    if header["model"]["family"] != "bicubic":
        assert model.gains and set(model.gains) <= set(PRESETS) and model.judged_on


def test_the_figures_are_those_of_the_readme():
    page = (ROOT / "README.md").read_text()
    for preset, gain in SHIPPED[demo.DEMO_MODEL].gains.items():
        row = next(line for line in page.splitlines() if f"`--preset {preset}`" in line)
        assert f"| {gain:+.2f} dB |" in row


@pytest.mark.parametrize("command", [sample, evaluate])
def test_the_list_is_told_and_a_name_that_is_not_there_refused(capsys, command):
    assert command.main(["--model", "list"]) == 0
    table = capsys.readouterr().out
    assert all(re.search(rf"^{name} ", table, re.M) for name in MODELS)
    assert command.main(["x.h5", "--model", "photos_x9"]) == 2
    refusal = capsys.readouterr().err
    assert refusal.count("\n") == 1 and re.search("photos_x2, .*or list, got photos_x9", refusal)


def test_the_list_needs_no_torch():
    code = ("import sys; from swinmpi.cli.sample import main; main(['--model', 'list']); "
            "sys.exit('torch' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A table of models in another folder: colour with a student for `fast`, and grey."""
    folder = tmp_path_factory.mktemp("models")
    colour = write_checkpoint(folder / "colour.safetensors")
    tensors, header = load_weights(colour)
    save_weights(folder / "student.safetensors", tensors, header | {"distilled_steps": 1})
    write_checkpoint(folder / "grey.safetensors", "model.channels=1")
    files = {name: str(folder / f"{name}.safetensors") for name in ("colour", "student", "grey")}
    return {"colour": Shipped(files["colour"], "noise", "none", {"fast": 1.5}, "nothing",
                              {"fast": files["student"]}),
            "grey": Shipped(files["grey"], "noise", "none")}


def test_a_preset_may_have_a_file_of_its_own(own):
    assert model_file("colour", models=own) == model_file("colour", "balanced", own)
    assert model_file("colour", "fast", own).name == "student.safetensors"
    assert model_file("grey", "fast", own).name == "grey.safetensors"
    with pytest.raises(ConfigError, match="expected one of colour, grey, or list"):
        model_file("photos_x2", models=own)
    colour, grey = list_models(own).splitlines()[2:4]
    assert "3, faithful 1, fast 1, balanced 10" in colour and "fast +1.50" in colour
    assert "grey " in grey and "fast 2, balanced 10" in grey


def test_a_grey_stack_is_told_of_the_grey_model_but_only_there(own):
    colour, grey = (Path(own[name].file) for name in ("colour", "grey"))
    assert words_on_grey(colour, 1, own) == [
        "a model for grey images ships as well: --model grey"]
    for checkpoint, channels in ((colour, 3), (grey, 1), (Path("own.safetensors"), 1)):
        assert words_on_grey(checkpoint, channels, own) == []
    assert words_on_grey(colour, 1, {"colour": own["colour"]}) == []


@pytest.mark.parametrize(("given", "student"), [
    ([], True), (["--set", "sampler.noise_scale=0.5"], True), (["--set", "sampler.steps=4"], False),
    (["--set", "sampler.adaptive=0.5"], False), (["--sweep", "sampler.adaptive=0,0.5"], False),
    (["--sweep", "sampler.noise_scale=0,1"], True)])
def test_steps_that_are_chosen_are_those_of_the_teacher(given, student):
    """The student has one step, of which easy parts could not be spared any."""
    used = weights_of(sample.parser().parse_args(given))
    assert (used == shipped("photos_x2_one_step.safetensors")) == student


def test_steps_that_are_a_students_name_it_where_it_is_not_used(own, tmp_path):
    recorded = tmp_path / "recorded.yaml"
    recorded.write_text("sampler: {steps: 1}")
    by_hand = ["--set", "sampler.steps=1"]
    for given, told in ((by_hand, True), (["--config", str(recorded)], True),
                        (["--set", "sampler.steps=2"], False), ([], False),
                        ([*by_hand, "--preset", "fast"], False),
                        ([*by_hand, "--checkpoint", "own.safetensors"], False),
                        ([*by_hand, "--set", "sampler.method=regression"], False)):
        options = sample.parser().parse_args(given)
        options.model = "colour"
        config = load_config(options.config, options.overrides)
        words = words_on_students(options, config, own)
        assert len(words) == told and all("--preset fast" in line for line in words), given


def test_a_student_is_faithful_without_noise(own):
    """From noise it would take the step to a full sample, the same as `detailed`."""
    header = read_header(Path(own["colour"].presets["fast"]))
    presets = presets_of(header, load_config(base=settings_of(header)))
    assert [presets[name]["sampler"]["noise_scale"]
            for name in ("faithful", "fast", "detailed")] == [0, 1, 1]
    assert presets["faithful"]["sampler"]["steps"] == 1


def test_fast_is_two_steps_of_any_checkpoint(tmp_path, capsys):
    stack = write_stack(tmp_path / "lr.h5", smooth_stack(1, 16, 16))
    checkpoint = write_checkpoint(tmp_path / "model.safetensors")
    assert sample.main([*arguments(stack, tmp_path / "out.h5", checkpoint), "--preset", "fast",
                        "--dry-run"]) == 0
    assert "2 steps (ddim)" in capsys.readouterr().out


@pytest.mark.parametrize("presets", [["fast"], {"fast": 1}, {"fast": {"sampler": 3}}, {"fast": {}},
                                     {"fast": {"sampler": {"stepz": 3}}}])
def test_presets_of_a_damaged_header_are_refused(tmp_path, capsys, presets):
    own = write_checkpoint(tmp_path / "own.safetensors")
    tensors, header = load_weights(own)
    save_weights(own, tensors, header | {"presets": presets})
    stack = write_stack(tmp_path / "in.h5", smooth_stack(1, 24, 24))
    words = arguments(stack, tmp_path / "out.h5", own)
    assert sample.main([*words, "--preset=fast"]) == 2
    assert capsys.readouterr().err.count("\n") == 1 and not (tmp_path / "out.h5").exists()
