"""A run that starts from another checkpoint: what it takes, what it says, and what it refuses."""
import pytest
import torch

from swinmpi.cli.train import main
from swinmpi.config import load_config
from swinmpi.demo import MODELS, shipped
from swinmpi.errors import CheckpointError, ConfigError
from swinmpi.families.loading import make_family
from swinmpi.images.lr_rows import with_noise
from swinmpi.models.image_channels import to_channels
from swinmpi.storage.checkpoint import load_weights, save_weights
from swinmpi.storage.header import read_header
from swinmpi.training.origin import check_origin, initial_weights, settings_beneath
from swinmpi.training.plan import describe, plan
from swinmpi.training.train import Trainer
from tests.support.sampling import write_checkpoint
from tests.support.training import ALONE, SHORT, SRDIFF, VANILLA, as_arguments, write_pairs

NO_MODEL = [setting for setting in SHORT if not setting.startswith(("diffusion", "sampler"))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("pairs")
    write_pairs(made / "colour.h5")
    write_pairs(made / "grey.h5", channels=1)
    write_pairs(made / "x4.h5", scale=4)
    write_checkpoint(made / "model.safetensors", "sampler.shift.pattern=random",
                     "model.residual_gain=11.0")
    write_checkpoint(made / "encoder.safetensors", target="encoder")
    return made


def words(folder, pairs, output, *overrides, init="model.safetensors"):
    return [*NO_MODEL, f"train.data={folder / pairs}", f"train.output={output}",
            f"train.init={folder / init}", *overrides]


def config_of(overrides):
    return load_config(overrides=overrides,
                       base=settings_beneath(load_config(overrides=overrides), resume=False))


def planned(folder, pairs, output, *overrides, **more):
    return plan(config_of(words(folder, pairs, output, *overrides, **more)), 1, resume=False)


def test_everything_is_the_checkpoint_s_and_all_weights_are_taken(folder, tmp_path):
    made = planned(folder, "colour.h5", tmp_path / "run")
    assert made.origin == ("train.init: 100 of 100 tensors from model.safetensors; new: none")
    assert made.origin in describe(made)
    config = made.config
    assert (config.model.window_px, config.model.residual_gain) == (16, 11.0)
    assert (config.diffusion.steps, config.sampler.shift.pattern) == (50, "random")
    trainer, weights = Trainer(config, ALONE, 12), load_weights(folder / "model.safetensors")[0]
    for tensors in (trainer.model.state_dict(), trainer.ema.tensors):
        assert all(torch.equal(tensors[name], value) for name, value in weights.items())


def test_what_is_given_wins(folder, tmp_path):
    made = planned(folder, "colour.h5", tmp_path / "run", "model.window_px=24",
                   "sampler.shift.pattern=none", "diffusion.path=straight")
    config = made.config
    assert (config.model.window_px, config.sampler.shift.pattern) == (24, "none")
    assert (config.diffusion.path, config.sampler.method) == ("straight", "euler")
    assert made.origin.endswith("it was trained with other `diffusion` settings")


def test_grey_pairs_make_a_grey_network_of_it(folder, tmp_path):
    made = planned(folder, "grey.h5", tmp_path / "run")
    assert made.config.model.channels == 1
    assert "100 of 100 tensors from model.safetensors, 6 of them made for 1 of 3" in made.origin
    weights, header = load_weights(folder / "model.safetensors")
    trained = load_config(base={"model": header["model"]}).model
    wanted = weights | to_channels(weights, trained, 1)
    state = Trainer(made.config, ALONE, 12).model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in wanted.items())


def test_another_scale_starts_the_enlarging_layer_anew(folder, tmp_path):
    made = planned(folder, "x4.h5", tmp_path / "run")
    assert made.origin == ("train.init: 98 of 100 tensors from model.safetensors; "
                           "new: encoder.tail.bias, encoder.tail.weight")


def test_an_encoder_starts_an_encoder(folder, tmp_path):
    made = planned(folder, "grey.h5", tmp_path / "run", "train.target=encoder",
                   init="encoder.safetensors")
    assert "3 of them made for 1 of 3 channels; new: none" in made.origin


def test_a_frozen_encoder_may_come_with_it(folder, tmp_path):
    config = planned(folder, "colour.h5", tmp_path / "run", "train.freeze_encoder=true").config
    frozen = {name for name, value in Trainer(config, ALONE, 12).model.named_parameters()
              if not value.requires_grad}
    assert frozen and all(name.startswith("encoder.") for name in frozen)


@pytest.mark.parametrize("overrides, told", [
    (["model.unet_channels=[16, 32]"], "expected model.unet_channels [8, 16] as in"),
    (["model.encoder_blocks=2"], "expected model.encoder_blocks 1 as in"),
    (["model.family=thesis"], "expected model.family aligned as in"),
    (["train.target=encoder"], "expected an encoder trained alone as train.target says"),
    (["train.encoder_checkpoint=x.safetensors"], "expected one of them, got both"),
])
def test_what_does_not_fit_is_told(folder, tmp_path, overrides, told):
    with pytest.raises(ConfigError) as raised:
        check_origin(config_of(words(folder, "colour.h5", tmp_path, *overrides)))
    assert told in str(raised.value) and "\n" not in str(raised.value)


def test_an_encoder_does_not_start_a_diffuser(folder, tmp_path):
    with pytest.raises(ConfigError, match="give it as train.encoder_checkpoint"):
        check_origin(config_of(words(folder, "colour.h5", tmp_path, init="encoder.safetensors")))


@pytest.mark.parametrize("model", [SRDIFF, VANILLA], ids=["srdiff", "vanilla"])
def test_other_families_start_from_their_own(folder, tmp_path, model):
    write_checkpoint(tmp_path / "other.safetensors", model=model)
    made = planned(folder, "colour.h5", tmp_path / "run", init=tmp_path / "other.safetensors")
    assert made.config.model.family in model[0] and made.origin.endswith("new: none")
    made = planned(folder, "grey.h5", tmp_path / "run", init=tmp_path / "other.safetensors")
    assert "made for 1 of 3 channels; new: none" in made.origin


def test_weights_that_are_not_those_of_their_own_settings_are_told(folder, tmp_path):
    weights, header = load_weights(folder / "model.safetensors")
    save_weights(tmp_path / "odd.safetensors",
                 weights | {"encoder.head.weight": torch.ones(8, 5, 3, 3)}, header)
    with pytest.raises(CheckpointError, match="expected weights that fit its own `model` settings"):
        planned(folder, "grey.h5", tmp_path / "run", init=tmp_path / "odd.safetensors")


def test_weights_that_the_model_has_no_place_for_are_told(folder, tmp_path):
    weights, header = load_weights(folder / "model.safetensors")
    save_weights(tmp_path / "more.safetensors", weights | {"head": torch.ones(2)}, header)
    config = config_of(words(folder, "colour.h5", tmp_path, init=tmp_path / "more.safetensors"))
    taken, told = initial_weights(config, make_family(config.model).model)
    assert told.endswith("new: none; left out: head") and len(taken) == 100


def test_a_shipped_model_by_its_name():
    config = config_of(["train.init=photos_x2", "model.channels=1"])
    taken, told = initial_weights(config, make_family(config.model).model)
    shipped_model = read_header(shipped(MODELS["photos_x2"]))["model"]
    assert config.model.unet_channels == shipped_model["unet_channels"]
    assert told.startswith(f"train.init: {len(taken)} of {len(taken)} tensors from photos_x2")


def run(capsys, *overrides, resume=False):
    code = main([*as_arguments(overrides), *(["--resume"] if resume else [])])
    return code, capsys.readouterr().err


@pytest.mark.slow
def test_a_run_says_once_what_it_took_and_goes_on_without_the_checkpoint(folder, tmp_path, capsys):
    own = tmp_path / "own.safetensors"
    own.write_bytes((folder / "model.safetensors").read_bytes())
    lasts = ["train.updates=2", "train.checkpoint_every=1"]
    given = words(folder, "grey.h5", tmp_path / "run", *lasts, init=own)
    code, err = run(capsys, *given)
    assert code == 0 and err.count("train.init: 100 of 100 tensors") == 1
    assert read_header(tmp_path / "run" / "best.safetensors")["model"]["channels"] == 1
    own.unlink()
    assert run(capsys, *given, "train.updates=3", resume=True) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize("init, told", [("gone.safetensors", "found nothing there"),
                                        ("colour.h5", "not a readable safetensors file"),
                                        ("", "got a folder")])
def test_what_is_no_checkpoint_is_told_and_nothing_written(folder, tmp_path, capsys, init, told):
    code, err = run(capsys, *words(folder, "colour.h5", tmp_path / "run", init=init))
    assert code == 2 and told in err and len(err.splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("given", [["train.init=photos_x9"], ["train.teacher=photos_x9",
                                                               "train.target=distill"]])
def test_a_name_that_does_not_ship_is_told_with_those_that_do(given):
    with pytest.raises(ConfigError, match="one of the shipped models .*photos_x2, .*got photos_x9"):
        config_of(given)


@pytest.mark.parametrize("section, value", [("sampler", 3), ("model", "aligned"),
                                            ("diffusion", {"path": "bent"})])
def test_a_damaged_header_is_told_in_one_line(folder, tmp_path, capsys, section, value):
    weights, header = load_weights(folder / "model.safetensors")
    save_weights(tmp_path / "odd.safetensors", weights, header | {section: value})
    code, err = run(capsys, *words(folder, "colour.h5", tmp_path / "run",
                                   init=tmp_path / "odd.safetensors"), "train.updates=1")
    assert code == 2 and "holds settings this version does not know" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("told", [True, False])
def test_a_level_told_anew_changes_no_answer_and_one_told_no_more_is_zero(tmp_path, told):
    before = "false" if told else "true"
    made = write_checkpoint(tmp_path / "model.safetensors", f"model.noise_aware={before}")
    config = config_of([f"train.init={made}", f"model.noise_aware={str(told).lower()}",
                        "model.channels=3"])
    old, new = (make_family(one.model).model.encoder for one in (
        config.replaced(model={"noise_aware": not told}), config))
    taken, words = initial_weights(config, make_family(config.model).model)
    assert f"noise that is {'told' if told else 'not told'}; new: none" in words
    inside = len("encoder.")
    for encoder, tensors in ((old, load_weights(made)[0]), (new, taken)):
        encoder.load_state_dict({name[inside:]: value for name, value in tensors.items()
                                 if name.startswith("encoder.")})
    lr = torch.rand(1, 3, 8, 8)
    answers = [encoder(with_noise(lr, level) if aware else lr)[0] for encoder, aware, level in (
        (old, not told, 0.0), (new, told, 0.05))]
    assert torch.allclose(*answers, atol=1e-6)
