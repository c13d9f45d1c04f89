"""swinmpi-prepare with blur and noise: written pair by pair, alike in pairs and test stacks."""
import json

import h5py
import numpy as np
import pytest

from swinmpi.cli.prepare import main
from swinmpi.images.imresize import imresize
from swinmpi.storage.pairs import PairReader
from swinmpi.storage.stack import Stack
from swinmpi.training.preparation.degradation import make_lr

NAMES = ("psf_px", "photons", "read_noise")
DEGRADED = ["--set=data.psf_px=[0.5, 1.5]", "--set=data.photons=[50, 500]",
            "--set=data.read_noise=0.02"]
SMALL = ["--set=data.size_px=16", "--set=data.crops_per_image=3"]


def run(*arguments):
    return main([str(argument) for argument in arguments])


def scene(dtype, channels, num_images=3):
    """Smooth images of 24 x 28 px, (N, H, W) or (N, H, W, 3)."""
    y, x = np.mgrid[:24, :28]
    planes = [np.stack([np.sin(x / (3 + i + c)) + np.cos(y / (4 + i)) + 2
                        for c in range(channels)], axis=-1) for i in range(num_images)]
    images = np.stack(planes) / 4 * (3000 if np.dtype(dtype).itemsize > 1 else 255)
    return (images if channels == 3 else images[..., 0]).astype(dtype)


def write(path, images, **attributes):
    with h5py.File(path, "w") as file:
        file["x"] = images
        file["x"].attrs.update(attributes)
    return path


@pytest.mark.parametrize("mode", ["crop", "whole"])
@pytest.mark.parametrize(("dtype", "channels"), [("u1", 1), ("u1", 3), ("u2", 1), ("u2", 3),
                                                 ("f4", 1)])
def test_every_pair_says_what_it_was_made_with(tmp_path, capsys, dtype, channels, mode):
    stack = write(tmp_path / "hr.h5", scene(dtype, channels))
    command = [stack, "--output", tmp_path / "p.h5", *SMALL, *DEGRADED, f"--set=data.mode={mode}",
               f"--set=data.channels={channels}"]
    assert run(*command, "--dry-run") == 0
    assert ("PSF of sigma 0.5 to 1.5 HR px, shot noise of 50 to 500 photons at full scale, read "
            "noise of sigma 0.02 of the range; drawn for each crop") in capsys.readouterr().out
    assert run(*command) == 0
    with PairReader(tmp_path / "p.h5") as pairs:
        drawn = {name: pairs.file[name][:] for name in NAMES}
        assert pairs.degradation == {"psf_px": (0.5, 1.5), "photons": (50.0, 500.0),
                                     "read_noise": (0.02, 0.02)}
        assert json.loads(pairs.file.attrs["data_config"])["psf_px"] == [0.5, 1.5]
        count = 3 if mode == "whole" else 9
        assert all(values.shape == (count,) for values in drawn.values())
        assert len(set(drawn["psf_px"])) == count
        noise = [(pairs.lr[i] / pairs.value_max - imresize(pairs.hr[i] / pairs.value_max, scale=0.5)
                  ).std() for i in range(count)]
        assert 0.015 < min(noise) and max(noise) < 0.4


def test_pairs_without_settings_say_nothing_new(tmp_path):
    stack = write(tmp_path / "hr.h5", scene("u2", 1))
    assert run(stack, "--output", tmp_path / "p.h5", *SMALL) == 0
    with h5py.File(tmp_path / "p.h5") as file:
        assert set(file) == {"entry", "hr", "lr", "source", "split"}
        assert not set(NAMES) & (set(file.attrs) | set(json.loads(file.attrs["data_config"])))


def test_hr_images_are_those_without_settings_and_order_does_not_matter(tmp_path):
    stack = write(tmp_path / "hr.h5", scene("u1", 1))
    for name, more in (("plain", []), ("once", DEGRADED), ("again", DEGRADED),
                       ("seed", [*DEGRADED, "--set=data.seed=1"])):
        assert run(stack, "--output", tmp_path / f"{name}.h5", *SMALL, *more) == 0
    assert (tmp_path / "once.h5").read_bytes() == (tmp_path / "again.h5").read_bytes()
    with PairReader(tmp_path / "plain.h5") as plain, PairReader(tmp_path / "once.h5") as once, \
            PairReader(tmp_path / "seed.h5") as seed:
        np.testing.assert_array_equal(plain.hr[:], once.hr[:])
        assert not np.array_equal(plain.lr[:], once.lr[:])
        assert not np.array_equal(once.file["photons"][:], seed.file["photons"][:])


@pytest.mark.parametrize(("dtype", "channels"), [("u1", 1), ("u1", 3), ("u2", 1), ("f4", 1),
                                                 ("i2", 1), ("f2", 1)])
def test_test_stacks_are_degraded_as_well(tmp_path, capsys, dtype, channels):
    images = scene(dtype, channels)
    stack = write(tmp_path / "hr.h5", images)
    command = [stack, "--lr-only", "--output", tmp_path / "lr.h5", *DEGRADED]
    assert run(*command, "--dry-run") == 0
    assert "drawn for each image" in capsys.readouterr().out
    assert run(*command) == 0
    with h5py.File(tmp_path / "lr.h5") as file:
        low, high = file.attrs["value_range"]
        assert all(file[name].shape == (3,) for name in NAMES)
        assert file.attrs["psf_px"].tolist() == [0.5, 1.5]
    with Stack.open(str(tmp_path / "lr.h5")) as lr, Stack.open(str(stack)) as hr:
        assert (lr.num_images, lr.height, lr.width, lr.channels) == (3, 12, 14, channels)
        assert lr.dtype == hr.dtype
        unit = (lr.read(0) - low) / (high - low)
        truth = (hr.read(0) - low) / (high - low)
        shrunk = imresize(np.moveaxis(truth, 0, -1).astype(float), scale=0.5)
        assert 0.01 < (np.moveaxis(unit, 0, -1) - shrunk).std() < 0.2


def test_a_test_stack_is_made_as_whole_pairs_are(tmp_path):
    """8 bit: the same values from 0 to 255, the same draws."""
    stack = write(tmp_path / "hr.h5", scene("u1", 1)[:, :24, :24])
    common = [*DEGRADED, "--set=data.channels=1"]
    assert run(stack, "--output", tmp_path / "p.h5", "--set=data.mode=whole",
               "--set=data.size_px=24", *common) == 0
    assert run(stack, "--lr-only", "--output", tmp_path / "lr.h5", *common) == 0
    with h5py.File(tmp_path / "p.h5") as pairs, h5py.File(tmp_path / "lr.h5") as lr:
        np.testing.assert_array_equal(pairs["lr"][..., 0], lr["lr"][:])


@pytest.mark.parametrize(("dtype", "hole"), [("f4", np.nan), ("f4", -9999), ("u2", 0),
                                             ("u2", 65535), ("i2", -1)])
def test_holes_do_not_spread_and_noise_makes_no_new_ones(tmp_path, dtype, hole):
    images = scene(dtype, 1) + np.dtype(dtype).type(50)
    images[:, 6:14, 6:14] = hole
    told = {} if hole != hole else {"_FillValue": np.dtype(dtype).type(hole)}
    stack = write(tmp_path / "hr.h5", images, **told)
    more = ["--set=data.psf_px=3", "--set=data.photons=5", "--set=data.read_noise=0.5"]
    assert run(stack, "--lr-only", "--output", tmp_path / "lr.h5", *more) == 0
    with h5py.File(tmp_path / "lr.h5") as file:
        lr, (low, high) = file["lr"][:], file.attrs["value_range"]
    assert 0 <= low < high < 4000 and np.isfinite(lr).all()
    assert not (lr == np.dtype(dtype).type(hole)).any()
    assert np.abs((lr.astype(float) - low) / (high - low)).max() < 8
    assert run(stack, "--output", tmp_path / "p.h5", *SMALL, *more) == 0
    with PairReader(tmp_path / "p.h5") as pairs:
        assert pairs.value_range == (low, high)


def test_given_lr_images_are_not_degraded(tmp_path, capsys):
    hr = write(tmp_path / "hr.h5", scene("u1", 1))
    lr = write(tmp_path / "lr.h5", scene("u1", 1)[:, ::2, ::2])
    for dry in ([], ["--dry-run"]):
        assert run(hr, "--lr", lr, "--output", tmp_path / "p.h5", *SMALL, *DEGRADED, *dry) == 2
        said = capsys.readouterr().err
        assert "got data.psf_px and data.photons and data.read_noise" in said
        assert said.count("\n") == 1
    assert not (tmp_path / "p.h5").exists()


def test_the_pairs_are_what_the_function_makes(tmp_path):
    """The only link between a pair and its numbers: (seed, image index, crop number)."""
    from swinmpi.config import load_config
    stack = write(tmp_path / "hr.h5", scene("u1", 3))
    assert run(stack, "--output", tmp_path / "p.h5", *SMALL, *DEGRADED, "--set=data.seed=5") == 0
    config = load_config(overrides=[text.removeprefix("--set=") for text in DEGRADED]
                         + ["data.seed=5"]).data
    with PairReader(tmp_path / "p.h5") as pairs:
        for index in range(9):
            lr, drawn = make_lr(pairs.hr[index], (8, 8), config, divmod(index, 3), (0, 255))
            np.testing.assert_array_equal(pairs.lr[index], lr)
            assert drawn == {name: pairs.file[name][index] for name in NAMES}
