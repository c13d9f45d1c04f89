"""Stacks read from real HDF5 files: addresses, layouts, bad input, value ranges, pixels
without a number."""
import os
import subprocess
import sys
import threading

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from swinmpi.errors import ConfigError, StackError
from swinmpi.storage.address import Address, parse_address
from swinmpi.storage.stack import Stack
from swinmpi.storage.values import ValueRange, mask_invalid, measure_range, restore_invalid

RNG = np.random.default_rng(0)


def write(path, **datasets):
    with h5py.File(path, "w") as file:
        for name, data in datasets.items():
            file[name] = data
    return str(path)


def images(*shape, dtype=np.uint8):
    return RNG.integers(0, 200, shape).astype(dtype)


def refused(address, *words, **options):
    with pytest.raises(StackError) as caught:
        Stack.open(address, **options)
    text = str(caught.value)
    assert "\n" not in text and all(word in text for word in words), text
    return text


# addresses

def test_addresses():
    assert parse_address("a.h5") == Address(parse_address("a.h5").path, None)
    assert str(parse_address("d/a.h5::entry/data/")) == "d/a.h5::/entry/data"
    for bad in ("", "::/x", "a.h5::", "a.h5::/"):
        with pytest.raises(StackError, match="expected file.h5"):
            parse_address(bad)


def test_only_image_like_dataset_is_found(tmp_path):
    path = write(tmp_path / "a.h5", **{"deep/er/pixels": images(2, 5, 6), "angles": np.arange(2.0)})
    with Stack.open(path) as stack:
        assert str(stack.address) == f"{path}::/deep/er/pixels"
    with Stack.open(f"{path}::/deep") as stack:
        assert stack.num_images == 2
    refused(f"{path}::/nothing/here", "no such dataset", "h5ls")
    refused(f"{path}::/angles", "(N, H, W)", "(2,)")
    refused(f"{path}::/angles/below", "no such dataset")


def test_several_candidates_are_listed(tmp_path):
    path = write(tmp_path / "a.h5", lr=images(2, 5, 6), hr=images(2, 10, 12))
    refused(path, "/lr", "/hr", "::/hr")


@pytest.mark.parametrize("style", ["default", "only", "signal=1"])
def test_nexus_default_wins_over_other_candidates(tmp_path, style):
    path = write(tmp_path / "a.h5",
                 **{"entry/scan/images": images(2, 5, 6), "entry/other": images(2, 5, 6)})
    with h5py.File(path, "a") as file:
        file["entry"].attrs["NX_class"] = "NXentry"
        file["entry/scan"].attrs["NX_class"] = np.bytes_(b"NXdata")
        if style == "default":
            file.attrs["default"], file["entry"].attrs["default"] = "entry", "scan"
        if style == "signal=1":
            file["entry/scan/images"].attrs["signal"] = 1
        else:
            file["entry/scan"].attrs["signal"] = ["images"]
    with Stack.open(path) as stack:
        assert stack.address.dataset == "/entry/scan/images"


def test_nexus_default_that_is_no_stack_or_leads_nowhere_is_passed_over(tmp_path):
    for signal in ("curve", "gone"):
        path = write(tmp_path / f"{signal}.h5",
                     **{"entry/data/curve": np.arange(4.0), "frames": images(2, 5, 6)})
        with h5py.File(path, "a") as file:
            file.attrs["default"], file["entry"].attrs["default"] = "entry", "data"
            file["entry/data"].attrs["signal"] = signal
        with Stack.open(path) as stack:
            assert stack.address.dataset == "/frames"


# layouts and dtypes

@pytest.mark.parametrize("shape, layout, chw",
                         [((4, 7, 9), "NHW", (1, 7, 9)), ((4, 7, 9, 3), "NHWC", (3, 7, 9)),
                          ((4, 7, 9, 1), "NHWC", (1, 7, 9)), ((4, 3, 7, 9), "NCHW", (3, 7, 9)),
                          ((4, 1, 7, 9), "NCHW", (1, 7, 9)), ((2, 3, 7, 3), "NHWC", (3, 3, 7))])
@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2", "<f4", ">f4"])
def test_layouts_and_dtypes(tmp_path, shape, layout, chw, dtype):
    data = images(*shape, dtype=dtype)
    with Stack.open(write(tmp_path / "a.h5", x=data)) as stack:
        assert (stack.layout, stack.dtype, stack.num_images) == (layout, np.dtype(dtype), shape[0])
        assert (stack.channels, stack.height, stack.width) == chw
        read = stack.read(1)
    assert read.dtype == np.float32 and read.shape == chw and read.flags.c_contiguous
    expected = {"NHW": data[1][None], "NHWC": np.moveaxis(data[1], -1, 0), "NCHW": data[1]}[layout]
    assert np.array_equal(read, expected)


@pytest.mark.parametrize("hint", ["interpretation", "labels", "axes"])
def test_hints_settle_ambiguous_channels(tmp_path, hint):
    path = write(tmp_path / "a.h5", **{"g/x": images(2, 3, 7, 3)})
    with h5py.File(path, "a") as file:
        if hint == "interpretation":
            file["g/x"].attrs["interpretation"] = "image"
        elif hint == "labels":
            file["g/x"].dims[1].label = "Channel"
        else:
            file["g"].attrs["axes"] = ["frame", "color", ".", "."]
    with Stack.open(path) as stack:
        assert (stack.layout, stack.height, stack.width) == ("NCHW", 7, 3)


@pytest.mark.parametrize("data, words", [
    (np.zeros((0, 4, 4), np.uint8), ("at least one image", "(0, 4, 4)")),
    (np.zeros((4, 0, 4), np.uint8), ("at least one pixel",)),
    (np.zeros((4, 4), np.uint8), ("(1, 4, 4)",)),
    (np.zeros((40, 40, 3), np.uint8), ("one colour image", "(1, 40, 40, 3)")),
    (np.zeros((2, 4, 4, 2), np.uint8), ("C of 1 or 3",)),
    (np.zeros((2, 3, 4, 4, 3), np.uint8), ("C of 1 or 3",)),
    (np.zeros((2, 4, 4), np.int64), ("int64", "convert it to int32")),
    (np.zeros((2, 4, 4), np.complex64), ("complex64", "convert it to float32", "magnitude")),
    (np.zeros((2, 4, 4), bool), ("bool", "convert it to uint8")),
    (np.zeros((2, 4, 4), [("a", "u1")]), ("expected",)),
    (np.bytes_(b"text"), ("expected",)),
    (h5py.Empty("u1"), ("None",))])
def test_datasets_that_are_no_stack_of_images(tmp_path, data, words):
    refused(write(tmp_path / "a.h5", x=data) + "::/x", *words)


# bad files

def test_files_that_are_no_hdf5(tmp_path):
    refused(str(tmp_path / "missing.h5"), "missing.h5", "got nothing there")
    refused(str(tmp_path), "folder")
    for name, content in (("text.h5", b"not a stack\n" * 100), ("empty.h5", b"")):
        (tmp_path / name).write_bytes(content)
        refused(str(tmp_path / name), "expected an HDF5 file")
    refused(write(tmp_path / "bare.h5"), "found none", "::/path/to/images")
    refused(write(tmp_path / "curve.h5", x=np.arange(4.0)), "found none")


def test_truncated_file_at_any_length(tmp_path):
    whole = open(write(tmp_path / "a.h5", x=images(3, 16, 16)), "rb").read()
    for length in range(1, len(whole), 97):
        (tmp_path / "cut.h5").write_bytes(whole[:length])
        refused(str(tmp_path / "cut.h5"), "cut.h5")
    assert "truncated" in refused(str(tmp_path / "cut.h5"))


def test_damaged_pixels_are_named(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("x", data=images(3, 40, 40), chunks=(1, 40, 40),
                                      compression="gzip")
        place = dataset.id.get_chunk_info_by_coord((1, 0, 0)).byte_offset
    with open(path, "r+b") as raw:
        raw.seek(place)
        raw.write(b"\xff" * 64)
    with Stack.open(str(path)) as stack:
        stack.read(0)
        with pytest.raises(StackError, match="image 1 cannot be read"):
            stack.read(1)
        with pytest.raises(IndexError):
            stack.read(3)


def test_hdf5_keeps_its_own_error_messages_to_itself(tmp_path):
    """In the main thread and in others."""
    (tmp_path / "text.h5").write_bytes(b"text" * 500)
    whole = open(write(tmp_path / "a.h5", x=images(3, 16, 16)), "rb").read()
    (tmp_path / "cut.h5").write_bytes(whole[:-300])
    script = f"""
import threading
from swinmpi.errors import StackError
from swinmpi.storage.stack import Stack
def look():
    for address in ("text.h5", "cut.h5", "a.h5::/y", "gone.h5"):
        try:
            Stack.open({str(tmp_path)!r} + "/" + address)
        except StackError as error:
            print(error)
look()
thread = threading.Thread(target=look)
thread.start()
thread.join()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True,
                          timeout=300)
    assert (done.returncode, done.stderr) == (0, "") and len(done.stdout.splitlines()) == 8


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.h5")
    asked = threading.Thread(target=refused, args=(str(tmp_path / "pipe.h5"), "device"),
                             daemon=True)
    asked.start()
    asked.join(timeout=120)
    assert not asked.is_alive()


def test_unknown_filter_is_named_before_reading(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        creation.set_chunk((1, 8, 8))
        creation.set_filter(511, h5py.h5z.FLAG_OPTIONAL, ())
        file.create_dataset("x", (2, 8, 8), "u1", dcpl=creation, allow_unknown_filter=True)
    refused(str(tmp_path / "a.h5"), "filter 511", "swinmpi[filters]")


# data outside the file

def test_other_files_are_read_only_where_allowed(tmp_path):
    data = images(2, 8, 8)
    write(tmp_path / "source.h5", **{"g/x": data})
    data.tofile(tmp_path / "raw.bin")
    path = str(tmp_path / "master.h5")
    with h5py.File(path, "w") as file:
        file["link"] = h5py.ExternalLink("source.h5", "/g/x")
        file["folder"] = h5py.ExternalLink("source.h5", "/g")
        file["detour"] = h5py.SoftLink("/folder/x")
        file.create_dataset("raw", data.shape, "u1",
                            external=[(str(tmp_path / "raw.bin"), 0, data.nbytes)])
        layout = h5py.VirtualLayout(data.shape, "u1")
        layout[...] = h5py.VirtualSource("source.h5", "/g/x", data.shape)
        file.create_virtual_dataset("virtual", layout)
    for name in ("link", "folder/x", "detour", "raw", "virtual"):
        refused(f"{path}::/{name}", "refused")
        with Stack.open(f"{path}::/{name}", allow_external=True) as stack:
            assert np.array_equal(stack.read(1)[0], data[1])
    (tmp_path / "source.h5").unlink()
    refused(f"{path}::/virtual", "source.h5 is missing", allow_external=True)
    refused(f"{path}::/link", "no such dataset", allow_external=True)


def test_soft_links_inside_the_file(tmp_path):
    path = write(tmp_path / "a.h5", **{"entry/detector/x": images(2, 8, 8)})
    with h5py.File(path, "a") as file:
        file["entry/data"] = h5py.SoftLink("detector/x")
        file["loop"], file["pool"] = h5py.SoftLink("/pool"), h5py.SoftLink("/loop")
    with Stack.open(f"{path}::/entry/data") as stack:
        assert stack.num_images == 2
    refused(f"{path}::/loop", "loop")


# attributes, axes, identity

def test_attributes_and_axes_are_seen(tmp_path):
    path = write(tmp_path / "a.h5",
                 **{"g/x": images(2, 8, 9), "g/y": np.arange(8.0), "scale": np.arange(9)})
    with h5py.File(path, "a") as file:
        file["g"].attrs["axes"] = [".", "y", "."]
        file["g/x"].attrs.update({"units": "counts", "gain": 2.5})
        file["scale"].make_scale("x position")
        file["g/x"].dims[2].attach_scale(file["scale"])
    with Stack.open(path) as stack:
        assert stack.attributes == {"units": "counts", "gain": 2.5}
        assert [axis and axis.name for axis in stack.axes] == [None, "y", "scale"]


def test_identity_follows_the_pixels_not_the_file(tmp_path):
    data = images(40, 8, 8)
    with (Stack.open(write(tmp_path / "a.h5", x=data)) as one,
          Stack.open(write(tmp_path / "b.h5", x=data)) as two):
        assert one.identity() == two.identity()
    data[0, 0, 0] ^= 1
    with (Stack.open(write(tmp_path / "c.h5", x=data)) as other,
          Stack.open(str(tmp_path / "a.h5")) as one):
        assert one.identity() != other.identity()


# value range

@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_integers_survive_the_unit_range_exactly(dtype):
    every = np.arange(np.iinfo(dtype).max + 1).astype(dtype)
    for value_range in (ValueRange(0, 255), ValueRange(0, 65535), ValueRange(1000, 1100),
                        ValueRange(-7.5, 3e4)):
        assert np.array_equal(value_range.from_unit(value_range.to_unit(every), dtype), every)
    assert ValueRange(0, 255).to_unit(np.array([0, 255])).tolist() == [-1, 1]


def test_from_unit_rounds_half_to_even_and_clips_integers_only():
    two = ValueRange(0, 2)
    # 0.5, 1.5, 2.5
    assert two.from_unit(np.array([-0.5, 0.5, 1.5]), np.uint8).tolist() == [0, 2, 2]
    assert two.from_unit(np.array([-9.0, 900.0]), np.uint8).tolist() == [0, 255]
    assert two.from_unit(np.array([-9.0, 900.0]), np.float32).tolist() == [-8, 901]


@pytest.mark.parametrize("low, high", [(1, 1), (2, 1), (float("nan"), 1), (0, float("inf"))])
def test_impossible_range(low, high):
    with pytest.raises(ConfigError, match="low < high"):
        ValueRange(low, high)


def measured(tmp_path, data):
    with Stack.open(write(tmp_path / "a.h5", x=data)) as stack:
        assert stack.range() == measure_range(stack)
        return stack.range()


def test_range_ignores_a_few_hot_and_dead_pixels(tmp_path):
    for dtype in (np.uint16, np.float32):
        data = (RNG.random((4, 50, 60)) * 1000 + 3000).astype(dtype)
        ordered = np.sort(data, axis=None)
        data[1, 3, :4], data[2, 5, 5] = 65535, 0
        found = measured(tmp_path, data)
        assert ordered[0] <= found.low < ordered[30] and ordered[-30] < found.high <= ordered[-1]
    assert measured(tmp_path, images(2, 4, 4)) == ValueRange(0, 255)


def test_range_of_uint16_is_the_exact_quantile(tmp_path):
    data = RNG.integers(0, 65536, (3, 40, 41)).astype(np.uint16)
    low, high = np.quantile(data, (0.001, 0.999), method="inverted_cdf")
    assert measured(tmp_path, data) == ValueRange(low, high)


def test_range_of_samples_depends_neither_on_order_nor_on_chance(monkeypatch):
    class Listed:
        dtype = np.dtype("float32")

        def __init__(self, arrays):
            self.arrays, self.num_images, self.reads = arrays, len(arrays), []

        def read(self, image_index):
            self.reads.append(image_index)
            return self.arrays[image_index]

    monkeypatch.setattr("swinmpi.storage.values.SAMPLED_VALUES", 20000)
    stack = Listed([RNG.random((1, 100, 100)).astype(np.float32) for _ in range(8)])
    first = measure_range(stack)
    assert first == measure_range(stack) and stack.reads == [*range(8)] * 2
    assert abs(first.low - 0.001) < 2e-3 and abs(first.high - 0.999) < 2e-3


def test_range_of_odd_stacks(tmp_path):
    shape = (2, 50, 50)
    sparse = np.zeros(shape, np.uint16)
    sparse[0, 0, 0] = 900
    assert measured(tmp_path, sparse) == ValueRange(0, 900)
    assert measured(tmp_path, np.full(shape, 7, np.uint16)) == ValueRange(7, 8)
    constant = measured(tmp_path, np.full(shape, 1e20, np.float32))
    assert constant.to_unit(np.array([1e20], np.float32)).tolist() == [-1]
    nothing = np.full(shape, np.nan, np.float32)
    assert measured(tmp_path, nothing) == ValueRange(0, 1)
    nothing[0, 0, :2] = 3, 5
    nothing[1, 1, 1] = np.inf
    assert measured(tmp_path, nothing) == ValueRange(3, 5)


# pixels without a number

def test_invalid_pixels_take_the_nearest_value_of_their_channel():
    image = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    image[0, 0, 0], image[0, 1, 2], image[1] = np.nan, np.inf, np.nan
    filled, mask = mask_invalid(image, fill_value=-5)
    assert (np.array_equal(mask, ~np.isfinite(image)) and filled[0, 0, 0] in (1, 4)
            and (filled[1] == -5).all())
    assert filled[0, 1, 2] in (2, 5, 7, 10) and np.array_equal(filled[~mask], image[~mask])
    assert np.isnan(image[0, 0, 0])
    whole = np.ones((1, 2, 2), np.float32)
    same, none = mask_invalid(whole)
    assert (same is whole and none is None
            and restore_invalid(np.zeros((1, 4, 4)), whole, 2).sum() == 0)


@given(hnp.arrays(np.float32, st.tuples(st.just(1), st.integers(1, 6), st.integers(1, 6)),
                  elements=st.sampled_from([0.0, 1.0, 2.5, np.nan, np.inf, -np.inf])),
       st.integers(2, 4))
def test_invalid_pixels_come_back_and_nothing_else_changes(lr, scale):
    filled, _ = mask_invalid(lr)
    assert np.isfinite(filled).all()
    sr = np.full((1, lr.shape[1] * scale, lr.shape[2] * scale), 0.25, np.float32)
    restored = restore_invalid(sr, lr, scale)
    over = np.kron(lr, np.ones((1, scale, scale), np.float32)) if np.isfinite(lr).all() else \
        lr.repeat(scale, axis=1).repeat(scale, axis=2)
    assert np.array_equal(restored, np.where(np.isfinite(over), 0.25, over), equal_nan=True)
    assert restored.dtype == np.float32 and (sr == 0.25).all()
