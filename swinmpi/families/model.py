"""A checkpoint as something that super-resolves: its weights, and which resolver they need."""
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from swinmpi.config import Config
from swinmpi.errors import CheckpointError, ConfigError
from swinmpi.families.objective import make_objective
from swinmpi.models.blocks import count_parameters
from swinmpi.models.diffuser import Diffuser
from swinmpi.parallel.comm import Group
from swinmpi.sampling.settings import settings_of
from swinmpi.sampling.superresolve import RegressionResolver, SuperResolver
from swinmpi.storage.checkpoint import file_sha256, load_into, load_weights
from swinmpi.storage.stack import memory_bytes


@dataclass(frozen=True)
class LoadedModel:
    """`model` on the CPU with its weights; `target` tells what was trained, the diffuser or the encoder alone."""

    model: nn.Module
    target: str
    sha256: str

    def resolver(self, config: Config, group: Group, micro_batch: int,
                 device: torch.device) -> SuperResolver | RegressionResolver:
        """Ready to run on `device`."""
        layout = torch.channels_last if config.parallel.channels_last else torch.contiguous_format
        if self.target == "encoder":
            return RegressionResolver(config, self.model.to(device, memory_format=layout).eval(), group, device)
        model = self.model.model.prepare(device, config.parallel.channels_last, config.parallel.fused_attention)
        return SuperResolver(config, model, group, micro_batch, device)


def check_size(config: Config) -> None:
    """ConfigError where the network's weights alone would not fit into this machine's memory."""
    with torch.device("meta"):
        num_bytes = 4 * count_parameters(Diffuser(config.model))
    if 2 * num_bytes > memory_bytes():
        raise ConfigError(f"model: expected a network that fits this machine's memory of {memory_bytes() / 2**30:.3g} GiB, got "
                          f"one with {num_bytes / 2**30:.3g} GiB of weights; set fewer blocks or channels")


def load_model(checkpoint: Path, config: Config) -> LoadedModel:
    """Build the configured model and fill it; CheckpointError when the weights do not fit it."""
    check_size(config)
    tensors, header = load_weights(checkpoint)
    target = settings_of(header)["train"]["target"]
    try:
        whole = make_objective(config.model_copy(update={"train": config.train.model_copy(update={"target": target})}))
    except ValueError as error:
        raise CheckpointError(f"{checkpoint}: its settings make no model ({error}); retrain") from None
    load_into(whole.model, tensors, str(checkpoint))
    return LoadedModel(whole, target, file_sha256(checkpoint))
