"""`--preset regression`: the encoder's image is the result, without diffusion; refused where no
encoder regresses."""
import h5py
import numpy as np
import pytest

from swinmpi.cli.benchmark import main as benchmark
from swinmpi.cli.sample import main
from swinmpi.cli.train import main as train
from tests.support.sampling import arguments, smooth_stack, sr_of, write_checkpoint, write_stack
from tests.support.training import SRDIFF, THESIS, VANILLA, as_arguments, settings, write_pairs

WINDOW, REGRESSION, AS_MADE = "model.window_px=32", "--preset=regression", "output.consistent=false"


@pytest.fixture
def made(tmp_path):
    """Samples a stack into a new output; its path."""
    stack = write_stack(tmp_path / "lr.h5", smooth_stack(2, 26, 30))
    checkpoint = write_checkpoint(tmp_path / "aligned.safetensors", WINDOW)

    def sample(name, *given, checkpoint=checkpoint):
        output = tmp_path / f"{name}.h5"
        assert main(arguments(stack, output, checkpoint, *given)) == 0
        return output
    return sample


@pytest.mark.parametrize("exchange", ["root", "torus"])
def test_it_is_the_regression_that_samples_are_added_to(made, exchange):
    alone = made("alone", REGRESSION, AS_MADE, f"parallel.exchange={exchange}")
    beside = made("beside", "output.regression=true", AS_MADE)
    assert np.array_equal(sr_of(alone), sr_of(beside, "regression"))
    assert not np.array_equal(sr_of(alone), sr_of(beside))


def test_it_agrees_with_the_lr_image_and_has_no_seams(made):
    agreeing = made("agreeing", REGRESSION)
    with h5py.File(agreeing) as file, h5py.File(made("free", REGRESSION, AS_MADE)) as free:
        assert (file["entry/per_image/lr_misfit"][()]
                < free["entry/per_image/lr_misfit"][()] / 5).all()
        assert np.isnan(file["entry/per_image/seam_score"][()]).all()
        assert "method: regression" in file["entry/process/configuration"].asstr()[()]


def test_an_encoder_trained_alone_does_the_same_as_ever(made, tmp_path):
    encoder = write_checkpoint(tmp_path / "rrdb.safetensors", WINDOW, model=THESIS,
                               target="encoder")
    named, unnamed = (made(name, *given, checkpoint=encoder)
                      for name, given in (("named", [REGRESSION]), ("unnamed", [])))
    assert np.array_equal(sr_of(named), sr_of(unnamed))


@pytest.mark.parametrize("model", [THESIS, SRDIFF, VANILLA])
def test_models_without_a_regression_are_refused(model, tmp_path, capsys):
    stack = write_stack(tmp_path / "lr.h5", smooth_stack(1, 24, 24))
    checkpoint = write_checkpoint(tmp_path / "other.safetensors", model=model)
    command = arguments(stack, tmp_path / "out.h5", checkpoint, REGRESSION)
    for more in ([], ["--dry-run"]):
        assert main([*command, *more]) == 2
        told = capsys.readouterr()
        assert "expected a model of family aligned" in told.err and told.err.count("\n") == 1
    assert not (tmp_path / "out.h5").exists()


def test_what_it_cannot_be_used_for(tmp_path, capsys):
    stack = write_stack(tmp_path / "lr.h5", smooth_stack(1, 24, 24))
    checkpoint = write_checkpoint(tmp_path / "aligned.safetensors", WINDOW)
    pairs = write_pairs(tmp_path / "pairs.h5")
    trained = as_arguments(settings(pairs, tmp_path / "run", "sampler.method=regression"))
    for command, expected in (
            (lambda: main(arguments(stack, tmp_path / "out.h5", checkpoint, REGRESSION,
                                    "--ensemble=3")), "--ensemble: expected 1"),
            (lambda: main([str(stack), "--output", str(tmp_path / "out.h5"), REGRESSION,
                           "--model", "bicubic_x2"]), "got bicubic"),
            (lambda: train(trained), "to validate a diffuser with"),
            (lambda: benchmark(["sample", REGRESSION, "--output", str(tmp_path)]),
             "whose steps are measured")):
        assert command() == 2
        told = capsys.readouterr()
        assert expected in told.err and told.err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["aligned.safetensors", "lr.h5",
                                                               "pairs.h5"]
