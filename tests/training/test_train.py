"""Training on one process: what is configurable trains, resumes to the same bits, and
fails in one line."""
import math
import os
import subprocess
import sys
from typing import get_args

import pytest
import torch

from swinmpi.cli.train import main
from swinmpi.config import TrainConfig
from swinmpi.errors import CheckpointError, ConfigError, OutputError, Stopped, SwinmpiError
from swinmpi.storage.checkpoint import CheckpointFolder, load_state, load_weights
from swinmpi.storage.pairs import PairReader
from swinmpi.training.batches import BatchSource
from swinmpi.training.plan import plan
from swinmpi.training.train import OPTIMIZERS, Trainer, rate_factor
from swinmpi.training.train import run as train
from tests.support.training import (
    ALIGNED,
    ALONE,
    THESIS,
    VIT,
    as_arguments,
    log_of,
    losses_of,
    settings,
    tiny,
    write_pairs,
)

pytestmark = pytest.mark.slow

NEVER = lambda: False  # noqa: E731


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("pairs") / "pairs.h5")


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run(pairs, folder, *overrides, model=ALIGNED, resume=False):
    """The log of a run on this process."""
    train(plan(tiny(pairs, folder, *overrides, model=model), 1, resume), ALONE, NEVER)
    return log_of(folder)


def newest(folder):
    return CheckpointFolder(folder, 1).latest()


def assert_same_end(folder, other):
    """Same update, weights, EMA and optimiser state, to the bit."""
    for name in ("weights", "ema"):
        mine, others = (load_weights(newest(place) / f"{name}.safetensors")[0]
                        for place in (folder, other))
        assert (mine.keys() == others.keys()
                and all(torch.equal(mine[key], others[key]) for key in mine))
    mine, others = load_state(newest(folder)), load_state(newest(other))
    assert (mine["update"], mine["best"]) == (others["update"], others["best"])
    for key, moments in mine["optimizer"]["state"].items():
        assert all(torch.equal(moments[name], others["optimizer"]["state"][key][name])
                   for name in moments)


@pytest.mark.parametrize("model", [ALIGNED, THESIS], ids=["aligned", "thesis"])
def test_the_loss_falls(pairs, tmp_path, model):
    run(pairs, tmp_path, "train.updates=40", "train.learning_rate=5e-3",
        "train.checkpoint_every=40", "train.validate_every=40", model=model)
    losses = losses_of(tmp_path)
    assert len(losses) == 40 and sum(losses[-8:]) < 0.85 * sum(losses[:8])


@pytest.mark.parametrize(("model", "overrides"), [
    (ALIGNED, ["train.batch=image"]),
    (ALIGNED, ["train.batch=iid", "train.loss=smooth_l1", "diffusion.prediction=eps",
               "diffusion.schedule=linear"]),
    (ALIGNED, ["train.batch=iid", "sampler.shift.border=wrap", "diffusion.prediction=x_0",
               "train.augment=false"]),
    (ALIGNED, ["train.batch=image", "sampler.shift.pattern=random", "train.annealing=epoch",
               "train.clip_norm=null"]),
    (ALIGNED, ["train.target=encoder"]),
    (ALIGNED, ["diffusion.path=straight", "train.loss=l2", "train.annealing=linear"]),
    (ALIGNED, ["diffusion.path=straight", "diffusion.prediction=x_0", "sampler.method=heun"]),
    (THESIS, ["train.batch=image", "diffusion.path=straight"]),
    (THESIS, ["train.batch=image"]),
    (THESIS, ["train.batch=iid", "sampler.shift.border=reflect"]),
    (THESIS, ["train.batch=image", "model.encoder=conv", "model.condition_on=lr+x_t",
              "sampler.shift.pattern=random"]),
    (THESIS, ["train.batch=image", "model.condition_on=x_t", "model.residual_gain=1.0"]),
    (THESIS, ["train.batch=image", "model.encoder=none", "model.condition_on=x_t",
              "model.window_px=32", "sampler.shift.pattern=none"]),
    (THESIS, ["train.target=encoder"]),
    ([*ALIGNED, *VIT], ["train.batch=image"]),
    ([*ALIGNED, *VIT], ["train.target=encoder", "model.global_channels=0"]),
    (ALIGNED, ["model.global_channels=0"]),
    ([*THESIS, *VIT], ["train.batch=image", "model.condition_on=lr+x_t"]),
])
def test_what_can_be_configured_trains(pairs, tmp_path, model, overrides):
    records = run(pairs, tmp_path, "train.updates=3", *overrides, model=model)
    assert [record["update"] for record in records if "loss" in record] == [1, 2, 3]
    figures = records[-1]
    assert ("psnr_regression" if "train.target=encoder" in overrides else "psnr_sample") in figures
    assert all(math.isfinite(value) for record in records for value in record.values())
    assert_all_moved(pairs, newest(tmp_path), tiny(pairs, tmp_path, *overrides, model=model))


def assert_all_moved(pairs, state, config):
    """Every parameter that should train left its initial value."""
    start = Trainer(config, ALONE, 12).model
    weights, _ = load_weights(state / "weights.safetensors")
    still = [name for name, value in start.named_parameters()
             if value.requires_grad and torch.equal(value, weights[name])]
    assert still == []


@pytest.mark.parametrize(("scale", "channels"), [(3, 1), (4, 3)])
def test_other_scales_and_channels(tmp_path, scale, channels):
    pairs = write_pairs(tmp_path / "pairs.h5", scale, channels, size_px=48, num_train=4)
    for number, model in enumerate((ALIGNED, THESIS)):
        overrides = [f"model.scale={scale}", f"model.channels={channels}", "train.crop_px=48",
                     "train.updates=2"]
        assert len(run(pairs, tmp_path / f"run{number}", *overrides, model=model)) == 3


@pytest.mark.filterwarnings("ignore:parallel.precision")
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("model", [ALIGNED, THESIS], ids=["aligned", "thesis"])
def test_mixed_precision_stays_close(pairs, tmp_path, model, precision):
    """On a CPU fp32 takes the place of fp16."""
    full = run(pairs, tmp_path / "full", "train.updates=1", model=model)
    mixed = run(pairs, tmp_path / "mixed", "train.updates=1", f"parallel.precision={precision}",
                model=model)
    assert mixed[0]["loss"] == pytest.approx(full[0]["loss"], rel=0.05)
    assert (mixed[0]["loss"] != full[0]["loss"]) == (precision == "bf16")
    assert not load_state(newest(tmp_path / "mixed"))["scaler"]


class InDouble(BatchSource):
    """In float32 a sum over the pixels of a whole batch rounds by more than 1e-6."""

    def batch(self, update, micro_step):
        batch = super().batch(update, micro_step)
        batch.lr, batch.hr, batch.eps = batch.lr.double(), batch.hr.double(), batch.eps.double()
        return batch


@pytest.mark.parametrize(("model", "kind", "dtype", "tolerance"),
                         [(ALIGNED, InDouble, torch.float64, 1e-6),
                          (THESIS, BatchSource, torch.float32, 1e-5)], ids=["aligned", "thesis"])
def test_accumulated_micro_steps_are_one_step(pairs, tmp_path, model, kind, dtype, tolerance):
    made = []
    for accumulate in (1, 4):
        config = tiny(pairs, tmp_path, "train.batch_images=8", f"train.accumulate={accumulate}",
                      model=model)
        with PairReader(pairs) as reader:
            trainer = Trainer(config, ALONE, 12)
            trainer.losses.to(dtype)
            losses = trainer.gradient(kind(config, trainer.family, reader, 0, 1))
        made.append((losses,
                     {name: value.grad for name, value in trainer.model.named_parameters()
                      if value.requires_grad}))
    (losses, once), (other_losses, in_parts) = made
    assert losses == pytest.approx(other_losses, abs=1e-6)
    assert max((once[name] - in_parts[name]).abs().max() for name in once) < tolerance
    assert max(value.abs().max() for value in once.values()) > 0.1


def test_rates_of_warm_up_tail_and_epochs(pairs, tmp_path):
    def rates(*overrides):
        train_settings = tiny(pairs, tmp_path, "train.updates=100", "train.warmup_updates=10",
                              *overrides).train
        return [rate_factor(train_settings, update, epoch=update // 5) for update in range(100)]

    constant = rates("train.annealing=none")
    assert (constant[:10] == [(update + 1) / 10 for update in range(10)]
            and constant[10:] == [1.0] * 90)
    tail = rates("train.annealing=tail", "train.annealing_share=0.4")
    assert tail[:61] == constant[:61]
    assert tail[60:] == pytest.approx([(1 + math.cos(math.pi * step / 40)) / 2
                                       for step in range(40)])
    epochs = rates("train.annealing=epoch", "train.annealing_epochs=20")
    assert epochs[10:] == pytest.approx([(1 + math.cos(math.pi * (update // 5) / 20)) / 2
                                         for update in range(10, 100)])
    assert epochs[50:55] == [epochs[50]] * 5 and epochs[50] == pytest.approx(0.5)


def test_an_epoch_is_every_image_once(pairs, tmp_path):
    overrides = ["train.annealing=epoch", "train.annealing_epochs=4", "train.warmup_updates=0",
                 "train.updates=7"]
    records = run(pairs, tmp_path, *overrides)
    rates = [record["learning_rate"] for record in records if "loss" in record]
    assert rates == pytest.approx([1e-3] * 3 + [1e-3 * (1 + math.cos(math.pi / 4)) / 2] * 3
                                  + [0.5e-3])


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_resuming_changes_nothing(pairs, tmp_path, precision):
    common = ["train.annealing=none", "train.validate_every=3", f"parallel.precision={precision}"]
    whole = run(pairs, tmp_path / "whole", *common, "train.updates=6")
    run(pairs, tmp_path / "parts", *common, "train.updates=3")
    # A later run that came further without a checkpoint, and died while writing a line.
    with open(tmp_path / "parts" / "log.jsonl", "a") as file:
        file.write('{"update": 4, "loss": 99}\n{"update": 5, "lo')
    resumed = run(pairs, tmp_path / "parts", *common, "train.updates=6", resume=True)
    assert resumed == whole
    assert_same_end(tmp_path / "parts", tmp_path / "whole")


def test_a_line_has_the_mean_losses_since_the_one_before(pairs, tmp_path, capsys):
    common = ["train.annealing=none", "train.validate_every=6"]
    each = run(pairs, tmp_path / "each", *common)
    whole = run(pairs, tmp_path / "whole", *common, "train.log_every=4")
    losses = [record["loss"] for record in each if "loss" in record]
    assert [record["update"] for record in whole] == [4, 6, 6]
    assert [record["loss"] for record in whole if "loss" in record] == pytest.approx(
        [sum(losses[:4]) / 4, sum(losses[4:]) / 2])
    assert load_state(newest(tmp_path / "whole"))["losses"]["count"] == 0
    wishes = iter([False, True])
    with pytest.raises(Stopped):
        train(plan(tiny(pairs, tmp_path / "stopped", *common, "train.log_every=4"), 1, False),
              ALONE, lambda: next(wishes))
    assert load_state(newest(tmp_path / "stopped"))["losses"]["count"] == 2
    assert run(pairs, tmp_path / "stopped", *common, "train.log_every=4", resume=True) == whole
    told = [line for line in capsys.readouterr().out.splitlines() if "validation" in line]
    assert len(told) == 3 and told[0].startswith("validation at update 6: loss_validation ")
    assert all(word in told[0] for word in ("psnr_bicubic", "ssim_sample", "psnr_regression"))


def test_states_without_mean_losses_go_on_and_damaged_ones_are_told(pairs, tmp_path):
    run(pairs, tmp_path, "train.updates=3")
    state = newest(tmp_path) / "state.pt"
    older = load_state(state.parent)
    del older["losses"]
    for losses in ({"count": 1}, {"count": 0, "sums": {"loss": 1.0}}, 7,
                   {"count": 2, "sums": {"loss": math.nan}}):
        torch.save(older | {"losses": losses}, state)
        with pytest.raises(CheckpointError, match="does not fit this run.*remove this folder"):
            run(pairs, tmp_path, resume=True)
    torch.save(older, state)
    assert len(run(pairs, tmp_path, resume=True)) == 8


def test_compiled_networks_train_alike_or_a_line_says_why_not(pairs, tmp_path, capsys):
    plain = run(pairs, tmp_path / "plain", "train.updates=2")
    made = run(pairs, tmp_path / "compiled", "train.updates=2", "train.compile=true")
    for record, other in zip(plain, made, strict=True):
        assert record == pytest.approx(other, rel=0.02)
    said = capsys.readouterr().err
    assert said == "" or (said.startswith("swinmpi: train.compile: the networks cannot be compiled")
                          and said.count("\n") == 1)
    names = [load_weights(newest(tmp_path / one) / "weights.safetensors")[0].keys()
             for one in ("plain", "compiled")]
    assert names[0] == names[1]
    headers = [load_weights(newest(tmp_path / one) / "weights.safetensors")[1]["train"]
               for one in ("plain", "compiled")]
    assert "compile" not in headers[0] and headers[1]["compile"] is True


def test_where_no_compiler_is_found_a_line_says_so(pairs, tmp_path):
    environ = os.environ | {"CXX": "/nowhere/c++", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "c"),
                            "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "swinmpi.cli.train", *as_arguments(
            settings(pairs, tmp_path / "run", "train.updates=1", "train.compile=true"))],
        env=environ, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0 and "trained 1 updates" in done.stdout, done
    assert done.stderr.startswith("swinmpi: train.compile: the networks cannot be compiled here")
    assert "/nowhere/c++" in done.stderr and done.stderr.count("\n") == 1


def test_a_finished_run_has_nothing_to_resume(pairs, tmp_path):
    before = run(pairs, tmp_path)
    assert run(pairs, tmp_path, resume=True) == before


def test_stopping_saves_at_once(pairs, tmp_path):
    wishes = iter([False, True])
    with pytest.raises(Stopped, match="stopped at update 2.*--resume") as caught:
        train(plan(tiny(pairs, tmp_path), 1, False), ALONE, lambda: next(wishes))
    assert caught.value.exit_code == 75 and newest(tmp_path).name == "update-00000002"
    resumed = run(pairs, tmp_path, resume=True)
    assert resumed == run(pairs, tmp_path / "undisturbed")


def test_keeps_the_last_states_and_the_best_weights(pairs, tmp_path):
    records = run(pairs, tmp_path, "train.updates=7", "train.checkpoint_every=2",
                  "train.keep_last=3", "train.validate_every=3")
    assert ([state.name for state in CheckpointFolder(tmp_path, 3).states()]
            == [f"update-{n:08d}" for n in (4, 6, 7)])
    losses = {record["update"]: record["loss_validation"] for record in records
              if "loss_validation" in record}
    _, header = load_weights(tmp_path / "best.safetensors")
    assert header["update"] == min(losses, key=losses.get)
    assert load_state(newest(tmp_path))["best"] == min(losses.values())


@pytest.mark.parametrize("model", [ALIGNED, THESIS], ids=["aligned", "thesis"])
def test_an_encoder_trained_alone_then_frozen(pairs, tmp_path, model):
    run(pairs, tmp_path / "alone", "train.target=encoder", model=model)
    checkpoint = newest(tmp_path / "alone") / "ema.safetensors"
    reuse = [f"train.encoder_checkpoint={checkpoint}", "train.freeze_encoder=true"]
    run(pairs, tmp_path / "frozen", *reuse, model=model)
    alone, _ = load_weights(checkpoint)
    after, header = load_weights(newest(tmp_path / "frozen") / "weights.safetensors")
    kept = {f"encoder.{name}" if model is ALIGNED or name.startswith("trunk.")
            else f"encoder.head.{name}": value for name, value in alone.items()}
    assert kept and all(torch.equal(after[name], value) for name, value in kept.items())
    assert header["target"] == "diffuser"
    start = Trainer(tiny(pairs, tmp_path, *reuse, model=model), ALONE, 12).model.state_dict()
    assert {name for name in start if torch.equal(start[name], after[name])} == set(kept)
    # Its file is no longer needed once a state holds it.
    checkpoint.unlink()
    run(pairs, tmp_path / "frozen", *reuse, "train.updates=7", model=model, resume=True)


def test_no_nan_is_ever_saved(pairs, tmp_path):
    run(pairs, tmp_path, "train.annealing=none", "train.updates=3")
    with pytest.raises(SwinmpiError, match="the (loss|gradient) is (nan|inf) at update [4-6]; "
                       "resume.*learning_rate"):
        run(pairs, tmp_path, "train.annealing=none", "train.learning_rate=1e30",
            "train.checkpoint_every=1", resume=True)
    weights, _ = load_weights(newest(tmp_path) / "weights.safetensors")
    assert all(value.isfinite().all() for value in weights.values())


def test_another_run_is_not_resumed(pairs, tmp_path):
    run(pairs, tmp_path, "train.updates=1")
    for override, name in (("model.residual_gain=8.0", "model"),
                           ("diffusion.steps=60", "diffusion"),
                           ("train.target=encoder", "train.target")):
        with pytest.raises(ConfigError, match=f"other `{name}` settings"):
            run(pairs, tmp_path, override, resume=True)
    state = newest(tmp_path) / "state.pt"
    state.write_bytes(state.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="remove this folder to resume from the one before"):
        run(pairs, tmp_path, resume=True)


def complaint(capsys, *argv):
    """The one line of a command that must end with 2."""
    assert main([*argv]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1, captured
    return captured.err


@pytest.mark.parametrize(("override", "parts"), [
    ("train.data=null", ["train.data", "--set train.data=FILE"]),
    ("train.data=missing.h5", ["missing.h5", "nothing there", "swinmpi-prepare"]),
    ("train.data=text.h5", ["text.h5", "not a complete HDF5 file"]),
    ("model.scale=4", ["scale 4", "got 2"]),
    ("model.channels=1", ["1 channels", "got 3"]),
    ("train.crop_px=64", ["train.crop_px", "at most the stored 32 px", "got 64"]),
    ("train.crop_px=31", ["train.crop_px", "multiple of 2", "got 31"]),
    ("train.crop_px=14", ["train.crop_px", "a window of 16 px", "got 14"]),
    ("train.accumulate=3", ["train.batch_images", "multiple", "got 4"]),
    ("train.freeze_encoder=true", ["train.freeze_encoder", "train.encoder_checkpoint"]),
    ("train.encoder_checkpoint=missing.safetensors",
     ["missing.safetensors", "found nothing there"]),
    ("train.learning_rate=fast", ["train.learning_rate", "'fast'"]),
    ("train.rate=1", ["unknown key train.rate"]),
    ("parallel.device=cuda", ["parallel.device", "CUDA"]),
])
def test_a_wrong_setting_is_one_line(pairs, tmp_path, capsys, monkeypatch, override, parts):
    if override == "parallel.device=cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.h5").write_text("no HDF5\n" * 100)
    told = complaint(capsys, *as_arguments(settings(pairs, "run", override)))
    assert all(part in told for part in parts), told
    assert not list(tmp_path.glob("run/update-*"))


@pytest.mark.parametrize(("overrides", "part"), [
    (["model.encoder=conv", "train.target=encoder"], "model.encoder: expected rrdb"),
    (["model.encoder=none", "train.encoder_checkpoint=e.safetensors"],
     "model.encoder: expected rrdb"),
    (["train.target=encoder", "train.encoder_checkpoint=e.safetensors"],
     "train.encoder_checkpoint"),
    (["train.crop_px=24"], "whole windows of 16 px"),
])
def test_a_wrong_thesis_setting_is_one_line(pairs, tmp_path, capsys, overrides, part):
    assert part in complaint(
        capsys, *as_arguments(settings(pairs, tmp_path / "run", *overrides, model=THESIS)))


def test_no_images_to_train_on(tmp_path, capsys):
    pairs = write_pairs(tmp_path / "pairs.h5", num_train=0)
    assert "no images to train on" in complaint(capsys,
                                                *as_arguments(settings(pairs, tmp_path / "run")))


def test_without_a_validation_split(tmp_path):
    pairs = write_pairs(tmp_path / "pairs.h5", num_validate=0)
    assert len(run(pairs, tmp_path / "run")) == 6
    assert not (tmp_path / "run" / "best.safetensors").exists()


def test_a_run_is_not_overwritten(pairs, tmp_path, capsys):
    run(pairs, tmp_path / "run", "train.updates=1")
    before = (tmp_path / "run" / "log.jsonl").read_bytes()
    capsys.readouterr()
    assert "go on with --resume" in complaint(capsys,
                                              *as_arguments(settings(pairs, tmp_path / "run")))
    assert (tmp_path / "run" / "log.jsonl").read_bytes() == before


def test_two_runs_do_not_share_a_folder(pairs, tmp_path):
    with CheckpointFolder(tmp_path, 1) as folder:
        folder.create()
        with pytest.raises(OutputError, match="another run is training here; wait"):
            run(pairs, tmp_path)
    run(pairs, tmp_path, "train.updates=1")


def test_an_output_that_cannot_be_written(pairs, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write.*train.output"):
        run(pairs, tmp_path / "file" / "run")


def test_a_dry_run_tells_the_plan_and_writes_nothing(pairs, tmp_path, capsys):
    arguments = [*as_arguments(settings(pairs, tmp_path / "run")), "--dry-run"]
    assert main(arguments) == 0
    told = capsys.readouterr().out
    assert ("12 images to train, 2 to validate" in told
            and "6 updates of 4 images (2.0 epochs)" in told)
    assert not (tmp_path / "run").exists()
    assert "model.scale" in complaint(capsys, *arguments, "--set", "model.scale=3")


def test_the_command_trains_and_says_where(pairs, tmp_path, capsys):
    assert main(as_arguments(settings(pairs, tmp_path / "run", "train.updates=2"))) == 0
    told = capsys.readouterr().out
    assert f"trained 2 updates; checkpoints, log and curves in {tmp_path / 'run'}" in told
    assert f"swinmpi-calibrate {tmp_path / 'run' / 'best.safetensors'} --pairs {pairs}\n" in told
    assert ({path.name for path in (tmp_path / "run").glob("[!.]*")}
            == {"best.safetensors", "curves.png", "log.jsonl", "update-00000002"})


def test_every_optimiser_of_the_configuration_is_there():
    assert set(OPTIMIZERS) == set(get_args(TrainConfig.model_fields["optimizer"].annotation))
