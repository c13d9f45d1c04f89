"""A checkpoint as something that super-resolves: its settings, its weights, and which resolver it needs."""
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from swinmpi.config import Config, load_config
from swinmpi.errors import CheckpointError, ConfigError
from swinmpi.parallel.exchange import RootExchange
from swinmpi.pipelines.objective import make_objective
from swinmpi.pipelines.superresolve import RegressionResolver, SuperResolver
from swinmpi.storage.checkpoint import file_sha256, load_into, load_weights


@dataclass(frozen=True)
class LoadedModel:
    """`model` on the CPU with its weights; `target` tells what was trained, the diffuser or the encoder alone."""

    model: nn.Module
    target: str
    sha256: str

    def resolver(self, config: Config, exchange: RootExchange, micro_batch: int,
                 device: torch.device) -> SuperResolver | RegressionResolver:
        """Ready to run on `device`."""
        layout = torch.channels_last if config.parallel.channels_last else torch.contiguous_format
        if self.target == "encoder":
            return RegressionResolver(config, self.model.to(device, memory_format=layout).eval(), exchange, device)
        model = self.model.model.prepare(device, config.parallel.channels_last, config.parallel.fused_attention)
        return SuperResolver(config, model, exchange, micro_batch, device)


def settings_of(header: Mapping) -> dict:
    """The settings a checkpoint recommends: its model, its forward process, and the sampler it was validated with."""
    return {name: header[name] for name in ("model", "diffusion", "sampler") if name in header}


def load_model(checkpoint: Path, config: Config) -> LoadedModel:
    """Build the configured model and fill it; CheckpointError when the checkpoint is another model's."""
    tensors, header = load_weights(checkpoint)
    trained = header.get("model", {})
    for key in ("family", "scale", "channels"):
        wanted = getattr(config.model, key)
        if trained.get(key) != wanted:
            raise CheckpointError(f"{checkpoint}: expected a model of {key} {wanted}, got {trained.get(key)}; remove "
                                  f"model.{key} or choose another --checkpoint")
    target = header.get("target", "diffuser")
    whole = make_objective(config.model_copy(update={"train": config.train.model_copy(update={"target": target})}))
    load_into(whole.model, tensors, str(checkpoint))
    return LoadedModel(whole, target, file_sha256(checkpoint))


def resolve_config(header: Mapping, checkpoint: Path, files, overrides, preset: str | None) -> Config:
    """The configuration of a run with this checkpoint; errors in its own settings are the checkpoint's."""
    try:
        load_config(base=settings_of(header))
    except ConfigError as error:
        raise CheckpointError(f"{checkpoint}: holds settings this version does not know ({error}); retrain or update") from None
    return load_config(files, overrides, preset, settings_of(header))
