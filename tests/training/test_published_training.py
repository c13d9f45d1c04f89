"""Settings of the published training: shifts of a batch, least t, an average that copies first."""
import pytest
import torch
from torch import nn

from swinmpi.cli.train import main
from swinmpi.errors import ConfigError
from swinmpi.models.ema import Ema
from swinmpi.storage.pairs import PairReader
from swinmpi.training.batches import BatchSource
from swinmpi.training.objective import make_training_module
from swinmpi.training.plan import plan
from swinmpi.windows.shift import circular_shift
from tests.support.training import ALIGNED, THESIS, as_arguments, settings, tiny, write_pairs

TOGETHER = ("train.batch=image", "sampler.shift.max_px=4")


@pytest.fixture
def pairs(tmp_path):
    return write_pairs(tmp_path / "pairs.h5")


def shifts(pairs, tmp_path, rank=0, size=1, *overrides):
    """The shifts of every image of two micro steps of three updates on one rank."""
    config = tiny(pairs, tmp_path, *TOGETHER, "train.batch_images=8", "train.accumulate=2",
                  *overrides, model=THESIS)
    family = make_training_module(config).family
    with PairReader(pairs) as reader:
        source = BatchSource(config, family, reader, rank, size)
        return [[windows[0].shift for windows in source.batch(update, micro).windows]
                for update in range(3) for micro in range(2)]


@pytest.mark.parametrize("pattern", ["circular", "random"])
def test_one_shift_for_a_micro_step_on_any_number_of_ranks(pairs, tmp_path, pattern):
    asked = ("train.shift_of=batch", f"sampler.shift.pattern={pattern}")
    alone = shifts(pairs, tmp_path, 0, 1, *asked)
    assert all(len(set(of_step)) == 1 and len(of_step) == 4 for of_step in alone)
    assert len({of_step[0] for of_step in alone}) > 1
    for rank in (0, 1):
        ours = shifts(pairs, tmp_path, rank, 2, *asked)
        assert ours == [of_step[:2] for of_step in alone]
    own = shifts(pairs, tmp_path, 0, 1, f"sampler.shift.pattern={pattern}")
    assert any(len(set(of_step)) > 1 for of_step in own)


def test_circular_shifts_in_turn(pairs, tmp_path):
    by_step = shifts(pairs, tmp_path, 0, 1, "train.circular=turn", "train.shift_of=batch")
    assert by_step == [[circular_shift(number, 4)] * 4 for number in range(6)]
    by_image = shifts(pairs, tmp_path, 0, 1, "train.circular=turn")
    assert by_image == [[circular_shift(k, 4) for k in range(4)]] * 6


@pytest.mark.parametrize("model", [ALIGNED, THESIS], ids=["aligned", "thesis"])
def test_no_t_below_the_first(pairs, tmp_path, model):
    config = tiny(pairs, tmp_path, "diffusion.steps=3", "train.first_t=1", model=model)
    family = make_training_module(config).family
    with PairReader(pairs) as reader:
        source = BatchSource(config, family, reader, 0, 1)
        drawn = {int(t) for update in range(20) for t in source.batch(update, 0).t}
    assert drawn == {1, 2}


def test_the_average_is_a_copy_at_first():
    module = nn.Linear(2, 2)
    ema = Ema(module, 0.9, ramp=False, start=2)
    for update, step in enumerate((1.0, 1.0, 1.0)):
        before = module.weight.detach().clone()
        with torch.no_grad():
            module.weight += step
        ema.update(module, update)
        wanted = module.weight if update < 2 else before + 0.1
        torch.testing.assert_close(ema.tensors["weight"], wanted.detach())


@pytest.mark.parametrize(("model", "overrides", "message"), [
    (ALIGNED, ["train.shift_of=batch"], "train.shift_of"),
    (ALIGNED, ["train.circular=turn"], "train.circular"),
    (THESIS, ["train.circular=turn", "sampler.shift.pattern=random"], "train.circular"),
    (THESIS, ["train.first_t=50"], "less than diffusion.steps = 50"),
    (ALIGNED, ["sampler.shift.edge=crop_pad"], "sampler.shift.edge"),
    (THESIS, ["sampler.shift.edge=crop_pad", "sampler.shift.border=reflect"],
     "sampler.shift.edge"),
    (THESIS, ["sampler.shift.edge=crop_pad", "sampler.shift.max_px=32"], "cut too much")])
def test_what_cannot_be_drawn_is_refused(pairs, tmp_path, model, overrides, message):
    with pytest.raises(ConfigError, match=message):
        plan(tiny(pairs, tmp_path / "run", *overrides, model=model), 1, False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this node has a GPU")
def test_fp16_on_a_cpu_becomes_fp32_in_one_line(pairs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = settings(pairs, "run", "parallel.precision=fp16", "train.updates=1",
                     "diffusion.schedule=thesis64", "diffusion.steps=100", model=THESIS)
    assert main(as_arguments(asked)) == 0
    said = capsys.readouterr()
    lines = [line for line in said.err.splitlines() if line.startswith("swinmpi: ")]
    assert sum("computing with fp32" in line for line in lines) == 1
    assert sum("ends at alphas_cumprod 0.26" in line for line in lines) == 1
    assert "UserWarning" not in said.err and "warnings.warn" not in said.err
    curves = (tmp_path / "run/curves.png").exists()
    assert ("log and curves in run" if curves else "checkpoints and log in run") in said.out


def test_an_older_run_goes_on_with_the_text_s_layers(pairs, tmp_path, monkeypatch, capsys):
    """A checkpoint that knows no model.layers is of the text's, and a resume says so."""
    monkeypatch.chdir(tmp_path)
    old = [*settings(pairs, "run", "train.updates=3", model=THESIS), "model.layers=text",
           "model.dropout=0"]
    assert main(as_arguments(old)) == 0
    path = next((tmp_path / "run").glob("update-*/weights.safetensors"))
    forget_layers(path)
    capsys.readouterr()
    longer = [*old, "train.updates=6"]
    newer = [word for word in longer if not word.startswith(("model.layers", "model.dropout"))]
    assert main([*as_arguments(newer), "--resume"]) == 2
    error = capsys.readouterr().err
    assert "other `model` settings: model." in error and error.count("\n") == 1
    assert main([*as_arguments(longer), "--resume"]) == 0


def forget_layers(path) -> None:
    from swinmpi.storage.checkpoint import load_weights, save_weights
    tensors, header = load_weights(path)
    for name in ("layers", "dropout"):
        del header["model"][name]
    save_weights(path, tensors, header)
