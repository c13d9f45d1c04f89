"""OUT.partial and OUT with real files: layout, resume, kills, refusals, provenance."""
import fcntl
import os
import signal
import subprocess
import sys
import tracemalloc

import h5py
import numpy as np
import pytest

from swinmpi.errors import OutputError
from swinmpi.storage.outputs.contents import OutputPlan
from swinmpi.storage.outputs.output import StackOutput, check_output
from swinmpi.storage.outputs.packing import chunk_shape
from swinmpi.storage.stack import Stack

RNG = np.random.default_rng(0)
FINGERPRINT = {"seed": 0, "config": {"sampler": {"steps": 10, "eta": 0.0}}, "checkpoint": "abc"}


def make_stack(path, shape=(5, 8, 9), dtype="u2", name="entry/data/images"):
    data = RNG.integers(0, 200, shape).astype(dtype)
    with h5py.File(path, "w", libver="latest") as file:  # the format that allows large attributes
        file[name] = data
    return data


def sr_of(stack, index, scale):
    """Stands for the model: nearest neighbour, raw values in the stack's dtype."""
    return stack.read(index).astype(stack.dtype).repeat(scale, axis=1).repeat(scale, axis=2)


@pytest.fixture
def stack(tmp_path):
    make_stack(tmp_path / "in.h5")
    with Stack.open(str(tmp_path / "in.h5")) as opened:
        yield opened


def write_all(output, stack, scale):
    for index in output.remaining():
        output.write(index, {"sr": sr_of(stack, index, scale)},
                     {"lr_psnr": 40.0 + index, "seam_score": 1.0})


def refused(*words, **arguments):
    with pytest.raises(OutputError) as caught:
        StackOutput.open(**{"plan": OutputPlan(2), "fingerprint": FINGERPRINT} | arguments).close()
    text = str(caught.value)
    assert "\n" not in text and all(word in text for word in words), text


def listed(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_somebody_else_made_meanwhile_is_not_replaced(tmp_path, stack):
    with StackOutput.open(tmp_path / "out.h5", stack, OutputPlan(2), FINGERPRINT) as output:
        write_all(output, stack, 2)
        (tmp_path / "out.h5").write_text("precious")
        with pytest.raises(OutputError, match="was made by somebody else meanwhile"):
            output.finish({})
    assert ((tmp_path / "out.h5").read_text() == "precious"
            and listed(tmp_path) == ["in.h5", "out.h5", "out.h5.partial"])


# the finished file

@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2", "<f4"])
@pytest.mark.parametrize("shape", [(3, 5, 7), (3, 5, 7, 3), (3, 5, 7, 1), (3, 3, 5, 7)])
def test_layout_and_dtype_of_the_input_are_kept(tmp_path, shape, dtype):
    data = make_stack(tmp_path / "in.h5", shape, dtype)
    with Stack.open(str(tmp_path / "in.h5")) as stack:
        high, wide = stack.layout.index("H"), stack.layout.index("W")
        with StackOutput.open(tmp_path / "out.h5", stack, OutputPlan(3), FINGERPRINT) as output:
            write_all(output, stack, 3)
            assert output.finish({}) == tmp_path / "out.h5"
    with h5py.File(tmp_path / "out.h5") as file:
        sr = file["entry/data/sr"]
        assert (sr.dtype == np.dtype(dtype)
                and np.array_equal(sr[:], data.repeat(3, axis=high).repeat(3, axis=wide)))
    assert listed(tmp_path) == ["in.h5", "out.h5"]


def test_odd_16_bit_stack_keeps_dtype_attributes_and_axes(tmp_path):
    make_stack(tmp_path / "in.h5", (5, 301, 203))
    with h5py.File(tmp_path / "in.h5", "a", libver="latest") as file:
        images, group = file["entry/data/images"], file["entry/data"]
        group.attrs["axes"] = ["angle", "y", "edges"]
        file["entry/data/angle"] = np.linspace(0, 8, 5)
        file["entry/data/y"] = np.arange(301, dtype=np.float32) * 0.5
        file["entry/data/edges"] = np.arange(204) * 10
        file["entry/data/y"].attrs["units"] = "mm"
        file["entry/data/angle"].attrs["units"] = np.bytes_(b"deg")
        images.attrs["text"], images.attrs["bytes"] = "µm", np.bytes_(b"fixed")
        images.attrs["numbers"], images.attrs["names"] = (np.arange(6, dtype=">i2").reshape(2, 3),
                                                          ["a", "bc"])
        images.attrs["large"] = np.arange(100_000)
        images.attrs["nothing"] = h5py.Empty("f4")
        images.attrs["reference"] = images.ref
        images.attrs.create("record", np.array((1, 2.5), dtype=[("a", "i4"), ("b", "f8")]))
        images.dims[0].label = "angle"
        file["named type"] = np.dtype("<f8")
        images.attrs.create("committed", 1.5, dtype=file["named type"])
    with Stack.open(str(tmp_path / "in.h5")) as stack:
        with StackOutput.open(tmp_path / "out.h5", stack, OutputPlan(2), FINGERPRINT) as output:
            write_all(output, stack, 2)
            output.finish({})
    with h5py.File(tmp_path / "in.h5") as before, h5py.File(tmp_path / "out.h5") as after:
        old, new, data = (before["entry/data/images"].attrs, after["entry/data/sr"].attrs,
                          after["entry/data"])
        for name in set(old) - {"reference"}:
            types = [h5py.h5a.open(attrs._id, name.encode()).get_type() for attrs in (old, new)]
            assert types[0].equal(types[1]), name
            assert (new[name] == old[name] if name == "nothing"
                    else np.array_equal(new[name], old[name])), name
        assert "reference" not in new
        assert data["sr"].shape == (5, 602, 406) and data["sr"].dtype == np.uint16
        assert list(data.attrs["axes"]) == ["angle", "y", "edges"] and data.attrs["y_indices"] == 1
        assert (np.array_equal(data["angle"][:], np.linspace(0, 8, 5))
                and data["angle"].attrs["units"] == b"deg")
        # SR pixel pairs lie symmetrically about the LR pixel they come from; edges keep
        # the first and the last
        assert (np.allclose(data["y"][:].reshape(-1, 2).mean(1), np.arange(301) * 0.5)
                and data["y"].dtype == np.float32)
        assert np.allclose(np.diff(data["y"][:]), 0.25) and data["y"].attrs["units"] == "mm"
        assert np.array_equal(data["edges"][:], np.arange(407) * 5)
        assert data["sr"].dims[1][0] == data["y"] and len(data["sr"].dims[2]) == 0


def test_dimension_scales_and_old_style_axes_are_carried(tmp_path):
    make_stack(tmp_path / "scales.h5", (2, 4, 1))
    with h5py.File(tmp_path / "scales.h5", "a") as file:
        for name, values in (("time", ["b", "a"]), ("row", np.arange(4)), ("col", [7.5])):
            file[name] = values
            file[name].make_scale(name)
        for dimension, name in enumerate(("time", "row", "col")):
            file["entry/data/images"].dims[dimension].attach_scale(file[name])
    make_stack(tmp_path / "old.h5", (2, 4, 1))
    with h5py.File(tmp_path / "old.h5", "a") as file:
        file["entry/data/images"].attrs["axes"] = "time:row:col"
        file["entry/data/time"], file["entry/data/row"], file["entry/data/col"] = [
            "b", "a"], np.arange(4), [7.5]
    for name in ("scales.h5", "old.h5"):
        with Stack.open(str(tmp_path / name)) as stack:
            with StackOutput.open(tmp_path / f"out-{name}", stack, OutputPlan(2),
                                  FINGERPRINT) as output:
                write_all(output, stack, 2)
                output.finish({})
        with h5py.File(tmp_path / f"out-{name}") as file:
            data = file["entry/data"]
            assert list(data.attrs["axes"]) == ["time", "row", "col"]
            assert (data["time"].asstr()[:].tolist() == ["b", "a"]
                    and data["col"][:].tolist() == [7.5, 7.5])
            assert data["row"][:].tolist() == [-0.25, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.25]
            assert [dim[0].name.rpartition("/")[2]
                    for dim in data["sr"].dims] == ["time", "row", "col"]


def test_ensemble_regression_figures_and_provenance(tmp_path, stack):
    plan = OutputPlan(2, ensemble=True, regression=True, compression=0)
    arrays = {"sr": sr_of(stack, 0, 2), "regression": sr_of(stack, 1, 2),
              "sr_mean": np.full((1, 16, 18), 0.5, np.float32),
              "sr_spread": np.full((1, 16, 18), np.nan, np.float32)}
    provenance = {"config": "sampler:\n  steps: 10\n", "seed": 3, "argv": ["swinmpi-sample", "ü"],
                  "job_id": None, "timings": {"unet_s": 1.5}, "checkpoint": tmp_path}
    with StackOutput.open(tmp_path / "out.h5", stack, plan, FINGERPRINT) as output:
        for index in range(5):
            output.write(index, arrays, {"lr_psnr": 40.0 + index})
        output.finish(provenance)
    with h5py.File(tmp_path / "out.h5") as file:
        data, process, per_image = (file[f"entry/{name}"]
                                    for name in ("data", "process", "per_image"))
        assert file.attrs["default"] == "entry" and file["entry"].attrs["default"] == "data"
        assert [group.attrs["NX_class"] for group in (file, file["entry"], data, process)] == \
            ["NXroot", "NXentry", "NXdata", "NXprocess"]
        assert data.attrs["signal"] == "sr" and list(data.attrs["axes"]) == ["."] * 3
        assert list(data.attrs["auxiliary_signals"]) == ["regression", "sr_mean", "sr_spread"]
        for name, image in arrays.items():
            assert (data[name].dtype == image.dtype
                    and np.array_equal(data[name][4], image[0], equal_nan=True))
        assert (per_image["done"][:].tolist() == [1] * 5
                and per_image["lr_psnr"][:].tolist() == [40, 41, 42, 43, 44])
        assert np.isnan(per_image["seam_score"][:]).all()
        assert process["config"].asstr()[()] == provenance["config"] and process["seed"][()] == 3
        assert process["argv"].asstr()[:].tolist() == provenance["argv"] and "job_id" not in process
        assert (process["timings/unet_s"][()] == 1.5
                and process["checkpoint"].asstr()[()] == str(tmp_path))
        assert process["program"].asstr()[()] == "swinmpi" and {"version", "date"} < set(process)
    with Stack.open(str(tmp_path / "out.h5")) as again:
        assert again.address.dataset == "/entry/data/sr"


def test_compression_and_chunks(tmp_path, stack):
    with StackOutput.open(tmp_path / "out.h5", stack, OutputPlan(2), FINGERPRINT) as output:
        with h5py.File(output.partial, locking=False) as file:
            assert (file["entry/data/sr"].chunks is None
                    and file["entry/data/sr"].id.get_offset() is not None)
        write_all(output, stack, 2)
        output.finish({})
    with h5py.File(tmp_path / "out.h5") as file:
        sr = file["entry/data/sr"]
        assert (sr.chunks, sr.compression, sr.compression_opts,
                sr.shuffle) == ((1, 16, 18), "gzip", 4, True)
    assert chunk_shape((9, 2048, 2048), np.dtype("u2")) == (1, 512, 1024)
    assert chunk_shape((9, 301, 1203, 3), np.dtype("f4")) == (1, 151, 301, 3)


def test_float_stack_keeps_its_nans(tmp_path):
    from swinmpi.storage.values import mask_invalid, restore_invalid
    data = RNG.random((2, 6, 7)).astype(np.float32)
    data[0, 2, 3], data[1, 0, 0] = np.nan, np.inf
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file["x"] = data
    with Stack.open(str(tmp_path / "in.h5")) as stack:
        with StackOutput.open(tmp_path / "out.h5", stack, OutputPlan(2), FINGERPRINT) as output:
            for index in output.remaining():
                raw = stack.read(index)
                filled, _ = mask_invalid(raw)
                output.write(index,
                             {"sr": restore_invalid(filled.repeat(2, 1).repeat(2, 2), raw, 2)}, {})
            output.finish({})
    with h5py.File(tmp_path / "out.h5") as file:
        assert np.array_equal(file["entry/data/sr"][:], data.repeat(2, 1).repeat(2, 2),
                              equal_nan=True)


@pytest.mark.parametrize("dtype, empty", [("u2", 0), ("f4", np.nan)])
def test_failed_images_are_left_empty_and_marked(tmp_path, dtype, empty):
    make_stack(tmp_path / "in.h5", dtype=dtype)
    with Stack.open(str(tmp_path / "in.h5")) as stack:
        with StackOutput.open(tmp_path / "out.h5", stack, OutputPlan(2), FINGERPRINT) as output:
            for index in (0, 1, 2, 4):
                output.write(index, {"sr": sr_of(stack, index, 2)}, {})
            with pytest.raises(ValueError, match="first is 3"):
                output.finish({})
            output.finish({}, failed=[3])
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["entry/per_image/done"][:].tolist() == [1, 1, 1, 0, 1]
        assert np.array_equal(file["entry/data/sr"][3], np.full((16, 18), empty), equal_nan=True)


def test_wrong_arrays_are_refused_before_anything_is_written(tmp_path, stack):
    good = sr_of(stack, 0, 2)
    with StackOutput.open(tmp_path / "out.h5", stack, OutputPlan(2), FINGERPRINT) as output:
        for arrays, figures in (({}, {}), ({"sr": good, "x": good}, {}), ({"sr": good}, {"x": 1}),
                                ({"sr": good[0]}, {}), ({"sr": good[..., 1:]}, {}),
                                ({"sr": good.astype(np.float32)}, {}),
                                ({"sr": good.repeat(3, axis=0)}, {})):
            with pytest.raises(ValueError, match="expected"):
                output.write(0, arrays, figures)
        assert output.remaining() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("shape", [(2, 5, 7), (2, 5, 7, 3), (2, 3, 5, 7)])
def test_parts_in_any_order_make_an_image(tmp_path, shape):
    data = make_stack(tmp_path / "in.h5", shape, ">u2")
    parts = [(slice(6, 10), slice(0, 14)), (slice(0, 6), slice(9, 14)), (slice(0, 6), slice(0, 9))]
    with Stack.open(str(tmp_path / "in.h5")) as stack:
        high, wide = stack.layout.index("H"), stack.layout.index("W")
        with StackOutput.open(tmp_path / "out.h5", stack, OutputPlan(2), FINGERPRINT) as output:
            for rows, columns in parts:
                for index in (1, 0):
                    output.write_part(index, rows.start, columns.start,
                                      {"sr": sr_of(stack, index, 2)[:, rows, columns]})
            assert output.remaining() == [0, 1]
            for top, left in ((-1, 0), (1, 0), (0, 1)):
                with pytest.raises(ValueError, match=f"row {top}, column {left} of image 0"):
                    output.write_part(0, top, left, {"sr": sr_of(stack, 0, 2)})
            output.complete(1, {"lr_psnr": 40.0})
            assert output.remaining() == [0]
            output.complete(0, {})
            output.finish({})
    with h5py.File(tmp_path / "out.h5") as file:
        assert np.array_equal(file["entry/data/sr"][:],
                              data.repeat(2, axis=high).repeat(2, axis=wide))


def test_packing_needs_memory_for_one_row_of_chunks(tmp_path):
    make_stack(tmp_path / "in.h5", (1, 1024, 1024, 3), "f4")
    with Stack.open(str(tmp_path / "in.h5")) as stack:
        with StackOutput.open(tmp_path / "out.h5", stack, OutputPlan(2, compression=0),
                              FINGERPRINT) as output:
            output.write(0, {"sr": sr_of(stack, 0, 2)}, {})
            tracemalloc.start()
            output.finish({})
            _, most = tracemalloc.get_traced_memory()
            tracemalloc.stop()
    rows = chunk_shape((1, 2048, 2048, 3), np.dtype("f4"))[1]
    assert most < 1.5 * rows * 2048 * 3 * 4 < 2048 * 2048 * 3 * 4 / 4


# resume and kills

CHILD = """
import os, signal, sys
from swinmpi.storage.outputs.contents import OutputPlan
from swinmpi.storage.outputs.output import StackOutput
from swinmpi.storage.stack import Stack
import swinmpi.storage.outputs.output as module
folder, stop_at = sys.argv[1:]
if stop_at in ("fsync", "replace"):
    original = getattr(os, stop_at)
    def stop(*arguments):
        if module.ready:
            if stop_at == "replace":
                original(*arguments)
            print("stopped", flush=True)
            signal.pause()
        return original(*arguments)
    module.ready = False
    setattr(os, stop_at, stop)
with Stack.open(folder + "/in.h5") as stack:
    with StackOutput.open(folder + "/out.h5", stack, OutputPlan(2), {"seed": 0}) as output:
        print("opened", flush=True)
        for index in output.remaining():
            sr = stack.read(index).astype(stack.dtype).repeat(2, axis=1).repeat(2, axis=2)
            output.write(index, {"sr": sr}, {"lr_psnr": float(index)})
            print(index, flush=True)
        module.ready = True
        output.finish({})
        print("finished", flush=True)
"""


def start_child(folder, stop_at="never"):
    return subprocess.Popen([sys.executable, "-c", CHILD, str(folder), stop_at],
                            stdout=subprocess.PIPE, text=True)


def kill_after(child, line):
    """SIGKILL as soon as the child has printed `line`."""
    seen = []
    while not seen or seen[-1] != line:
        text = child.stdout.readline()
        assert text, f"the child ended before it printed {line}: {seen}"
        seen.append(text.strip())
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    return seen


def finish_in_child(folder):
    child = start_child(folder)
    text, _ = child.communicate(timeout=300)
    assert child.returncode == 0
    return text.split()


def check_finished(folder, data):
    with h5py.File(folder / "out.h5") as file:
        assert np.array_equal(file["entry/data/sr"][:], data.repeat(2, axis=1).repeat(2, axis=2))
        assert file["entry/per_image/lr_psnr"][:].tolist() == list(range(len(data)))
        assert file["entry/per_image/done"][:].all()
    assert listed(folder) == ["in.h5", "out.h5"]


def test_writing_changes_no_metadata(tmp_path, stack):
    """Every byte outside the datasets stays as it was, so there is no moment when a kill could
    break the file."""
    with StackOutput.open(tmp_path / "out.h5", stack, OutputPlan(2, ensemble=True),
                          FINGERPRINT) as output:
        before = np.frombuffer(output.partial.read_bytes(), np.uint8)
        extra = {name: np.ones((1, 16, 18), np.float32) for name in ("sr_mean", "sr_spread")}
        for index in range(5):
            output.write(index, extra | {"sr": sr_of(stack, index, 2)},
                         {"lr_psnr": 1.0, "lr_misfit": 1.0})
    after = np.frombuffer(output.partial.read_bytes(), np.uint8)
    differs = before != after
    with h5py.File(output.partial) as file:
        datasets = []
        file.visititems(
            lambda _, item: datasets.append(item) if isinstance(item, h5py.Dataset) else None)
        for dataset in datasets:
            place = slice(dataset.id.get_offset(), dataset.id.get_offset() + dataset.nbytes)
            assert differs[place].any() or dataset.name.endswith("seam_score")
            differs[place] = False
    assert len(datasets) == 7 and not differs.any()


@pytest.mark.parametrize("lines", [["3"], ["opened", "0", "6"]])
def test_killed_while_writing_and_resumed(tmp_path, lines):
    data = make_stack(tmp_path / "in.h5", (40, 64, 65))
    for line in lines:
        kill_after(start_child(tmp_path), line)
        assert listed(tmp_path) == ["in.h5", "out.h5.partial"]
        with h5py.File(tmp_path / "out.h5.partial") as file:  # readable as it lies there
            done = np.flatnonzero(file["entry/per_image/done"][:])
            sr = file["entry/data/sr"][:][done]
            assert np.array_equal(sr, data[done].repeat(2, axis=1).repeat(2, axis=2))
    assert done.size >= int(lines[-1]) + 1
    seen = finish_in_child(tmp_path)
    assert not {str(index) for index in done} & set(seen[1:-1]) and seen[-1] == "finished"
    check_finished(tmp_path, data)


def test_killed_between_packing_and_renaming(tmp_path):
    data = make_stack(tmp_path / "in.h5", (4, 16, 16))
    kill_after(start_child(tmp_path, "fsync"), "stopped")
    assert listed(tmp_path) == ["in.h5", "out.h5.packing", "out.h5.partial"]
    (tmp_path / "out.h5.packing").write_bytes(b"half a file")
    assert finish_in_child(tmp_path) == ["opened", "finished"]
    check_finished(tmp_path, data)


def test_killed_after_renaming_leaves_a_finished_file(tmp_path):
    data = make_stack(tmp_path / "in.h5", (4, 16, 16))
    kill_after(start_child(tmp_path, "replace"), "stopped")
    assert listed(tmp_path) == ["in.h5", "out.h5", "out.h5.partial"]
    with Stack.open(str(tmp_path / "in.h5")) as stack:
        refused("exists already", path=tmp_path / "out.h5", stack=stack, fingerprint={"seed": 0})
        with StackOutput.open(tmp_path / "out.h5", stack, OutputPlan(2), {"seed": 0},
                              overwrite=True) as output:
            assert output.remaining() == []
            output.finish({})
    check_finished(tmp_path, data)


def test_two_runs_cannot_share_an_output(tmp_path, stack):
    with StackOutput.open(tmp_path / "out.h5", stack, OutputPlan(2), FINGERPRINT):
        refused("another run is writing", path=tmp_path / "out.h5", stack=stack)
        refused("another run is writing", path=tmp_path / "out.h5", stack=stack, overwrite=True)
    with open(tmp_path / "fresh.h5.partial.new", "w") as begun:
        fcntl.flock(begun, fcntl.LOCK_EX)
        refused("another run is writing", path=tmp_path / "fresh.h5", stack=stack)


def test_stale_beginning_is_overwritten(tmp_path, stack):
    (tmp_path / "out.h5.partial.new").write_bytes(b"killed while it was created")
    with StackOutput.open(tmp_path / "out.h5", stack, OutputPlan(2), FINGERPRINT) as output:
        assert len(output.remaining()) == 5
    assert listed(tmp_path) == ["in.h5", "out.h5.partial"]


def test_file_system_without_locks(tmp_path, stack, monkeypatch):
    def no_locks(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with StackOutput.open(tmp_path / "out.h5", stack, OutputPlan(2), FINGERPRINT) as output:
        write_all(output, stack, 2)
        output.finish({})
    assert listed(tmp_path) == ["in.h5", "out.h5"]


def test_other_fingerprint_is_refused_and_named(tmp_path, stack):
    with StackOutput.open(tmp_path / "out.h5", stack, OutputPlan(2), FINGERPRINT) as output:
        output.write(0, {"sr": sr_of(stack, 0, 2)}, {})
    other = FINGERPRINT | {"config": {"sampler": {"steps": 5, "eta": 0.0}}, "extra": None}
    refused("config.sampler.steps, extra differ", "out.h5.partial", "--overwrite",
            path=tmp_path / "out.h5", stack=stack, fingerprint=other)
    refused("output_file.scale", path=tmp_path / "out.h5", stack=stack, plan=OutputPlan(4))
    better_packed = OutputPlan(2, compression=9)
    with StackOutput.open(tmp_path / "out.h5", stack, better_packed, FINGERPRINT,
                          overwrite=True) as output:
        assert output.remaining() == [1, 2, 3, 4]
    with StackOutput.open(tmp_path / "out.h5", stack, OutputPlan(2), other,
                          overwrite=True) as output:
        assert output.remaining() == [0, 1, 2, 3, 4]


def test_damaged_partial_is_not_silently_thrown_away(tmp_path, stack):
    (tmp_path / "out.h5.partial").write_bytes(b"something of the user's")
    refused("not a resumable output", "--overwrite", path=tmp_path / "out.h5", stack=stack)
    make_stack(tmp_path / "out.h5.partial")
    refused("not a resumable output", path=tmp_path / "out.h5", stack=stack)
    with StackOutput.open(tmp_path / "out.h5", stack, OutputPlan(2), FINGERPRINT,
                          overwrite=True) as output:
        assert len(output.remaining()) == 5


# refusals

def test_output_that_exists(tmp_path, stack):
    (tmp_path / "out.h5").write_bytes(b"precious")
    refused("exists already", "--overwrite", path=tmp_path / "out.h5", stack=stack)
    assert listed(tmp_path) == ["in.h5", "out.h5"]
    with StackOutput.open(tmp_path / "out.h5", stack, OutputPlan(2), FINGERPRINT,
                          overwrite=True) as output:
        assert (tmp_path / "out.h5").read_bytes() == b"precious"
        write_all(output, stack, 2)
        output.finish({})
    with h5py.File(tmp_path / "out.h5") as file:
        assert "entry/data/sr" in file


def test_output_that_is_the_input(tmp_path, stack):
    (tmp_path / "alias.h5").symlink_to(tmp_path / "in.h5")
    os.link(tmp_path / "in.h5", tmp_path / "twin.h5")
    os.link(tmp_path / "in.h5", tmp_path / "other.h5.partial")
    for name in ("in.h5", "alias.h5", "twin.h5", "other.h5"):
        refused("overwrite the input", path=tmp_path / name, stack=stack, overwrite=True)


def test_output_in_impossible_places(tmp_path, stack):
    before = listed(tmp_path)
    refused("in.h5 is no folder", path=tmp_path / "in.h5" / "out.h5", stack=stack)
    refused("in.h5 is no folder", path=tmp_path / "in.h5" / "deep" / "out.h5", stack=stack)
    refused("name of another format; name it .h5", path=tmp_path / "out.TIF", stack=stack)
    refused("got a folder", path=tmp_path, stack=stack, overwrite=True)
    refused("device", path="/dev/null", stack=stack, overwrite=True)
    refused("cannot write here", "too long", path=tmp_path / ("x" * 254), stack=stack)
    assert (listed(tmp_path) == before
            and check_output(tmp_path / "out.h5", stack.address.path) == tmp_path / "out.h5")


def test_folder_that_is_not_writable(tmp_path, stack):
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o555)
    me = os.geteuid()
    if me == 0:  # root may write anywhere
        os.seteuid(65534)
    try:
        with pytest.raises(OutputError, match="is no folder|not writable"):
            check_output(folder / "out.h5", stack.address.path)
    finally:
        os.seteuid(me)
    assert listed(folder) == []


def test_no_room_on_the_disk(tmp_path, stack):
    refused("GiB", "make room", path=tmp_path / "out.h5", stack=stack, plan=OutputPlan(scale=10**6))
    assert listed(tmp_path) == ["in.h5"]


@pytest.mark.parametrize("full_at", ["creating", "writing", "packing"])
def test_full_disk_keeps_what_is_done(tmp_path, full_at):
    """A file size limit in a child stands for the full disk."""
    make_stack(tmp_path / "in.h5", (4, 64, 64))
    script = f"""
import resource, signal
from swinmpi.errors import OutputError
from swinmpi.storage.outputs.contents import OutputPlan
from swinmpi.storage.outputs.output import StackOutput
from swinmpi.storage.stack import Stack
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
def fill_disk(now):
    if now == {full_at!r}:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20000, resource.RLIM_INFINITY))
try:
    with Stack.open({str(tmp_path / "in.h5")!r}) as stack:
        fill_disk("creating")
        path = {str(tmp_path / "out.h5")!r}
        with StackOutput.open(path, stack, OutputPlan(2), {{"seed": 0}}) as output:
            for index in output.remaining():
                if index == 2:
                    fill_disk("writing")
                sr = stack.read(index).astype(stack.dtype).repeat(2, axis=1).repeat(2, axis=2)
                output.write(index, {{"sr": sr}}, {{}})
            fill_disk("packing")
            output.finish({{}})
except OutputError as error:
    print(error)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True,
                           timeout=300)
    assert (ended.returncode, ended.stderr) == (0, "") and "File too large" in ended.stdout
    expected = {"creating": "cannot write here", "writing": "image 2 cannot be written",
                "packing": "cannot be packed"}
    assert expected[full_at] in ended.stdout and len(ended.stdout.splitlines()) == 1
    assert listed(tmp_path) == ["in.h5"] + ["out.h5.partial"] * (full_at != "creating")
    with Stack.open(str(tmp_path / "in.h5")) as stack:
        with StackOutput.open(tmp_path / "out.h5", stack, OutputPlan(2), {"seed": 0}) as output:
            assert output.remaining() == {"creating": [0, 1, 2, 3], "writing": [2, 3],
                                          "packing": []}[full_at]
