"""Experiments small enough for tests."""
from pathlib import Path

import torch

from swinmpi.cli.experiment import main

TINY = """
title: Two learning rates

section: none

settings:
  data: {size_px: 32, crops_per_image: 3, validate_share: 0.1, test_share: 0.25, validate_crops: 3}
  model: {window_px: 16}
  diffusion: {steps: 50}
  sampler: {steps: 2}
  train: {batch_images: 4, crop_px: 32, warmup_updates: 2, windows_per_image: 2}

arms:
  - {name: a}
  - {name: b, settings: {train: {learning_rate: 1e-3}}, published: {psnr: 30.0}}

budgets:
  smoke:
    updates: 6
    test_images: 2
    models:
      aligned:
        {encoder_channels: 8, encoder_blocks: 1, feature_channels: 4, global_channels: 8,
         unet_channels: [8, 16], attention_heads: 2}
"""


def run_here(*words) -> int:
    """The exit code of swinmpi-experiment in this process, one thread; a launch of its own, which
    first imports everything, takes longer than most of them."""
    threads = torch.get_num_threads()
    try:
        return main([*map(str, words), "--set", "parallel.threads=1"])
    finally:
        torch.set_num_threads(threads)


def write_experiment(folder: Path, text: str) -> Path:
    """A YAML file; with a title and a section, where the text has none."""
    path = folder / "tiny.yaml"
    head = "" if "title:" in text else "title: Tiny\nsection: none\n"
    path.write_text(head + text)
    return path
