"""What operations.py disturbs: every way to write an output, with inputs as small as can be."""
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from tests.support.sampling import arguments, smooth_stack, write_checkpoint, write_stack
from tests.support.training import as_arguments, settings, write_pairs

QUICK = ("parallel.threads=1", "sampler.steps=1")
SMALL = ["data.size_px=8", "data.crops_per_image=2", "data.flat_reject=0.0"]


@dataclass(frozen=True)
class Job:
    """words: of the command line, from the folder of inputs and that of outputs. again: the same
    command has nothing to do where all is there, instead of refusing to replace it. over: it
    replaces an output that is there before, made with another seed."""

    command: str
    words: Callable[[Path, Path], list[str]]
    again: bool = False
    over: bool = False


def sampled(*inputs: str, output: str = "out.h5", more: tuple[str, ...] = ()) -> Callable:
    def words(inside: Path, output_folder: Path) -> list[str]:
        first, *others = [str(inside / name) for name in inputs]
        return [*others, *arguments(Path(first), output_folder / output,
                                    inside / "model.safetensors", *QUICK, *more)]
    return words


def merged(*more: str) -> Callable:
    return lambda inside, output: [*map(str, sorted(inside.glob("part.shard-*.h5"))),
                                   "--output", str(output / "out.h5"), *more]


def prepared(*more: str) -> Callable:
    return lambda inside, output: [str(inside / "hr.h5"), "--output", str(output / "out.h5"),
                                   *more, *as_arguments(SMALL)]


def trained(inside: Path, output: Path) -> list[str]:
    return [*as_arguments([*settings(inside / "pairs.h5", output / "run", "train.updates=2",
                                     "train.checkpoint_every=1", "train.keep_last=1"),
                           "parallel.threads=1"]), "--resume"]


OVER = ("--overwrite",)
JOBS = {"sample": Job("sample", sampled("in.h5")),
        "pictures": Job("sample", sampled("photos", output="sr"), again=True),
        "stacks": Job("sample", sampled("in.h5", "other.h5", output="sr"), again=True),
        "merge": Job("merge", merged()),
        "prepare": Job("prepare", prepared()),
        "lr-only": Job("prepare", prepared("--lr-only")),
        "train": Job("train", trained, again=True),
        "sample-over": Job("sample", sampled("in.h5", more=OVER), over=True),
        "pictures-over": Job("sample", sampled("photos", output="sr", more=OVER), over=True),
        "merge-over": Job("merge", merged(*OVER), over=True),
        "prepare-over": Job("prepare", prepared(*OVER), over=True)}


def write_inputs(folder: Path, run: Callable[[str, list[str]], None]) -> None:
    """Of all jobs, and in `folder`/before what those find that replace an output. run: a command
    with its words."""
    write_stack(folder / "in.h5", smooth_stack(2, 24, 28))
    write_stack(folder / "other.h5", smooth_stack(1, 16, 20, seed=2))
    write_stack(folder / "hr.h5", smooth_stack(2, 24, 28, seed=1))
    write_checkpoint(folder / "model.safetensors", "model.window_px=32")
    write_pairs(folder / "pairs.h5")
    (folder / "photos").mkdir()
    colour = smooth_stack(1, 14, 18, 3, "uint8")[0]
    Image.fromarray(np.dstack([colour, colour[..., 0]])).save(folder / "photos" / "a.png")
    tifffile.imwrite(folder / "photos" / "b.tif", smooth_stack(2, 14, 18, seed=1),
                     photometric="minisblack")
    for number in (1, 2):
        words = sampled("in.h5", output="part.h5", more=(f"--shard={number}/2",))
        run("sample", words(folder, folder))
    before = folder / "before"
    before.mkdir()
    for words in (sampled("in.h5", more=("sampler.seed=1",)),
                  sampled("photos", output="sr", more=("sampler.seed=1",))):
        run("sample", words(folder, before))


def fresh(folder: Path, before: Path | None = None) -> Path:
    """An empty folder for outputs, or with a copy of what is in `before`."""
    shutil.rmtree(folder, ignore_errors=True)
    if before is None:
        folder.mkdir()
    else:
        shutil.copytree(before, folder)
    folder.with_suffix(".log").unlink(missing_ok=True)
    return folder
