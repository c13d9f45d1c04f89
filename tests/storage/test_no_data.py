"""Pixels that mean no data, wide dtypes, and sources that are missing: read, restored, refused."""
import h5py
import numpy as np
import pytest

from swinmpi.errors import StackError
from swinmpi.images.no_data import NoData, as_stored
from swinmpi.storage.probe import inspect_stacks
from swinmpi.storage.stack import Stack
from swinmpi.storage.values import ValueRange, exact_float, restore_invalid, survey

RNG = np.random.default_rng(0)


def write(path, images, **attributes):
    with h5py.File(path, "w") as file:
        file["images"] = images
        file["images"].attrs.update(attributes)
    return str(path)


def smooth(dtype):
    return (np.linspace(10, 60, 2 * 8 * 10).reshape(2, 8, 10) * 2).astype(dtype)


@pytest.mark.parametrize("dtype, name, told, stored", [
    ("f4", "_FillValue", np.float32(-9999), -9999), ("f4", "missing_value", -3.4e38, -3.4e38),
    ("f8", "_FillValue", np.float32(1e20), 1e20), ("f8", "_FillValue", np.float32(1e20),
                                                   float(np.float32(1e20))),
    (">u2", "_FillValue", np.uint16(65535), 65535), ("u2", "nodata", "65535", 65535),
    ("u2", "_FillValue", 65535.0, 65535), ("i4", "missing_value", [-2**31, 7], -2**31),
    ("u4", "_FillValue", 2**32 - 1, 2**32 - 1), ("u1", "_FillValue", np.uint8(255), 255),
    ("f2", "missing_value", -9999.0, -9999), ("i2", "MissingValue", np.bytes_(b"-1"), -1)])
def test_what_the_file_calls_no_data_is_nan(tmp_path, dtype, name, told, stored):
    images = smooth(dtype)
    images[1, 2:4, 3:6] = stored
    with Stack.open(write(tmp_path / "a.h5", images, **{name: told})) as stack:
        read, raw = stack.read(1)[0], stack.read_rows(1, range(8))[0]
        assert read.dtype == exact_float(np.dtype(dtype))
        hole = np.zeros((8, 10), bool)
        hole[2:4, 3:6] = True
        assert np.array_equal(np.isnan(read), hole)
        assert np.array_equal(raw.astype(dtype), images[1])
        found = stack.range()
        assert found.high <= 120 or dtype == "u1", "outside of the range"
        fine = restore_invalid(np.zeros((1, 16, 20)), raw[None], 2, ~np.isfinite(read[None]))
        assert np.array_equal(fine[0].astype(dtype) == images[1, 2, 3],
                              hole.repeat(2, 0).repeat(2, 1))


@pytest.mark.parametrize("dtype, hole, attributes", [
    ("f4", -9999, {"valid_min": np.float32(0)}), ("f4", 1e30, {"valid_max": 1000.0}),
    ("f4", -9999, {"valid_range": [0.0, 400.0]}), ("i4", -7, {"valid_range": [0, 400]}),
    ("u2", 65535, {"valid_range": np.uint16([0, 60000]), "scale_factor": 0.01}),
    ("u2", 65535, {"valid_range": [273.15, 280.0], "scale_factor": 0.01, "add_offset": 273.15}),
    ("u2", 65535, {"valid_max": 10.0, "scale_factor": 0.01, "_FillValue": np.uint16(7)})])
def test_what_is_not_in_the_valid_range_is_no_data(tmp_path, dtype, hole, attributes):
    images = smooth(dtype)
    images[0, 2:4, 3:6] = hole
    with Stack.open(write(tmp_path / "a.h5", images, **attributes)) as stack:
        read = stack.read(0)[0]
        assert np.isnan(read[2:4, 3:6]).all() and np.isnan(read).sum() == 6
        assert not survey(stack).remarks and stack.range().high <= 120
        made = stack.no_data.avoid(np.float64([-1e9, 50, 1e9]), np.dtype(dtype))
        assert not stack.no_data.marks(made).any() and made[1] == 50


@pytest.mark.parametrize("dtype, fill, marked", [
    ("f4", 9.96921e36, True), ("u2", 65535, True), ("f4", 0, False), ("u1", 255, False)])
def test_what_hdf5_fills_with_is_no_data_where_nothing_else_is_said(tmp_path, dtype, fill, marked):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("images", (2, 8, 10), dtype, chunks=(1, 8, 10), fillvalue=fill)
        file["images"][0] = smooth(dtype)[0]
        file["images"][0, :2, :2] = fill
    with Stack.open(str(tmp_path / "a.h5")) as stack:
        assert (np.isnan(stack.read(0)).sum() == 4) == marked
        assert (stack.unwritten is None) == marked, "holes are no remark"
        assert marked or f"1 of its 2 chunks were never written, and are read as {fill}" in \
            stack.unwritten
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file["images"].attrs["_FillValue"] = np.array(3, dtype)
    with Stack.open(str(tmp_path / "a.h5")) as stack:
        assert stack.no_data.values == (3,)


def test_a_stack_without_a_number_and_names_for_numbers(tmp_path):
    with Stack.open(write(tmp_path / "a.h5", np.full((2, 8, 10), np.nan, "f4"))) as stack:
        assert "not one of its pixels is a number" in survey(stack).remarks[0]
    labels = h5py.enum_dtype({"cell": 0, "wall": 1}, basetype="u1")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_dataset("images", data=np.zeros((2, 8, 10), "u1"), dtype=labels)
    with pytest.raises(StackError, match="enumeration"):
        Stack.open(str(tmp_path / "b.h5"))


def test_what_cannot_be_stored_marks_nothing_or_is_refused(tmp_path):
    path = write(tmp_path / "a.h5", smooth("u2"), _FillValue=-1, missing_value="none")
    with Stack.open(path) as stack:
        assert not stack.no_data and np.isfinite(stack.read(0)).all()
    with pytest.raises(StackError, match="data.no_data: -1 cannot occur in uint16"):
        Stack.open(path, no_data=[-1])
    assert as_stored(1e300, np.float32) == set() and as_stored(1.5, np.int16) == set()


def test_a_stack_without_no_data_has_the_identity_it_had(tmp_path):
    with Stack.open(write(tmp_path / "a.h5", smooth("u2"))) as stack:
        assert "no_data" not in stack.identity()
    with Stack.open(write(tmp_path / "a.h5", smooth("u2")), no_data=[0]) as stack:
        assert "no_data" in stack.identity()


def test_a_computed_value_never_means_no_data_by_accident():
    no_data = NoData((0.0, 65534.0, 65535.0))
    made = np.array([0, 1, 65533, 65534, 65535], np.float32)
    assert no_data.avoid(made, np.dtype("uint16")).tolist() == [1, 1, 65533, 65533, 65533]
    assert NoData((-9999.0,)).avoid(np.float32([-9999]), np.dtype("float32"))[0] > -9999


@pytest.mark.parametrize("dtype", ["f8", "f2", "i1", "i2", "i4", "u4", ">i4", ">f8"])
def test_wide_and_narrow_dtypes_are_mapped_and_come_back(tmp_path, dtype):
    images = smooth(dtype)
    if np.dtype(dtype).itemsize > 2:
        images = (images + np.array(10**9, dtype)).astype(dtype)  # float32 would round it
    with Stack.open(write(tmp_path / "a.h5", images)) as stack:
        raw, found = stack.read(0), stack.range()
        back = found.from_unit(found.to_unit(raw), stack.dtype)
    error = np.abs(back.astype(np.float64) - images[0].astype(np.float64)).max()
    assert back.dtype == np.dtype(dtype) and error <= (0.1 if dtype[-2] == "f" else 0), error


def test_float16_is_clipped_to_what_it_holds():
    assert ValueRange(0, 65000).from_unit(np.float32([1.5]), np.dtype("f2"))[0] == 65504


def test_one_value_far_apart_is_told_with_the_setting(tmp_path):
    images = RNG.integers(900, 2600, (2, 20, 20)).astype("u2")
    images[:, 3:6, 4:9] = 65535
    hole, numbers = images == 65535, images.astype("f4")
    for data, told in ((images, "65535"), (np.where(hole, np.float32(-9999), numbers), "-9999.0"),
                       (np.where(hole, np.float32(-3.4e38), numbers), "-3.4e+38")):
        with Stack.open(write(tmp_path / "a.h5", data)) as stack:
            remark, = survey(stack).remarks
            assert f"the value {told} stands far apart" in remark
            assert remark.endswith(f"--set data.no_data={told}")
        with Stack.open(write(tmp_path / "a.h5", data, _FillValue=data.dtype.type(told))) as stack:
            assert not survey(stack).remarks
    images[0, 0, :10] = 65534
    with Stack.open(write(tmp_path / "a.h5", images)) as stack:
        assert "data.no_data=[65534,65535]" in survey(stack).remarks[0]


@pytest.mark.parametrize("images", [
    RNG.integers(0, 4096, (2, 20, 20)).astype("u2"), RNG.normal(size=(2, 20, 20)).astype("f4"),
    RNG.integers(0, 2, (2, 20, 20)).astype("u2"), RNG.exponential(size=(2, 20, 20)).astype("f4"),
    RNG.poisson(3, (2, 20, 20)).astype("u2"), np.full((1, 5, 5), 7, "f4")])
def test_ordinary_values_are_not_remarked_on(tmp_path, images):
    with Stack.open(write(tmp_path / "a.h5", images)) as stack:
        assert survey(stack).remarks == ()


def test_unsigned_that_is_only_told(tmp_path):
    with pytest.raises(StackError, match="_Unsigned says true"):
        Stack.open(write(tmp_path / "a.h5", smooth("i1"), _Unsigned="true") + "::/images")


def virtual(path, shown, num_images=4):
    layout = h5py.VirtualLayout((num_images, 8, 10), "u2")
    for first, (file, name) in shown.items():
        layout[first:first + 2] = h5py.VirtualSource(file, name, (2, 8, 10))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("images", layout)
    return str(path)


@pytest.mark.parametrize("second, told", [
    (("src.h5", "gone"), "source .*gone is missing"), (("gone.h5", "whole"), "gone.h5 is missing"),
    (("src.h5", "short"), "the rest is missing"), (None, "2 of its 4 images, the first is 2")])
def test_missing_sources_are_refused_although_allowed(tmp_path, second, told):
    with h5py.File(tmp_path / "src.h5", "w") as file:
        file["whole"], file["short"] = smooth("u2"), smooth("u2")[:1]
    whole = ("src.h5", "whole")
    inspect_stacks([virtual(tmp_path / "good.h5", {0: whole, 2: whole})], allow_external=True)
    shown = {0: whole} | ({2: second} if second else {})
    with pytest.raises(StackError, match=told):
        inspect_stacks([virtual(tmp_path / "bad.h5", shown)], allow_external=True)


@pytest.mark.parametrize("short", [False, True])
def test_sources_named_by_a_pattern(tmp_path, short):
    for number in range(3):
        with h5py.File(tmp_path / f"src{number}.h5", "w") as file:
            file["data"] = smooth("u2")[:1 if short and number == 1 else 2] + number
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    space = h5py.h5s.create_simple((6, 8, 10), (h5py.h5s.UNLIMITED, 8, 10))
    space.select_hyperslab((0, 0, 0), (h5py.h5s.UNLIMITED, 1, 1), stride=(2, 1, 1),
                           block=(2, 8, 10))
    creation.set_virtual(space, b"src%b.h5", b"data", h5py.h5s.create_simple((2, 8, 10)))
    path = tmp_path / "in.h5"
    with h5py.File(path, "w") as file:
        h5py.h5d.create(file.id, b"images", h5py.h5t.STD_U16LE, space, dcpl=creation)
    if short:
        with pytest.raises(StackError, match=r"src1.h5::data has the shape \(1, 8, 10\)"):
            inspect_stacks([str(path)], allow_external=True)
    else:
        inspect_stacks([str(path)], allow_external=True)
        with Stack.open(str(path), allow_external=True) as stack:
            assert np.array_equal(stack.read(5)[0], smooth("u2")[1] + 2)
            assert stack.unwritten is None


def test_parts_that_no_source_has_are_told(tmp_path):
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file["half"] = smooth("u2")
        layout = h5py.VirtualLayout((2, 16, 10), "u2")
        layout[:, :8] = h5py.VirtualSource(".", "half", (2, 8, 10))
        file.create_virtual_dataset("images", layout)
        file.create_virtual_dataset("gaps", layout, fillvalue=65535)
    with Stack.open(f"{tmp_path / 'in.h5'}::/images") as stack:
        assert "160 of its pixels are in none of its sources, and are read as 0" in stack.unwritten
    with Stack.open(f"{tmp_path / 'in.h5'}::/gaps") as stack:
        assert stack.unwritten is None and np.isnan(stack.read(0)[0, 8:]).all()


def test_raw_files_that_are_too_short(tmp_path):
    raw = tmp_path / "raw.bin"
    smooth("u2").tofile(raw)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("images", (4, 8, 10), "u2", external=[(str(raw), 0, 640)])
    with pytest.raises(StackError, match="has 320 bytes, 640 are needed"):
        inspect_stacks([str(tmp_path / "a.h5")], allow_external=True)
