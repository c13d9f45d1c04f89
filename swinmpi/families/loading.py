"""From settings to a family, and from a checkpoint to one with its weights."""
from collections.abc import Callable
from pathlib import Path

import torch

from swinmpi.config import ModelConfig
from swinmpi.errors import CheckpointError, ConfigError
from swinmpi.families.aligned import Aligned
from swinmpi.families.family import Family
from swinmpi.families.latent import Latent, LatentStart
from swinmpi.families.regression import Regression
from swinmpi.families.srdiff import Srdiff
from swinmpi.families.thesis import Thesis
from swinmpi.families.vanilla import Vanilla
from swinmpi.families.wavelet import Wavelet
from swinmpi.models.blocks import count_parameters
from swinmpi.storage.checkpoint import load_into, load_weights
from swinmpi.storage.stack import memory_bytes

FAMILIES: dict[str, Callable[[ModelConfig], Family]] = {
    "aligned": Aligned, "thesis": Thesis, "srdiff": Srdiff, "vanilla": Vanilla,
    "bicubic": Regression, "latent": Latent, "wavelet": Wavelet}
ALONE: dict[str, Callable[[ModelConfig], Family]] = {"latent": LatentStart}
"""What an encoder alone is, where it is not just a Regression."""


def make_family(config: ModelConfig, takes_steps: bool = True) -> Family:
    """With first weights from torch's generator. takes_steps: False for the encoder alone."""
    made_of = FAMILIES[config.family] if takes_steps else ALONE.get(config.family, Regression)
    return made_of(config)


def check_size(config: ModelConfig) -> None:
    """ConfigError where the network's weights alone would not fit into this machine's memory."""
    with torch.device("meta"):
        num_bytes = 4 * count_parameters(make_family(config).model)
    if 2 * num_bytes > memory_bytes():
        raise ConfigError("model: expected a network that fits this machine's memory of "
                          f"{memory_bytes() / 2**30:.3g} GiB, got one with {num_bytes / 2**30:.3g} "
                          "GiB of weights; set fewer blocks or channels")


def load_family(checkpoint: Path, config: ModelConfig, takes_steps: bool) -> Family:
    """The configured family with the checkpoint's weights, on the CPU; CheckpointError where they
    do not fit. takes_steps: whether it holds a diffuser, not an encoder alone."""
    check_size(config)
    tensors, _ = load_weights(checkpoint)
    try:
        family = make_family(config, takes_steps)
    except ValueError as error:
        raise CheckpointError(f"{checkpoint}: its settings make no model "
                              f"({error}); retrain") from None
    load_into(family.model, tensors, str(checkpoint))
    return family
