"""Images that are unlike those a model was trained on: a line on the stack, numbers and a line on
every image, none for images like them."""
import os
import signal

import h5py
import numpy as np
import pytest
import tifffile
from scipy.ndimage import gaussian_filter

from swinmpi.cli import sample
from swinmpi.images.likeness.usual import SCORES, usual_in, usual_of
from swinmpi.sampling.ranges import how_unlike
from swinmpi.storage.checkpoint import load_weights, save_weights
from swinmpi.storage.outputs.output import StackOutput
from swinmpi.storage.pictures.store import PictureStore
from swinmpi.storage.stack import Stack
from swinmpi.storage.values import ValueRange
from tests.support.sampling import arguments, write_checkpoint, write_stack

RNG = np.random.default_rng(0)
BYTES = ValueRange(0, 255)


def photographs(count, size=64):
    """Equal energy in every octave, as photographs have it on average (Field 1987), in 8 bit."""
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size)))
    frequency[0, 0] = 1
    noise = np.fft.fft2(RNG.normal(size=(count, size, size)))
    images = np.fft.ifft2(noise / frequency).real
    return as_bytes(images / images.std() * 40 + 128)


def as_bytes(images):
    return np.rint(images).clip(0, 255).astype(np.uint8)


def blurred(images, sigma=2.0):
    return as_bytes(gaussian_filter(images.astype(float), (0, sigma, sigma)))


def noisy(images, sigma=60.0):
    return as_bytes(images + RNG.normal(0, sigma, images.shape))


def binary(images):
    return np.where(images > 128, 255, 0).astype(np.uint8)


def header_of(*groups):
    return usual_of([[image[None] / np.float32(127.5) - 1 for image in images]
                     for images in groups], 32, "pairs.h5")


HEADER = header_of(photographs(200, 32))
CHANGES = [(lambda images: images, None), (lambda images: blurred(images, 0.4), None),
           (lambda images: noisy(images, 3), None), (lambda images: images // 2 + 20, None),
           (blurred, "blurred, or enlarged"), (lambda images: blurred(images, 6), "blurred"),
           (lambda images: images.repeat(2, 1).repeat(2, 2), "blurred, or enlarged"),
           (noisy, "noisy"), (binary, "binary, or of few values"),
           (lambda images: images // 64 * 64, "of few values"),
           (lambda images: images // 32 + 100, "contrast")]


@pytest.mark.parametrize("change, said", CHANGES)
def test_only_a_stack_that_is_far_is_told(tmp_path, change, said):
    path = write_stack(tmp_path / "in.h5", change(photographs(6)))
    with Stack.open(str(path)) as stack:
        told = how_unlike(stack, usual_in(HEADER), BYTES)
        assert told is None if said is None else said in told and "\n" not in told
        assert how_unlike(stack, None, BYTES) is None, "an older checkpoint does not tell"


def scores_of(image, header=HEADER):
    usual = usual_in(header)
    unit = image[None] / np.float32(127.5) - 1
    return usual.scores(usual.statistics(lambda rows: unit[:, rows.start:rows.stop], image.shape))


@pytest.mark.parametrize("size", [32, 64, 200])
def test_few_images_of_the_same_kind_are_told_whatever_their_size(size):
    scores = np.array([[*scores_of(image).values()] for image in photographs(100, size)])
    assert (np.abs(scores) > 1).any(axis=1).mean() <= 0.02
    assert np.isfinite(scores).all()


def test_a_small_group_does_not_drown_in_a_large_one():
    """Such as a few noisy photographs of the validation split beside many to train on."""
    grainy, header = noisy(photographs(40)), header_of(photographs(400), noisy(photographs(20)))
    alone, beside = (np.array([scores_of(image, known)["unlike_noise"] for image in grainy])
                     for known in (HEADER, header))
    assert np.mean(alone > 1) > 0.9 and np.mean(beside > 1) <= 0.05


@pytest.mark.parametrize("change, kind, sign", [
    (blurred, "spectrum", -1), (noisy, "noise", 1), (binary, "values", 1),
    (lambda images: images // 32 + 100, "range", -1), (lambda images: images + 300.0, "range", 1)])
def test_an_image_is_told_by_itself_in_what_it_is_far(change, kind, sign):
    found = np.array([scores_of(image)[f"unlike_{kind}"] for image in change(photographs(20))])
    assert np.mean(found * sign > 1) > 0.9


@pytest.mark.parametrize("image", [np.full((64, 64), 7.0), np.full((64, 64), np.nan),
                                   np.ones((8, 300))])
def test_what_says_nothing_is_not_told(image):
    assert np.isnan([*scores_of(image).values()]).all()


def test_a_hole_is_not_taken_for_detail():
    image = photographs(1, 96)[0].astype(np.float32)
    before = scores_of(image)
    image[5:30, 10:50] = np.nan
    after = scores_of(image)
    assert all(abs(after[name]) < 1 and abs(before[name]) < 1 for name in SCORES)


@pytest.mark.parametrize("told", [None, 3, {}, {"crop_px": 32}, HEADER["lr_images"] | {
    "quantiles": HEADER["lr_images"]["quantiles"] | {"noise": [3.0, 2.0, 1.0, 0.0, float("nan")]}}])
def test_a_header_that_does_not_tell_is_no_error(told):
    assert usual_in({"lr_images": told}) is None


@pytest.fixture(scope="module")
def knowing(tmp_path_factory):
    """A checkpoint that knows photographs."""
    path = write_checkpoint(tmp_path_factory.mktemp("knowing") / "c.safetensors",
                            "model.channels=1")
    weights, header = load_weights(path)
    save_weights(path, weights, header | HEADER)
    return path


@pytest.mark.parametrize("exchange", ["root", "torus"])
def test_a_run_names_the_images_once(tmp_path, knowing, capsys, exchange):
    images = photographs(4)
    images[2:3] = binary(images[2:3])
    stack = write_stack(tmp_path / "in.h5", images)
    assert sample.main(arguments(stack, tmp_path / "o.h5", knowing,
                                 f"parallel.exchange={exchange}")) == 0
    said = capsys.readouterr()
    (line,) = [one for one in (said.out + said.err).splitlines() if "unlike" in one]
    assert line.startswith("1 of 4 images is unlike those that the checkpoint knows: image 2 (")
    assert "binary, or of few values" in line and "noisy" not in line
    with h5py.File(tmp_path / "o.h5") as file:
        kept = np.array([file["entry/per_image"][name][:] for name in SCORES])
    wanted = np.array([[*scores_of(image).values()] for image in images]).T
    np.testing.assert_allclose(kept, wanted, rtol=1e-5)


@pytest.mark.parametrize("store", [StackOutput, PictureStore])
def test_what_was_made_before_an_interruption_is_named_as_well(tmp_path, knowing, monkeypatch,
                                                               capsys, store):
    images, complete = binary(photographs(4)), store.complete
    if store is StackOutput:
        stack, output = write_stack(tmp_path / "in.h5", images), tmp_path / "o.h5"
    else:
        stack, output = tmp_path / "in.tif", tmp_path / "o"
        tifffile.imwrite(stack, images, photometric="minisblack")

    def complete_and_signal(*arguments):
        complete(*arguments)
        os.kill(os.getpid(), signal.SIGTERM)

    wanted = arguments(stack, output, knowing, "parallel.images_per_step=1")
    with monkeypatch.context() as patched:
        patched.setattr(store, "complete", complete_and_signal)
        assert sample.main(wanted) == 75
    capsys.readouterr()
    assert sample.main(wanted) == 0
    assert "4 of 4 images are unlike" in capsys.readouterr().out


def test_an_older_checkpoint_keeps_its_output(tmp_path, capsys):
    checkpoint = write_checkpoint(tmp_path / "c.safetensors", "model.channels=1")
    stack = write_stack(tmp_path / "in.h5", binary(photographs(2)))
    assert sample.main(arguments(stack, tmp_path / "o.h5", checkpoint)) == 0
    captured = capsys.readouterr()
    assert "unlike" not in captured.out + captured.err
    with h5py.File(tmp_path / "o.h5") as file:
        assert not set(SCORES) & set(file["entry/per_image"])


def test_a_dry_run_tells_of_the_stack(tmp_path, knowing, capsys):
    stack = write_stack(tmp_path / "in.h5", binary(photographs(6)))
    assert sample.main([*arguments(stack, tmp_path / "o.h5", knowing), "--dry-run"]) == 0
    assert "its images look" in capsys.readouterr().err
