"""swinmpi-sample on pictures: a folder of any of them in, a folder of pictures out."""
import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from swinmpi.cli.sample import main
from swinmpi.images.imresize import imresize
from swinmpi.images.pictures import Pixels, read_page
from swinmpi.images.png import PngDetails, encode_png
from swinmpi.storage.outputs import output as stack_output
from tests.support.sampling import arguments, smooth_stack, sr_of, write_checkpoint, write_stack

PROGRAMS = Path(__file__).parents[1] / "programs/mpi"
PICTURES = {"a.png": "a.png", "b.jpg": "b.png", "c.tif": "c.tif", "d.tiff": "d.tiff",
            "deep/e.webp": "deep/e.png", "f.PNG": "f.PNG", "g.tif": "g.tif"}
TIMEOUT_S = 240


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("model") / "model.safetensors")


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Every format; three sizes, five depths, one with alpha, one of three pages, 16-bit RGB in
    planes."""
    folder = tmp_path_factory.mktemp("in") / "photos"
    (folder / "deep").mkdir(parents=True)
    colour = smooth_stack(1, 14, 18, 3, "uint8")[0]
    Image.fromarray(colour).save(folder / "a.png")
    Image.fromarray(colour[:12, :10]).save(folder / "b.jpg")
    tifffile.imwrite(folder / "c.tif", smooth_stack(3, 14, 18, 1, "uint16", seed=1), imagej=True,
                     resolution=(3.0, 3.0), metadata={"unit": "um", "spacing": 2, "axes": "ZYX"})
    tifffile.imwrite(folder / "d.tiff", smooth_stack(1, 14, 18, 1, "float32", seed=2)[0])
    with_alpha = np.dstack([colour, colour[..., 0]])
    Image.fromarray(with_alpha).save(folder / "deep" / "e.webp", lossless=True)
    deep = smooth_stack(1, 14, 18, 3, "uint16", seed=3)[0]
    (folder / "f.PNG").write_bytes(b"".join(encode_png(Pixels(deep), PngDetails())))
    tifffile.imwrite(folder / "g.tif", np.moveaxis(deep, -1, 0), photometric="rgb",
                     planarconfig="separate", compression="zlib")
    return folder


@pytest.fixture(scope="module")
def made(photos, checkpoint, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("out") / "sr"
    assert main(arguments(photos, output, checkpoint)) == 0
    return output


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*")) if path.is_file() and path.name != JOURNAL}


JOURNAL = "swinmpi.jsonl"


def test_every_picture_comes_back_under_its_name_in_its_depth(photos, made):
    assert sorted(contents(made)) == sorted(PICTURES.values())
    for name, target in PICTURES.items():
        lr, sr = read_page(photos / name), read_page(made / target)
        height, width, channels = lr.colour.shape
        assert sr.colour.shape == (2 * height, 2 * width, channels), name
        assert sr.colour.dtype == lr.colour.dtype and (sr.alpha is None) == (lr.alpha is None)


def test_a_picture_is_the_image_of_a_stack_that_holds_it(photos, made, checkpoint, tmp_path):
    for name in ("a.png", "c.tif"):
        pages = tifffile.imread(photos / name) if name == "c.tif" else read_page(photos / name
                                                                                  ).colour[None]
        stack = write_stack(tmp_path / f"{name}.h5", pages)
        # one range for all pictures of a depth, which a stack of its own does not know
        told = [json.loads(line) for line in (made / JOURNAL).read_text().splitlines()]
        ranges = {key: value for line in told for key, value in line.get("range", {}).items()}
        low, high = ranges.get(pages.dtype.str, (0, 255))
        assert main(arguments(stack, tmp_path / "out.h5", checkpoint, "--overwrite",
                              f"output.value_range=[{low},{high}]")) == 0
        sr = np.stack([read_page(made / name, number).colour for number in range(len(pages))])
        np.testing.assert_array_equal(sr, sr_of(tmp_path / "out.h5").reshape(sr.shape))


def test_alpha_is_enlarged_by_bicubic_interpolation(photos, made):
    alpha = read_page(photos / "deep/e.webp").alpha
    np.testing.assert_array_equal(read_page(made / "deep/e.png").alpha, imresize(alpha, scale=2))


def test_units_of_a_tiff_are_right_on_the_finer_grid(made):
    with tifffile.TiffFile(made / "c.tif") as tiff:
        x_resolution = tiff.pages[0].tags["XResolution"].value
        assert x_resolution[0] / x_resolution[1] == pytest.approx(6.0)
        assert (tiff.imagej_metadata["unit"], tiff.imagej_metadata["spacing"]) == ("um", 2)
        assert len(tiff.pages) == 3


def test_ome_sizes_and_dots_per_inch(checkpoint, tmp_path):
    image = smooth_stack(2, 14, 18, 1, "uint8")
    tifffile.imwrite(tmp_path / "x.ome.tif", image, photometric="minisblack",
                     metadata={"axes": "ZYX", "PhysicalSizeX": 0.3, "PhysicalSizeXUnit": "µm"})
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    Image.fromarray(image[0]).save(tmp_path / "y.jpg", dpi=(300, 150), exif=exif,
                                   icc_profile=profile)
    names = [str(tmp_path / name) for name in ("x.ome.tif", "y.jpg")]
    assert main([*names, *arguments(Path(), tmp_path / "sr", checkpoint)[1:]]) == 0
    with tifffile.TiffFile(tmp_path / "sr/x.ome.tif") as tiff:
        assert 'PhysicalSizeX="0.15"' in tiff.ome_metadata and 'SizeX="36"' in tiff.ome_metadata
        assert tiff.series[0].shape == (2, 28, 36) and "µm" in tiff.ome_metadata
    with Image.open(tmp_path / "sr/y.png") as picture:
        assert picture.size == (28, 36)  # it lay on its side
        assert picture.info["dpi"] == pytest.approx((300, 600), abs=0.1)
        assert picture.info["icc_profile"] == profile
        assert picture.getexif().get(0x0112) is None and picture.getexif()[0x010F] == "Maker"


@pytest.mark.parametrize("num_ranks, settings", [
    (2, []), (3, ["parallel.exchange=torus", "parallel.ranks_per_image=2"])])
def test_the_same_bytes_on_any_number_of_ranks(mpirun, photos, made, checkpoint, tmp_path,
                                               num_ranks, settings):
    command = arguments(photos, tmp_path / "sr", checkpoint, *settings)
    finished = mpirun(num_ranks, "-m", "swinmpi.cli.sample", *command, timeout_s=TIMEOUT_S)
    assert finished.code == 0, finished.err
    assert contents(tmp_path / "sr") == contents(made)


def test_a_killed_run_leaves_whole_pictures_and_goes_on(mpirun, photos, made, checkpoint,
                                                        tmp_path):
    output = tmp_path / "sr"
    command = [*arguments(photos, output, checkpoint), "--set", "parallel.images_per_step=1"]
    for num_ranks, number in ((2, 1), (1, 2), (3, 2), (1, 1)):
        finished = mpirun(num_ranks, PROGRAMS / "sample_killed.py", "SIGKILL", number, *command,
                          timeout_s=TIMEOUT_S)
        assert finished.code not in (0, None), finished.err
        there = {name: content for name, content in contents(output).items()
                 if not name.startswith(".partial")}
        assert there.items() <= contents(made).items()
    assert main(command) == 0
    assert contents(output) == contents(made)
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*.tif")}
    assert main(command) == 0, "a second time there is nothing to do"
    assert before == {path: path.stat().st_mtime_ns for path in output.rglob("*.tif")}


def test_a_signal_stops_with_75(mpirun, photos, made, checkpoint, tmp_path):
    output = tmp_path / "sr"
    command = arguments(photos, output, checkpoint, "parallel.images_per_step=1")
    finished = mpirun(2, PROGRAMS / "sample_killed.py", "SIGUSR2", 1, *command,
                      timeout_s=TIMEOUT_S)
    assert finished.code == 75 and f"go on from {output}\n" in finished.err, finished.err
    assert main(command) == 0 and contents(output) == contents(made)


def test_broken_ones_are_named_with_exit_3(photos, made, checkpoint, tmp_path, capsys):
    folder = tmp_path / "photos"
    folder.mkdir()
    whole = (photos / "a.png").read_bytes()
    (folder / "a.png").write_bytes(whole)
    (folder / "half.png").write_bytes(whole[:len(whole) // 2])
    (folder / "junk.jpg").write_bytes(b"junk")
    pages = (photos / "c.tif").read_bytes()
    (folder / "pages.tif").write_bytes(pages[:len(pages) // 2])
    (folder / "moving.gif").write_bytes(b"GIF89a")
    assert main(arguments(folder, tmp_path / "sr", checkpoint)) == 3
    told = capsys.readouterr().err.splitlines()
    assert all(name in told[-1] for name in ("half.png", "junk.jpg", "pages.tif")), told
    assert any("left out" in line and "moving.gif" in line for line in told)
    assert contents(tmp_path / "sr") == {"a.png": contents(made)["a.png"]}


REFUSED = {
    "an empty name": ([""], "got an empty name"),
    "no name for the output": (["{photos}", "--output", ""], "--output: expected a name"),
    "nearly the name": (["{photos}/aa.png"], "did you mean {photos}/a.png?"),
    "a picture as output": (["{photos}/a.png", "--output", "b.png"], "expected a folder"),
    "a stack as output": (["{photos}", "--output", "b.h5"], "expected a folder"),
    "over the input": (["{photos}", "--output", "{photos}"], "would overwrite the input"),
    "a file as output": (["{photos}/a.png", "--output", "{file}"], "expected a folder"),
    "nothing there": (["{photos}/none.png"], "none.png"),
    "another kind": (["{gif}"], "expected a folder, PNG, JPEG, WebP or TIFF"),
    "several without output": (["{photos}/a.png", "{photos}/b.jpg"], "give --output FOLDER"),
    "ensemble": (["{photos}", "--ensemble", "2"], "--ensemble"),
    "shard": (["{photos}", "--shard", "1/2"], "--shard"),
    "the same name twice": (["{photos}", "{photos}", "--output", "sr"], "would both be written"),
    "only junk": (["{junk}"], "none of 1 files"),
    "another's picture": (["{photos}", "--output", "{taken}"], "a.png: exists already"),
    "other settings": (["{photos}", "--output", "{made}", "--set", "sampler.seed=1"],
                       "other settings (sampler.seed differ")}


@pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["run", "dry-run"])
@pytest.mark.parametrize("words, told", REFUSED.values(), ids=REFUSED)
def test_bad_input_is_one_line_and_nothing_written(photos, made, checkpoint, tmp_path, monkeypatch,
                                                   capsys, words, told, dry):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    for name in ("taken/a.png", "junk.png", "x.gif", "file"):
        (tmp_path / name).write_bytes(b"GIF89a")
    places = {"photos": photos, "file": "file", "gif": "x.gif", "junk": "junk.png",
              "taken": "taken", "made": made}
    before = sorted(tmp_path.rglob("*")), contents(made)
    assert main([word.format(**places) for word in words] + dry
                + ["--checkpoint", str(checkpoint)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert told.format(**places) in lines[-1] and lines[-1].startswith("swinmpi: "), lines
    assert (sorted(tmp_path.rglob("*")), contents(made)) == before


def test_names_that_would_meet_keep_their_suffix(photos, checkpoint, tmp_path):
    (tmp_path / "in").mkdir()
    image = Image.fromarray(smooth_stack(1, 8, 8, 3, "uint8")[0])
    for name in ("x.jpg", "x.png", "y.webp"):
        image.save(tmp_path / "in" / name)
    assert main(arguments(tmp_path / "in", tmp_path / "sr", checkpoint)) == 0
    assert sorted(contents(tmp_path / "sr")) == ["x.jpg.png", "x.png", "y.png"]


def test_overwrite_begins_afresh(photos, made, checkpoint, tmp_path):
    output = tmp_path / "sr"
    command = arguments(photos, output, checkpoint)
    assert main([*command, "--set", "sampler.seed=1"]) == 0
    assert contents(output) != contents(made)
    assert main(command) == 2
    assert main([*command, "--overwrite"]) == 0
    assert contents(output) == contents(made)


def test_a_folder_of_hdf5_files_with_a_broken_one(checkpoint, tmp_path, capsys):
    for name in ("x/s.h5", "y/s.h5"):
        (tmp_path / "in" / name).parent.mkdir(parents=True)
        write_stack(tmp_path / "in" / name, smooth_stack(2, 14, 18))
    (tmp_path / "in/half.h5").write_bytes((tmp_path / "in/x/s.h5").read_bytes()[:900])
    command = arguments(tmp_path / "in", tmp_path / "sr", checkpoint)
    assert main(command) == 3
    assert "in/half.h5: cannot be read (the HDF5 file is truncated" in capsys.readouterr().err
    assert sorted(contents(tmp_path / "sr")) == ["x/s_x2.h5", "y/s_x2.h5"]
    assert main([*command, "--overwrite"]) == 3
    (tmp_path / "only").mkdir()
    (tmp_path / "in/half.h5").rename(tmp_path / "only/half.h5")
    assert main(arguments(tmp_path / "only", tmp_path / "none", checkpoint)) == 2
    assert not (tmp_path / "none").exists()


def test_a_folder_may_be_named_for_one_stack(checkpoint, tmp_path):
    stack = write_stack(tmp_path / "x.h5", smooth_stack(2, 14, 18))
    assert main(arguments(stack, f"{tmp_path}/sr/", checkpoint)) == 0
    assert sorted(contents(tmp_path / "sr")) == ["x_x2.h5"]


def test_what_was_made_before_is_no_input(photos, checkpoint, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.png").write_bytes((photos / "a.png").read_bytes())
    write_stack(tmp_path / "in/s.h5", smooth_stack(1, 14, 18))
    for output in ("in/sr", "in/again", "in"):
        assert main(arguments(tmp_path / "in", tmp_path / output, checkpoint)) == (
            2 if output == "in" else 0)
    assert main(arguments(tmp_path / "in/s.h5", f"{tmp_path}/in/", checkpoint)) == 0
    capsys.readouterr()
    assert main(arguments(tmp_path / "in", tmp_path / "sr", checkpoint)) == 0
    assert sorted(contents(tmp_path / "sr")) == ["a.png", "s_x2.h5"]
    told = capsys.readouterr().err
    assert all(name in told for name in ("in/again", "in/sr", "in/s_x2.h5"))


def test_links_in_a_folder(photos, checkpoint, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for name, target in (("away", photos / "deep"), ("back", "."), ("gone.png", "nowhere.png"),
                         ("a.png", photos / "a.png")):
        (tmp_path / "in" / name).symlink_to(target)
    assert main(arguments(tmp_path / "in", tmp_path / "sr", checkpoint)) == 3
    assert "gone.png: cannot be read (No such file" in capsys.readouterr().err
    assert sorted(contents(tmp_path / "sr")) == ["a.png", "away/e.png"]


def test_what_gdal_calls_no_data_stays(checkpoint, tmp_path):
    image = smooth_stack(1, 14, 18, 1, "float32")[0]
    image[3:6, 4:9] = -9999
    tifffile.imwrite(tmp_path / "dem.tif", image, extratags=[(42113, "s", 0, "-9999", True)])
    assert main(arguments(tmp_path / "dem.tif", tmp_path / "sr", checkpoint)) == 0
    with tifffile.TiffFile(tmp_path / "sr/dem.tif") as tiff:
        sr = tiff.asarray()
        assert tiff.pages[0].tags[42113].value.strip() == "-9999"
    np.testing.assert_array_equal(sr == -9999, np.kron(image == -9999, np.ones((2, 2), bool)))
    assert -50 < sr[sr != -9999].min()


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_12_bit_beside_16_bit_is_told(checkpoint, tmp_path, capsys, more):
    """Both keep their values, mapped by one range; the dim one gets detail for dim pictures."""
    folder = tmp_path / "photos"
    folder.mkdir()
    grey = smooth_stack(1, 14, 18, 1, "uint16")[0]
    tifffile.imwrite(folder / "full.tif", grey)
    tifffile.imwrite(folder / "half.tif", grey // 2)
    tifffile.imwrite(folder / "small.tif", grey[:10] // 16)
    assert main([*arguments(folder, tmp_path / "sr", checkpoint), *more]) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "of the range of all" in line]
    assert len(said) == 1 and "small.tif: less than 10%" in said[0] and "half" not in said[0]


def test_16_bit_grey_with_alpha(checkpoint, tmp_path):
    grey = smooth_stack(1, 14, 18, 1, "uint16")[0]
    pixels = Pixels(grey[..., None], grey // 2)
    (tmp_path / "x.png").write_bytes(b"".join(encode_png(pixels, PngDetails())))
    assert main(arguments(tmp_path / "x.png", tmp_path / "sr", checkpoint)) == 0
    sr = read_page(tmp_path / "sr/x.png")
    assert sr.colour.shape == (28, 36, 1) and sr.colour.dtype == sr.alpha.dtype == np.uint16


def test_several_hdf5_files_become_several(checkpoint, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for name in ("x", "y"):
        write_stack(tmp_path / "in" / f"{name}.h5", smooth_stack(2, 14, 18, seed=ord(name)))
    assert main(arguments(tmp_path / "in", tmp_path / "sr", checkpoint)) == 0
    assert main(arguments(tmp_path / "in" / "x.h5", tmp_path / "alone.h5", checkpoint)) == 0
    assert sorted(path.name for path in (tmp_path / "sr").iterdir()) == ["x_x2.h5", "y_x2.h5"]
    np.testing.assert_array_equal(sr_of(tmp_path / "sr" / "x_x2.h5"), sr_of(tmp_path / "alone.h5"))
    assert main(arguments(tmp_path / "in", tmp_path / "sr", checkpoint)) == 0, "nothing to do"
    assert "was made by this command before" in capsys.readouterr().err


def test_what_a_kill_left_beside_a_finished_file_goes(checkpoint, tmp_path, capsys, monkeypatch):
    """Between its renaming and the removal of OUT.partial; one of another run stays."""
    (tmp_path / "in").mkdir()
    write_stack(tmp_path / "in" / "x.h5", smooth_stack(2, 14, 18))
    command = arguments(tmp_path / "in", tmp_path / "sr", checkpoint)
    left = tmp_path / "sr" / "x_x2.h5.partial"
    for more, stays in (("sampler.steps=3", False), ("sampler.seed=5", True)):
        shutil.rmtree(tmp_path / "sr", ignore_errors=True)
        with monkeypatch.context() as patched:
            patched.setattr(stack_output, "remove", lambda _: "left")
            assert main([*command, "--set", more]) == 0
        partial = left.read_bytes()
        if stays:
            left.unlink()
            assert main([*command, "--overwrite"]) == 0
            left.write_bytes(partial)
        capsys.readouterr()
        assert main(command) == 0
        assert ("is removed" in capsys.readouterr().err) != stays
        assert left.exists() == stays


def test_several_hdf5_files_of_other_settings(checkpoint, tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("x", "y"):
        write_stack(tmp_path / "in" / f"{name}.h5", smooth_stack(2, 14, 18, seed=ord(name)))
    assert main(arguments(tmp_path / "in", tmp_path / "sr", checkpoint)) == 0
    assert main(arguments(tmp_path / "in", tmp_path / "sr", checkpoint, "sampler.seed=1")) == 2
    with h5py.File(tmp_path / "sr" / "y_x2.h5") as file:
        assert file["entry/data/sr"].shape == (2, 28, 36)
