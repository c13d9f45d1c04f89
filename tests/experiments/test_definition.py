"""Experiments as YAML: those that ship resolve at every budget; wrong ones are told in one line."""
from pathlib import Path

import pytest
from PIL import Image

from swinmpi.config.strict_yaml import read_yaml
from swinmpi.errors import ConfigError, SwinmpiError
from swinmpi.experiments.definition import (
    BUDGETS,
    configs,
    load_experiment,
    names,
    resolved,
)
from swinmpi.experiments.plan import Request, plan, same_settings
from swinmpi.parallel.shares import Shard
from tests.support.experiments import TINY, write_experiment

EVERY = pytest.mark.parametrize("name", names())


def planned(name: str, folder: Path, budget: str = "smoke", **options):
    data = () if budget == "smoke" else (str(folder),)
    if data:
        Image.new("RGB", (512, 512)).save(folder / "photo.png")
    if budget == "full":  # takes thousands of test images
        options["given"] = {"data": {"validate_count": None, "test_count": None}}
    return plan(Request(name, folder / "run", budget, data, **options), load_experiment(name), 1)


def test_the_experiments_of_the_thesis_are_there():
    assert names() == ["encoder", "iid_batch", "larger_scale", "latent", "naive_shift", "pictures",
                       "sampler", "schedule", "shift_pattern", "step_size", "time_usage", "vit",
                       "wavelet", "window_size"]


@pytest.mark.parametrize("name, alone, after", [("latent", 1.0, 0.7), ("encoder", 1.0, 1.0)])
def test_an_encoder_before_its_arm_is_within_the_seconds_or_on_top(name, alone, after):
    budget = load_experiment(name).budgets["short"]
    assert budget.share(pretrains=False) == alone
    assert budget.share(pretrains=True) == pytest.approx(after)


@EVERY
@pytest.mark.parametrize("budget", BUDGETS)
def test_every_budget_of_every_experiment_can_be_planned(name, budget, tmp_path):
    made = planned(name, tmp_path, budget)
    assert {run.arm.name for run in made.runs} == {arm.name for arm in made.experiment.arms}
    assert len({run.output for run in made.runs}) == len(made.runs)
    assert not (tmp_path / "run").exists(), "a plan writes nothing"


@pytest.mark.parametrize("name", [name for name in names()
                                  if load_experiment(name).kind == "quality"])
def test_arms_have_one_budget(name, tmp_path):
    """As many updates or seconds, at one precision, on the same data."""
    made = planned(name, tmp_path, "short")
    trained = [run.config for run in made.runs if run.folder is not None]
    assert len({config.train.updates for config in trained}) <= 1 or made.budget.seconds
    assert len({config.parallel.precision for config in trained}) <= 1
    assert len({config.data.model_dump_json() for config in trained}) <= 1


@pytest.mark.parametrize("name", ["step_size", "shift_pattern", "window_size"])
def test_published_figures_are_those_of_the_thesis(name):
    """Tables 3.1 to 3.3 share the arm with a circular shift of 8 px, and that without a shift."""
    arms = {arm.name: arm.published for arm in load_experiment(name).arms}
    best = arms[{"step_size": "shift 8", "shift_pattern": "circular",
                 "window_size": "window 32"}[name]]
    assert best == {"psnr": 28.179, "ssim": 0.908, "lpips": 0.014, "lr_psnr": 34.441}


def test_settings_come_in_their_order(tmp_path):
    path = write_experiment(tmp_path, """
settings: {train: {batch_images: 3, accumulate: 1, seed: 4, crop_px: 64}}
arms:
  - name: one
    settings: {train: {batch_images: 5, learning_rate: 0.1}}
    at: {smoke: {train: {learning_rate: 0.2}}}
  - {name: two}
budgets:
  smoke:
    test_images: 1
    settings: {train: {accumulate: 2, batch_images: 4}}
    models: {aligned: {encoder_blocks: 3}, thesis: {rrdb_blocks: 3}}
""")
    experiment = load_experiment(str(path))
    given, more = {"train": {"crop_px": 96}}, {"train": {"seed": 9}}
    one, two = (resolved(experiment, arm, "smoke", given, more) for arm in experiment.arms)
    assert (one.train.batch_images, two.train.batch_images) == (5, 4)
    assert (one.train.accumulate, one.train.learning_rate) == (2, 0.2)
    assert (one.train.crop_px, one.train.seed, one.model.encoder_blocks) == (96, 9, 3)


def test_arms_that_differ_in_sampling_share_a_training(tmp_path):
    runs = {run.arm.name: run for run in planned("naive_shift", tmp_path).runs}
    with_shift, without = runs["crop and pad"], runs["crop and pad, sampled without shift"]
    assert with_shift.folder == without.folder != runs["roll"].folder
    assert with_shift.sampled.sampler.shift.pattern == "circular"
    assert without.sampled.sampler.shift.pattern == "none"
    assert without.config.sampler.shift.pattern == "circular", "trained with the shift"


def test_parts_hold_every_arm_once_and_keep_shared_trainings_together(tmp_path):
    whole = planned("naive_shift", tmp_path).runs
    parts = [planned("naive_shift", tmp_path, shard=Shard(number, 3)).mine for number in (1, 2, 3)]
    assert sorted(run.name for part in parts for run in part) == sorted(run.name for run in whole)
    folders = [{run.folder for run in part} for part in parts]
    assert not set.intersection(*folders) and all(folders)
    with pytest.raises(ConfigError, match="--arm: expected at most 3 parts"):
        planned("naive_shift", tmp_path, shard=Shard(1, 4))


def test_seeds_are_trained_apart(tmp_path):
    path = write_experiment(tmp_path, TINY.replace("test_images: 2", "test_images: 2\n    seeds: "
                                                   "[0, 3]"))
    runs = planned(str(path), tmp_path).runs
    assert [(run.arm.name, run.config.train.seed, run.config.sampler.seed) for run in runs] == [
        ("a", 0, 0), ("a", 3, 3), ("b", 0, 0), ("b", 3, 3)]
    assert len({run.folder for run in runs}) == 4


def test_a_folder_of_other_settings_is_refused(tmp_path):
    made = planned("step_size", tmp_path)
    begun = {"fingerprint": made.fingerprint, "experiment": "step_size", "budget": "smoke"}
    same_settings(begun, planned("step_size", tmp_path,
                                 given={"parallel": {"device": "cpu"}}))
    for other in (planned("step_size", tmp_path, given={"train": {"learning_rate": 1e-3}}),
                  planned("step_size", tmp_path, given={"parallel": {"precision": "bf16"}}),
                  planned("shift_pattern", tmp_path)):
        with pytest.raises(ConfigError, match="holds the experiment step_size with budget smoke"):
            same_settings(begun, other)


@pytest.mark.parametrize(("text", "line"), [
    ("arm: []", "unknown key arm"),
    ("budgets: {smoke: {test_images: 0}}", "budgets.smoke.test_images: expected greater than or"),
    ("budgets: {smoke: {test_images: 1, updates: 2, seconds: 3}}", "either updates or seconds"),
    ("budgets: {smoke: {test_images: 1, updates: 2, pretrain_within: true}}",
     "seconds, and a pretrain below 1"),
    ("budgets: {smoke: {test_images: 1, seconds: 2, pretrain: 1.5, pretrain_within: true}}",
     "seconds, and a pretrain below 1"),
    ("budgets: {smoke: {test_images: 1, seeds: [1, 1]}}", "seeds that differ"),
    ("budgets: {smoke: {test_images: 1, models: {other: {}}}}", "families of aligned"),
    ("budgets: {long: {test_images: 1}}", "budgets.long"),
    ("reference: c", "a reference among the arms a, b, not 'c'"),
    ("arms: []", "arms: expected"),
    ("arms: [{name: a}, {name: a}]", "not two of 'a'"),
    ("arms: [{name: ../a}]", "arms.0.name: expected a name of letters"),
    ("arms: [{name: a, checkpoint: photos_x2, settings: {train: {seed: 1}}}]", "`sampling` alone"),
    ("arms: [{name: a, published: {psnr: high}}]", "arms.0.published.psnr"),
    ("kind: other", "kind: expected"),
])
def test_a_wrong_experiment_is_told_in_one_line(tmp_path, text, line):
    key = text.partition(":")[0]
    kept = [part for part in TINY.strip().split("\n\n") if not part.startswith(f"{key}:")]
    path = write_experiment(tmp_path, "\n".join([*kept, text]) + "\n")
    with pytest.raises(ConfigError) as told:
        load_experiment(str(path))
    assert line in str(told.value) and "\n" not in str(told.value)


@pytest.mark.parametrize(("given", "line"), [
    ({"train": {"batch_image": 3}}, "arm a: unknown key train.batch_image"),
    ({"model": {"scale": 4}}, "arm a: data.scale, data.channels: expected 4 and 3"),
    ({"train": {"crop_px": 256}}, "arm a: train.crop_px: expected at most data.size_px = 32"),
    ({"sampler": {"steps": 60}}, "arm a: sampler.steps: expected at most diffusion.steps = 50"),
    ({"train": {"accumulate": 3}}, "arm a: train.batch_images: expected a multiple of ranks x"),
    ({"train": {"freeze_encoder": True}}, "arm a: train.freeze_encoder: expected"),
])
def test_an_arm_that_cannot_be_is_named_before_anything_is_made(tmp_path, given, line):
    path = write_experiment(tmp_path, TINY)
    with pytest.raises(SwinmpiError) as told:
        planned(str(path), tmp_path, given=given)
    assert line in str(told.value) and told.value.exit_code == 2
    assert not (tmp_path / "run").exists()


def test_real_budgets_want_real_photographs(tmp_path):
    with pytest.raises(ConfigError, match="--data: expected photographs"):
        plan(Request("step_size", tmp_path / "run", "short"), load_experiment("step_size"), 1)


def test_the_yaml_of_an_experiment_reads_what_ships():
    for name in names():
        for arm in [*load_experiment(name).arms, load_experiment(name)]:
            for base in arm.base or []:
                assert read_yaml(configs() / base), base
