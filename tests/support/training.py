"""A training run small enough for tests: pairs of smooth images, models of a few
thousand parameters."""
import json
from pathlib import Path

import numpy as np
import torch

from swinmpi.config import Config, load_config
from swinmpi.images.imresize import imresize
from swinmpi.parallel.worker import Worker
from swinmpi.storage.pair_writing import PairWriter
from swinmpi.storage.pairs import TRAIN, VALIDATE

ALONE = Worker(0, 1, torch.device("cpu"))
ALIGNED = ["model.window_px=16", "model.encoder_channels=8", "model.encoder_blocks=1",
           "model.feature_channels=4", "model.global_channels=8", "model.unet_channels=[8, 16]",
           "model.attention_heads=2"]
VIT = ["model.encoder=vit", "model.vit_channels=8", "model.vit_layers=1", "model.vit_heads=2",
       "model.vit_patch_px=4"]
LATENT = ["model.family=latent", *ALIGNED, "model.latent_channels=4",
          "model.autoencoder_channels=8", "model.autoencoder_blocks=1"]
WAVELET = ["model.family=wavelet", "model.window_px=8", *ALIGNED[1:]]
THESIS = ["model.family=thesis", "model.window_px=16", "model.rrdb_blocks=1",
          "model.rrdb_channels=8", "model.rrdb_growth=4", "model.unet_channels=[8, 8, 16, 16]",
          "model.bottleneck_channels=16", "model.attention_heads=2", "sampler.shift.border=wrap"]
SRDIFF = ["model.family=srdiff", "model.scale=2", "model.rrdb_blocks=3", "model.rrdb_channels=8",
          "model.rrdb_growth=4", "model.unet_channels=[8, 8, 8, 16]"]
VANILLA = ["model.family=vanilla", "model.unet_channels=[8, 16, 16]", "model.unet_blocks=1",
           "model.attention_heads=2"]
SHORT = ["diffusion.steps=50", "sampler.steps=2", "train.updates=6", "train.batch_images=4",
         "train.windows_per_image=2", "train.crop_px=32", "train.warmup_updates=2",
         "train.learning_rate=1e-3", "train.log_every=1", "train.checkpoint_every=3",
         "train.validate_every=6", "train.validate_images=2"]


def write_pairs(path: Path, scale: int = 2, channels: int = 3, size_px: int = 32,
                num_train: int = 12, num_validate: int = 2) -> Path:
    """Smooth random images and their LR versions."""
    rng = np.random.default_rng(7)
    with PairWriter(path, {"scale": float(scale)}) as pairs:
        for number in range(num_train + num_validate):
            coarse = rng.integers(0, 256, (size_px // 4, size_px // 4, channels)).astype(np.uint8)
            hr = imresize(coarse, size=(size_px, size_px))
            lr = imresize(hr, size=(size_px // scale, size_px // scale))
            pairs.append(hr, lr, TRAIN if number < num_train else VALIDATE, f"image {number}")
    return path


def settings(pairs: Path, output: Path, *overrides: str, model: list[str] = ALIGNED) -> list[str]:
    """Overrides `section.key=value` of a short run."""
    return [*model, *SHORT, f"train.data={pairs}", f"train.output={output}", *overrides]


def tiny(pairs: Path, output: Path, *overrides: str, model: list[str] = ALIGNED) -> Config:
    return load_config(overrides=settings(pairs, output, *overrides, model=model))


def as_arguments(overrides: list[str]) -> list[str]:
    return [argument for override in overrides for argument in ("--set", override)]


def log_of(folder: Path) -> list[dict]:
    """The records of a run's log without its timings; a last line still being
    written is left out."""
    path = folder / "log.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    records = [json.loads(line) for line in lines if line.endswith("\n")]
    return [
        {key: value for key, value in record.items() if key not in ("seconds", "images_per_second")}
        for record in records]


def losses_of(folder: Path) -> list[float]:
    return [record["loss"] for record in log_of(folder) if "loss" in record]
