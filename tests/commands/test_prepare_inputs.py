"""What swinmpi-prepare is given: the same pixels as TIFF and HDF5, lists, own LR images, and what a
dry run says of them."""
import codecs

import h5py
import numpy as np
import pytest
import tifffile
from PIL import Image

from swinmpi.cli.prepare import main
from swinmpi.storage.locking import open_locked

SMALL = ["--set=data.size_px=16", "--set=data.crops_per_image=3", "--set=data.channels=1"]


def run(*arguments):
    return main([str(argument) for argument in arguments])


def noise(*shape, top=200, seed=0):
    return np.random.default_rng(seed).integers(0, top, shape)


def stack(path, images):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["x"] = images
    return path


def picture(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, image, photometric="rgb" if image.shape[2:] == (3,)
                         else "minisblack")
    else:
        Image.fromarray(image).save(path)
    return path


def enlarged(image):
    return image.repeat(2, -2).repeat(2, -1)


def contents(path):
    """Pixels, splits and what is told of the values."""
    with h5py.File(path) as file:
        return ({name: (file[name].dtype, file[name].shape, file[name][:].tobytes())
                 for name in ("hr", "lr", "split")},
                file.attrs["value_range"].tolist(), file.attrs["value_dtype"])


def both_ways(*arguments):
    """The exit code of a run; a dry run before it has the same, or 0 where some are skipped."""
    dry = run(*arguments, "--dry-run")
    code = run(*arguments)
    assert dry == (0 if code == 3 else code)
    return code


@pytest.mark.parametrize(("dtype", "shape", "top"), [
    ("u1", (4, 20, 24), 255), ("u2", (4, 20, 24), 4096), ("u2", (4, 20, 24, 3), 4096),
    ("f4", (4, 20, 24), 4096), ("i2", (4, 20, 24), 3000), ("u1", (4, 20, 24, 3), 255)])
@pytest.mark.parametrize("more", [[], ["--set=data.psf_px=[0.5, 2]", "--set=data.photons=99"]])
def test_the_same_pixels_give_the_same_pairs(tmp_path, dtype, shape, top, more):
    images = noise(*shape, top=top).astype(dtype)
    if dtype == "f4":
        images = images / np.float32(7)
        images[1, 3:6, 3:6] = np.nan
    channels = f"--set=data.channels={3 if len(shape) == 4 else 1}"
    for number, image in enumerate(images):
        picture(tmp_path / "folder" / f"{number}.tif", image)
    inputs = [stack(tmp_path / "x.h5", images), tmp_path / "folder",
              picture(tmp_path / "pages.tif", images) if len(shape) == 3 else tmp_path / "folder"]
    made = []
    for number, text in enumerate(inputs):
        output = tmp_path / f"out{number}.h5"
        assert run(text, "--output", output, *SMALL, channels, *more) == 0
        made.append(contents(output))
    assert made[0] == made[1] == made[2]
    if dtype == "u2":
        assert made[0][1][1] < 4096


LISTS = {
    "bom.tsv": codecs.BOM_UTF8 + b"path\treduce\tsplit\r\np/a.png\t1\ttrain\r\n"
                                 b"x.h5\t1\tvalidate\r\n",
    "bom.txt": codecs.BOM_UTF8 + b"p/a.png\r\n\r\n# a remark\r\nx.h5::/x\r\n",
    "wide.txt": codecs.BOM_UTF16_LE + "p/a.png\nx.h5\n".encode("utf-16-le"),
    "header.txt": b"split\tpath\ntrain\tp/a.png\nvalidate\tx.h5\n",
}


@pytest.mark.parametrize("name", LISTS)
def test_lists_of_pictures_and_stacks(tmp_path, name):
    picture(tmp_path / "p" / "a.png", noise(20, 24).astype("u1"))
    stack(tmp_path / "x.h5", noise(2, 20, 24).astype("u1"))
    (tmp_path / name).write_bytes(LISTS[name])
    assert both_ways(tmp_path / name, "--output", tmp_path / "out.h5", *SMALL) == 0
    with h5py.File(tmp_path / "out.h5") as file:
        names = dict.fromkeys(file["source"].asstr()[:])
        split = file["split"][:].tolist()
    assert list(names) == ["p/a.png", "x.h5::/x[0]", "x.h5::/x[1]"]
    if name in ("bom.tsv", "header.txt"):
        assert split == [0] * 3 + [1] * 6


@pytest.mark.parametrize(("content", "words"), [
    ("", "at least one image"), ("lost.png\n", "none of its 1 files"),
    ("split\tpath\ntrain\n", ":2: expected the path")])
def test_lists_that_name_nothing(tmp_path, capsys, content, words):
    (tmp_path / "list.txt").write_text(content)
    assert both_ways(tmp_path / "list.txt", "--output", tmp_path / "out.h5", *SMALL) == 2
    assert words in capsys.readouterr().err


def test_frames_of_a_folder_of_stacks(tmp_path, capsys):
    for name in ("a.h5", "b.nxs"):
        stack(tmp_path / "s" / name, noise(3, 20, 24).astype("u1"))
    assert both_ways(tmp_path / "s", "--frames", "-1:", "--output", tmp_path / "o.h5", *SMALL) == 0
    with h5py.File(tmp_path / "o.h5") as file:
        assert set(file["source"].asstr()[:]) == {"a.h5::/x[2]", "b.nxs::/x[2]"}
    picture(tmp_path / "p" / "a.png", noise(20, 24).astype("u1"))
    assert both_ways(tmp_path / "p", "--frames", "0", "--output", tmp_path / "q.h5", *SMALL) == 2
    assert "expected an HDF5 stack for --frames" in capsys.readouterr().err


def own(tmp_path, hr="hr", lr="lr"):
    return [tmp_path / hr, "--lr", tmp_path / lr, "--output", tmp_path / "out.h5", *SMALL]


def assert_pairs_fit(tmp_path):
    with h5py.File(tmp_path / "out.h5") as file:
        np.testing.assert_array_equal(file["hr"][:, ::2, ::2], file["lr"][:])


@pytest.mark.parametrize("names", [
    [("scan-x1.png", "scan-x1.png"), ("scan-x2.png", "scan-x2.png")],
    [("box1.tif", "box1x2.png"), ("box2.tif", "box2_x2.png")],
    [("deep/a.png", "deep/a.tif"), ("a.png", "a.tif")],
    [("a_x2.png", "a.png"), ("b_x2.png", "b.png")]])
def test_own_lr_images_are_found_by_name(tmp_path, names):
    for number, (hr, lr) in enumerate(names):
        image = noise(12, 14, seed=number).astype("u1")
        picture(tmp_path / "lr" / lr, image)
        picture(tmp_path / "hr" / hr, enlarged(image))
    assert both_ways(*own(tmp_path)) == 0
    assert_pairs_fit(tmp_path)


def test_own_lr_stacks_of_a_folder_are_found_by_file(tmp_path, capsys):
    lr = noise(5, 12, 14).astype("u1")
    stack(tmp_path / "hr" / "a.h5", enlarged(lr[:3]))
    stack(tmp_path / "hr" / "b.h5", enlarged(lr[3:]))
    stack(tmp_path / "lr" / "a.h5", lr[:2])
    stack(tmp_path / "lr" / "b.h5", lr[2:])
    assert both_ways(*own(tmp_path)) == 2
    assert "found none for a.h5::/x[2]" in capsys.readouterr().err
    stack(tmp_path / "lr" / "a.h5", lr[:3])
    stack(tmp_path / "lr" / "b.h5", lr[3:])
    assert both_ways(*own(tmp_path)) == 0
    assert_pairs_fit(tmp_path)
    stack(tmp_path / "all.h5", lr)
    assert both_ways(*own(tmp_path, lr="all.h5"), "--overwrite") == 0
    assert_pairs_fit(tmp_path)


def test_own_lr_pages_of_one_tiff_follow_the_order(tmp_path, capsys):
    lr = noise(3, 12, 14).astype("u1")
    picture(tmp_path / "hr.tif", enlarged(lr))
    picture(tmp_path / "other.tif", lr)
    assert both_ways(*own(tmp_path, "hr.tif", "other.tif")) == 0
    assert_pairs_fit(tmp_path)
    picture(tmp_path / "other.tif", lr[:2])
    assert both_ways(*own(tmp_path, "hr.tif", "other.tif"), "--overwrite") == 2
    assert "expected 3 images as in" in capsys.readouterr().err


@pytest.mark.parametrize(("lr", "code", "words"), [
    ({"a.png": (12, 14)}, 2, "found none for b.png, only a.png"),
    ({"a.png": (12, 14), "b.png": (12, 13)}, 3, "expected 2 times its LR image of 13 x 12 px"),
    ({"a.png": (6, 7), "b.png": (6, 7)}, 2, "set data.scale=4"),
    ({"a_x2.png": (12, 14), "ax2.png": (12, 14), "b.png": (12, 14)}, 2,
     "could each be the LR image of a.png"),
    ({"a.png": (12, 14), "b.png": (12, 14), "c.png": (12, 14)}, 0, "have no HR image: c.png"),
])
def test_own_lr_images_that_do_not_fit(tmp_path, capsys, lr, code, words):
    for name in ("a.png", "b.png"):
        picture(tmp_path / "hr" / name, noise(24, 28).astype("u1"))
    for name, size in lr.items():
        picture(tmp_path / "lr" / name, noise(*size).astype("u1"))
    assert both_ways(*own(tmp_path)) == code
    said = capsys.readouterr()
    assert words in said.err
    assert (tmp_path / "out.h5").exists() == (code != 2)


def test_one_lr_image_is_not_taken_twice(tmp_path, capsys):
    for name in ("a.png", "a.tif"):
        picture(tmp_path / "hr" / name, noise(24, 28).astype("u1"))
    picture(tmp_path / "lr" / "a_x2.png", noise(12, 14).astype("u1"))
    assert both_ways(*own(tmp_path)) == 2
    assert "would be the LR image of a.png, a.tif" in capsys.readouterr().err


def test_own_lr_images_of_another_depth_are_refused(tmp_path, capsys):
    picture(tmp_path / "hr" / "a.tif", noise(24, 28, top=4000).astype("u2"))
    picture(tmp_path / "lr" / "a.tif", noise(12, 14).astype("u1"))
    assert both_ways(*own(tmp_path)) == 2
    assert "is uint16, but its LR image uint8; convert" in capsys.readouterr().err


def test_a_dry_run_names_what_a_run_would_skip(tmp_path, capsys):
    for name, size in (("a.png", (20, 24)), ("b.png", (10, 24))):
        picture(tmp_path / "p" / name, noise(*size).astype("u1"))
    (tmp_path / "p" / "c.png").write_bytes(b"no picture")
    command = [tmp_path / "p", "--output", tmp_path / "out.h5", *SMALL]
    assert run(*command, "--dry-run") == 0
    told = capsys.readouterr().out
    assert "skipped  2 of them: b.png: 24 x 10 px shrunk by 1 is smaller" in told
    assert "c.png: cannot be read" in told and "range    0 to 255, of 8 bit" in told
    assert run(*command) == 3
    assert run(*command, "--overwrite", "--set=data.size_px=64", "--dry-run") == 2
    assert "none of the 3 images could be used" in capsys.readouterr().err
    assert run(*command, "--lr-only", "--overwrite", "--dry-run") == 0
    assert "skipped  2 of them" in capsys.readouterr().out


def test_a_dry_run_sees_another_run(tmp_path, capsys):
    picture(tmp_path / "p" / "a.png", noise(20, 24).astype("u1"))
    with open_locked(tmp_path / "out.h5.partial", create=True):
        assert both_ways(tmp_path / "p", "--output", tmp_path / "out.h5", *SMALL) == 2
    assert "another run" in capsys.readouterr().err
    assert both_ways(tmp_path / "p", "--output", tmp_path / "out.h5", *SMALL) == 0


def test_a_tiff_with_a_page_that_cannot_be_read_is_named(tmp_path, capsys):
    """Not its first page taken for all."""
    picture(tmp_path / "p" / "a.png", noise(20, 24).astype("u1"))
    with tifffile.TiffWriter(tmp_path / "p" / "b.tif") as writer:
        writer.write(noise(20, 24).astype("u1"))
        writer.write(noise(20, 24).astype("c8"))
    assert both_ways(tmp_path / "p", "--output", tmp_path / "out.h5", *SMALL) == 3
    assert "b.tif: cannot be read" in capsys.readouterr().err
