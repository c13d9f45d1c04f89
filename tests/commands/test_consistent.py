"""output.consistent: what was measured comes back when the result is shrunk, unless the checkpoint
learned from LR images that were more than shrunk."""
import h5py
import numpy as np
import pytest

from swinmpi.cli.sample import main
from swinmpi.config import load_config
from swinmpi.errors import ConfigError
from swinmpi.images import metrics
from swinmpi.sampling.request import SampleRequest
from swinmpi.sampling.settings import check_consistent, consistency
from swinmpi.sampling.validation import GivenSettings, validated
from swinmpi.storage.checkpoint import load_weights, save_weights
from tests.support.sampling import arguments, smooth_stack, sr_of, write_checkpoint, write_stack
from tests.support.training import ALIGNED, SRDIFF, THESIS, VANILLA

WRAP = "sampler.shift.border=wrap"
DEGRADED = {"degradation": {"read_noise": [0.01, 0.02]}}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("model") / "aligned.safetensors",
                            "model.window_px=32")


def sampled(folder, checkpoint, images, *settings):
    stack = write_stack(folder / "lr.h5", images)
    output = folder / "out.h5"
    assert main(arguments(stack, output, checkpoint, "--overwrite", *settings)) == 0
    return output


def missed(output, images) -> np.ndarray:
    """Differences between the shrunk images of an output and those measured, NaN beside holes."""
    return np.stack([metrics.shrink_part(sr, (0, 0), sr.shape, lr.shape,
                                         [range(side) for side in lr.shape[:2]]) - lr
                     for sr, lr in zip(sr_of(output), images, strict=True)])


@pytest.mark.parametrize("model,header,settings,expected", [
    (ALIGNED, {}, [], True),
    (ALIGNED, {"degradation": {}}, [], True),
    (ALIGNED, {"lr_kernel": "bicubic"}, [], True),
    (ALIGNED, DEGRADED, [], False),
    (ALIGNED, {"degradation": {"psf_px": [0.5, 0.5]}}, [], False),
    (ALIGNED, {"lr_kernel": "bilinear"}, [], False),
    (ALIGNED, {"lr_kernel": "own LR images"}, [], False),
    (ALIGNED, {"target": "encoder"}, [], False),
    (ALIGNED, {}, [WRAP], False),
    (ALIGNED, DEGRADED, ["output.consistent=true"], True),
    (ALIGNED, DEGRADED, ["output.consistent=0.25"], 0.25),
    (ALIGNED, {}, ["output.consistent=false"], False),
    (ALIGNED, {}, ["output.consistent=0"], False),
    (ALIGNED, {}, ["output.consistent=1"], True),
    *((model, {}, [], False) for model in (THESIS, SRDIFF, VANILLA)),
    (THESIS, {}, ["output.consistent=true"], True)])
def test_who_keeps_to_lr_unless_told_otherwise(model, header, settings, expected):
    settled = consistency(load_config(overrides=[*model, *settings]), header)
    assert settled == expected and isinstance(settled, type(expected))


@pytest.mark.parametrize("dtype,channels", [("float32", 1), ("float64", 1), ("float32", 3)])
def test_floats_shrink_to_what_was_measured(tmp_path, checkpoint, dtype, channels):
    images = smooth_stack(2, 61, 37, channels, dtype)
    output = sampled(tmp_path, checkpoint, images)
    levels = 255 / (images.max() - images.min())
    assert np.abs(missed(output, images)).max() * levels < 1e-4
    with h5py.File(output) as file:
        per_image = file["entry/per_image"]
        assert (per_image["lr_misfit"][()] < 1e-4).all()
        assert per_image.attrs["NX_class"] == "NXdata"
        assert per_image.attrs["signal"] == "lr_misfit"
    other = sampled(tmp_path, checkpoint, images, "output.consistent=false")
    assert np.abs(missed(other, images)).max() * levels > 0.1


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
def test_integers_come_nearer_than_rounding_one_by_one_would(tmp_path, checkpoint, dtype):
    images = (smooth_stack(2, 40, 36, dtype="float64") * 20 + 90).astype(dtype)
    values = "output.value_range=[50,150]"
    floats = sampled(tmp_path, checkpoint, images.astype(np.float64), values)
    one_by_one = np.stack([metrics.shrink_part(
        np.rint(sr), (0, 0), sr.shape, lr.shape, [range(side) for side in lr.shape])
        - lr for sr, lr in zip(sr_of(floats), images, strict=True)])
    output = sampled(tmp_path, checkpoint, images, values)
    assert sr_of(output).dtype == dtype
    assert np.sqrt((missed(output, images) ** 2).mean()) < 0.08
    assert np.sqrt((one_by_one ** 2).mean()) > 0.1


def test_holes_stay_and_do_not_spread(tmp_path, checkpoint):
    images = smooth_stack(2, 40, 36, dtype="float32")
    holes = images.copy()
    holes[0, 10:14, 7:11], holes[1, 0, 0], holes[1, 30, 20] = np.nan, np.inf, -9999.0
    output = sampled(tmp_path, checkpoint, holes, "data.no_data=-9999")
    made, stored = sr_of(output), np.repeat(np.repeat(holes, 2, 1), 2, 2)
    is_hole = ~np.isfinite(stored) | (stored == -9999)
    np.testing.assert_array_equal(made[is_hole], stored[is_hole])
    assert np.isfinite(made[~is_hole]).all() and np.abs(made[~is_hole]).max() < 10
    left = np.where(is_hole, np.nan, made)
    for sr, lr in zip(left, holes, strict=True):
        shrunk = metrics.shrink_part(sr, (0, 0), sr.shape, lr.shape, [range(40), range(36)])
        told = np.isfinite(shrunk)
        assert np.abs(shrunk - lr)[told].max() < 1e-5
        assert told.mean() > 0.9


def test_a_value_out_of_all_proportion_stays_where_it_is(tmp_path, checkpoint):
    """Undeclared no data: what float32 loses of it must not be carried to its neighbours."""
    images = smooth_stack(1, 60, 60, dtype="float32")
    images[0, 30, 30] = 1e30
    made = sr_of(sampled(tmp_path, checkpoint, images))[0]
    near = np.zeros_like(made, bool)
    near[40:82, 40:82] = True
    assert np.abs(made[~near]).max() < 10


def test_a_weight_goes_part_of_the_way(tmp_path, checkpoint):
    images = smooth_stack(1, 40, 36, dtype="float32")
    whole, half, none = (missed(sampled(tmp_path, checkpoint, images,
                                        f"output.consistent={weight}"), images)
                         for weight in ("true", 0.5, "false"))
    np.testing.assert_allclose(half, none / 2, atol=1e-5)
    assert np.abs(whole).max() < 1e-5 < np.abs(half).max()


def test_an_output_begun_another_way_is_not_continued(tmp_path, checkpoint):
    """The setting is in the fingerprint where pixels are changed, and only there."""
    from swinmpi.sampling.plan import plan
    from swinmpi.sampling.provenance import folder_settings
    stack = write_stack(tmp_path / "lr.h5", smooth_stack(1, 20, 20))

    def settings(*overrides):
        request = SampleRequest(str(stack), tmp_path / "out.h5", checkpoint)
        made = plan(*validated(request, GivenSettings(overrides=overrides)), 1)
        return folder_settings(made.request, made.config, "digest")

    assert settings()["consistent"] is True
    assert settings("output.consistent=0.5")["consistent"] == 0.5
    assert "consistent" not in settings("output.consistent=false")


def test_edges_that_are_joined_are_refused(tmp_path, checkpoint, capsys):
    stack, output = write_stack(tmp_path / "lr.h5", smooth_stack(1, 20, 20)), tmp_path / "out.h5"
    assert main(arguments(stack, output, checkpoint, WRAP, "output.consistent=0.5")) == 2
    assert "expected false with sampler.shift.border wrap" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["lr.h5"]
    # to the windows of other families alone edges are joined, not to what they are added to
    check_consistent(load_config(overrides=[*THESIS, WRAP, "output.consistent=true"]))


@pytest.mark.parametrize("value", ["1.5", "-0.1", ".nan", "maybe", "[1]", "'1'"])
def test_no_weight_is_told_in_one_line(value):
    with pytest.raises(ConfigError, match="consistent: expected true, false or a number from 0"):
        load_config(overrides=[f"output.consistent={value}"])


def test_asking_for_noise_to_be_kept_is_remarked(tmp_path, checkpoint):
    weights, header = load_weights(checkpoint)
    noisy = tmp_path / "noisy.safetensors"
    save_weights(noisy, weights, header | DEGRADED)
    stack = write_stack(tmp_path / "lr.h5", smooth_stack(1, 20, 20))
    request = SampleRequest(str(stack), tmp_path / "out.h5", noisy)
    assert validated(request, GivenSettings())[1].output.consistent is False
    with pytest.warns(UserWarning, match="not only shrunk by bicubic imresize"):
        validated(request, GivenSettings(overrides=["output.consistent=true"]))


def test_a_run_ends_with_its_worst_images(tmp_path, checkpoint, capsys):
    sampled(tmp_path, checkpoint, smooth_stack(3, 40, 36, dtype="float32"))
    line, = [line for line in capsys.readouterr().out.splitlines() if line.startswith("LR misfit")]
    with h5py.File(tmp_path / "out.h5") as file:
        misfits, seams = (file["entry/per_image"][name][()] for name in ("lr_misfit", "seam_score"))
    assert f"LR misfit {misfits.mean():.2g} grey levels on average" in line
    assert f"most in image {misfits.argmax()} ({misfits.max():.2g})" in line
    assert f"seams {seams.mean():.2f} on average, most in image {seams.argmax()}" in line
