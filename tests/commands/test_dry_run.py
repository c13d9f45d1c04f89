"""Dry runs keep their word: they refuse what the run refuses, in the same line, write nothing, and
tell range, device, memory and time of what it will do."""
import fcntl
import os
import re
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from swinmpi.cli import evaluate, merge
from swinmpi.cli.sample import main
from swinmpi.config import load_config
from swinmpi.reports.timing import about
from swinmpi.sampling.plan import plan
from swinmpi.sampling.rehearsal.estimate import Costs, seconds_of
from swinmpi.sampling.request import SampleRequest
from tests.support.sampling import arguments, smooth_stack, write_checkpoint, write_stack
from tests.support.training import THESIS

TIME = re.compile(r"time        (less than a second|about [\d.]+ (s|min|h|days)) on \d+ ranks? "
                  r"\(measured on one micro-batch; .*\)")


@pytest.fixture(autouse=True)
def apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Good inputs and checkpoints."""
    made = tmp_path_factory.mktemp("inputs")
    write_stack(made / "in.h5", smooth_stack(2, 20, 24))
    write_stack(made / "hr.h5", smooth_stack(2, 40, 48))
    write_stack(made / "more.h5", smooth_stack(1, 20, 24))
    for seed, name in enumerate(("good", "other")):
        write_checkpoint(made / f"{name}.safetensors", "model.window_px=32",
                         f"sampler.seed={seed}")
    write_checkpoint(made / "thesis.safetensors", model=THESIS)
    write_checkpoint(made / "encoder.safetensors", target="encoder")
    (made / "photos").mkdir()
    for name, size in (("a.png", (20, 24)), ("b.png", (30, 18))):
        Image.fromarray(smooth_stack(1, *size, dtype="uint8")[0]).save(made / "photos" / name)
    return made


def files() -> dict[str, int]:
    return {str(path): path.lstat().st_size for path in sorted(Path().rglob("*"))}


def refused(capsys, command, words: list) -> str:
    """The one line of a dry run and of a run, which must be the same."""
    before, lines = files(), []
    for mode in (["--dry-run"], []):
        code = command([*map(str, words), *mode])
        captured = capsys.readouterr()
        assert code == 2 and captured.out == "" and captured.err.count("\n") == 1, captured
        assert files() == before, mode
        lines.append(captured.err)
    assert lines[0] == lines[1]
    return lines[0]


TOO_LONG = {"a name": "a" * 250 + ".h5", "a folder": "a" * 300 + "/out.h5",
            "the way": "/".join(["a" * 200] * 30) + "/out.h5"}


@pytest.mark.parametrize("output", TOO_LONG.values(), ids=list(TOO_LONG))
@pytest.mark.parametrize("what", ["stack", "pictures", "evaluate", "evaluate first"])
def test_names_that_are_too_long(folder, capsys, output, what):
    checkpoint = folder / "good.safetensors"
    words = {"stack": [folder / "in.h5", "--checkpoint", checkpoint],
             "pictures": [folder / "photos", "--checkpoint", checkpoint],
             "evaluate": [folder / "hr.h5", "--reference", folder / "hr.h5", "--lr",
                          folder / "in.h5"],
             "evaluate first": ["--checkpoint", checkpoint, "--lr", folder / "in.h5",
                                "--reference", folder / "hr.h5"]}[what]
    command = evaluate.main if "evaluate" in what else main
    if what in ("pictures", "evaluate") and output == TOO_LONG["a name"]:
        output = "a" * 260
    elif what in ("pictures", "evaluate first"):
        output = output.removesuffix(".h5") + "a" * 10
    assert "too long" in refused(capsys, command, [*words, "--output", output])


@pytest.mark.parametrize("suffix", [".partial", ".partial.new", ".packing"])
def test_folders_in_the_way(folder, capsys, suffix):
    Path(f"out.h5{suffix}").mkdir()
    words = arguments(folder / "in.h5", Path("out.h5"), folder / "good.safetensors")
    assert "move that folder away" in refused(capsys, main, words)


def test_a_folder_below_a_file(folder, capsys):
    Path("file").write_text("")
    words = [*arguments(folder / "in.h5", Path("file/new/out.h5"), folder / "good.safetensors")]
    assert "is no folder" in refused(capsys, main, words)
    shards = ["--output", "file/new/out.h5"]
    assert main([*arguments(folder / "in.h5", Path("part.h5"), folder / "good.safetensors"),
                 "--shard", "1/1"]) == 0
    capsys.readouterr()
    assert "is no folder" in refused(capsys, merge.main, ["part.shard-1-of-1.h5", *shards])
    words = [folder / "hr.h5", "--reference", folder / "hr.h5", "--lr", folder / "in.h5"]
    assert "cannot make" in refused(capsys, evaluate.main, [*words, "--output", "file/new"])


@pytest.mark.parametrize("settings, expected", [
    (["--checkpoint", "absent.safetensors"], "expected a checkpoint file"),
    (["--set", "output.backend=mpio"], "needs an h5py that is built with MPI"),
    (["--frames", "7"], "--frames 7"),
    (["--set", "data.axes=yxt", "--set", "sampler.steps=51"], "sampler.steps"),
    (["--set", "parallel.exchange=torus", "--set", "model.window_px=17"], "window_px"),
])
def test_settings(folder, capsys, settings, expected):
    if "mpio" in settings[-1] and h5py.get_config().mpi:
        pytest.skip("this h5py can do it")
    more = [] if "--checkpoint" in settings else ["--checkpoint", folder / "good.safetensors"]
    words = [folder / "in.h5", "--output", "out.h5", *more, *settings]
    assert expected in refused(capsys, main, words)


@pytest.mark.parametrize("other", [["--set", "sampler.seed=7"], ["--checkpoint"], ["--frames=0"],
                                   ["--ensemble=2"]])
def test_an_unfinished_output_of_another_run(folder, capsys, other):
    good = folder / "good.safetensors"
    Path("out.h5.packing").symlink_to("nowhere/file")
    assert main([*arguments(folder / "in.h5", Path("out.h5"), good), "--set",
                 "output.value_range=[0,60000]"]) == 2
    assert Path("out.h5.partial").exists() and not Path("out.h5.packing").is_symlink()
    capsys.readouterr()
    checkpoint = folder / "other.safetensors" if other == ["--checkpoint"] else good
    words = [*arguments(folder / "in.h5", Path("out.h5"), checkpoint), "--set",
             "output.value_range=[0,60000]", *(other if other != ["--checkpoint"] else [])]
    assert "was begun with other settings" in refused(capsys, main, words)
    assert main([*words, "--dry-run", "--overwrite"]) == 0
    good_words = [*arguments(folder / "in.h5", Path("out.h5"), good), "--set",
                  "output.value_range=[0,60000]", "--dry-run"]
    capsys.readouterr()
    assert main(good_words) == 0
    told = capsys.readouterr().out
    assert "2 of 2 images are done before" in told and "nothing is left to compute" in told


@pytest.mark.parametrize("held", ["out.h5.partial", "photos_x2/swinmpi.jsonl"])
def test_an_output_that_another_run_writes(folder, capsys, held):
    source = folder / ("in.h5" if "partial" in held else "photos")
    output = Path(held.split(".partial")[0].split("/")[0])
    words = [source, "--output", output, "--checkpoint", folder / "good.safetensors"]
    Path(held).parent.mkdir(exist_ok=True)
    with open(held, "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        before = capsys.readouterr()
        assert main([*map(str, words), "--dry-run"]) == 2
        told = capsys.readouterr()
        assert before.out == told.out == "" and "another run is writing it" in told.err


def test_shards_that_are_incomplete(folder, capsys):
    for number in (1, 2):
        assert main([*arguments(folder / "in.h5", Path("out.h5"), folder / "good.safetensors"),
                     "--shard", f"{number}/2"]) == 0
    capsys.readouterr()
    parts = [f"out.shard-{number}-of-2.h5" for number in (1, 2)]
    assert "shards missing" in refused(capsys, merge.main, [parts[0], "--output", "out.h5"])
    with h5py.File(parts[1], "r+") as file:
        del file["entry/process/timings"]
    assert "make the shards again" in refused(capsys, merge.main, [*parts, "--output", "out.h5"])


def test_what_an_evaluation_cannot_read_or_write(folder, capsys, tmp_path):
    lr, hr = folder / "in.h5", tmp_path / "hr.h5"
    with h5py.File(hr, "w") as file:
        file.create_dataset("x", data=smooth_stack(2, 40, 48), chunks=(1, 40, 48),
                            compression="gzip")
        place = file["x"].id.get_chunk_info_by_coord((1, 0, 0))
    words = [folder / "hr.h5", "--reference", hr, "--lr", lr]
    (tmp_path / "out/evaluate.png").mkdir(parents=True)
    assert "a folder lies" in refused(capsys, evaluate.main, [*words, "--output", "out"])
    first = ["--checkpoint", folder / "good.safetensors", "--lr", lr, "--reference", hr]
    assert "a folder lies" in refused(capsys, evaluate.main, [*first, "--output", "out"])
    bad = tmp_path / "bad.pth"
    bad.write_bytes(b"no weights")
    assert "bad.pth" in refused(capsys, evaluate.main, [*first, "--lpips-backbone", bad])
    with open(hr, "r+b") as raw:
        raw.seek(place.byte_offset)
        raw.write(b"\xff" * place.size)
    assert evaluate.main([*map(str, words), "--dry-run"]) == 2
    assert "image 1 cannot be read" in capsys.readouterr().err


def test_an_evaluation_that_samples_first_says_what_sampling_would(folder, capsys):
    words = ["--checkpoint", folder / "good.safetensors", "--lr", folder / "in.h5",
             "--reference", folder / "hr.h5", "--output", "new", "--dry-run"]
    assert evaluate.main([*map(str, words)]) == 0
    told = capsys.readouterr().out
    assert "range       " in told and "device      cpu" in told and TIME.search(told)
    os.truncate(folder / "other.safetensors", 5000)
    words[1] = folder / "other.safetensors"
    assert evaluate.main([*map(str, words)]) == 2
    assert capsys.readouterr().out == "" and not files()
    write_checkpoint(folder / "other.safetensors", "model.window_px=32", "sampler.seed=1")


@pytest.mark.parametrize("checkpoint", ["good", "thesis", "encoder"])
@pytest.mark.parametrize("what", ["in.h5", "photos", "several", "shard"])
@pytest.mark.parametrize("settings", [(), ("parallel.exchange=torus", "sampler.method=heun")])
def test_it_tells_range_device_memory_and_time(folder, capsys, checkpoint, what, settings):
    inputs = [folder / name for name in
              {"several": ("in.h5", "more.h5"), "shard": ("in.h5",)}.get(what, (what,))]
    words = [*inputs, "--output", "new", "--checkpoint", folder / f"{checkpoint}.safetensors",
             *[word for one in settings for word in ("--set", one)], "--dry-run"]
    if what == "shard":
        words += ["--shard", "1/2"]
    before = torch.get_num_threads()
    assert main([*map(str, words)]) == 0
    told = capsys.readouterr().out
    assert TIME.search(told) and "MiB a rank" in told and "device      cpu" in told
    assert told.count("range       ") == (2 if what in ("photos", "several") else 1)
    assert not files() and torch.get_num_threads() == before


def test_the_estimate_counts_what_there_is_to_do(folder):
    """Twice the steps, images or members take twice as long, twice the ranks half."""
    request = SampleRequest(str(folder / "in.h5"), Path("out.h5"), folder / "good.safetensors")
    costs = Costs(0.0, 0.0, 1.0)

    def seconds(*overrides, num_ranks=1, **changes):
        config = load_config(overrides=["model.window_px=16", "sampler.steps=4", *overrides])
        asked = SampleRequest(**{**vars(request), **changes})
        made = plan(asked, config, num_ranks)
        return seconds_of(made, dict.fromkeys(made.calls.all_sizes, costs))

    once = seconds("parallel.micro_batch=1")
    assert once == 2 * 4 * 12, "images, steps, windows"
    assert seconds("parallel.micro_batch=1", "sampler.steps=8") == 2 * once
    assert seconds("parallel.micro_batch=1", "sampler.method=heun") == 2 * once
    assert seconds("parallel.micro_batch=1", ensemble=2) == 2 * once
    assert seconds("parallel.micro_batch=1", num_ranks=2) == once / 2
    assert seconds("parallel.micro_batch=1", "parallel.ranks_per_image=1", num_ranks=2) == once / 2
    assert seconds("parallel.micro_batch=4", "parallel.images_per_step=1") == once / 4


@pytest.mark.parametrize("seconds, words", [
    (0.2, "less than a second"), (1.26, "about 1.3 s"), (44.4, "about 44 s"),
    (100, "about 1.7 min"),
    (3000, "about 50 min"), (7200, "about 2 h"), (86400 * 12.3, "about 12 days")])
def test_a_time_in_words(seconds, words):
    assert about(seconds) == words


def test_pictures_that_are_done_before(folder, capsys):
    words = [str(folder / "photos"), "--output", "new", "--checkpoint",
             str(folder / "good.safetensors")]
    assert main(words) == 0
    for mode, told in (([], "nothing is left to compute"), (["--overwrite"], "on 1 rank (")):
        capsys.readouterr()
        assert main([*words, "--dry-run", *mode]) == 0
        assert told in capsys.readouterr().out
    (Path("new") / "a.png").unlink()
    assert main([*words, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert out.count("1 of 1 images are done before") == 1 and TIME.search(out)


def test_broken_pictures_are_all_named(folder, capsys, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.fromarray(np.zeros((20, 24), np.uint8)).save(photos / "a.png")
    for name in ("b.png", "c.tif"):
        (photos / name).write_bytes(b"not a picture")
    words = [str(photos), "--output", "new", "--checkpoint", str(folder / "good.safetensors")]
    assert main([*words, "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "b.png: cannot be read" in told and "c.tif: cannot be read" in told
    (photos / "a.png").unlink()
    assert "none of 2 files can be read" in refused(capsys, main, words)
