"""swinmpi-train --convert: the published code's weights become a checkpoint that samples."""
import pickle

import pytest
import torch

from swinmpi.cli.sample import main as sample
from swinmpi.cli.train import main as train
from swinmpi.config import ThesisModel
from swinmpi.families.loading import load_family
from swinmpi.storage.header import read_header
from tests.support.published import answers, weights
from tests.support.sampling import smooth_stack, write_stack

THESIS = ["--config", "configs/train/thesis_64.yaml"]


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    path = tmp_path_factory.mktemp("published") / "weights.pt"
    torch.save({"state_dict": weights(2), "epoch": 6}, path)
    return path


def convert(published, output, *more) -> int:
    return train(["--convert", str(published), *THESIS, "--output", str(output), *more])


def test_converted_weights_answer_as_published_and_sample(published, tmp_path, capsys):
    made = tmp_path / "made.safetensors"
    assert convert(published, made, "--dry-run") == 0 and not made.exists()
    assert convert(published, made) == 0
    assert "26,888,806" in capsys.readouterr().out
    header = read_header(made)
    model = load_family(made, ThesisModel(**header["model"]), True).model.eval()
    told = answers(2)
    with torch.no_grad():
        answer = model.unet(told["x"], told["t"], model.encoder(told["condition"]))
    assert (answer - told["output"]).abs().max() < 1e-5
    stack = write_stack(tmp_path / "lr.h5", smooth_stack(1, 32, 32, channels=3, dtype="uint8"))
    assert sample([str(stack), "--checkpoint", str(made), "--output", str(tmp_path / "sr.h5"),
                   "--set", "sampler.steps=2", "--set", "parallel.precision=fp32"]) == 0
    assert convert(published, made) == 2 and "--overwrite" in capsys.readouterr().err
    assert convert(published, made, "--overwrite") == 0


@pytest.mark.parametrize(("content", "message"), [
    (lambda path: path.write_bytes(pickle.dumps(print)), "state dict of tensors alone"),
    (lambda path: torch.save(print, path), "state dict of tensors alone"),
    (lambda path: torch.save({"model": weights(2), "ema": weights(2)}, path), "got ema, model"),
    (lambda path: torch.save([1, 2], path), "got none"),
    (lambda path: torch.save({"a": torch.zeros(1)}, path), "also holds a|lacks"),
    (lambda path: path.mkdir(), "a folder"),
    (lambda path: None, "nothing there"),
])
def test_what_is_no_state_dict_is_one_line(content, message, tmp_path, capsys):
    path, made = tmp_path / "weights.pt", tmp_path / "made.safetensors"
    content(path)
    assert convert(path, made) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and any(part in error for part in message.split("|"))
    assert not made.exists()


@pytest.mark.parametrize(("arguments", "message"), [
    (["--convert", "w.pt"], "--output"), (["--output", "w.safetensors"], "--convert"),
    (["--convert", "w.pt", "--output", "w.safetensors"], "model: expected family thesis"),
    (["--convert", "w.pt", "--output", "w.pt", *THESIS], "ends in .safetensors"),
    *((["--convert", "w.pt", "--output", "w.safetensors", *THESIS, "--set", change],
       "model: expected family thesis") for change in ("model.layers=text", "model.encoder=conv")),
])
def test_command_lines_that_ask_for_no_conversion(arguments, message, capsys):
    assert train(arguments) == 2
    assert message in capsys.readouterr().err
