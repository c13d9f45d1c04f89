"""Values on the command line: no data, dtypes, and one range from training to result."""
import h5py
import numpy as np
import pytest
import tifffile

from swinmpi.cli import evaluate, prepare, sample, train
from swinmpi.images.likeness.usual import usual_in
from swinmpi.storage.checkpoint import load_weights, save_weights
from swinmpi.storage.pairs import PairReader
from tests.support.sampling import arguments, smooth_stack, sr_of, write_checkpoint, write_stack
from tests.support.training import as_arguments, settings


@pytest.fixture
def checkpoint(tmp_path):
    return write_checkpoint(tmp_path / "model.safetensors")


def with_hole(dtype, value):
    images = smooth_stack(2, 20, 24, dtype="uint16").astype(np.float64) / 16
    images = images.astype(dtype)
    images[:, 4:8, 10:15] = value
    hole = images == images.dtype.type(value)  # with a black of 0 where that is the value
    return images, hole.repeat(2, 1).repeat(2, 2)


@pytest.mark.parametrize("dtype, value", [("f4", -9999), ("u2", 65535), ("i4", -2**31),
                                          ("f8", 1e20), ("u2", 0)])
def test_a_hole_stays_a_hole_and_changes_nothing_else(tmp_path, checkpoint, dtype, value):
    """As NaN would be: the same pixels of the same values."""
    images, hole = with_hole(dtype, value)
    floats = images.astype("f8")
    floats[images == images.dtype.type(value)] = np.nan
    made = {}
    for name, data, told in (("said", images, {"_FillValue": images.dtype.type(value)}),
                             ("set", images, {}), ("nan", floats, {})):
        stack = write_stack(tmp_path / f"{name}.h5", data)
        with h5py.File(stack, "a") as file:
            file["images"].attrs.update(told)
        setting = [f"data.no_data={value!r}".replace("1e+20", "1.0e+20")] * (name == "set")
        assert sample.main(arguments(stack, tmp_path / f"o_{name}.h5", checkpoint, *setting,
                                     "--ensemble=2", "output.regression=true",
                                     "output.consistent=false")) == 0  # it shifts what is clipped
        made[name] = sr_of(tmp_path / f"o_{name}.h5")
    assert made["said"].dtype == np.dtype(dtype)
    assert np.array_equal(made["said"], made["set"])
    assert np.array_equal(made["said"] == images.dtype.type(value), hole)
    tolerance = 1.5 if np.dtype(dtype).kind in "iu" else 0.01  # the neighbour of 0, and rounding
    limits = np.iinfo(dtype) if np.dtype(dtype).kind in "iu" else np.finfo(dtype)
    clipped = made["nan"].clip(limits.min, limits.max)
    assert np.abs(made["said"].astype("f8") - clipped)[~hole].max() <= tolerance
    for name in ("said", "set"):
        with h5py.File(tmp_path / f"o_{name}.h5") as file:
            data = file["entry/data"]
            assert data["sr"].attrs["_FillValue"] == images.dtype.type(value)
            assert data["regression"].attrs["_FillValue"] == images.dtype.type(value)
            assert np.array_equal(np.isnan(data["sr_mean"][()]), hole)
            assert np.isfinite(file["entry/per_image/lr_psnr"][()]).all()


def test_holes_are_the_same_on_any_number_of_ranks(tmp_path, checkpoint, mpirun):
    images, _ = with_hole("i4", -2**31)
    stack = write_stack(tmp_path / "in.h5", images)
    with h5py.File(stack, "a") as file:
        file["images"].attrs["_FillValue"] = np.int32(-2**31)
    for ranks, exchange in ((1, "root"), (2, "root"), (3, "torus")):
        done = mpirun(ranks, "-m", "swinmpi.cli.sample", *arguments(
            stack, tmp_path / f"o{ranks}.h5", checkpoint, f"parallel.exchange={exchange}",
            "parallel.micro_batch=2"))
        assert done.code == 0, done
    first = sr_of(tmp_path / "o1.h5")
    assert all(np.array_equal(first, sr_of(tmp_path / f"o{ranks}.h5")) for ranks in (2, 3))


def test_evaluation_leaves_holes_out(tmp_path, checkpoint, capsys):
    images, _ = with_hole("u2", 65535)
    hr = images.repeat(2, 1).repeat(2, 2)
    stack, truth = (write_stack(tmp_path / name, data) for name, data in
                    (("lr.h5", images), ("hr.h5", hr)))
    assert sample.main(arguments(stack, tmp_path / "sr.h5", checkpoint,
                                 "data.no_data=65535")) == 0
    capsys.readouterr()
    assert evaluate.main([str(tmp_path / "sr.h5"), "--reference", str(truth), "--lr", str(stack),
                          "--output", str(tmp_path / "out"), "--set", "data.no_data=65535"]) == 0
    assert "160 pixels in 2 images are NaN" in capsys.readouterr().out


def test_a_tiff_folder_and_a_stack_of_the_same_pixels_give_the_same_pairs(tmp_path, capsys):
    images = (smooth_stack(4, 24, 28, dtype="uint16") // 16).astype(np.uint16)
    images[:, 2:5, 3:6] = 65535
    (tmp_path / "tiff").mkdir()
    for number, image in enumerate(images):
        tifffile.imwrite(tmp_path / "tiff" / f"{number}.tif", image)
    rows = "".join(f"{number}.tif\n" for number in range(4))
    (tmp_path / "tiff" / "list.tsv").write_text("path\n" + rows)
    stack = write_stack(tmp_path / "in.h5", images)
    found = {}
    for name, source in (("folder", tmp_path / "tiff"), ("list", tmp_path / "tiff" / "list.tsv"),
                         ("stack", stack)):
        output = tmp_path / f"{name}.h5"
        assert prepare.main([str(source), "--output", str(output), "--set", "data.size_px=16",
                             "--set", "data.channels=1", "--set", "data.no_data=65535"]) == 0
        assert "of uint16 become 0 to 65535" in capsys.readouterr().err
        with PairReader(output) as pairs:
            found[name] = (pairs.hr[:].tobytes(), pairs.lr[:].tobytes(),
                           pairs.file["split"][:].tobytes(), pairs.value_range, pairs.value_dtype)
            assert pairs.value_range[1] <= 4095
    assert found["folder"] == found["list"] == found["stack"]


def test_the_range_goes_from_the_pairs_into_the_checkpoint(tmp_path):
    stack = write_stack(tmp_path / "in.h5", smooth_stack(8, 32, 32, dtype="uint16") // 16)
    assert prepare.main([str(stack), "--output", str(tmp_path / "pairs.h5"), "--set",
                         "data.size_px=32", "--set", "data.crops_per_image=2"]) == 0
    assert train.main(as_arguments(settings(tmp_path / "pairs.h5", tmp_path / "run",
                                            "train.updates=1"))) == 0
    with PairReader(tmp_path / "pairs.h5") as pairs:
        wanted = [*pairs.value_range]
    _, header = load_weights(tmp_path / "run" / "best.safetensors")
    assert header["value_range"] == wanted and header["value_dtype"] == "uint16"
    assert usual_in(header).crop_px == 16 and usual_in(header).images == 16


@pytest.mark.parametrize("factor, offset, used, said", [
    (1.0, 0, [0, 4000], None), (0.5, 0, [0, 4000], None), (15, 0, None, "beyond"),
    (0.02, 0, None, "of their width"), (1.0, 20000, None, "beyond")])
def test_the_trained_range_is_used_where_the_stack_is_near(tmp_path, checkpoint, capsys, factor,
                                                          offset, used, said):
    weights, header = load_weights(checkpoint)
    save_weights(checkpoint, weights, header | {"value_range": [0.0, 4000.0],
                                                "value_dtype": "uint16"})
    images = smooth_stack(2, 20, 20, dtype="uint16") / 65535 * 4000 * factor + offset
    stack = write_stack(tmp_path / "in.h5", images.astype(np.uint16))
    for run, setting in (("o", []), ("own", ["output.value_range=measured"])):
        assert sample.main(arguments(stack, tmp_path / f"{run}.h5", checkpoint, *setting)) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "trained" in line]
    assert len(lines) == (said is not None) and all(said in line for line in lines)
    with h5py.File(tmp_path / "o.h5") as file, h5py.File(tmp_path / "own.h5") as own:
        found, measured = (one["entry/process/value_range"][:].tolist() for one in (file, own))
    assert found == (used or measured)
