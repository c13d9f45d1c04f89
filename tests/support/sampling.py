"""Sampling small enough for tests: checkpoints of random weights and stacks of a few
thousand pixels."""
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import nn

from swinmpi.config import load_config
from swinmpi.families.loading import make_family
from swinmpi.images.imresize import imresize
from swinmpi.storage.checkpoint import save_weights
from tests.support.training import ALIGNED

NO_PICTURE = ["--set", "output.picture=false"]
FEW_STEPS = ["diffusion.steps=50", "sampler.steps=3"]


def write_checkpoint(path: Path, *overrides: str, model: list[str] = ALIGNED,
                     target: str = "diffuser") -> Path:
    """Seeded random weights, none of them zero, so that every input of the network
    tells in its output."""
    config = load_config(overrides=[*model, *FEW_STEPS, f"train.target={target}", *overrides])
    torch.manual_seed(0)
    trained = make_family(config.model, target == "diffuser").model
    for parameter in trained.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    sections = config.model_dump(include={"model", "diffusion", "sampler"})
    save_weights(path, trained.state_dict(), {"target": target, **sections})
    return path


def smooth_stack(num_images: int, height: int, width: int, channels: int = 1, dtype: str = "uint16",
                 seed: int = 0) -> np.ndarray:
    """(N, H, W, C), or (N, H, W) for one channel: smooth random images over most of the dtype's
    range (floats: -2..3)."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 1, (num_images, -(-height // 4), -(-width // 4), channels))
    unit = np.stack([imresize(image, size=(height, width)) for image in coarse]).clip(0, 1)
    stack = unit * 5 - 2 if np.dtype(dtype).kind == "f" else unit * np.iinfo(dtype).max
    return (stack[..., 0] if channels == 1 else stack).astype(dtype)


def write_stack(path: Path, images: np.ndarray, name: str = "images", **options) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset(name, data=images, **options)
    return path


def sr_of(path: Path, name: str = "sr") -> np.ndarray:
    """A dataset of a finished output."""
    with h5py.File(path) as file:
        return file["entry/data"][name][()]


def arguments(stack: Path, output: Path, checkpoint: Path, *settings: str) -> list[str]:
    """A command line of swinmpi-sample; settings are `section.key=value` or options such as
    `--ensemble=2`. Without a picture, unless a setting asks for one."""
    options = [word for setting in settings
               for word in ([setting] if setting.startswith("--") else ["--set", setting])]
    return [str(stack), "--output", str(output), "--checkpoint", str(checkpoint),
            *NO_PICTURE, *options]
