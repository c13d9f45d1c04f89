"""swinmpi-evaluate where the axes must be told, and where some frames are compared: the figures are
those of the same images stored plainly."""
import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from swinmpi.cli.evaluate import main
from swinmpi.cli.sample import main as sample
from swinmpi.images.imresize import imresize
from tests.support.sampling import arguments, smooth_stack, write_checkpoint, write_stack

HR, LR = smooth_stack(6, 40, 48, dtype="uint8"), smooth_stack(6, 20, 24, dtype="uint8")


@pytest.fixture(autouse=True)
def apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("model") / "aligned.safetensors",
                            "model.window_px=32")


def stored(images: np.ndarray, axes: str) -> np.ndarray:
    """(6, H, W) -> as data.axes says: t and z of 2 and 3, one colour."""
    images = images.reshape(2, 3, *images.shape[1:])
    return {"tyx": images.reshape(6, *images.shape[2:]), "tzyx": images,
            "yxt": np.moveaxis(images.reshape(6, *images.shape[2:]), 0, -1),
            "tyxc": images.reshape(6, *images.shape[2:], 1),
            "tzyxc": images[..., None]}[axes]


def figures(*words: str) -> dict:
    """Of every image, by version."""
    assert main([*map(str, words), "--output", "figures", "--overwrite"]) == 0
    images = json.loads(Path("figures/evaluate.json").read_text())["images"]
    return {versions.pop("image"): versions for versions in images}


def of_versions(found: dict) -> list[float]:
    """PSNR of SR of every image."""
    return [versions["sr"]["psnr"] for _, versions in sorted(found.items())]


def noisy(images: np.ndarray) -> np.ndarray:
    """Every image worse than the one before, so that a wrong order shows."""
    noise = np.random.default_rng(0).integers(-2, 3, images.shape)
    worse = noise * np.arange(1, 7)[:, None, None]
    return (images.astype(int) + worse).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("axes", ["tzyx", "yxt", "tyxc", "tzyxc"])
def test_stacks_whose_axes_must_be_told(tmp_path, axes):
    sr = noisy(HR)
    lr = np.stack([imresize(image, scale=0.5) for image in HR])
    plain = [write_stack(tmp_path / f"{name}.h5", images)
             for name, images in (("sr", sr), ("hr", HR), ("lr", lr))]
    told = [write_stack(tmp_path / f"{name}-{axes}.h5", stored(images, axes))
            for name, images in (("sr", sr), ("hr", HR), ("lr", lr))]
    wanted = figures(plain[0], "--reference", plain[1], "--lr", plain[2])
    came = figures(told[0], "--reference", told[1], "--lr", told[2], "--set", f"data.axes={axes}")
    assert came == wanted
    assert of_versions(came) == sorted(of_versions(came), reverse=True)


@pytest.mark.parametrize("axes", ["tzyx", "yxt", "tzyxc"])
@pytest.mark.parametrize("told", [True, False])
def test_an_output_with_restored_axes(tmp_path, checkpoint, axes, told):
    """The reference says nothing, and is then of the axes of the output, or as told."""
    made = {}
    for name in ("tyx", axes):
        lr, hr = (write_stack(tmp_path / f"{kind}-{name}.h5", stored(images, name))
                  for kind, images in (("lr", LR), ("hr", HR)))
        axes_told = ["--set", f"data.axes={name}"]
        assert sample([*arguments(lr, f"sr-{name}.h5", checkpoint), *axes_told]) == 0
        made[name] = figures(f"sr-{name}.h5", "--reference", hr, *(axes_told if told else []))
    with h5py.File(f"sr-{axes}.h5") as file:
        assert file["entry/data/sr"].shape == stored(HR, axes).shape
    assert made[axes] == made["tyx"] and len(set(of_versions(made["tyx"]))) == 6


def test_a_regression_and_failed_images_follow_the_axes(tmp_path, checkpoint):
    lr = tmp_path / "lr.h5"
    with h5py.File(lr, "w") as file:
        file.create_dataset("x", data=stored(LR, "tzyx"), chunks=(1, 1, 20, 24), compression="gzip")
        place = file["x"].id.get_chunk_info_by_coord((1, 0, 0, 0))
    with open(lr, "r+b") as raw:
        raw.seek(place.byte_offset)
        raw.write(b"\xff" * place.size)
    words = [*arguments(lr, "sr.h5", checkpoint, "output.regression=true"),
             "--set", "data.axes=tzyx"]
    assert sample(words) == 3
    hr = write_stack(tmp_path / "hr.h5", stored(HR, "tzyx"))
    found = figures("sr.h5", "--reference", hr)
    assert sorted(found) == [0, 1, 2, 4, 5]
    assert all({"bicubic", "regression", "sr"} < set(versions) for versions in found.values())


@pytest.mark.parametrize("recorded", [None, "0,2:6", "5,3,1"])
def test_frames(tmp_path, checkpoint, recorded, capsys):
    """They count in the stack that SR was made of, whichever of its frames SR has."""
    lr, hr = write_stack(tmp_path / "lr.h5", LR), write_stack(tmp_path / "hr.h5", HR)
    assert sample(arguments(lr, "all.h5", checkpoint)) == 0
    whole = of_versions(figures("all.h5", "--reference", hr, "--lr", lr))
    more = [] if recorded is None else [f"--frames={recorded}", "output.value_range=[0,255]"]
    assert sample(arguments(lr, "sr.h5", checkpoint, *more)) == 0
    made_of = {None: range(6), "0,2:6": [0, 2, 3, 4, 5], "5,3,1": [5, 3, 1]}[recorded]
    came = of_versions(figures("sr.h5", "--reference", hr, "--lr", lr))
    assert came == [whole[frame] for frame in made_of]
    few = of_versions(figures("sr.h5", "--reference", hr, "--frames", "-1,3"))
    assert few == [whole[frame] for frame in (5, 3)]
    capsys.readouterr()
    if recorded is not None:
        missing = next(frame for frame in range(6) if frame not in made_of)
        assert main(["sr.h5", "--reference", str(hr), "--frames", str(missing)]) == 2
        assert f"was made of, got {missing}" in capsys.readouterr().err
    for bad in ("9", "x"):
        assert main(["sr.h5", "--reference", str(hr), "--frames", bad, "--dry-run"]) == 2
        captured = capsys.readouterr()
        assert captured.out == "" and captured.err.count("\n") == 1 and "--frames" in captured.err


def test_wrong_axes_are_one_line(tmp_path, capsys):
    sr, hr = (write_stack(tmp_path / f"{name}.h5", stored(HR, "tzyx")) for name in ("sr", "hr"))
    for words, expected in ((["--set", "data.axes=tyx"], "got 'tyx'"),
                            (["--set", "data.axes=yxtt"], "data.axes")):
        code = main([f"{sr}::/images", "--reference", f"{hr}::/images", *words])
        captured = capsys.readouterr()
        assert code == 2 and captured.err.count("\n") == 1 and expected in captured.err, captured
    assert not Path("swinmpi-out").exists()


def test_sampling_first_takes_the_same_frames(tmp_path, checkpoint):
    lr, hr = (write_stack(tmp_path / f"{name}.h5", stored(images, "yxt"))
              for name, images in (("lr", LR), ("hr", HR)))
    words = ["--checkpoint", checkpoint, "--lr", lr, "--reference", hr, "--set", "data.axes=yxt"]
    whole = of_versions(figures(*words, "--set", "output.value_range=[0,255]"))
    few = of_versions(figures(*words, "--set", "output.value_range=[0,255]", "--frames", "4,1"))
    assert few == [whole[4], whole[1]]
