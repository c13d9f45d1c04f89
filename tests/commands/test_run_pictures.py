"""Every run leaves a picture of itself beside its output, and never fails for it."""
import h5py
import numpy as np
import pytest
from PIL import Image, ImageColor

from swinmpi.cli.merge import main as merge
from swinmpi.cli.sample import main, parser, plan_of
from swinmpi.images.contact_sheet import (
    CLOSEUP_PX,
    GAP_PX,
    MARGIN_PX,
    TILE_PX,
    TITLE_LINE_PX,
    TITLE_PT,
    UNTRUSTED,
    closeup_square,
    cut_closeup,
    is_sheet,
    to_uint8,
)
from swinmpi.sampling.looks.picture import chosen, draw_pictures, picture_of
from swinmpi.storage.pictures.listing import files_below
from tests.support.sampling import arguments, smooth_stack, sr_of, write_checkpoint, write_stack

DRAWN = "output.picture=true"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("model") / "aligned.safetensors",
                            "model.window_px=32")


TOP_PX = MARGIN_PX + TITLE_LINE_PX + GAP_PX + TITLE_PT + 16  # of the first row of tiles


def tile(sheet, column: int) -> np.ndarray:
    """The pixels of a tile of the first row, as large as tiles can be."""
    left = MARGIN_PX + (TILE_PX + GAP_PX) * column
    return np.asarray(sheet)[TOP_PX:TOP_PX + TILE_PX, left:left + TILE_PX]


def test_16_bit_is_stretched_by_the_recorded_range(checkpoint, tmp_path, capsys):
    images = (smooth_stack(3, 24, 24) // 40 + 300).astype("uint16")
    stack = write_stack(tmp_path / "lr.h5", images)
    command = arguments(stack, tmp_path / "sr.h5", checkpoint, DRAWN)
    assert main([*command, "--dry-run"]) == 0
    assert f"picture     {tmp_path / 'sr.png'}\n" in capsys.readouterr().out
    assert main(command) == 0 and "sr.png" in capsys.readouterr().out
    sheet = Image.open(tmp_path / "sr.png")
    assert is_sheet(tmp_path / "sr.png")
    with h5py.File(tmp_path / "sr.h5") as file:
        low, high = file["entry/process/value_range"][()]
    assert high - low < 2000
    sr, lr = (to_uint8(one, low, high).repeat(TILE_PX // len(one), 0).repeat(TILE_PX // len(one), 1)
              for one in (sr_of(tmp_path / "sr.h5")[0], images[0]))
    assert np.array_equal(tile(sheet, 3)[..., 0], sr)
    assert np.array_equal(tile(sheet, 1)[..., 0], lr)


def test_an_ensemble_shows_how_far_its_samples_are_apart(checkpoint, tmp_path):
    stack = write_stack(tmp_path / "lr.h5", smooth_stack(1, 24, 24, 3, "uint8"))
    assert main(arguments(stack, tmp_path / "one.h5", checkpoint, DRAWN)) == 0
    assert main(arguments(stack, tmp_path / "two.h5", checkpoint, DRAWN, "--ensemble=2")) == 0
    one, two = (Image.open(tmp_path / f"{name}.png") for name in ("one", "two"))
    assert two.width - one.width == TILE_PX + GAP_PX
    with h5py.File(tmp_path / "two.h5") as file:
        spread = file["entry/data/sr_spread"][0]
    shown = to_uint8(spread, 0, spread.max()).repeat(6, 0).repeat(6, 1)
    assert np.array_equal(tile(two, 4), shown)


def test_only_a_part_of_a_large_image_is_shown_in_full_resolution(tmp_path):
    """Bicubic is the result of this model: a wrong part would differ."""
    images = smooth_stack(1, 1100, 300, dtype="uint8")
    stack = write_stack(tmp_path / "lr.h5", images)
    assert main([str(stack), "--output", str(tmp_path / "sr.h5"), "--model", "bicubic_x2"]) == 0
    sheet = Image.open(tmp_path / "sr.png")
    bicubic, sr = tile(sheet, 2), tile(sheet, 3)
    assert np.array_equal(bicubic, sr)
    middle = sr_of(tmp_path / "sr.h5")[0, (2200 - 1024) // 2:(2200 + 1024) // 2]
    part = cut_closeup(middle, middle.shape, closeup_square(middle))
    assert part.shape == (CLOSEUP_PX, CLOSEUP_PX)
    assert np.array_equal(sr[::TILE_PX // CLOSEUP_PX, ::TILE_PX // CLOSEUP_PX, 0], part)


def test_a_picture_that_is_there_stays_unless_told_otherwise(checkpoint, tmp_path, capsys):
    stack = write_stack(tmp_path / "lr.h5", smooth_stack(1, 24, 24))
    command = arguments(stack, tmp_path / "sr.h5", checkpoint, DRAWN)
    (tmp_path / "sr.png").write_text("precious")
    assert main([*command, "--dry-run"]) == 0
    assert "sr.png: exists already and stays" in capsys.readouterr().out
    assert main(command) == 0
    assert "sr.png: exists already and stays" in capsys.readouterr().err
    assert (tmp_path / "sr.png").read_text() == "precious"
    assert main([*command, "--overwrite"]) == 0 and is_sheet(tmp_path / "sr.png")
    assert main([*command, "--overwrite", "--set", "output.picture=false"]) == 0
    assert capsys.readouterr().err == ""


def test_a_picture_that_cannot_be_drawn_fails_nothing(checkpoint, tmp_path, capsys):
    stack = write_stack(tmp_path / "lr.h5", smooth_stack(1, 24, 24))
    (tmp_path / "sr.png" / "full").mkdir(parents=True)
    assert main(arguments(stack, tmp_path / "sr.h5", checkpoint, DRAWN, "--overwrite")) == 0
    told = capsys.readouterr()
    assert "sr.png: no picture is drawn" in told.err and told.err.count("\n") == 1
    assert "written: " in told.out and (tmp_path / "sr.h5").exists()


def test_an_input_is_never_drawn_over(checkpoint, tmp_path, capsys):
    """HDF5 is known by its content, whatever it is called."""
    stack = write_stack(tmp_path / "sr.png", smooth_stack(1, 24, 24))
    before = stack.read_bytes()
    assert main(arguments(stack, tmp_path / "sr.h5", checkpoint, DRAWN, "--overwrite")) == 0
    assert "is a file of this run" in capsys.readouterr().err and stack.read_bytes() == before


def test_a_picture_of_the_same_command_is_never_drawn_over(checkpoint, tmp_path, capsys):
    """a.h5 has its picture where that of a_x2.png goes."""
    (tmp_path / "in").mkdir()
    write_stack(tmp_path / "in/a.h5", smooth_stack(1, 24, 24))
    Image.fromarray(smooth_stack(1, 24, 28, 3, "uint8")[0]).save(tmp_path / "in/a_x2.png")
    command = arguments(tmp_path / "in", tmp_path / "sr", checkpoint, DRAWN, "--overwrite")
    for more in (["--dry-run"], []):
        assert main([*command, *more]) == 0
        told = capsys.readouterr()
        assert "a_x2.png: is a file of this run" in told.out + told.err
    assert Image.open(tmp_path / "sr/a_x2.png").size == (56, 48)
    assert is_sheet(tmp_path / "sr/swinmpi.png") and not is_sheet(tmp_path / "sr/a_x2.png")


@pytest.fixture
def shards(checkpoint, tmp_path):
    """The file names of both halves of a run; one.h5 is made at once."""
    stack = write_stack(tmp_path / "lr.h5", smooth_stack(3, 24, 24))
    more = DRAWN, "sampler.steps=1", "--ensemble=2"
    for part in ("1/2", "2/2"):
        assert main(arguments(stack, tmp_path / "sr.h5", checkpoint, *more, f"--shard={part}")) == 0
    assert not list(tmp_path.glob("*.png")), "a shard has none"
    assert main(arguments(stack, tmp_path / "one.h5", checkpoint, *more)) == 0
    return [str(tmp_path / f"sr.shard-{number}-of-2.h5") for number in (1, 2)]


def test_what_is_merged_has_that_of_the_whole(shards, tmp_path, capsys):
    wanted = (tmp_path / "one.png").read_bytes()
    for name, more in (("copied", []), ("virtual", ["--virtual"])):
        words = [*shards, "--output", str(tmp_path / f"{name}.h5"), *more]
        assert merge([*words, "--dry-run"]) == 0
        assert f"\npicture     {tmp_path / name}.png\n" in capsys.readouterr().out
        assert merge(words) == 0
        assert f"{name}.h5, {tmp_path / name}.png\n" in capsys.readouterr().out
        assert (tmp_path / f"{name}.png").read_bytes() == wanted
    (tmp_path / "copied.png").write_text("precious")
    assert merge([*shards, "--output", str(tmp_path / "copied.H5")]) == 0
    assert "copied.png: exists already and stays" in capsys.readouterr().err
    assert (tmp_path / "copied.png").read_text() == "precious"


def test_a_merging_never_draws_over_a_shard_nor_of_another_input(shards, tmp_path, capsys):
    part = (tmp_path / "sr.shard-1-of-2.h5").rename(tmp_path / "all.png")
    words = [str(part), shards[1], "--output", str(tmp_path / "all.h5"), "--overwrite"]
    before = part.read_bytes()
    for more in (["--dry-run"], []):
        assert merge([*words, *more]) == 0
        told = capsys.readouterr()
        assert "all.png: is a file of this run" in told.out + told.err
    assert part.read_bytes() == before
    words[3] = str(tmp_path / "again.h5")
    write_stack(tmp_path / "lr.h5", smooth_stack(3, 24, 24, seed=1))
    assert merge(words) == 0
    assert "holds other images than the shards were made of)\n" in capsys.readouterr().err
    (tmp_path / "lr.h5").unlink()
    assert merge([*words, "--dry-run"]) == merge(words) == 0
    assert capsys.readouterr().err.count("not there any more)\n") == 1
    assert not (tmp_path / "again.png").exists()


def test_members_that_are_added_renew_the_picture_of_their_run(checkpoint, tmp_path, capsys):
    stack = write_stack(tmp_path / "lr.h5", smooth_stack(1, 24, 24))
    given = stack, tmp_path / "sr.h5", checkpoint, DRAWN, "sampler.steps=1"
    assert main(arguments(*given, "output.members=true", "--ensemble=2")) == 0
    of_two = (tmp_path / "sr.png").read_bytes()
    assert main(arguments(*given, "--members=2:3")) == 0
    of_three = (tmp_path / "sr.png").read_bytes()
    assert is_sheet(tmp_path / "sr.png") and of_three != of_two
    (tmp_path / "sr.png").write_text("precious")
    capsys.readouterr()
    assert main(arguments(*given, "--members=3:4")) == 0
    assert "sr.png: exists already and stays" in capsys.readouterr().err
    assert (tmp_path / "sr.png").read_text() == "precious"


def test_holes_and_images_that_cannot_be_seen(checkpoint, tmp_path, capsys):
    images = smooth_stack(2, 24, 24, dtype="float32")
    images[0] = np.nan
    images[1, 3:9, 4:6] = np.inf
    stack = write_stack(tmp_path / "lr.h5", images)
    assert main(arguments(stack, tmp_path / "sr.h5", checkpoint, DRAWN, "--ensemble=2")) == 0
    assert is_sheet(tmp_path / "sr.png") and "no picture" not in capsys.readouterr().err


def test_a_folder_of_pictures_has_one_for_all(checkpoint, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for number, size in enumerate([(24, 24), (24, 24), (20, 28)]):
        image = smooth_stack(1, *size, 3, "uint8", seed=number)[0]
        Image.fromarray(image).save(tmp_path / "in" / f"{number}.png")
    command = arguments(tmp_path / "in", tmp_path / "sr", checkpoint, DRAWN)
    assert main([*command, "--dry-run"]) == 0
    assert f"picture     {tmp_path / 'sr/swinmpi.png'}\n" in capsys.readouterr().out
    assert main(command) == 0
    drawn = (tmp_path / "sr/swinmpi.png").read_bytes()
    assert main(command) == 0 and (tmp_path / "sr/swinmpi.png").read_bytes() == drawn
    assert capsys.readouterr().err == ""
    below = files_below(tmp_path / "sr")
    assert (below.files, below.results) == (["0.png", "1.png", "2.png"], ["swinmpi.png"])


def test_the_first_the_middle_and_the_worst_are_chosen():
    figures = [{0: {"lr_misfit": 0.1, "seam_score": 1.0}, 2: {"lr_misfit": 0.3, "seam_score": 1.1},
                4: {"lr_misfit": 0.2, "seam_score": 1.3}},
               {1: {"lr_misfit": float("nan"), "seam_score": 1.2}}]
    assert chosen(figures, agrees=True) == {(0, 0): "first", (0, 4): "middle, most seams"}
    assert chosen(figures, agrees=False) == {(0, 0): "first", (0, 2): "most LR misfit",
                                             (0, 4): "middle"}
    assert chosen([{3: {}}], agrees=False) == {(0, 3): "first, middle"}
    assert chosen([{}], agrees=False) == {}


@pytest.mark.parametrize("output,expected", [
    ("a/scan_x2.h5", "scan_x2.png"), ("scan.nxs", "scan.png"), ("scan.v2", "scan.v2.png"),
    ("scan", "scan.png"), ("scan.H5", "scan.png")])
def test_a_picture_is_named_after_its_output(tmp_path, output, expected):
    assert picture_of(tmp_path / output).name == expected


def test_an_own_picture_is_drawn_anew_where_a_run_was_gone_on_with(checkpoint, tmp_path, capsys):
    stack = write_stack(tmp_path / "lr.h5", smooth_stack(1, 24, 24))
    command = arguments(stack, tmp_path / "sr.h5", checkpoint, DRAWN)
    assert main(command) == 0
    finished = tmp_path / "kept.h5"
    (tmp_path / "sr.h5").rename(finished)
    plan = plan_of(parser().parse_args(command), 1)
    finished.rename(tmp_path / "sr.h5")
    drawn = (tmp_path / "sr.png").read_bytes()
    assert draw_pictures([plan], resumed=False) == []
    assert "exists already and stays" in capsys.readouterr().err
    assert draw_pictures([plan], resumed=True) == [tmp_path / "sr.png"]
    assert (tmp_path / "sr.png").read_bytes() == drawn
    (tmp_path / "sr.png").write_text("precious")
    assert draw_pictures([plan], resumed=True) == []


def test_pixels_that_are_not_trusted_are_veiled(checkpoint, tmp_path):
    stack = write_stack(tmp_path / "lr.h5", smooth_stack(1, 24, 24))
    command = arguments(stack, tmp_path / "sr.h5", checkpoint, DRAWN, "--overwrite")
    assert main(command) == 0
    with h5py.File(tmp_path / "sr.h5", "a") as file:
        trusted = np.ones((1, 48, 48), np.uint8)
        trusted[0, :, 24:] = 0
        file["entry/data/sr_trust"] = trusted
    assert draw_pictures([plan_of(parser().parse_args(command), 1)], resumed=False)
    sheet = Image.open(tmp_path / "sr.png")
    sr, marked = tile(sheet, 3).astype(int), tile(sheet, 4).astype(int)
    half = TILE_PX // 2
    assert np.array_equal(sr[:, :half], marked[:, :half])
    veil = np.array(ImageColor.getrgb(UNTRUSTED))
    assert (np.abs(2 * marked[:, half:] - sr[:, half:] - veil) <= 1).all()
