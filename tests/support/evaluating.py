"""Stacks for evaluations, written as swinmpi-sample writes them, and what the command answers."""
import json
from pathlib import Path

import h5py
import numpy as np

from swinmpi.cli.evaluate import main
from swinmpi.config import dump_yaml, load_config
from swinmpi.images.imresize import imresize
from swinmpi.storage.outputs.contents import OutputPlan
from swinmpi.storage.outputs.output import StackOutput
from swinmpi.storage.stack import Stack

CONFIG = load_config(overrides=["model.window_px=16"])


def smooth_images(dtype: str = "uint8", channels: int = 3, num_images: int = 3) -> np.ndarray:
    """(N, 64, 48, C): smooth random images over most of the dtype's range (floats: -2..3)."""
    rng = np.random.default_rng(5)
    unit = np.stack([imresize(rng.uniform(0, 1, (24, 18, channels)), size=(64, 48))
                     for _ in range(num_images)]).clip(0, 1)
    stack = unit * 5 - 2 if dtype == "float32" else unit * np.iinfo(dtype).max
    return stack.astype(dtype)


def write_stack(path: Path, images: np.ndarray, name: str = "images") -> str:
    with h5py.File(path, "w") as file:
        file[name] = images
    return str(path)


def write_ours(path: Path, lr: str, versions: dict[str, np.ndarray], failed: tuple[int, ...] = (),
               **provenance) -> str:
    """A finished output of swinmpi-sample: (N, H, W, C) versions `sr` and maybe `regression`, or
    those of an ensemble."""
    members = sum(name.startswith("member_") for name in versions)
    plan = OutputPlan(2, "sr_mean" in versions, "regression" in versions, kept_members=members)
    with Stack.open(lr) as stack, StackOutput.open(path, stack, plan, {}) as output:
        for index in set(range(stack.num_images)) - set(failed):
            output.write(index, {name: np.moveaxis(images[index], -1, 0)
                                 for name, images in versions.items()}, {})
        output.finish({"configuration": dump_yaml(CONFIG)} | provenance, failed)
    return str(path)


def report_of(folder: Path) -> dict:
    return json.loads((folder / "evaluate.json").read_text())


def complaint(capsys, *argv: str) -> str:
    """The one line of a run that must end with 2 and write nothing."""
    assert main([*argv, "--output", "refused"]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1, captured
    assert not Path("refused").exists(), captured
    return captured.err
