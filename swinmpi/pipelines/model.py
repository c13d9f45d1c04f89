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

# What may differ from training: everything else in these sections is what the weights mean.
FREE_SETTINGS = ("model.window_px", "diffusion.variance")


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
    """The settings a checkpoint recommends: its model, its forward process, the sampler it was validated with, and
    whether it is a diffuser or an encoder alone."""
    settings = {name: header[name] for name in ("model", "diffusion", "sampler") if name in header}
    return settings | {"train": {"target": header.get("target", "diffuser")}}


def resolve_config(header: Mapping, checkpoint: Path, files, overrides, preset: str | None) -> Config:
    """The configuration of a run with this checkpoint. CheckpointError when its own settings are not known here, or when
    others ask for another model than it is."""
    try:
        trained = load_config(base=settings_of(header))
    except ConfigError as error:
        raise CheckpointError(f"{checkpoint}: holds settings this version does not know ({error}); retrain or update") from None
    config = load_config(files, overrides, preset, settings_of(header))
    check_same_model(config, trained, checkpoint)
    return config


def check_same_model(config: Config, trained: Config, checkpoint: Path) -> None:
    """CheckpointError where `config` contradicts what the weights were trained as."""
    meaning = {"model": True, "diffusion": True, "train": {"target"}}
    wanted, own = (flat(settings.model_dump(include=meaning)) for settings in (config, trained))
    for name in sorted(wanted, key=lambda name: name != "model.family"):
        if name not in FREE_SETTINGS and wanted[name] != own.get(name):
            raise CheckpointError(f"{checkpoint}: expected a model with {name} {wanted[name]}, as configured, but it was "
                                  f"trained with {own.get(name)}; remove that setting or choose another --checkpoint")


def load_model(checkpoint: Path, config: Config) -> LoadedModel:
    """Build the configured model and fill it; CheckpointError when the weights do not fit it."""
    tensors, header = load_weights(checkpoint)
    target = settings_of(header)["train"]["target"]
    try:
        whole = make_objective(config.model_copy(update={"train": config.train.model_copy(update={"target": target})}))
    except ValueError as error:
        raise CheckpointError(f"{checkpoint}: its settings make no model ({error}); retrain") from None
    load_into(whole.model, tensors, str(checkpoint))
    return LoadedModel(whole, target, file_sha256(checkpoint))


def flat(settings: Mapping) -> dict:
    """{"model": {"scale": 2}} -> {"model.scale": 2}."""
    return {f"{section}.{key}": value for section, values in settings.items() for key, value in values.items()}
