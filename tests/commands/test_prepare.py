"""swinmpi-prepare on real files: what it cuts, refuses and leaves behind; decoding;
and the file of pairs it writes."""
import json
import os
import signal
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from PIL import Image

from swinmpi.cli.prepare import main
from swinmpi.errors import OutputError, StackError
from swinmpi.images.imresize import imresize
from swinmpi.images.photographs import read_photograph, to_photograph, with_channels, with_depth
from swinmpi.storage.pairs import PairReader, PairWriter
from swinmpi.storage.stack import Stack

SMALL = ["--set", "data.size_px=16", "--set", "data.crops_per_image=3"]


def noise(*shape, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def png16(image, colour_type):
    """A 16-bit PNG written from the format's definition, because Pillow cannot
    write one in colour."""
    def chunk(kind, body):
        return (struct.pack(">I", len(body)) + kind + body
                + struct.pack(">I", zlib.crc32(kind + body)))
    header = struct.pack(">IIBBBBB", image.shape[1], image.shape[0], 16, colour_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in image)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows))
            + chunk(b"IEND", b""))


@pytest.fixture
def folder(tmp_path):
    """Four sound images in three formats, two of them deeper in the tree, and files that
    are not images."""
    root = tmp_path / "photos"
    (root / "deep" / "er").mkdir(parents=True)
    for name, seed in (("b.png", 1), ("a.webp", 2), ("deep/c.tif", 3), ("deep/er/d.jpg", 4)):
        Image.fromarray(noise(30, 40, 3, seed=seed)).save(
            root / name, **({"lossless": True} if "webp" in name else {}))
    (root / "notes.txt").write_text("no image")
    (root / ".hidden.png").write_text("no image")
    return root


def run(*arguments):
    return main([str(argument) for argument in arguments])


def test_a_folder_becomes_pairs(folder, tmp_path, capsys):
    output = tmp_path / "pairs.h5"
    assert run(folder, "--output", output, *SMALL, "--set", "data.validate_share=0.25") == 0
    assert "9 pairs to train, 3 to validate" in capsys.readouterr().out
    with PairReader(output) as pairs:
        assert (pairs.num_images, pairs.size_px, pairs.channels, pairs.scale,
                pairs.value_max) == (12, 16, 3, 2.0, 255)
        assert sorted([*pairs.train_indices, *pairs.validate_indices]) == list(range(12))
        sources = pairs.file["source"].asstr()[:]
        assert list(dict.fromkeys(sources)) == ["a.webp", "b.png", "deep/c.tif", "deep/er/d.jpg"]
        assert len({sources[i] for i in pairs.validate_indices}) == 1
        whole = read_photograph(folder / "b.png")
        for index in range(12):
            hr, lr = pairs.read_pair(index)
            np.testing.assert_array_equal(lr, imresize(hr, scale=0.5))
            assert sources[index] != "b.png" or contains(whole, hr)
        attributes = dict(pairs.file.attrs)
        assert (attributes["scale"], attributes["kernel"],
                attributes["seed"]) == (2.0, "bicubic", 0)
        assert json.loads(attributes["data_config"])["size_px"] == 16
    assert sorted(os.listdir(tmp_path)) == ["pairs.h5", "photos"]


def contains(image, part):
    windows = np.lib.stride_tricks.sliding_window_view(image, part.shape)
    return (windows == part).all(axis=(-1, -2, -3)).any()


def test_pairs_follow_the_seed(folder, tmp_path):
    def hr(name, *settings):
        assert run(folder, "--output", tmp_path / name, *SMALL, *settings) == 0
        with PairReader(tmp_path / name) as pairs:
            return pairs.hr[:]
    first = hr("1.h5")
    np.testing.assert_array_equal(first, hr("2.h5"))
    assert not np.array_equal(first, hr("3.h5", "--set", "data.seed=1"))
    assert (tmp_path / "1.h5").read_bytes() == (tmp_path / "2.h5").read_bytes()


def test_crops_of_an_image_do_not_depend_on_the_others(folder, tmp_path):
    run(folder, "--output", tmp_path / "before.h5", *SMALL)
    (folder / "b.png").write_bytes(b"broken")
    assert run(folder, "--output", tmp_path / "after.h5", *SMALL) == 3
    with PairReader(tmp_path / "before.h5") as before, PairReader(tmp_path / "after.h5") as after:
        kept = before.file["source"].asstr()[:] != "b.png"
        np.testing.assert_array_equal(before.hr[:][kept], after.hr[:])


def test_broken_and_small_images_are_named_and_skipped(folder, tmp_path, capsys):
    (folder / "deep" / "c.tif").write_bytes((folder / "deep" / "c.tif").read_bytes()[:200])
    Image.fromarray(noise(10, 40, 3)).save(folder / "tiny.png")
    assert run(folder, "--output", tmp_path / "pairs.h5", *SMALL) == 3
    last = capsys.readouterr().err.splitlines()[-1]
    assert (last.startswith("swinmpi: 2 images skipped: deep/c.tif: cannot be read")
            and "tiny.png: 40 x 10 px" in last)
    with PairReader(tmp_path / "pairs.h5") as pairs:
        assert pairs.num_images == 9


def test_whole_images_are_padded_or_cropped(tmp_path):
    (tmp_path / "in").mkdir()
    wide = noise(10, 40, 3)
    Image.fromarray(wide).save(tmp_path / "in" / "wide.png")
    arguments = [tmp_path / "in", "--output", tmp_path / "out.h5", "--set", "data.mode=whole"]
    assert run(*arguments, "--set", "data.size_px=16") == 0
    with PairReader(tmp_path / "out.h5") as pairs:
        expected = np.pad(wide[:, 12:28], ((3, 3), (0, 0), (0, 0)), mode="reflect")
        np.testing.assert_array_equal(pairs.hr[:], expected[None])


def test_list_gives_reduction_and_split(folder, tmp_path):
    smooth = np.linspace(0, 255, 60)[:, None, None] * np.ones((1, 80, 3))
    Image.fromarray(smooth.astype(np.uint8)).save(folder / "ramp.png")
    table = tmp_path / "list.tsv"
    table.write_text(
        "# a "
        "comment\npath\treduce\tsplit\tauthor\nramp.png\t2\ttrain\tme\nb.png\t1\tvalidate\tyou\n")
    settings = ["--root", folder, *SMALL, "--set", "data.validate_crops=5"]
    assert run(table, "--output", tmp_path / "2.h5", *settings) == 0
    with PairReader(tmp_path / "2.h5") as pairs:
        assert (len(pairs.train_indices), len(pairs.validate_indices)) == (3, 5)
        step = np.diff(pairs.hr[0, :, 0, 0].astype(float)).mean()
        assert step == pytest.approx(2 * 255 / 59, rel=0.05)  # shrunk by 2: twice as steep
    assert run(table, "--output", tmp_path / "3.h5", *settings,
               "--set", "data.reduce_spread=1.8") == 0
    with PairReader(tmp_path / "3.h5") as pairs:
        steps = [np.diff(pairs.hr[i, :, 0, 0].astype(float)).mean() / (255 / 59)
                 for i in pairs.train_indices]
        assert (all(1.9 < step < 3.8 for step in steps)
                and len({round(step, 3) for step in steps}) == 3)


def test_small_images_get_fewer_crops(folder, tmp_path):
    Image.fromarray(noise(90, 80, 3)).save(folder / "large.png")
    settings = ("size_px=20", "crops_per_image=30", "coverage=2", "validate_share=0")
    assert run(folder, "--output", tmp_path / "pairs.h5",
               *(f"--set=data.{text}" for text in settings)) == 0
    with PairReader(tmp_path / "pairs.h5") as pairs:
        counts = {name: (pairs.file["source"].asstr()[:] == name).sum()
                  for name in ("b.png", "large.png")}
    assert counts == {"b.png": 6, "large.png": 30}


def test_flat_crops_are_rejected(tmp_path):
    half = np.full((200, 40, 1), 128, np.uint8)
    half[150:] = noise(50, 40, 1)
    (tmp_path / "in").mkdir()
    Image.fromarray(half[..., 0]).save(tmp_path / "in" / "half.png")

    def share_of_flat(reject):
        assert run(tmp_path / "in", "--output", tmp_path / "out.h5",
                   "--overwrite", "--set", "data.size_px=16", "--set", "data.crops_per_image=100",
                   "--set", f"data.flat_reject={reject}") == 0
        with PairReader(tmp_path / "out.h5") as pairs:
            return (pairs.hr[:].std(axis=(1, 2, 3)) == 0).mean()
    # 135 of 185 places are flat: without rejection 73 %, with it .15 * 73 / (27 + .15 * 73) = 29 %
    assert share_of_flat(0.0) == pytest.approx(0.73, abs=0.15)
    assert share_of_flat(0.85) == pytest.approx(0.29, abs=0.15)
    assert share_of_flat(1.0) == 0


def test_an_image_that_is_flat_everywhere_comes_to_an_end(folder, tmp_path, capsys):
    Image.new("RGB", (40, 40), (9, 9, 9)).save(folder / "black.png")
    assert run(folder, "--output", tmp_path / "out.h5", *SMALL,
               "--set", "data.flat_reject=1.0") == 3
    assert "black.png: 100 crops were flat" in capsys.readouterr().err


@pytest.mark.parametrize(("dtype", "shape"), [(np.uint8, (3, 20, 24)), (np.uint8, (3, 20, 24, 3)),
                                              (np.uint16, (3, 20, 24)), (np.float32, (3, 20, 24))])
def test_a_stack_becomes_pairs(tmp_path, dtype, shape):
    images = noise(*shape, dtype=np.uint16 if dtype == np.float32 else dtype).astype(dtype)
    if dtype == np.float32:
        images = images / 7 - 100
        images[1, 4, 5] = np.nan
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file["scan/images"] = images
    assert run(f"{tmp_path}/in.h5::/scan/images", "--output", tmp_path / "out.h5",
               "--set", "data.mode=whole", "--set", "data.size_px=20",
               "--set", f"data.channels={3 if len(shape) == 4 else 1}") == 0
    with PairReader(tmp_path / "out.h5") as pairs:
        assert pairs.hr.dtype == (np.uint8 if dtype == np.uint8 else np.uint16)
        assert pairs.file["source"].asstr()[0] == "in.h5::/scan/images[0]"
        centre = images[:, :, 2:22].reshape(3, 20, 20, -1)
        if dtype == np.uint8:
            np.testing.assert_array_equal(pairs.hr[:], centre)
        else:
            low, high = np.nanquantile(images, [0.001, 0.999])
            expected = np.clip((centre - low) / (high - low), 0, 1)
            stored = pairs.hr[:] / 65535
            assert np.nanmax(np.abs(stored - expected)) < 0.005


def test_output_is_a_nexus_file(folder, tmp_path):
    run(folder, "--output", tmp_path / "pairs.h5", *SMALL)
    for address, size in (("", 16), ("::/hr", 16), ("::/lr", 8), ("::/entry/data/lr", 8)):
        with Stack.open(f"{tmp_path}/pairs.h5{address}") as stack:
            assert (stack.num_images, stack.height, stack.channels) == (12, size, 3)


REFUSED = [  # what is wrong, arguments, exit code, words of the message
    ("empty folder", ["empty"], 2, "found none"),
    ("nothing there", ["nowhere"], 2, "got nothing there"),
    ("a text file", ["photos/notes.txt"], 2, "another kind of file"),
    ("text named .h5", ["fake.h5"], 2, "fake.h5"),
    ("all broken", ["broken"], 2, "none of the 1 images"),
    ("unknown key", ["photos", "--set", "data.sizes=3"], 2, "unknown key data.sizes"),
    ("wrong type", ["photos", "--set", "data.size_px=many"], 2, "data.size_px"),
    ("no multiple", ["photos", "--set", "data.size_px=17"], 2, "multiple of data.scale"),
    ("no output folder", ["photos", "--output", "fake.h5/out.h5"], 2, "is no folder"),
    ("a picture's name", ["photos", "--output", "out.png"], 2, "name it .h5"),
    ("output exists", ["photos", "--output", "fake.h5"], 2, "--overwrite"),
    ("list without header", ["bad.tsv"], 2, "header line"),
    ("list elsewhere", ["lost.tsv"], 2, "--root"),
    ("list with a bad factor", ["factor.tsv"], 2, "factor.tsv:3: expected a reduce"),
    ("list with a bad split", ["split.tsv"], 2, "split.tsv:2: expected split"),
]


@pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["run", "dry-run"])
@pytest.mark.parametrize(("arguments", "code", "words"),
                         [pytest.param(*case, id=name) for name, *case in REFUSED])
def test_bad_input_is_one_line_and_no_file(folder, tmp_path, monkeypatch, capsys, arguments, code,
                                           words, dry):
    if words.startswith("none of") and dry:
        pytest.skip("a dry run does not decode")
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "broken"):
        Path(name).mkdir()
    for name, text in (("fake.h5", "text"), ("broken/x.png", "text"),
                       ("bad.tsv", "b.png\t1\n"), ("lost.tsv", "path\nb.png\n"),
                       ("factor.tsv", "path\treduce\n\nphotos/b.png\t0.5\n"),
                       ("split.tsv", "path\tsplit\nphotos/b.png\tlater\n")):
        Path(name).write_text(text)
    before = sorted(Path().rglob("*"))
    assert main([*arguments, *([] if "--output" in arguments else ["--output", "out.h5"]),
                 *dry]) == code
    captured = capsys.readouterr()
    assert (words in captured.err.splitlines()[-1]
            and captured.err.splitlines()[-1].startswith("swinmpi: "))
    assert "Traceback" not in captured.err and sorted(Path().rglob("*")) == before


def test_dry_run_prints_the_plan(folder, tmp_path, capsys):
    assert run(folder, "--output", tmp_path / "pairs.h5", *SMALL, "--dry-run") == 0
    printed = capsys.readouterr().out
    assert ("4 images, 1 of them for validation" in printed
            and "at most 12; crop 16 px -> 8 px" in printed)
    assert not (tmp_path / "pairs.h5").exists()


def test_overwrite_replaces_but_never_the_input(folder, tmp_path, capsys):
    output = tmp_path / "pairs.h5"
    output.write_text("old")
    assert run(folder, "--output", output, *SMALL, "--overwrite") == 0
    assert run(f"{output}::/hr", "--output", output, *SMALL, "--overwrite") == 2
    assert "is the input as well" in capsys.readouterr().err


def test_a_stopped_run_leaves_nothing(tmp_path):
    """SIGTERM in the middle: the first image is named as broken, the second one would give
    crops for hours."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "0.png").write_text("broken")
    Image.fromarray(noise(200, 200, 3)).save(tmp_path / "in" / "1.png")
    code = "import sys; from swinmpi.cli.prepare import main; sys.exit(main(sys.argv[1:]))"
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "in"),
                                "--output", str(tmp_path / "out.h5"), "--set=data.size_px=64",
                                "--set=data.crops_per_image=10000000"],
                               stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr.readline().startswith("skipped 0.png")
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (process.returncode, errors) == (143,
                                            "swinmpi: ended by SIGTERM; nothing was written\n")
    assert os.listdir(tmp_path) == ["in"]


def test_a_full_disk_leaves_nothing(tmp_path):
    """The system refuses to let the file grow beyond 300 kB, as a full disk would."""
    (tmp_path / "in").mkdir()
    Image.fromarray(noise(200, 200, 3)).save(tmp_path / "in" / "x.png")
    code = ("import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))\n"
            "from swinmpi.cli.prepare import main; sys.exit(main(sys.argv[1:]))")
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path / "in"),
                          "--output", str(tmp_path / "out.h5"), "--set=data.size_px=100"],
                         capture_output=True, text=True, timeout=60)
    assert (run.returncode == 2 and len(run.stderr.splitlines()) == 1
            and "File too large; free space" in run.stderr)
    assert os.listdir(tmp_path) == ["in"]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bit_tiff_keeps_every_bit(tmp_path, order, compression, channels):
    image = noise(12, 9, channels, dtype=np.uint16)
    tifffile.imwrite(tmp_path / "x.tif", image if channels > 1 else image[..., 0], byteorder=order,
                     compression=compression, photometric="rgb" if channels > 1 else "minisblack",
                     extrasamples=["unassalpha"] if channels == 4 else None)
    np.testing.assert_array_equal(read_photograph(tmp_path / "x.tif"), image[..., :3])


@pytest.mark.parametrize(("colour_type", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_16_bit_png_keeps_every_bit(tmp_path, colour_type, channels):
    image = noise(12, 9, channels, dtype=np.uint16)
    (tmp_path / "x.png").write_bytes(png16(image, colour_type))
    np.testing.assert_array_equal(read_photograph(tmp_path / "x.png"),
                                  image[..., :1 if channels < 3 else 3])


def test_depth_that_cannot_be_kept_is_refused(tmp_path):
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "f.tif")
    Image.fromarray(np.ones((4, 4), np.int32)).save(tmp_path / "i.tif")
    for name in ("f.tif", "i.tif"):
        with pytest.raises(ValueError, match="16"):
            read_photograph(tmp_path / name)


def test_orientation_palette_alpha_and_grey(tmp_path):
    image = noise(6, 8, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side: turn clockwise
    Image.fromarray(image).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(read_photograph(tmp_path / "turned.png"), np.rot90(image, -1))
    Image.fromarray(noise(6, 8, 4)).save(tmp_path / "alpha.png")
    np.testing.assert_array_equal(read_photograph(tmp_path / "alpha.png"), noise(6, 8, 4)[..., :3])
    palette = Image.fromarray(image).quantize(4)
    palette.save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read_photograph(tmp_path / "palette.png"),
                                  np.asarray(palette.convert("RGB")))
    Image.fromarray(image[..., 0]).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_photograph(tmp_path / "grey.png"), image[..., :1])
    Image.fromarray(image[..., 0] > 99).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(read_photograph(tmp_path / "bits.png"),
                                  (image[..., :1] > 99) * np.uint8(255))


def test_mixed_depths_follow_the_first_image_with_a_warning(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    deep, grey = noise(16, 16, 3, dtype=np.uint16), noise(16, 16)
    (tmp_path / "in" / "a.png").write_bytes(png16(deep, 2))
    Image.fromarray(grey).save(tmp_path / "in" / "b.png")
    assert run(tmp_path / "in", "--output", tmp_path / "out.h5", "--set=data.size_px=16",
               "--set=data.mode=whole") == 0
    warning = "b.png is 8-bit grey, the first image is 16-bit RGB; all become 16-bit RGB"
    assert warning in capsys.readouterr().err
    with PairReader(tmp_path / "out.h5") as pairs:
        assert pairs.value_max == 65535
        both = np.stack([deep, np.repeat(grey[..., None].astype(np.uint16) * 257, 3, axis=2)])
        low, high = pairs.value_range
        expected = np.clip((both - low) / (high - low), 0, 1) * 65535
        np.testing.assert_allclose(pairs.hr[:], expected, atol=1)


def test_conversions_of_depth_and_channels():
    deep = np.array([[[0], [128], [257 * 200 + 100], [65535]]], np.uint16)
    assert with_depth(deep, np.dtype(np.uint8)).ravel().tolist() == [0, 0, 200, 255]
    colour = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]], np.uint8)
    assert with_channels(colour, 1).ravel().tolist() == [76, 150, 29, 255]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_shrunk_crop_is_a_crop_of_the_shrunk_image(dtype):
    image = noise(60, 40, 3, dtype=dtype)
    photograph = to_photograph(image)
    np.testing.assert_array_equal(photograph.cut(7, 5, 1.0, 20, 30), image[7:27, 5:35])
    shrunk = photograph.cut(0, 0, 2.0, 30, 20)
    np.testing.assert_array_equal(photograph.cut(8, 4, 2.0, 12, 10), shrunk[4:16, 2:12])


def test_every_page_of_a_tiff_is_an_image(tmp_path):
    pages = noise(3, 20, 24, dtype=np.uint16)
    (tmp_path / "in").mkdir()
    tifffile.imwrite(tmp_path / "in" / "x.tif", pages, photometric="minisblack")
    assert run(tmp_path / "in", "--output", tmp_path / "out.h5", "--set=data.size_px=20",
               "--set=data.mode=whole", "--set=data.channels=1") == 0
    with PairReader(tmp_path / "out.h5") as pairs:
        assert pairs.file["source"].asstr()[:].tolist() == ["x.tif[0]", "x.tif[1]", "x.tif[2]"]
        low, high = pairs.value_range  # of all pages, as of a stack of them
        mapped = (pages[:, :, 2:22].astype(np.float64) - low) / (high - low) * 65535
        np.testing.assert_allclose(pairs.hr[..., 0], mapped.clip(0, 65535), atol=1)


@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
def test_planar_16_bit_colour(tmp_path, compression):
    image = noise(12, 9, 3, dtype=np.uint16)
    tifffile.imwrite(tmp_path / "x.tif", np.moveaxis(image, -1, 0), photometric="rgb",
                     planarconfig="separate", compression=compression)
    np.testing.assert_array_equal(read_photograph(tmp_path / "x.tif"), image)


def test_other_kinds_are_named(folder, tmp_path, capsys):
    for name in ("x.gif", "y.bmp", "deep/z.h5"):
        (folder / name).write_bytes(b"x")
    tifffile.imwrite(folder / "i.tif", noise(20, 20).astype(np.int16))
    assert run(folder, "--output", tmp_path / "out.h5", *SMALL) == 3
    told = capsys.readouterr().err
    assert all(name in told for name in ("x.gif", "y.bmp", "deep/z.h5"))
    assert "i.tif: cannot be read: expected 8 or 16 bit per channel, got int16" in told


def test_a_picture_that_claims_too_much_is_named_and_skipped(folder, tmp_path, capsys):
    row = zlib.compress(b"\0" * 3751) * 1  # 30000 px of 1 bit, and the filter's byte
    header = struct.pack(">IIBBBBB", 30000, 30000, 1, 0, 0, 0, 0)
    body = b"".join(struct.pack(">I", len(data)) + kind + data
                    + struct.pack(">I", zlib.crc32(kind + data))
                    for kind, data in ((b"IHDR", header), (b"IDAT", row), (b"IEND", b"")))
    (folder / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    assert run(folder, "--output", tmp_path / "out.h5", *SMALL) == 3
    assert "bomb.png: cannot be read: 30000 x 30000 px are more than" in capsys.readouterr().err


def test_several_inputs_and_folders_of_stacks(folder, tmp_path):
    (tmp_path / "stacks").mkdir()
    for name in ("b.h5", "a.h5"):
        with h5py.File(tmp_path / "stacks" / name, "w") as file:
            file["x"] = noise(2, 20, 24)
    table = tmp_path / "list.tsv"
    table.write_text("path\nphotos/b.png\n")
    assert run(folder, folder / "deep" / "c.tif", table, tmp_path / "stacks",
               "--output", tmp_path / "out.h5", *SMALL) == 0
    with PairReader(tmp_path / "out.h5") as pairs:
        names = list(dict.fromkeys(pairs.file["source"].asstr()[:]))
    assert [Path(name).name for name in names] == [
        "a.webp", "b.png", "c.tif", "d.jpg", "c.tif", "b.png",
        "x[0]", "x[1]", "x[0]", "x[1]"]


def test_own_lr_images_lie_under_their_hr_images(tmp_path, capsys):
    for name in ("hr", "lr"):
        (tmp_path / name).mkdir()
    for number in range(2):
        lr = noise(12, 15, 3, seed=number)
        Image.fromarray(lr).save(tmp_path / "lr" / f"{number}x2.png")
        Image.fromarray(lr.repeat(2, 0).repeat(2, 1)).save(tmp_path / "hr" / f"{number}.png")
    command = [tmp_path / "hr", "--lr", tmp_path / "lr", "--output", tmp_path / "out.h5", *SMALL]
    assert run(*command) == 0
    with PairReader(tmp_path / "out.h5") as pairs:
        assert pairs.num_images == 6
        np.testing.assert_array_equal(pairs.hr[:], pairs.lr[:].repeat(2, 1).repeat(2, 2))
    (tmp_path / "lr" / "1x2.png").rename(tmp_path / "lr" / "other.png")
    assert run(*command, "--overwrite") == 2
    assert "found none for 1.png" in capsys.readouterr().err
    Image.fromarray(noise(10, 15, 3)).save(tmp_path / "lr" / "1.png")
    assert run(*command, "--overwrite") == 3
    assert "expected 2 times its LR image of 15 x 10 px" in capsys.readouterr().err
    assert run(*command, "--overwrite", "--set=data.mode=whole") == 2


def test_own_lr_stack_has_the_range_of_its_hr_stack(tmp_path):
    lr = noise(2, 12, 15, dtype=np.uint16) // 16
    hr = lr.repeat(2, 1).repeat(2, 2)
    hr[0, 0, :4] = 60000  # another range than that of the LR stack alone
    for name, images in (("hr", hr), ("lr", lr)):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["x"] = images
    assert run(tmp_path / "hr.h5", "--lr", tmp_path / "lr.h5", "--output", tmp_path / "out.h5",
               *SMALL) == 0
    with PairReader(tmp_path / "out.h5") as pairs:
        same = pairs.hr[:] == pairs.lr[:].repeat(2, 1).repeat(2, 2)
        assert same.mean() > 0.99


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_lr_only_makes_a_stack_to_test_with(tmp_path, dtype):
    hr = (noise(3, 20, 24, dtype=np.uint8) * 3.0).astype(dtype)
    with h5py.File(tmp_path / "hr.h5", "w") as file:
        file["x"] = hr
    assert run(tmp_path / "hr.h5", "--lr-only", "--output", tmp_path / "lr.h5") == 0
    with Stack.open(str(tmp_path / "lr.h5")) as stack:
        assert (stack.num_images, stack.height, stack.width, stack.dtype) == (3, 10, 12, dtype)
        np.testing.assert_array_equal(stack.read(1)[0],
                                      imresize(hr[1], scale=0.5).astype(np.float32))


def test_lr_only_of_pictures_names_those_that_do_not_fit(folder, tmp_path, capsys):
    Image.fromarray(noise(31, 40, 3)).save(folder / "odd.png")
    Image.fromarray(noise(10, 40, 3)).save(folder / "small.png")
    assert run(folder, "--lr-only", "--output", tmp_path / "lr.h5", "--dry-run") == 0
    assert run(folder, "--lr-only", "--output", tmp_path / "lr.h5") == 3
    told = capsys.readouterr().err
    assert "odd.png: 40 x 31 px, expected multiples" in told and "small.png" in told
    with Stack.open(str(tmp_path / "lr.h5")) as stack:
        assert (stack.num_images, stack.height, stack.width, stack.channels) == (4, 15, 20, 3)


class TestPairs:
    @pytest.fixture
    def path(self, tmp_path):
        with PairWriter(tmp_path / "pairs.h5", {"scale": 1.5}) as writer:
            for index in range(3):
                writer.append(noise(12, 12, 3, seed=index), noise(8, 8, 3, seed=index), index % 2,
                              f"image {index}")
        return tmp_path / "pairs.h5"

    def test_crops_lie_over_each_other(self, path):
        with PairReader(path) as pairs:
            hr, lr = pairs.read_pair(2)
            hr_crop, lr_crop = pairs.read_crop(2, 2, 4, 4)
            np.testing.assert_array_equal(lr_crop, lr[2:6, 4:8])
            np.testing.assert_array_equal(hr_crop, hr[3:9, 6:12])
            assert pairs.validate_indices.tolist() == [1]
            with pytest.raises(ValueError, match="leaves the LR image"):
                pairs.read_crop(0, 6, 0, 4)
            with pytest.raises(ValueError, match="whole number"):
                pairs.read_crop(0, 1, 0, 4)

    def test_an_exception_leaves_no_file(self, tmp_path):
        with pytest.raises(KeyError), PairWriter(tmp_path / "pairs.h5", {"scale": 2.0}) as writer:
            writer.append(noise(4, 4, 1), noise(2, 2, 1), 0, "x")
            raise KeyError
        assert not os.listdir(tmp_path)

    def test_two_writers_do_not_share_a_file(self, tmp_path):
        (tmp_path / "pairs.h5.partial").write_bytes(b"left by a killed run" * 1000)
        with PairWriter(tmp_path / "pairs.h5", {"scale": 2.0}) as writer:
            with (pytest.raises(OutputError, match="another run"),
                  PairWriter(tmp_path / "pairs.h5", {"scale": 2.0})):
                pass
            writer.append(noise(4, 4, 1), noise(2, 2, 1), 0, "x")
        with PairReader(tmp_path / "pairs.h5") as pairs:
            assert pairs.num_images == 1

    @pytest.mark.parametrize(("change", "words"), [
        (lambda file: file.__delitem__("lr"), "a dataset /lr"),
        (lambda file: file.attrs.__delitem__("scale"), "scale above 1"),
        (lambda file: file.attrs.__setitem__("scale", 2.0), "expected lr of"),
        (lambda file: file["split"].resize(2, axis=0), "split of"),
        (lambda file: (file.move("hr", "x"),
                       file.create_dataset("hr", data=np.zeros((3, 9, 9, 3)))), "uint16, got"),
    ])
    def test_other_files_are_refused(self, path, change, words):
        with h5py.File(path, "r+") as file:
            change(file)
        with pytest.raises(StackError, match=words):
            PairReader(path)

    def test_missing_truncated_and_other_kinds_of_file(self, path, tmp_path):
        (tmp_path / "text.h5").write_text("text")
        path.write_bytes(path.read_bytes()[:-2000])
        for name in ("nothing.h5", "text.h5", "pairs.h5"):
            with pytest.raises(StackError, match="swinmpi-prepare"):
                PairReader(tmp_path / name)
