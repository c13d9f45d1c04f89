"""What images are for, and how whole ones are resized: swinmpi-prepare's test split, CelebA's
folders, data.resize; and what swinmpi-evaluate says of the images that it judges."""
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from swinmpi.cli.evaluate import main as evaluate
from swinmpi.cli.prepare import main
from swinmpi.storage.checkpoint import file_sha256
from swinmpi.storage.pairs import PairReader
from swinmpi.storage.stack import Stack
from tests.support.sampling import smooth_stack, write_checkpoint, write_stack

WHOLE = ["--set", "data.size_px=32", "--set", "data.resize=squash"]


def write_pictures(folder, names, height=54, width=44):
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in zip(names, smooth_stack(len(names), height, width, 3, "uint8"),
                           strict=True):
        Image.fromarray(image).save(folder / name, quality=95)


def prepare(*arguments) -> int:
    return main([str(argument) for argument in arguments])


def sources_of(pairs: PairReader, split: str) -> list[str]:
    sources = pairs.file["source"].asstr()[:]
    return [sources[index] for index in pairs.indices(split)]


@pytest.fixture
def celeba(tmp_path):
    """The published layout, with generated pictures: Img/img_align_celeba and Eval."""
    names = [f"{number:06}.jpg" for number in range(1, 9)]
    write_pictures(tmp_path / "CelebA/Img/img_align_celeba", names)
    (tmp_path / "CelebA/Eval").mkdir()
    lines = [f"{name} {split}" for name, split in zip(names, "00001122", strict=True)]
    (tmp_path / "CelebA/Eval/list_eval_partition.txt").write_text(
        "\n".join([*lines, "000009.jpg 2"]) + "\n")
    return tmp_path / "CelebA"


@pytest.mark.parametrize("named", [".", "Img/img_align_celeba", "Eval/list_eval_partition.txt"])
def test_celeba_is_split_as_its_partition_says(celeba, tmp_path, capsys, named):
    root = ["--root", celeba / "Img"] if named.endswith(".txt") else []
    assert prepare(celeba / named, *root, "--output", tmp_path / "pairs.h5", *WHOLE) == 0
    said = capsys.readouterr()
    assert "4 pairs to train, 2 to validate, 2 to test" in said.out
    assert said.err.count("4 to train, 2 to validate, 2 to test") == 1
    with PairReader(tmp_path / "pairs.h5") as pairs:
        assert pairs.hr.shape == (8, 32, 32, 3) and pairs.lr.shape == (8, 16, 16, 3)
        assert [name[-10:] for name in sources_of(pairs, "test")] == ["000007.jpg", "000008.jpg"]


@pytest.mark.parametrize("layout", ["beside", "csv"])
def test_the_partition_beside_the_pictures_and_as_table(celeba, tmp_path, layout):
    (celeba / "Eval/list_eval_partition.txt").rename(tmp_path / "list")
    lines = (tmp_path / "list").read_text()
    if layout == "csv":
        (celeba / "list_eval_partition.csv").write_text(
            "image_id,partition\n" + lines.replace(" ", ","))
    else:
        (celeba / "Img/list_eval_partition.txt").write_text(lines)
    assert prepare(celeba / "Img/img_align_celeba" if layout == "beside" else celeba, "--output",
                   tmp_path / "pairs.h5", *WHOLE) == 0
    with PairReader(tmp_path / "pairs.h5") as pairs:
        assert pairs.splits.tolist() == [0, 0, 0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(("line", "message"), [
    ("000001.jpg 0", "list_eval_partition.txt:10: expected the name of another picture"),
    ("000010.jpg 3", "0 (train), 1 (validate) or 2 (test)"), ("000010.jpg", "got '000010.jpg'")])
def test_a_damaged_partition_is_one_line(celeba, tmp_path, capsys, line, message):
    path = celeba / "Eval/list_eval_partition.txt"
    path.write_text(path.read_text() + line)
    assert prepare(celeba, "--output", tmp_path / "pairs.h5", *WHOLE) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "pairs.h5").exists()


def test_a_picture_that_the_partition_lacks_is_refused(celeba, tmp_path, capsys):
    write_pictures(celeba / "Img/img_align_celeba", ["000010.jpg"])
    assert prepare(celeba, "--output", tmp_path / "pairs.h5", *WHOLE) == 2
    assert "none for 000010.jpg" in capsys.readouterr().err


@pytest.mark.parametrize(("settings", "counts"), [
    (["data.test_share=0.25"], (5, 1, 2)), (["data.test_count=3"], (4, 1, 3)),
    (["data.validate_count=2", "data.test_count=5"], (1, 2, 5)),
    (["data.validate_share=0", "data.test_count=1"], (7, 0, 1)), ([], (7, 1, 0))])
def test_a_test_split_by_share_and_by_count(tmp_path, settings, counts):
    write_pictures(tmp_path / "in", [f"{number}.png" for number in range(8)])
    more = [word for setting in settings for word in ("--set", setting)]
    assert prepare(tmp_path / "in", "--output", tmp_path / "pairs.h5", *WHOLE, *more) == 0
    with PairReader(tmp_path / "pairs.h5") as pairs:
        assert tuple(len(pairs.indices(name)) for name in ("train", "validate", "test")) == counts


def test_more_to_keep_than_there_are_is_refused(tmp_path, capsys):
    write_pictures(tmp_path / "in", [f"{number}.png" for number in range(4)])
    assert prepare(tmp_path / "in", "--output", tmp_path / "pairs.h5", *WHOLE, "--set",
                   "data.test_count=5000") == 2
    assert "leave some of 4 images to train on" in capsys.readouterr().err


def test_a_list_names_the_test_split(tmp_path):
    write_pictures(tmp_path / "in", ["a.png", "b.png", "c.png"])
    (tmp_path / "in/list.tsv").write_text("path\tsplit\na.png\ttrain\nb.png\ttest\n"
                                          "c.png\tvalidate\n")
    assert prepare(tmp_path / "in/list.tsv", "--output", tmp_path / "pairs.h5", *WHOLE) == 0
    with PairReader(tmp_path / "pairs.h5") as pairs:
        assert pairs.splits.tolist() == [0, 2, 1]


@pytest.mark.parametrize("resize", ["squash", "square"])
def test_a_resized_image_is_pillows_of_the_whole_or_its_middle(tmp_path, resize):
    write_pictures(tmp_path / "in", ["a.png"], 218, 178)
    assert prepare(tmp_path / "in", "--output", tmp_path / "pairs.h5", "--set", "data.size_px=64",
                   "--set", f"data.resize={resize}") == 0
    image = Image.open(tmp_path / "in/a.png")
    if resize == "square":
        image = image.crop((0, 20, 178, 198))
    with PairReader(tmp_path / "pairs.h5") as pairs:
        np.testing.assert_array_equal(pairs.read_pair(0)[0],
                                      image.resize((64, 64), Image.Resampling.LANCZOS))


@pytest.mark.parametrize(("settings", "message"), [
    (["data.size_px=64"], "smaller than 64 px"), (["data.reduce_spread=2"], "not shrunk otherwise"),
    (["data.resize=crop"], "'squash' or 'square'")])
def test_what_cannot_be_resized_is_one_line(tmp_path, capsys, settings, message):
    write_pictures(tmp_path / "in", ["a.png"])
    more = [word for setting in settings for word in ("--set", setting)]
    assert prepare(tmp_path / "in", "--output", tmp_path / "pairs.h5", *WHOLE, *more) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "pairs.h5").exists()


@pytest.fixture
def judging(tmp_path, monkeypatch):
    """Pairs of 6 images to train on, 1 to validate, 3 to test; a checkpoint; no AlexNet."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path / "in", [f"{number}.png" for number in range(10)])
    assert prepare("in", "--output", "pairs.h5", *WHOLE, "--set", "data.test_count=3") == 0
    checkpoint = write_checkpoint(tmp_path / "model.safetensors")

    def judge(*arguments) -> tuple[int, dict]:
        code = evaluate([str(word) for word in (*arguments, "--reference", "pairs.h5::/hr", "--lr",
                                                "pairs.h5::/lr", "--output", "out",
                                                "--overwrite")])
        report = tmp_path / "out/evaluate.json"
        return code, json.loads(report.read_text()) if report.exists() else {}

    return SimpleNamespace(judge=judge, checkpoint=checkpoint)


def test_only_the_test_split_is_sampled_and_judged(judging, capsys):
    code, report = judging.judge("--checkpoint", judging.checkpoint, "--split", "test")
    with PairReader("pairs.h5") as pairs:
        wanted = pairs.indices("test").tolist()
    assert code == 0 and [image["image"] for image in report["images"]] == wanted
    assert report["split"] == "test" and report["remarks"][0] == (
        "split test: 3 of 10 images are judged")
    said = capsys.readouterr()
    assert "split test: 3 of 10 images are judged" in said.out and "warning" not in said.out
    assert Stack.open("out/sr.h5").num_images == 3
    Path("out/sr.h5").rename("some.h5")

    assert judging.judge("--checkpoint", judging.checkpoint)[0] == 0
    assert "warning: 6 of the images judged are there to train on" in capsys.readouterr().out
    Path("out/sr.h5").rename("all.h5")
    for stack in ("some.h5", "all.h5"):
        again = judging.judge(stack, "--split", "test")[1]
        assert again["images"] == report["images"], stack


def test_a_split_that_is_not_there_is_one_line(judging, tmp_path, capsys):
    assert judging.judge("--checkpoint", judging.checkpoint, "--split", "train")[0] == 0
    capsys.readouterr()
    write_stack(tmp_path / "hr.h5", smooth_stack(3, 32, 32, 3, "uint8"))
    assert evaluate(["out/sr.h5", "--reference", "hr.h5", "--split", "test"]) == 2
    assert "hr.h5: expected the HR images of a file of swinmpi-prepare" in capsys.readouterr().err
    assert prepare("in", "--output", "more.h5", *WHOLE) == 0
    capsys.readouterr()
    assert evaluate(["out/sr.h5", "--reference", "more.h5::/hr", "--split", "test"]) == 2
    error = capsys.readouterr().err
    assert "expected images of split test, got none" in error and error.count("\n") == 1


def test_a_split_among_frames(judging, capsys):
    """Frames count in the file of pairs; a stack of one split is not judged by another."""
    with PairReader("pairs.h5") as pairs:
        first, second, third = pairs.indices("test").tolist()
        frames = f"{pairs.validate_indices[0]},{second},{first}"
    report = judging.judge("--checkpoint", judging.checkpoint, "--split", "test", "--frames",
                           frames)[1]
    assert [image["image"] for image in report["images"]] == [second, first]
    assert report["remarks"][0] == "split test: 2 of 10 images are judged"
    Path("out/sr.h5").rename("two.h5")
    again = judging.judge("two.h5", "--split", "test", "--frames", frames)[1]
    assert again["images"] == report["images"]
    assert not any("warning" in remark for remark in judging.judge("two.h5")[1]["remarks"])
    capsys.readouterr()
    assert judging.judge("two.h5", "--split", "train")[0] == 2
    assert "--split: expected some of the frames" in capsys.readouterr().err
    assert judging.judge("two.h5", "--split", "test", "--frames", str(third))[0] == 2
    assert f"got {third}" in capsys.readouterr().err


def test_lr_images_of_ones_own_beside_a_partition(celeba, tmp_path):
    """The partition says what the HR images are for; LR images need no line in it."""
    lr = celeba / "Img/lr"
    write_pictures(lr, [f"{number:06}x2.jpg" for number in range(1, 9)], 27, 22)
    assert prepare(celeba / "Img/img_align_celeba", "--lr", lr, "--output", tmp_path / "pairs.h5",
                   "--set", "data.size_px=32", "--set", "data.crops_per_image=1") == 0
    with PairReader(tmp_path / "pairs.h5") as pairs:
        assert pairs.splits.tolist() == [0, 0, 0, 0, 1, 1, 2, 2]


def test_a_resized_image_is_degraded_as_a_crop_is(tmp_path, capsys):
    write_pictures(tmp_path / "in", ["a.png", "b.png"])
    more = ["--set", "data.photons=100", "--set", "data.test_count=1", "--set",
            "data.validate_share=0"]
    assert prepare(tmp_path / "in", "--output", tmp_path / "pairs.h5", *WHOLE, *more,
                   "--dry-run") == 0
    assert "1 to test on" in capsys.readouterr().out and not (tmp_path / "pairs.h5").exists()
    assert prepare(tmp_path / "in", "--output", tmp_path / "pairs.h5", *WHOLE, *more) == 0
    with PairReader(tmp_path / "pairs.h5") as pairs:
        assert pairs.degradation == {"photons": (100.0, 100.0)}
        assert pairs.file["photons"][:].tolist() == [100.0, 100.0]


def test_a_dry_run_names_what_is_too_small_to_resize(tmp_path, capsys):
    write_pictures(tmp_path / "in", ["a.png"])
    write_pictures(tmp_path / "in", ["b.png"], 20, 44)
    assert prepare(tmp_path / "in", "--output", tmp_path / "pairs.h5", *WHOLE, "--dry-run") == 0
    assert "b.png: 44 x 20 px is smaller than 32 px" in capsys.readouterr().out


def judged_model(*arguments) -> tuple[int, dict]:
    code = evaluate([*map(str, arguments), "--output", "model", "--overwrite"])
    report = Path("model/evaluate.json")
    return code, json.loads(report.read_text()) if report.exists() else {}


def test_a_model_is_judged_on_pairs_by_its_name_alone(judging):
    """As of the SR stack that it makes, which goes unless it is to be kept."""
    code, report = judged_model("--checkpoint", judging.checkpoint, "pairs.h5")
    wanted = judging.judge("--checkpoint", judging.checkpoint, "--split", "test")[1]
    assert code == 0 and report["images"] == wanted["images"] and report["split"] == "test"
    assert report["made_by"]["sr"]["checkpoint_sha256"] == file_sha256(judging.checkpoint)
    names = {"evaluate.csv", "evaluate.json", "evaluate.png", "plots.png"}
    assert {path.name for path in Path("model").iterdir()} == names
    assert judged_model("--checkpoint", judging.checkpoint, "pairs.h5", "--split", "validate",
                        "--keep")[1]["split"] == "validate"
    assert {path.name for path in Path("model").iterdir()} == names | {"sr.h5"}
    assert Stack.open("model/sr.h5").num_images == 1


def test_a_shipped_model_is_judged_on_a_stack(judging, capsys):
    code, report = judged_model("--model", "bicubic_x2", "pairs.h5::/lr", "--reference",
                                "pairs.h5::/hr")
    assert code == 0 and len(report["images"]) == 10 and not Path("model/.sr.h5").exists()
    assert report["mean"]["sr"]["psnr"] == pytest.approx(report["mean"]["bicubic"]["psnr"], abs=.2)
    assert judged_model("--model", "bicubic_x2", "pairs.h5", "--dry-run")[0] == 0
    assert "3 " in capsys.readouterr().out


@pytest.mark.parametrize("arguments, said", [
    (["--model", "bicubic_x2"], "expected one LR stack to sample first, got none"),
    (["--model", "bicubic_x2", "pairs.h5", "in"], "got pairs.h5, in"),
    (["--model", "bicubic_x2", "pairs.h5", "--lr", "pairs.h5::/lr"], "expected one LR stack"),
    (["--model", "bicubic_x3", "pairs.h5"], "name the HR stack that belongs to it"),
    (["--model", "bicubic_x2", "absent.h5"], "absent.h5"),
    (["pairs.h5::/hr", "--keep"], "--keep: expected --model")])
def test_a_model_that_cannot_be_judged_is_one_line(judging, capsys, arguments, said):
    capsys.readouterr()
    assert judged_model(*arguments)[0] == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and not Path("model").exists()


def test_pairs_without_images_to_judge(judging, capsys):
    assert prepare("in", "--output", "all.h5", *WHOLE, "--set", "data.validate_share=0") == 0
    capsys.readouterr()
    assert judged_model("--model", "bicubic_x2", "all.h5")[0] == 2
    assert "name others with --split" in capsys.readouterr().err
    assert judged_model("--model", "bicubic_x2", "all.h5", "--split", "train")[0] == 0
