"""A head for a model that exists: nothing else of that changes, and it tells what is easy."""
import pytest
import torch

from swinmpi.cli.benchmark import main as benchmark
from swinmpi.cli.sample import main as sample
from swinmpi.cli.train import main
from swinmpi.config import load_config
from swinmpi.families.loading import make_family
from swinmpi.sampling.request import SampleRequest
from swinmpi.sampling.settings import deciding
from swinmpi.sampling.validation import GivenSettings, resolved
from swinmpi.storage.checkpoint import load_weights, save_weights
from swinmpi.training.objective import TrainingModule
from tests.contracts.test_families import make_batch, objective_for
from tests.support.sampling import arguments, smooth_stack, sr_of, write_checkpoint, write_stack
from tests.support.training import (
    ALIGNED,
    SHORT,
    THESIS,
    as_arguments,
    losses_of,
    write_pairs,
)

NO_MODEL = [setting for setting in SHORT if not setting.startswith(("diffusion", "sampler"))]
LONG = "train.updates=8"
BY_HEAD = ("sampler.adaptive=0.5", "parallel.threads=1")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def words(folder, output, *more):
    settings = [*NO_MODEL, f"train.data={folder / 'pairs.h5'}", "train.target=difficulty",
                f"train.output={folder / output}", f"train.init={folder / 'model.safetensors'}",
                "train.validate_images=1", LONG]
    return as_arguments([*settings, *more])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("difficulty")
    write_pairs(made / "pairs.h5")
    write_stack(made / "in.h5", smooth_stack(1, 40, 36, channels=3, dtype="uint8"))
    write_checkpoint(made / "model.safetensors", "sampler.shift.pattern=random")
    weights, header = load_weights(made / "model.safetensors")
    save_weights(made / "model.safetensors", weights, header | {"distilled_steps": 3})
    write_checkpoint(made / "thesis.safetensors", model=THESIS)
    assert main(words(made, "run")) == 0
    return made


def sampled(folder, name, checkpoint, *settings):
    words = arguments(folder / "in.h5", folder / f"{name}.h5", checkpoint, *settings)
    assert sample(words) == 0
    return sr_of(folder / f"{name}.h5").tobytes()


def test_nothing_but_the_head_changes(folder):
    before, told = load_weights(folder / "model.safetensors")
    after, tells = load_weights(folder / "run" / "best.safetensors")
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert {name.rpartition(".")[0] for name in after.keys() - before.keys()} == {
        "encoder.difficulty.0", "encoder.difficulty.2"}
    with_head = told["model"] | {"difficulty_head": True}
    assert load_config(base={"model": tells["model"]}) == load_config(base={"model": with_head})
    changed = {name for name in tells.keys() | told.keys() if tells.get(name) != told.get(name)}
    assert changed == {"swinmpi", "update", "model", "train"}
    losses = losses_of(folder / "run")
    assert losses[-1] < losses[0]


def test_it_goes_on_where_it_was_stopped(folder):
    assert main(words(folder, "again", "train.updates=3")) == 0
    assert main([*words(folder, "again"), "--resume"]) == 0
    ends = [load_weights(folder / run / "update-00000008" / "weights.safetensors")
            for run in ("run", "again")]
    assert ends[0][0].keys() == ends[1][0].keys() and ends[0][1]["target"] == "diffuser"
    assert {name: value for name, value in ends[0][1].items() if name != "train"} == {
        name: value for name, value in ends[1][1].items() if name != "train"}


def test_it_samples_as_before_and_where_easy_in_fewer_steps(folder):
    head, plain = folder / "run" / "best.safetensors", folder / "model.safetensors"
    before = sampled(folder, "before", plain, "parallel.threads=1")
    assert sampled(folder, "after", head, "parallel.threads=1") == before
    assert sampled(folder, "adaptive", head, *BY_HEAD) != before
    assert sampled(folder, "nothing easy", head, *BY_HEAD, "sampler.adaptive=0") == before


def test_a_head_trained_beside_the_rest_bends_nothing():
    family = make_family(load_config(overrides=[*ALIGNED, "model.difficulty_head=true"]).model)
    module, batch = TrainingModule(family, objective_for(family)), make_batch(family)
    parts = module(batch)
    assert set(parts) == {"loss", "diffusion", "regression", "difficulty"}
    parts["loss"].backward()
    with_head = {name: value.grad.clone() for name, value in module.model.named_parameters()
                 if ".difficulty." not in name}
    assert all(part.grad.any() for part in module.model.encoder.difficulty[-1].parameters())
    module.zero_grad()
    module.model.encoder.difficulty.requires_grad_(False)
    alone = module(batch)
    assert "difficulty" not in alone, "a head that stays as it is has no loss"
    alone["loss"].backward()
    assert all(torch.equal(value.grad, with_head[name])
               for name, value in module.model.named_parameters() if ".difficulty." not in name)


@pytest.mark.parametrize("settings, told", [
    (("train.init=null",), "train.init: expected the checkpoint that gets a head"),
    (("train.init={}/thesis.safetensors",), "expected a model of family aligned, got thesis"),
    (("model.feature_channels=8",), "expected model.feature_channels 4 as in"),
    (("model.difficulty_head=false",), "model.difficulty_head: expected true with train.target"),
    (("diffusion.schedule=linear",), "expected the `diffusion` settings of"),
    (("sampler.adaptive=0.5",), "sampler.adaptive: expected none in training"),
    (("train.target=encoder", "train.init=null", "model.difficulty_head=true"),
     "model.difficulty_head: expected false with train.target encoder"),
])
def test_what_cannot_be_trained_is_refused_in_a_line(folder, capsys, settings, told):
    given = [setting.replace("{}", str(folder)) for setting in settings]
    assert main(words(folder, "refused", *given)) == 2
    said = capsys.readouterr().err.strip()
    assert told in said and "\n" not in said
    assert not (folder / "refused").exists()


@pytest.mark.parametrize("checkpoint, settings, told", [
    ("model", ("sampler.adaptive=0.5",), "set sampler.adaptive_by=detail"),
    ("model", ("sampler.adaptive=1.5", "sampler.adaptive_by=detail"), "sampler.adaptive: expected"),
    ("model", ("sampler.adaptive=true",), "sampler.adaptive: expected"),
    ("model", ("sampler.adaptive_steps=2",), "expected sampler.adaptive beside it"),
    ("model", ("sampler.adaptive_by=detail",), "expected sampler.adaptive beside it"),
    ("model", ("sampler.adaptive=0.5", "sampler.adaptive_by=detail", "sampler.adaptive_steps=4"),
     "sampler.adaptive_steps: expected at most sampler.steps = 3, got 4"),
    ("model", ("sampler.adaptive=0.5", "sampler.adaptive_by=detail", "--preset=regression"),
     "expected none with sampler.method regression"),
    ("thesis", ("sampler.adaptive=0.5",), "expected a model of family aligned"),
    ("alone", ("sampler.adaptive=0.5", "sampler.adaptive_by=detail"), "an encoder trained alone"),
])
def test_what_cannot_be_sampled_is_refused_in_a_line(folder, tmp_path, capsys, checkpoint, settings,
                                                     told):
    if checkpoint == "alone":
        write_checkpoint(folder / "alone.safetensors", target="encoder")
    out = tmp_path / "out.h5"
    assert sample(arguments(folder / "in.h5", out, folder / f"{checkpoint}.safetensors",
                            *settings)) == 2
    said = capsys.readouterr().err.strip()
    assert told in said and "\n" not in said
    assert list(tmp_path.iterdir()) == []


def test_a_benchmark_measures_whole_steps(folder, capsys):
    assert benchmark(["sample", "--set", "sampler.adaptive=0.5"]) == 2
    assert "sampler.adaptive: expected none" in capsys.readouterr().err


def test_what_is_spared_is_told_and_part_of_the_fingerprint_where_it_is_asked_for(folder, capsys):
    checkpoint = folder / "run" / "best.safetensors"
    words = arguments(folder / "in.h5", folder / "told.h5", checkpoint, *BY_HEAD)
    assert sample([*words, "--dry-run"]) == 0
    assert "adaptive    the easiest 50 % of the tiles of 32 px (by head) take 1 of 3 steps" in (
        capsys.readouterr().out)
    assert sample(words) == 0
    assert "% of the windows' evaluations were not needed" in capsys.readouterr().out
    request = SampleRequest(str(folder / "in.h5"), folder / "out.h5", checkpoint)
    for share, keys in ((None, set()), (0.5, {"adaptive"})):
        given = [] if share is None else [f"sampler.adaptive={share}"]
        told = deciding(resolved(request, GivenSettings(overrides=given)))
        assert {name for name in told["sampler"] if name.startswith("adaptive")} == keys
        assert told["model"]["difficulty_head"]
    plain = SampleRequest(str(folder / "in.h5"), folder / "out.h5", folder / "model.safetensors")
    assert "difficulty_head" not in deciding(resolved(plain, GivenSettings()))["model"]
