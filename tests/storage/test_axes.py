"""What files say about their axes and lie beside them: followed, refused, put right on the
finer grid."""
import h5py
import numpy as np
import pytest

from swinmpi.errors import ConfigError, StackError
from swinmpi.storage.metadata.frames import AS_STORED, View, chosen, spelled
from swinmpi.storage.metadata.pixel_size import finer, set_finer
from swinmpi.storage.outputs.contents import OutputPlan
from swinmpi.storage.outputs.output import StackOutput
from swinmpi.storage.stack import Stack

RNG = np.random.default_rng(0)


def images(*shape, dtype=np.uint8):
    return RNG.integers(0, 200, shape).astype(dtype)


def doubled(path, out, view=AS_STORED):
    """The stack's pixels repeated twice along y and x, written as swinmpi-sample does."""
    with Stack.open(str(path), view=view) as stack:
        plan = OutputPlan(2, figures=())
        with StackOutput.open(out, stack, plan, {"input": stack.identity()}) as output:
            for index in range(stack.num_images):
                pixels = stack.read(index).astype(stack.dtype).repeat(2, 1).repeat(2, 2)
                output.write(index, {"sr": pixels}, {})
            output.finish({})
    return out


@pytest.mark.parametrize("shape, labels, layout, size", [
    ((2, 3, 24, 30), "tzyx", "NNHW", (6, 1, 24, 30)),
    ((24, 30, 20), "yxt", "HWN", (20, 1, 24, 30)),
    ((2, 30, 24), "txy", "NWH", (2, 1, 24, 30)),
    ((24, 30, 3), "yxc", "HWC", (1, 3, 24, 30)),
    ((2, 4, 3, 24, 30), "tzcyx", "NNCHW", (8, 3, 24, 30))])
@pytest.mark.parametrize("who", ["labels", "axes", "asked"])
def test_named_axes_are_followed_and_restored(tmp_path, shape, labels, layout, size, who):
    data, path = images(*shape), tmp_path / "in.h5"
    with h5py.File(path, "w") as file:
        stored = file.create_dataset("g/x", data=data)
        if who == "labels":
            for dimension, label in enumerate(labels):
                stored.dims[dimension].label = label
        elif who == "axes":
            file["g"].attrs["axes"] = list(labels)
    view = View(axes=labels if who == "asked" else None)
    with Stack.open(f"{path}::/g/x", view=view) as stack:
        assert stack.arrangement.layout == layout
        assert (stack.num_images, stack.channels, stack.height, stack.width) == size
    out = doubled(f"{path}::/g/x", tmp_path / "out.h5", view)
    wanted = data
    for axis, letter in enumerate(layout):
        wanted = wanted.repeat(2, axis) if letter in "HW" else wanted
    with h5py.File(out) as file:
        assert np.array_equal(file["entry/data/sr"], wanted)
    with Stack.open(str(out)) as stack:
        assert stack.arrangement.layout == layout


@pytest.mark.parametrize("shape, attributes, words", [
    ((24, 30, 20), {"interpretation": "spectrum"}, "20 images of 24 x 30 px"),
    ((24, 3, 30), {"IMAGE_SUBCLASS": "IMAGE_TRUECOLOR", "INTERLACE_MODE": "INTERLACE_LINE"},
     "1 colour images of 24 x 30 px"),
    ((24, 30, 3), {"IMAGE_SUBCLASS": "IMAGE_TRUECOLOR"}, "1 colour images of 24 x 30 px"),
    ((24, 30, 3), {"interpretation": "rgb-image"}, "1 colour images of 24 x 30 px"),
    ((1, 1, 2, 24, 30), {}, "2 images of 24 x 30 px"),
    *(((2, 3, 24, 30), told, "6 images of 24 x 30 px") for told in (
        {"axes": "TZYX"}, {"AXES": "TZYX"}, {"dims": ["t", "z", "y", "x"]},
        {"_ARRAY_DIMENSIONS": '["t", "z", "y", "x"]'}, {"DimensionOrder": "XYZT"},
        {"interpretation": "image"})),
    ((2, 3, 24, 30), {"axes": "TSYX"}, "2 colour images of 24 x 30 px"),
    ((24, 30, 20), {"axes": "Zeile:Spalte:Zeit"}, "20 images of 24 x 30 px"),
    ((2, 3, 24, 30), {"axes": "temps:profondeur:ligne:colonne"}, "6 images of 24 x 30 px"),
    ((2, 3, 24, 30), {"axes": "time:polarisation:y:x"}, "6 images of 24 x 30 px"),
    ((2, 3, 24, 30), {"axes": "dim_0:dim_1:dim_2:dim_3"}, "2 colour images of 24 x 30 px"),
    ((7, 24, 30), {"axes": "lat"}, "7 images of 24 x 30 px")])
def test_what_the_pixels_mean_is_believed(tmp_path, shape, attributes, words):
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file["x"] = images(*shape)
        file["x"].attrs.update(attributes)
    with Stack.open(str(tmp_path / "in.h5")) as stack:
        assert stack.words.startswith(words)


@pytest.mark.parametrize("shape, labels, attributes, words", [
    ((2, 24, 30), "", {"IMAGE_SUBCLASS": "IMAGE_INDEXED"}, "palette"),
    ((2, 24, 30, 3), "", {"interpretation": "hsl-image"}, "hsl-image"),
    ((2, 2, 24, 30), "tcyx", {}, "data.axes=tzyx"),
    ((2, 24, 30), "zxt", {}, "expected y and x"),
    ((24, 30, 5), "yxt", {"interpretation": "image"}, "contradicts itself"),
    ((2, 3, 24, 30), "tekv", {}, "names of axes that say which"),
    ((2, 5, 24, 30), "", {}, "data.axes=tzyx")])
def test_contradictions_are_refused_in_one_line(tmp_path, shape, labels, attributes, words):
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file["x"] = images(*shape)
        file["x"].attrs.update(attributes)
        for dimension, label in enumerate(labels):
            file["x"].dims[dimension].label = label
    with pytest.raises(StackError, match=words) as caught:
        Stack.open(f"{tmp_path / 'in.h5'}::/x")
    assert "\n" not in str(caught.value)


def test_frames():
    assert chosen("4:", 6) == (4, 5) and chosen("0,5,-2", 6) == (0, 5, 4)
    assert chosen("::2", 5) == (0, 2, 4) and spelled((0, 1, 2, 7)) == "0:3,7"
    for bad in ("", "a", "9", "-9", "4:4", "0,0", "1.5", "::0", "-"):
        with pytest.raises(ConfigError, match="--frames"):
            chosen(bad, 6)


def test_frames_keep_their_index_and_coordinates(tmp_path):
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file["g/x"], file["g/angle"] = images(6, 8, 9), np.arange(6.0)
        file["g"].attrs["axes"] = ["angle", ".", "."]
    with Stack.open(f"{tmp_path / 'in.h5'}::/g/x", view=View(frames="4:,0")) as stack:
        assert [stack.stack_index(i) for i in range(3)] == [4, 5, 0]
        assert stack.axes[0].values.tolist() == [4, 5, 0]
        assert stack.identity()["frames"] == "4:6,0"


@pytest.mark.parametrize("name, value, wanted", [
    ("element_size_um", [2, 0.5, 0.5], [2, 0.25, 0.25]), ("pixel_size", 0.5, 0.25),
    ("x_pixel_size", 5, 2.5), ("resolution", [40, 4, 4], [40, 2, 2]), ("spacing", "1 um", "0.5 um"),
    ("z_pixel_size", 2.0, None), ("exposure", 2.0, None), ("resolution", 300, None),
    ("resolution", [300, 300], None), ("x_resolution", 300, None), ("dpi", 300, 600),
    ("pixels_per_um", 3.0, 6.0), ("PixelsPerMicron", 3.0, 6.0), ("um_per_pixel", 0.5, 0.25),
    ("bits_per_pixel", 16, None), ("CDELT1", 0.5, 0.25), ("CDELT3", 0.5, None),
    ("CD1_2", 0.5, 0.25), ("CRPIX1", 1.0, 1.5), ("transform", [1.0, 0, 0, 0, 1, 0], None),
    ("GeoTransform", "10 .5 0 20 0 -.5", "10 0.25 0 20 0 -0.25"),
    ("axistags", '{"axes": [{"key": "z", "resolution": 2}, {"key": "y", "resolution": 2}]}',
     '{"axes": [{"key": "z", "resolution": 2}, {"key": "y", "resolution": 1.0}]}')])
def test_sizes_of_pixels(name, value, wanted):
    came = finer(name, value if isinstance(value, str) else np.array(value), "NHW", 2)
    assert came is None if wanted is None else np.array_equal(came, wanted) or came == wanted


def test_dots_per_length_become_more_and_what_is_unsure_is_told():
    dots = {"XResolution": 300.0, "ResolutionUnit": "inch"}
    assert finer("XResolution", np.float64(300), "NHW", 2, dots) == 600
    with h5py.File("unused", "w", driver="core", backing_store=False) as file:
        file.attrs.update({**dots, "affine": np.eye(3), "comment": "words"})
        told = set_finer(file, "NHW", 2)
        assert file.attrs["XResolution"] == 600 and len(told) == 2
        assert any(line.startswith("attribute affine") and "is kept" in line for line in told)


def test_the_axes_of_emd(tmp_path):
    with h5py.File(tmp_path / "in.h5", "w") as file:
        group = file.create_group("data/a")
        group.attrs["emd_group_type"], group["data"] = 1, images(2, 3, 8, 10)
        for number, (name, size) in enumerate(zip("tzyx", (2, 3, 8, 10), strict=True), 1):
            group[f"dim{number}"] = np.arange(size) * 0.5
            group[f"dim{number}"].attrs["name"] = np.bytes_(name)
    out = doubled(tmp_path / "in.h5", tmp_path / "out.h5")
    with h5py.File(out) as file:
        data = file["entry/data"]
        assert data["sr"].attrs["DIMENSION_LABELS"].tolist() == [*"tzyx"]
        assert data["dim4"][:3].tolist() == [-0.125, 0.125, 0.375]
        assert data["dim2"][:].tolist() == [0, 0.5, 1] and data["dim2"].attrs["name"] == b"z"


def write_tomogram(path):
    with h5py.File(path, "w") as file:
        file.attrs["default"] = "entry"
        for name, kind in (("entry", "NXentry"), ("entry/instrument", "NXinstrument"),
                           ("entry/instrument/detector", "NXdetector"), ("entry/data", "NXdata"),
                           ("entry/sample", "NXsample"), ("entry/control", "NXmonitor")):
            file.create_group(name).attrs["NX_class"] = kind
        entry, detector = file["entry"], file["entry/instrument/detector"]
        entry.attrs["default"], entry["definition"] = "data", "NXtomo"
        detector["data"], detector["image_key"] = images(6, 20, 24), [2, 1, 0, 0, 0, 1]
        detector["x_pixel_size"] = 6.5
        entry["sample/rotation_angle"], entry["control/data"] = np.arange(6.0), np.arange(6.0)
        entry["data"].attrs.update(signal="data", axes=["../sample/rotation_angle", ".", "."])
        entry["data/data"] = detector["data"]
    return path


def test_a_tomogram_stays_one(tmp_path):
    out = doubled(write_tomogram(tmp_path / "in.nxs"), tmp_path / "out.nxs")
    with h5py.File(out) as file:
        entry = file["entry"]
        assert entry["definition"][()] == b"NXtomo"
        assert entry["instrument/detector/data"] == entry["data/sr"]
        assert entry["data/image_key"][:].tolist() == [0, 0, 0]
        assert entry["data/rotation_angle"][:].tolist() == [2, 3, 4]
        assert entry["control/data"][:].tolist() == [2, 3, 4]
        assert entry["instrument/detector/x_pixel_size"][()] == 3.25
        assert list(entry["data"].attrs["axes"]) == ["rotation_angle", ".", "."]
    read_by_others(out)


def test_netcdf_dimensions_without_variables_are_no_axes(tmp_path):
    netcdf = pytest.importorskip("netCDF4")
    with netcdf.Dataset(tmp_path / "in.nc", "w") as file:
        for name, size in (("time", 2), ("y", 20), ("x", 24)):
            file.createDimension(name, size)
        file.createVariable("time", "f8", ("time",))[:] = [1, 2]
        file.createVariable("a", "f4", ("time", "y", "x"))[:] = images(2, 20, 24)
    out = doubled(tmp_path / "in.nc", tmp_path / "out.h5")
    with h5py.File(out) as file:
        assert list(file["entry/data"].attrs["axes"]) == ["time", ".", "."]
        assert not {"x", "y"} & set(file["entry/data"])
    read_by_others(out)


def read_by_others(path):
    xarray, silx = pytest.importorskip("xarray"), pytest.importorskip("silx.io")
    nxdata = pytest.importorskip("silx.io.nxdata")
    nexus = pytest.importorskip("nexusformat.nexus")
    for engine in ("h5netcdf", "netcdf4"):
        with xarray.open_dataset(path, group="/entry/data", engine=engine) as opened:
            assert opened["sr" if "sr" in opened else "data"].ndim == 3
    with silx.open(str(path)) as opened:
        assert nxdata.get_default(opened).is_valid
    assert nexus.nxload(str(path))["entry/data"].nxsignal.ndim == 3


def test_lists_of_any_length_among_attributes_are_copied(tmp_path):
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file["x"], lists = images(2, 8, 9), np.empty(2, object)
        lists[0], lists[1] = np.arange(3), np.arange(2)
        file["x"].attrs.create("lists", lists, dtype=h5py.vlen_dtype("i8"))
    with h5py.File(doubled(tmp_path / "in.h5", tmp_path / "out.h5")) as file:
        assert [list(one) for one in file["entry/data/sr"].attrs["lists"]] == [[0, 1, 2], [0, 1]]
