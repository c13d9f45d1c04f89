"""`--sweep`: settings tried in all combinations, with the pixels that a run of its own would have;
nothing but the sheet and the tables stays."""
import csv

import numpy as np
import pytest
from PIL import Image

from swinmpi.cli.sample import main
from swinmpi.errors import ConfigError
from swinmpi.images.contact_sheet import (
    CAPTION_LINE_PX,
    GAP_PX,
    MARGIN_PX,
    TITLE_LINE_PX,
    TITLE_PT,
    closeup_square,
    cut_closeup,
    to_uint8,
)
from swinmpi.sampling.looks.asked import combinations
from tests.support.sampling import arguments, smooth_stack, sr_of, write_checkpoint, write_stack

WRITTEN = ["sweep.csv", "sweep.md", "sweep.png"]
DIAL = ("--sweep", "sampler.noise_scale=0,.3", "--sweep", "sampler.steps=2,3")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    write_checkpoint(folder / "aligned.safetensors", "model.window_px=32")
    write_checkpoint(folder / "encoder.safetensors", "model.window_px=32", target="encoder")
    images = smooth_stack(5, 26, 30)
    images[0] //= 4
    write_stack(folder / "lr.h5", images)
    write_stack(folder / "hr.h5", smooth_stack(5, 52, 60, seed=1))
    return folder


def command(inputs, output, *words, checkpoint="aligned"):
    return [str(inputs / "lr.h5"), "--checkpoint", str(inputs / f"{checkpoint}.safetensors"),
            "--output", str(output), *words]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def rows_of(folder) -> list[dict]:
    with open(folder / "sweep.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_every_combination_has_the_pixels_of_a_run_over_the_whole_stack(inputs, tmp_path, capsys):
    """Also its range, which is that of all images, not of those chosen."""
    folder = tmp_path / "sweep"
    assert main(command(inputs, folder, *DIAL, "--frames", "0,-1")) == 0
    assert names(folder) == WRITTEN and "combination 4 of 4" in capsys.readouterr().out
    rows = rows_of(folder)
    assert [(row["sampler.noise_scale"], row["sampler.steps"], row["image"])
            for row in rows[3:9]] == [("0", steps, image) for steps in "23"
                                      for image in ("image 0", "image 4", "mean")]
    output = tmp_path / "one.h5"
    assert main(arguments(inputs / "lr.h5", output, inputs / "aligned.safetensors",
                          "sampler.noise_scale=0.3", "sampler.steps=2")) == 0
    sr = to_uint8(sr_of(output)[4], 0, 65535)
    square = closeup_square(sr)
    assert square == (0, 0, 52), "the part that is shown is the whole height"
    large = cut_closeup(sr, sr.shape, square).repeat(5, 0).repeat(5, 1)
    sheet = np.asarray(Image.open(folder / "sweep.png"))[..., 0]
    # The third combination of the second image, below the title, two lines of column titles, and
    # a row with two lines of captions.
    left = MARGIN_PX + 5 * (260 + GAP_PX)
    top = (MARGIN_PX + GAP_PX + 2 * TITLE_LINE_PX + TITLE_PT + 16
           + 260 + 2 * CAPTION_LINE_PX + 8 + GAP_PX)
    assert np.array_equal(sheet[top:top + 260, left:left + 260], large)


def test_the_truth_is_compared_with_where_there_is_one(inputs, tmp_path):
    words = "--sweep", "sampler.steps=2", "--reference", str(inputs / "hr.h5")
    assert main(command(inputs, tmp_path / "with", *words)) == 0
    assert main(command(inputs, tmp_path / "without", *words[:2])) == 0
    given, missing = (rows_of(tmp_path / name) for name in ("with", "without"))
    assert all(float(row["psnr"]) > 0 for row in given)
    assert not any(row["psnr"] for row in missing) and len(given) == len(missing) == 8
    assert "PSNR" in (tmp_path / "with/sweep.md").read_text()
    sheets = [Image.open(tmp_path / name / "sweep.png") for name in ("with", "without")]
    assert sheets[0].width > sheets[1].width
    assert [row["image"] for row in given[:4]] == ["image 0", "image 2", "image 4", "mean"]


def test_a_dry_run_tells_all_of_it_and_writes_nothing(inputs, tmp_path, capsys):
    assert main(command(inputs, tmp_path / "sweep", *DIAL, "--dry-run")) == 0
    told = capsys.readouterr().out
    for line in ("sweep       4 combinations, 1 ranks", "            noise_scale 0.3, steps 3",
                 "range       0 to 65535 become -1 to 1", "time        "):
        assert line in told
    assert names(tmp_path) == []


@pytest.mark.parametrize("words,told", [
    (("--sweep", "sampler.stepz=1,2"), "unknown key sampler.stepz; did you mean sampler.steps?"),
    (("--sweep", "sampler.steps=5,many"), "sampler.steps: expected"),
    (("--sweep", "sampler.steps=2,51"), "expected at most diffusion.steps = 50"),
    (("--sweep", "sampler.steps=2020-01-01"), "sampler.steps: expected integer"),
    (("--sweep", "sampler.noise_scale=.nan"), "sampler.noise_scale: expected"),
    (("--sweep", "sampler.steps=[1"), "got what is no YAML"),
    (("--sweep", "sampler.steps"), "expected section.key=value,value"),
    (("--sweep", "sampler.steps="), "got none"),
    (("--sweep", "steps=5,10"), "expected section.key=value,value"),
    (("--sweep", "sampler.steps=2,3,2"), "expected different values"),
    (("--sweep", "sampler.steps=2", "--sweep", "sampler.steps=3"), "every setting once"),
    (("--sweep", "sampler.steps=2", "--set", "sampler.steps=3"), "is swept as well"),
    (("--sweep", "model.window_px=32,64"), "a setting of the dial"),
    (("--sweep", "output.compression=1,2"), "a setting of the dial"),
    (("--sweep", "sampler.shift={pattern: none}"), "such as sampler.shift.pattern"),
    (("--sweep", f"sampler.seed={','.join(map(str, range(25)))}"),
     "at most 24 combinations, got 25; give fewer values, or say --most-combinations 25"),
    (("--sweep", "sampler.steps=2", "--most-combinations", "0"), "at most 0 combinations, got 1"),
    (("--sweep", "sampler.steps=2", "--ensemble", "3"), "--ensemble: expected 1 with --sweep"),
    (("--sweep", "sampler.steps=2", "--shard", "1/2"), "--shard: expected none with --sweep"),
    (("--sweep", "sampler.steps=2", "--trust", "0.1"), "--trust: expected none with --sweep"),
    (("--sweep", "sampler.steps=2", "--members", "2:4"), "--members: expected none with --sweep"),
    (("--sweep", "sampler.steps=2", "--frames", "9"), "expected indices of 5 frames"),
    (("--sweep", "sampler.steps=2", "--reference", "absent.h5"), "absent.h5"),
    (("--sweep", "sampler.steps=2,3", "--preset", "regression"), "which it does not change"),
    (("--reference", "hr.h5"), "--reference: expected --sweep beside it"),
    (("--most-combinations", "9"), "--most-combinations: expected --sweep beside it"),
])
@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_what_cannot_be_swept_is_one_line(inputs, tmp_path, capsys, words, told, dry):
    assert main(command(inputs, tmp_path / "sweep", *words, *dry)) == 2
    line = capsys.readouterr().err
    assert told in line and line.count("\n") == 1 and line.startswith("swinmpi: "), line
    assert names(tmp_path) == []


def test_an_encoder_has_no_dial_but_its_agreement_with_lr(inputs, tmp_path, capsys):
    assert main(command(inputs, tmp_path / "no", "--sweep", "sampler.steps=1,2",
                        checkpoint="encoder")) == 2
    assert "has no such dial" in capsys.readouterr().err
    assert main(command(inputs, tmp_path / "yes", "--sweep", "output.consistent=false,.5,true",
                        "--frames=1", checkpoint="encoder")) == 0
    misfits = [float(row["lr_misfit"]) for row in rows_of(tmp_path / "yes")
               if row["image"] == "mean" and row["lr_misfit"]]
    assert misfits == sorted(misfits, reverse=True) and len(misfits) == 3


def test_what_is_there_stays(inputs, tmp_path, capsys):
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "sweep.md").write_text("precious")
    words = command(inputs, tmp_path / "sweep", "--sweep", "sampler.steps=2", "--frames=1")
    assert main(words) == 2 and "sweep.md: exists already" in capsys.readouterr().err
    assert names(tmp_path / "sweep") == ["sweep.md"]
    assert main([*words, "--overwrite"]) == 0 and names(tmp_path / "sweep") == WRITTEN


def test_too_many_images_to_look_at(inputs, tmp_path, capsys):
    stack = write_stack(tmp_path / "many.h5", smooth_stack(13, 16, 16))
    words = [str(stack), *command(inputs, tmp_path / "sweep", "--sweep", "sampler.steps=2",
                                  "--frames", ":")[1:]]
    assert main(words) == 2 and "at most 12 images" in capsys.readouterr().err


def test_a_damaged_image_is_named_and_the_others_are_there(inputs, tmp_path, capsys):
    from tests.commands.test_sample_io import damage
    stack = write_stack(tmp_path / "lr.h5", smooth_stack(3, 26, 30), chunks=(1, 26, 30),
                        compression="gzip")
    damage(stack, 1)
    words = [str(stack), *command(inputs, tmp_path / "sweep", "--sweep", "sampler.steps=2,3")[1:]]
    assert main(words) == 3
    assert "images 1 could not be read" in capsys.readouterr().err
    assert names(tmp_path / "sweep") == WRITTEN
    assert {row["image"] for row in rows_of(tmp_path / "sweep")} == {"image 0", "image 2", "mean"}


@pytest.mark.parametrize("others,told", [(["lr.h5", "hr.h5"], "got 2 inputs"),
                                         (["photos"], "put pictures into an HDF5 stack")])
def test_one_stack_is_swept(inputs, tmp_path, capsys, others, told):
    (inputs / "photos").mkdir(exist_ok=True)
    words = command(inputs, tmp_path / "sweep", "--sweep", "sampler.steps=2")[1:]
    assert main([*(str(inputs / name) for name in others), *words]) == 2
    line = capsys.readouterr().err
    assert told in line and line.count("\n") == 1 and names(tmp_path) == []


def test_values_are_yaml():
    assert combinations(["sampler.coherence=null,4", "output.value_range=[0,1],[0,2]"], 4) == [
        {"sampler.coherence": coherence, "output.value_range": span}
        for coherence in (None, 4) for span in ([0, 1], [0, 2])]
    with pytest.raises(ConfigError, match="at most 3"):
        combinations(["sampler.steps=1,2", "sampler.seed=1,2"], most=3)
