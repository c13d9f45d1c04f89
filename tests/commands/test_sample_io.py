"""swinmpi-sample on one process: what becomes of dtypes, axes, NaNs, damaged images, signals and
outputs that exist."""
import json
import os
import re
import signal
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import yaml

from swinmpi.cli import evaluate
from swinmpi.cli.sample import main
from swinmpi.config import Config
from swinmpi.storage.checkpoint import file_sha256
from swinmpi.storage.outputs.output import StackOutput
from swinmpi.storage.stack import Stack
from swinmpi.storage.values import mask_invalid
from tests.support.sampling import arguments, smooth_stack, sr_of, write_checkpoint, write_stack
from tests.support.training import THESIS

WINDOW = "model.window_px=32"


@pytest.fixture(scope="module", autouse=True)
def threads():
    """A run sets the threads of its process: give them back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("model") / "aligned.safetensors", WINDOW)


@pytest.fixture
def sample(tmp_path, checkpoint, monkeypatch):
    """`sample(stack, *settings, output="out.h5") -> exit code`, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(stack: Path, *settings: str, output: str = "out.h5",
            checkpoint: Path = checkpoint) -> int:
        return main(arguments(stack, output, checkpoint, *settings))

    return run


def written() -> dict:
    """`entry/process` of out.h5."""
    with h5py.File("out.h5") as file:
        return {name: item[()] for name, item in file["entry/process"].items()
                if isinstance(item, h5py.Dataset)}


def names() -> list[str]:
    return sorted(path.name for path in Path(".").iterdir())


# what is kept

def test_odd_16_bit_stack_keeps_dtype_attributes_and_axes(sample, tmp_path):
    stack = write_stack(tmp_path / "in.h5", smooth_stack(5, 301, 203, dtype=">u2"),
                        "entry/data/counts")
    with h5py.File(stack, "a") as file:
        file["entry"].attrs.update(NX_class="NXentry", default="data")
        group, counts = file["entry/data"], file["entry/data/counts"]
        group.attrs.update(NX_class="NXdata", signal="counts", axes=["angle", "y", "x"])
        counts.attrs.update(units="photons", exposure=0.25, detector=np.array([3, 4]))
        for name, size, unit in (("angle", 5, "deg"), ("y", 301, "um"), ("x", 203, "um")):
            group[name] = np.arange(size) * 0.5
            group[name].attrs["units"] = unit
    assert sample(stack, "model.window_px=128", "sampler.steps=2") == 0
    with h5py.File("out.h5") as file:
        group = file["entry/data"]
        sr = group["sr"]
        assert (sr.shape, sr.dtype, sr.compression,
                sr.shuffle) == ((5, 602, 406), np.dtype(">u2"), "gzip", True)
        assert (sr[:].std(axis=(1, 2)).min() > 1000
                and file["entry/per_image/done"][:].tolist() == [1] * 5)
        assert (np.isfinite(file["entry/per_image/lr_psnr"]).all()
                and np.isfinite(file["entry/per_image/seam_score"]).all())
        assert (sr.attrs["units"], sr.attrs["exposure"],
                sr.attrs["detector"].tolist()) == ("photons", 0.25, [3, 4])
        assert group.attrs["signal"] == "sr" and group.attrs["axes"].tolist() == ["angle", "y", "x"]
        assert (group["angle"][:].tolist() == [0, 0.5, 1, 1.5, 2]
                and group["y"].attrs["units"] == "um")
        np.testing.assert_allclose(group["y"][:3], [-0.125, 0.125, 0.375])
        assert len(group["y"]) == 602 and len(group["x"]) == 406
    assert names() == ["in.h5", "out.h5"]


def test_layouts_hold_the_same_pixels(sample, tmp_path):
    images = smooth_stack(2, 20, 24, channels=3, dtype="uint8")
    assert sample(write_stack(tmp_path / "last.h5", images), output="last_x2.h5") == 0
    assert sample(write_stack(tmp_path / "first.h5", np.moveaxis(images, 3, 1)),
                  output="first_x2.h5") == 0
    last, first = sr_of(tmp_path / "last_x2.h5"), sr_of(tmp_path / "first_x2.h5")
    assert last.shape == (2, 40, 48, 3) and last.dtype == np.uint8
    assert np.array_equal(np.moveaxis(first, 1, 3), last)


def test_grey_goes_through_a_colour_model_as_three_copies(sample, tmp_path):
    grey = smooth_stack(1, 20, 24, dtype="float32")
    assert sample(write_stack(tmp_path / "grey.h5", grey), "output.value_range=[-2, 3]") == 0
    colour = write_stack(tmp_path / "colour.h5", np.repeat(grey[..., None], 3, axis=3))
    assert sample(colour, "output.value_range=[-2, 3]", output="colour_x2.h5") == 0
    np.testing.assert_allclose(sr_of(tmp_path / "out.h5"),
                               sr_of(tmp_path / "colour_x2.h5").mean(axis=3), atol=1e-5)


def test_nans_stay_where_they_are_and_change_nothing_else(sample, tmp_path):
    images = smooth_stack(2, 40, 36, dtype="float32")
    images[0, 0, :] = images[0, 7, 5:9] = images[1, 20:30, 20:] = np.nan
    images[1, 3, 3] = np.inf
    filled = np.stack([mask_invalid(image[None])[0][0] for image in images])
    assert np.isfinite(filled).all()
    limits = "output.value_range=[-2, 3]"
    assert sample(write_stack(tmp_path / "nans.h5", images), limits, "--ensemble=2") == 0
    assert sample(write_stack(tmp_path / "filled.h5", filled), limits, "--ensemble=2",
                  output="filled_x2.h5") == 0
    missing = ~np.isfinite(images).repeat(2, axis=1).repeat(2, axis=2)
    for name in ("sr", "sr_mean", "sr_spread"):
        with_nans, without = (sr_of(tmp_path / file, name) for file in ("out.h5", "filled_x2.h5"))
        assert np.array_equal(~np.isfinite(with_nans), missing) and np.isfinite(without).all()
        assert np.array_equal(with_nans[~missing], without[~missing])
    assert (sr_of(tmp_path / "out.h5")[1, 6:8, 6:8] == np.inf).all()


def test_one_value_range_for_the_whole_stack(sample, tmp_path):
    images = (smooth_stack(3, 24, 24, dtype="uint16")
              // np.array([1, 4, 16], np.uint16).reshape(3, 1, 1))
    stack = write_stack(tmp_path / "in.h5", images)
    assert sample(stack) == 0
    low, high = written()["value_range"]
    counted = np.sort(images.ravel())
    assert (low == counted[int(np.ceil(0.001 * counted.size)) - 1]
            and high == counted[int(np.ceil(0.999 * counted.size)) - 1])
    measured = sr_of(tmp_path / "out.h5")
    assert sample(stack, f"output.value_range=[{low}, {high}]", "--overwrite") == 0
    assert np.array_equal(sr_of(tmp_path / "out.h5"), measured)


def test_a_restart_does_not_read_the_stack_to_measure_it_again(sample, tmp_path, monkeypatch,
                                                               capsys):
    stack = write_stack(tmp_path / "in.h5", smooth_stack(2, 24, 24, dtype="float32"))

    def leave_partial(*settings):
        (tmp_path / "out.h5.packing").symlink_to("nowhere/file")
        assert sample(stack, *settings) == 2 and (tmp_path / "out.h5.partial").exists()

    leave_partial("output.value_range=[-3, 3]")
    assert sample(stack) == 2, "a range that was given is not taken for a measured one"
    assert "was begun with other settings (value_range differ)" in capsys.readouterr().err
    leave_partial("--overwrite")
    monkeypatch.setattr(Stack, "range", None)
    assert sample(stack) == 0
    with h5py.File(tmp_path / "out.h5") as file:
        assert "range_is_measured" not in file.attrs


def test_a_pixel_far_from_all_others_does_not_end_the_run(sample, tmp_path):
    images = smooth_stack(2, 61, 61, dtype="float32")
    images[0, 3, 4] = np.finfo("f4").min
    assert sample(write_stack(tmp_path / "in.h5", images)) == 0
    low, high = written()["value_range"]
    assert -2 <= low < high <= 3 and np.isfinite(sr_of(tmp_path / "out.h5")).all()


def test_a_forgotten_input_replaces_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("out.h5", "out.h5.partial"):
        (tmp_path / name).write_text("precious")
    assert main(["--output", "out.h5"]) == 2 and "exists already" in capsys.readouterr().err
    assert [(tmp_path / name).read_text() for name in names()] == ["precious"] * 2


@pytest.mark.parametrize("settings", [(), ("sampler.shift.pattern=random", "sampler.method=ddpm"),
                                      ("sampler.shift.pattern=random", "parallel.exchange=torus")],
                         ids=["circular", "random, ddpm", "random, torus"])
def test_an_ensemble_is_the_mean_and_deviation_of_its_seeds(sample, tmp_path, settings):
    """Member k is the run with seed + k: its noise, and where they are drawn its shifts."""
    stack = write_stack(tmp_path / "in.h5", smooth_stack(2, 24, 24, dtype="float32"))
    assert sample(stack, "--ensemble=3", *settings) == 0
    for seed in range(3):
        assert sample(stack, f"sampler.seed={seed}", *settings, output=f"seed{seed}.h5") == 0
    samples = np.stack([sr_of(tmp_path / f"seed{seed}.h5") for seed in range(3)])
    assert np.array_equal(sr_of(tmp_path / "out.h5"), samples[0])
    np.testing.assert_allclose(sr_of(tmp_path / "out.h5", "sr_mean"), samples.mean(axis=0),
                               atol=1e-5)
    np.testing.assert_allclose(sr_of(tmp_path / "out.h5", "sr_spread"),
                               samples.std(axis=0, ddof=1), atol=1e-5)
    assert samples.std(axis=0).max() > 0.01


def test_members_are_kept_where_asked_for(sample, tmp_path, capsys):
    stack = write_stack(tmp_path / "in.h5", smooth_stack(2, 24, 24))
    kept = "output.members=true"
    assert sample(stack, kept, "--ensemble=3") == 0
    assert "sr_spread is the spread of the samples, no error bar" in capsys.readouterr().out
    for member in (1, 2):
        assert sample(stack, f"sampler.seed={member}", output=f"seed{member}.h5") == 0
        made = sr_of(tmp_path / "out.h5", f"member_{member}")
        assert made.dtype == np.uint16
        assert np.array_equal(made, sr_of(tmp_path / f"seed{member}.h5"))
    assert sample(stack, "--ensemble=3", output="without.h5") == 0
    with h5py.File("without.h5") as file, h5py.File("out.h5") as other:
        assert {*other["entry/data"]} - {*file["entry/data"]} == {"member_1", "member_2"}
        assert "no error bar" in file["entry/data/sr_spread"].attrs["long_name"]
        for name in file["entry/data"]:
            assert np.array_equal(file["entry/data"][name], other["entry/data"][name])
    assert sample(stack, kept, output="one.h5") == 2 and not Path("one.h5").exists()
    assert "output.members: expected an ensemble of at least 2" in capsys.readouterr().err


def test_a_dry_run_prints_the_plan_that_a_run_carries_out(sample, tmp_path, capsys):
    stack = write_stack(tmp_path / "in.h5", smooth_stack(3, 24, 20))
    assert sample(stack, "--dry-run", "--ensemble=2") == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["device"].startswith("cpu, fp32, at least ") and "MiB a rank" in lines["device"]
    assert names() == ["in.h5"]
    assert sample(stack, "--ensemble=2") == 0
    first = capsys.readouterr().out.splitlines()[0]
    planned = re.search(r"micro-batches of (\d+) windows", lines["step"])[1]
    assert lines["per"].removeprefix("image").strip() in first
    assert written()["micro_batch"] == int(planned)
    assert f"{lines['step'].split()[0]} images per step" in first


@pytest.mark.skipif(torch.cuda.is_available(), reason="this node has a GPU")
def test_a_dry_run_plans_for_a_device_that_this_node_has_not(sample, tmp_path, capsys):
    """Nothing is allocated; the run itself is refused here."""
    stack = write_stack(tmp_path / "in.h5", smooth_stack(3, 24, 20))
    assert sample(stack, "--dry-run", "parallel.device=cuda") == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["device"].startswith("cuda, ") and "micro-batches of 4 windows" in lines["step"]
    assert sample(stack, "parallel.device=cuda") == 2
    assert "expected a CUDA device" in capsys.readouterr().err and names() == ["in.h5"]


def test_a_synthesis_takes_only_number_and_size_from_its_input(sample, tmp_path):
    """x_0 is the image itself: the gain of a residual does not divide it."""
    model = write_checkpoint(tmp_path / "x_t.safetensors", WINDOW, "model.condition_on=x_t",
                             model=THESIS)
    outputs = []
    for seed in range(2):
        stack = write_stack(tmp_path / f"in{seed}.h5",
                            smooth_stack(1, 20, 24, dtype="float32", seed=seed))
        settings = ("output.value_range=[-1, 1]", "sampler.clip_x_0=0.01", "sampler.steps=1")
        assert sample(stack, *settings, checkpoint=model, output=f"out{seed}.h5") == 0
        outputs.append(sr_of(tmp_path / f"out{seed}.h5"))
    assert np.array_equal(*outputs) and np.abs(outputs[0]).max() == pytest.approx(0.01)


def test_provenance_tells_how_to_do_it_again(sample, tmp_path, checkpoint):
    stack = write_stack(tmp_path / "in.h5", smooth_stack(2, 20, 24))
    assert sample(stack, "sampler.seed=7", "sampler.steps=2", "output.regression=true") == 0
    process = written()
    assert process["checkpoint_sha256"].decode() == file_sha256(checkpoint) and process["seed"] == 7
    assert process["input"].decode() == f"{stack}::/images" and process["ranks"] == 1
    configuration = process["configuration"].decode()
    assert Config.model_validate(yaml.safe_load(configuration)).sampler.steps == 2
    again = tmp_path / "again.yaml"
    again.write_text(configuration)
    assert sample(stack, f"--config={again}", output="again.h5") == 0
    for name in ("sr", "regression"):
        assert np.array_equal(sr_of(tmp_path / "again.h5", name), sr_of(tmp_path / "out.h5", name))


# what goes wrong on the way

def damage(stack: Path, image_index: int) -> None:
    """Overwrite the middle of one image's compressed chunk."""
    with h5py.File(stack) as file:
        chunk = file["images"].id.get_chunk_info(image_index)
    with open(stack, "r+b") as raw:
        raw.seek(chunk.byte_offset + chunk.size // 3)
        raw.write(b"\xff" * 40)


def chunked_stack(path: Path, num_images: int = 3, dtype: str = "uint16") -> Path:
    images = smooth_stack(num_images, 24, 24, dtype=dtype)
    return write_stack(path, images, chunks=(1, 24, 24), compression="gzip")


def test_a_damaged_image_is_named_and_the_others_are_written(sample, tmp_path, capsys):
    stack = chunked_stack(tmp_path / "in.h5")
    limits = "output.value_range=[0, 65535]"
    assert sample(stack, limits, output="whole.h5") == 0
    damage(stack, 1)
    capsys.readouterr()
    assert sample(stack, limits) == 3
    captured = capsys.readouterr()
    assert captured.out.splitlines()[3].split()[0] == "2", "the table counts what was made"
    first, last = captured.err.splitlines()
    assert ("image 1 cannot be read" in first
            and last == "swinmpi: out.h5: written, but images 1 could not be read")
    sr, whole = sr_of(tmp_path / "out.h5"), sr_of(tmp_path / "whole.h5")
    assert np.array_equal(sr[[0, 2]], whole[[0, 2]]) and not sr[1].any()
    with h5py.File("out.h5") as file:
        assert file["entry/per_image/done"][:].tolist() == [1, 0, 1]
    assert written()["failed_images"][0].decode().startswith("1: ")


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_the_value_range_is_that_of_the_readable_images(sample, tmp_path, dtype):
    stack = chunked_stack(tmp_path / "in.h5", dtype=dtype)
    damage(stack, 0)
    assert sample(stack) == 3
    with h5py.File(stack) as file:
        readable = file["images"][1:]
    low, high = written()["value_range"]
    assert (readable.min() <= low < high <= readable.max()
            and high - low > 0.9 * np.ptp(readable.astype(float)))


def test_a_stack_without_a_readable_image(sample, tmp_path, capsys):
    stack = chunked_stack(tmp_path / "in.h5", num_images=2)
    damage(stack, 0)
    damage(stack, 1)
    assert sample(stack) == 3
    assert "images 0, 1 could not be read" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGTERM])
def test_a_signal_ends_with_75_and_a_restart_goes_on(sample, tmp_path, monkeypatch, capsys, number):
    """What failed before the signal is tried again after it."""
    stack = chunked_stack(tmp_path / "in.h5", num_images=4)
    damage(stack, 0)
    assert sample(stack, output="whole.h5") == 3
    complete = StackOutput.complete

    def complete_and_signal(*arguments):
        complete(*arguments)
        os.kill(os.getpid(), number)

    capsys.readouterr()
    with monkeypatch.context() as patched:
        patched.setattr(StackOutput, "complete", complete_and_signal)
        assert sample(stack, "parallel.images_per_step=2") == 75
    assert "stopped by a signal with 3 images to go" in capsys.readouterr().err
    assert names() == ["in.h5", "out.h5.partial", "whole.h5"]
    assert sample(stack) == 3
    captured = capsys.readouterr()
    assert "1 of them done before" in captured.out and "images 0 could not be read" in captured.err
    assert np.array_equal(sr_of(tmp_path / "out.h5"), sr_of(tmp_path / "whole.h5"))


def test_when_all_is_done_a_restart_only_packs(sample, tmp_path, capsys):
    stack = write_stack(tmp_path / "in.h5", smooth_stack(2, 24, 24))
    Path("out.h5.packing").symlink_to("nowhere/file")
    assert sample(stack) == 2
    assert "they are safe in" in capsys.readouterr().err
    assert sample(stack) == 0
    out = capsys.readouterr().out
    assert "2 of them done before" in out and out.splitlines()[3].split()[0] == "0"
    assert names() == ["in.h5", "out.h5"] and sr_of(tmp_path / "out.h5").any(axis=(1, 2)).all()


def test_an_existing_output_is_refused_or_replaced(sample, tmp_path, capsys):
    stack = write_stack(tmp_path / "in.h5", smooth_stack(1, 20, 24))
    assert sample(stack) == 0
    before = Path("out.h5").read_bytes()
    assert sample(stack, "sampler.seed=1") == 2
    assert "exists already" in capsys.readouterr().err and Path("out.h5").read_bytes() == before
    assert sample(stack, "sampler.seed=1", "--overwrite") == 0
    assert written()["seed"] == 1


@pytest.mark.parametrize("name,output", [("scan.h5", "scan_x2.h5"), ("scan.nxs", "scan_x2.nxs"),
                                         ("scan.v1.he5", "scan.v1_x2.h5")])
def test_the_output_is_named_after_the_input(sample, tmp_path, checkpoint, name, output):
    stack = write_stack(tmp_path / name, smooth_stack(1, 20, 24), "entry/images")
    assert main([f"{stack}::/entry/images", "--checkpoint", str(checkpoint)]) == 0
    assert names() == sorted([name, output, f"{Path(output).stem}.png"])
    assert main([str(stack), "--checkpoint", str(checkpoint)]) == 2


@pytest.mark.parametrize("settings, expected", [
    (("sampler.shift.edge=crop_pad",), "for model.family thesis and sampler.shift.border wrap"),
    (("model.encoder_channels=16",), "expected a model with model.encoder_channels 16"),
    (("model.family=thesis",), "expected a model with model.family thesis"),
    (("diffusion.prediction=eps",), "expected a model with diffusion.prediction eps"),
    (("output.value_range=[3, 2]",), "low < high"),
    (("--ensemble=0",), "--ensemble: expected 1 to 1000 samples, got 0"),
    (("parallel.ranks_per_image=0",), "ranks_per_image: expected at least 1"),
    (("--ranks-per-image=few",), "ranks_per_image"),
])
def test_settings_that_cannot_be_are_refused_before_anything_is_made(
        sample, tmp_path, capsys, settings, expected):
    stack = write_stack(tmp_path / "in.h5", smooth_stack(1, 20, 24))
    for mode in ([], ["--dry-run"]):
        assert sample(stack, *settings, *mode) == 2
        captured = capsys.readouterr()
        assert expected in captured.err and captured.err.count("\n") == 1 and captured.out == ""
    assert names() == ["in.h5"]


def test_a_colour_stack_needs_a_colour_model(sample, tmp_path, capsys):
    model = write_checkpoint(tmp_path / "grey.safetensors", WINDOW, "model.channels=1")
    colour = write_stack(tmp_path / "in.h5", smooth_stack(1, 20, 24, channels=3))
    assert sample(colour, checkpoint=model) == 2
    assert "expected images of one channel" in capsys.readouterr().err
    assert sample(write_stack(tmp_path / "in.h5", smooth_stack(1, 20, 24)), checkpoint=model) == 0


@pytest.mark.filterwarnings("ignore:schedule thesis64")  # making the checkpoint warns as well
def test_the_published_schedule_warns_once(sample, tmp_path, capsys):
    model = write_checkpoint(tmp_path / "thesis.safetensors", WINDOW, "diffusion.schedule=thesis64",
                             model=THESIS)
    assert sample(write_stack(tmp_path / "in.h5", smooth_stack(1, 20, 24)), checkpoint=model) == 0
    assert capsys.readouterr().err.count("x_T still holds some of the image") == 1


# sampling from swinmpi-evaluate

def test_evaluate_samples_first(tmp_path, checkpoint, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hr = smooth_stack(2, 40, 48, channels=3, dtype="uint8")
    lr = write_stack(tmp_path / "lr.h5", hr[:, ::2, ::2])
    command = ["--checkpoint", str(checkpoint), "--lr", str(lr), "--set", "sampler.steps=2",
               "--output", "new/folder"]
    wrong = write_stack(tmp_path / "wrong.h5", hr[:, :20, :24])
    good = write_stack(tmp_path / "hr.h5", hr)
    assert evaluate.main([*command, "--reference", str(wrong)]) == 2
    assert "expected" in capsys.readouterr().err
    assert evaluate.main([*command, "--reference", str(good), "--dry-run"]) == 0
    assert "2 colour images of 20 x 24 px" in capsys.readouterr().out and not Path("new").exists()
    assert evaluate.main([*command, "--reference", str(good)]) == 0
    assert (sorted(path.name for path in Path("new/folder").iterdir())
            == ["evaluate.csv", "evaluate.json", "evaluate.png", "plots.png", "sr.h5"])
    report = json.loads(Path("new/folder/evaluate.json").read_text())
    assert set(report["mean"]) == {"bicubic", "regression", "sr"} and len(report["images"]) == 2
