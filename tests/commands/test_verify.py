"""swinmpi-verify: what it made again has the bytes that are stored, and what has not is told, with
how far off it is."""
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from swinmpi.cli import merge, sample, verify
from swinmpi.config import dump_yaml, load_config
from swinmpi.config.strict_yaml import parse_yaml
from tests.support.sampling import arguments, smooth_stack, write_checkpoint, write_stack


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("model") / "model.safetensors")


@pytest.fixture(scope="module")
def plain(checkpoint, tmp_path_factory) -> Path:
    """A folder with out.h5 of in.h5."""
    folder = tmp_path_factory.mktemp("plain")
    write_stack(folder / "in.h5", smooth_stack(5, 20, 16, 3))
    assert sample.main(arguments(folder / "in.h5", folder / "out.h5", checkpoint)) == 0
    return folder


@pytest.fixture
def copied(plain) -> None:
    """The files of `plain`, here; what is recorded of them is that they lie here."""
    for name in ("in.h5", "out.h5"):
        shutil.copy(plain / name, name)
    change_process(input="in.h5::/images")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def make(checkpoint: Path, *settings: str, images: np.ndarray | None = None) -> None:
    """out.h5 of in.h5."""
    images = smooth_stack(5, 20, 16, 3) if images is None else images
    write_stack(Path("in.h5"), images)
    assert sample.main(arguments(Path("in.h5"), Path("out.h5"), checkpoint, *settings)) == 0


def change_process(**entries) -> None:
    with h5py.File("out.h5", "r+") as file:
        for path, value in entries.items():
            name = f"entry/process/{path.replace('__', '/')}"
            del file[name]
            if value is not None:
                file[name] = value


def lines_of(capsys, code: int, *argv: str) -> list[str]:
    """What a run prints that ends with `code`, on both streams."""
    capsys.readouterr()
    assert verify.main(["out.h5", *argv]) == code
    captured = capsys.readouterr()
    return (captured.out + captured.err).splitlines()


def holed(dtype: str = ">f4") -> np.ndarray:
    images = smooth_stack(3, 20, 16, 1, "float32")
    images[1, 4:9, 2:7] = np.nan
    return images.astype(dtype)


@pytest.mark.parametrize("settings, images", [
    ((), None), (("--ensemble=3", "output.members=true", "output.regression=true"), None),
    (("parallel.exchange=torus", "output.consistent=0.5"), None), ((), holed()),
    (("data.axes=tzyx", "--frames=1:"), smooth_stack(6, 20, 16, 1).reshape(3, 2, 20, 16)),
    (("data.axes=yxt", "data.no_data=0"), np.moveaxis(smooth_stack(4, 20, 16, 1), 0, -1)),
    (("output.value_range=[-1, 70000]", "sampler.seed=7", "parallel.micro_batch=2"), None)])
def test_what_was_made_is_the_same_again(checkpoint, capsys, settings, images):
    make(checkpoint, *settings, images=images)
    before = Path("out.h5").read_bytes()
    found = lines_of(capsys, 0)
    assert len(found) == 3 and all("the same bytes (sr" in line for line in found)
    assert "member_2" in found[0] or "--ensemble=3" not in settings
    assert Path("out.h5").read_bytes() == before and sorted(map(str, Path().iterdir())) == [
        "in.h5", "out.h5"]


@pytest.mark.parametrize("name", ["sr", "sr_mean", "sr_spread", "member_1"])
def test_a_changed_value_is_found_and_told(checkpoint, capsys, name):
    make(checkpoint, "--ensemble=2", "output.members=true")
    with h5py.File("out.h5", "r+") as file:
        dataset = file["entry/data"][name]
        dataset[4, 3, 5, 0] = dataset[4, 3, 5, 0] + (64 if dataset[4, 3, 5, 0] < 60000 else -64)
    first, middle, last, said = lines_of(capsys, 1)
    assert first.startswith("image 0: the same") and "the same" in middle
    assert f"image 4: {name} differs in 1 of" in last and "by up to 64" in last
    assert "1 of 3 images" in said and "image 4" in said
    assert len(lines_of(capsys, 0, "--frames", "0,1")) == 2
    assert len(lines_of(capsys, 1, "--images", "9")) == 6


def test_which_images_is_told_and_always_the_same(copied, capsys):
    told = lines_of(capsys, 0, "--dry-run", "--images", "4")
    assert [line.split()[0] for line in told] == ["output", "made", "checkpoint", "made", "images"]
    assert told == lines_of(capsys, 0, "--dry-run", "--images", "4")
    assert told[-1].startswith("images      0, ") and told[-1].endswith("4 of 5")
    assert lines_of(capsys, 0, "--dry-run", "--images", "1")[-1] == "images      0 of 5"


def test_another_machine_is_no_change_where_the_bytes_are_the_same(copied, capsys):
    change_process(machine__torch="1.0")
    assert len(lines_of(capsys, 0)) == 3


@pytest.mark.parametrize("off, code", [(3, 2), (9000, 1)])
def test_on_another_machine_a_small_difference_decides_nothing(copied, capsys, off, code):
    change_process(machine__torch="1.0")
    with h5py.File("out.h5", "r+") as file:
        pixel = file["entry/data/sr"]
        pixel[0, 0, 0, 0] = pixel[0, 0, 0, 0] + (off if pixel[0, 0, 0, 0] < 50000 else -off)
    lines = lines_of(capsys, code)
    assert ("torch was 1.0, here it is" in lines[0]) == (code == 2)


def test_an_output_that_tells_less_is_verified_all_the_same(copied, capsys):
    change_process(machine=None, input_identity=None)
    assert "the same" in lines_of(capsys, 0)[0]
    assert "does not tell which machine" in lines_of(capsys, 0, "--dry-run")[3]


def gone():
    Path("in.h5").rename("elsewhere.h5")


def other_input():
    write_stack(Path("in.h5"), smooth_stack(5, 20, 16, 3, seed=4))


def other_size():
    change_process(input_identity=None)
    write_stack(Path("in.h5"), smooth_stack(5, 24, 16, 3))


def other_program():
    change_process(program="another")


def unknown_setting():
    with h5py.File("out.h5") as file:
        settings = parse_yaml(file["entry/process/configuration"].asstr()[()])
    text = dump_yaml(load_config(base=settings)).replace("noise_scale", "noise_size")
    change_process(configuration=text, version="9.9")


@pytest.mark.parametrize("entries", [
    {"ensemble": "many"}, {"ensemble": -3}, {"value_range": [1.0]}, {"configuration": "sampler: 3"},
    {"configuration": "[]"}, {"input_identity": "{"}, {"checkpoint": 5, "checkpoint_sha256": 5},
    {"value_range": [5.0, 1.0]}])
def test_what_an_output_says_is_not_believed_blindly(copied, capsys, entries):
    change_process(**entries)
    assert len(lines_of(capsys, 2)) == 1


def test_a_tomogram(checkpoint, capsys):
    """Darks and flats are left out, or enlarged without the network."""
    write_stack(Path("in.h5"), smooth_stack(6, 20, 16, 1))
    with h5py.File("in.h5", "r+") as file:
        detector = file.create_group("entry/instrument/detector")
        detector["data"], detector["image_key"] = file["images"][()], [2, 1, 0, 0, 0, 1]
        del file["images"]
        for group, kind in (("entry", "NXentry"), ("entry/instrument", "NXinstrument"),
                            ("entry/instrument/detector", "NXdetector")):
            file[group].attrs["NX_class"] = kind
        file["entry/definition"] = "NXtomo"
    for calibration, total in (("skip", 3), ("bicubic", 6)):
        assert sample.main(["in.h5", "--output", "out.h5", "--checkpoint", str(checkpoint), "--set",
                            f"data.calibration={calibration}", "--overwrite"]) == 0
        assert len(lines_of(capsys, 0, "--frames", "0:")) == total


@pytest.mark.parametrize("name", ["sr_mean", "regression"])
def test_another_data_set_of_the_file_means_all_of_it(checkpoint, capsys, name):
    make(checkpoint, "--ensemble=2", "output.regression=true")
    capsys.readouterr()
    assert verify.main([f"out.h5::/entry/data/{name}"]) == 0
    assert "(sr, regression, sr_mean, sr_spread)" in capsys.readouterr().out


@pytest.mark.parametrize("change, argv, said", [
    (gone, (), "name it with --input"), (other_input, (), "holds other images"),
    (other_size, (), "name what it was made of with --input"),
    (other_program, (), "expected an output of swinmpi-sample"),
    (unknown_setting, (), "use swinmpi 9.9"),
    (lambda: change_process(checkpoint_sha256="0" * 64), (), "expected the checkpoint with SHA"),
    (lambda: None, ("--checkpoint", "nothing.safetensors"), "got nothing there"),
    (lambda: None, ("--images", "0"), "at least 1"),
    (lambda: None, ("--frames", "7"), "indices of 5 frames"),
    (lambda: None, ("--input", "missing.h5"), "missing.h5")])
def test_what_cannot_be_compared_is_one_line(copied, capsys, change, argv, said):
    change()
    (line,) = lines_of(capsys, 2, *argv)
    assert said in line
    assert lines_of(capsys, 2, *argv, "--dry-run") == [line]


def test_what_was_moved_is_found_or_named(checkpoint, capsys):
    shutil.copy(checkpoint, "mine.safetensors")
    make(Path("mine.safetensors"))
    Path("moved").mkdir()
    for name in ("in.h5", "out.h5", "mine.safetensors"):
        Path(name).rename(f"moved/{name}")
    assert verify.main(["moved/out.h5"]) == 0
    Path("moved/in.h5").rename("scan.h5")
    assert verify.main(["moved/out.h5"]) == 2
    assert verify.main(["moved/out.h5", "--input", "scan.h5"]) == 0


def test_a_shipped_model_is_found_by_its_name(capsys):
    write_stack(Path("in.h5"), smooth_stack(2, 20, 16, 3, "uint8"))
    assert sample.main(["in.h5", "--output", "out.h5", "--model", "bicubic_x3"]) == 0
    change_process(checkpoint="/installed/elsewhere/bicubic_x3.safetensors")
    assert len(lines_of(capsys, 0)) == 2


def test_shards_and_what_is_merged_of_them(checkpoint, capsys):
    write_stack(Path("in.h5"), smooth_stack(5, 20, 16, 3))
    parts = [f"out.shard-{number}-of-2.h5" for number in (1, 2)]
    for number in (1, 2):
        assert sample.main(arguments(Path("in.h5"), Path("out.h5"), checkpoint,
                                     f"--shard={number}/2")) == 0
    assert verify.main([parts[1]]) == 0
    assert merge.main([*parts, "--output", "out.h5"]) == 0
    assert len(lines_of(capsys, 0)) == 3
    assert merge.main([*parts, "--output", "out.h5", "--virtual", "--overwrite"]) == 0
    assert "--allow-external" in lines_of(capsys, 2)[0]
    assert len(lines_of(capsys, 0, "--allow-external")) == 3


def test_an_image_that_was_given_up_is_not_compared(checkpoint, capsys):
    from tests.commands.test_sample_io import damage
    write_stack(Path("in.h5"), smooth_stack(3, 20, 16, 3), chunks=(1, 20, 16, 3),
                compression="gzip")
    damage(Path("in.h5"), 1)
    assert sample.main(arguments(Path("in.h5"), Path("out.h5"), checkpoint)) == 3
    assert len(lines_of(capsys, 0)) == 2
    *found, said = lines_of(capsys, 2, "--frames", "0,1")
    assert "given up" in "".join(found) and "1 of 2 images could not" in said


@pytest.fixture
def pictures(checkpoint) -> Path:
    """sr/ of photos/: two sizes, one of them in a folder with an alpha, one JPEG."""
    Path("photos/deep").mkdir(parents=True)
    for name, size in (("a.png", (20, 16)), ("b.jpg", (20, 16)), ("deep/c.png", (16, 18))):
        image = smooth_stack(1, *size, 4 if "deep" in name else 3, "uint8")[0]
        Image.fromarray(image).save(f"photos/{name}")
    assert sample.main(arguments(Path("photos"), Path("sr"), checkpoint)) == 0
    return Path("sr")


def test_a_folder_of_pictures(pictures, capsys):
    assert verify.main(["sr", "--dry-run"]) == 0
    capsys.readouterr()
    assert verify.main(["sr/"]) == 0
    told = capsys.readouterr().out
    assert told.count("the same bytes (sr)") == 2 and told.count("the same bytes (sr, alpha)") == 1
    changed = np.asarray(Image.open("sr/deep/c.png")).copy()
    changed[0, 0, 0] ^= 16
    Image.fromarray(changed).save("sr/deep/c.png")
    assert verify.main(["sr"]) == 1
    assert "photos/deep/c.png: sr differs in 1 of" in capsys.readouterr().out
    Image.fromarray(smooth_stack(1, 20, 16, 3, "uint8", seed=9)[0]).save("photos/a.png")
    assert verify.main(["sr", "--frames", "0"]) == 2
    assert "another picture now" in capsys.readouterr().out


@pytest.mark.parametrize("name, change, told", [
    ("deep/c.png", lambda image: image ^ np.uint8([0, 0, 0, 1]),
     "c.png: alpha differs in 1152 of 1152"),
    ("deep/c.png", lambda image: image[..., :3], "c.png: alpha is missing"),
    ("a.png", lambda image: np.dstack([image, np.full(image.shape[:2], 255, np.uint8)]),
     "a.png: alpha is there, but was not made")])
def test_what_is_seen_through_is_compared_as_well(pictures, capsys, name, change, told):
    image = np.asarray(Image.open(pictures / name))
    Image.fromarray(change(image)).save(pictures / name)
    assert verify.main(["sr"]) == 1
    assert told in capsys.readouterr().out


def test_a_folder_that_is_none_of_ours(capsys):
    Path("empty").mkdir()
    assert verify.main(["empty"]) == 2 and verify.main(["missing.h5"]) == 2
    assert capsys.readouterr().err.count("\n") == 2


@pytest.mark.parametrize("num_ranks", [2, 3])
def test_any_number_of_ranks_finds_the_same(mpirun, checkpoint, num_ranks, capsys):
    make(checkpoint, "--ensemble=2")
    wanted = lines_of(capsys, 0)
    done = mpirun(num_ranks, "-m", "swinmpi.cli.verify", "out.h5")
    assert done.code == 0 and done.out.splitlines() == wanted
    with h5py.File("out.h5", "r+") as file:
        file["entry/data/sr"][0] = 0
    done = mpirun(num_ranks, "-m", "swinmpi.cli.verify", "out.h5")
    assert done.code == 1 and done.err.count("\n") == 1
