"""What a run takes from the checkpoint that it starts from (`train.init`, `train.teacher`):
settings that nobody else gives, and weights."""
from collections.abc import Iterator, Mapping
from pathlib import Path

from torch import Tensor, nn

from swinmpi.config import Config, load_config
from swinmpi.demo import MODELS, shipped
from swinmpi.errors import CheckpointError, ConfigError
from swinmpi.models.image_channels import to_channels, to_noise_told
from swinmpi.sampling.settings import settings_of, takes_steps
from swinmpi.storage.checkpoint import CheckpointFolder, load_weights
from swinmpi.storage.header import read_header

ADAPTS = ("window_px", "channels", "scale", "residual_gain", "dropout", "noise_aware",
          "pixel_weight", "difficulty_head")
"""`model` settings that may differ from those of `train.init`."""
NAMED = 3


def origin_of(config: Config) -> Path | None:
    """The checkpoint that a run starts from, if any."""
    name = config.train.teacher if config.train.distils else config.train.init
    if name is None:
        return None
    if name not in MODELS and not Path(name).suffix and not Path(name).exists():
        key = "teacher" if config.train.distils else "init"
        raise ConfigError(f"train.{key}: expected a checkpoint, or one of the shipped models "
                          f"{', '.join(sorted(MODELS))}, got {name}, which is no file")
    return shipped(MODELS[name]) if name in MODELS else Path(name)


def settings_beneath(config: Config, resume: bool) -> dict:
    """What a run takes from its origin where neither files nor the command line say anything; one
    that is resumed from its own newest state. ConfigError or CheckpointError."""
    origin = origin_of(config)
    if origin is None:
        return {}
    newest = CheckpointFolder(Path(config.train.output), 1).latest() if resume else None
    header = read_header(newest / "weights.safetensors" if newest else origin)
    trained = trained_as(newest or origin, header)
    settings = {name: dict(header.get(name, {})) for name in ("model", "diffusion", "sampler")}
    if config.train.keeps_model:
        head = {"difficulty_head": True} if trained.model.tells_difficulty else {}
        return settings | {"model": settings["model"] | head}
    settings["sampler"] = {name: value for name, value in settings["sampler"].items()
                           if name == "shift"}
    if not newest and not config.train.distils:  # the pairs decide
        settings["model"] = {name: value for name, value in settings["model"].items()
                             if name not in ("scale", "channels")}
    return settings


def trained_as(checkpoint: Path, header: Mapping) -> Config:
    """A checkpoint's own settings; CheckpointError where this version does not know them."""
    try:
        return load_config(base=settings_of(header))
    except ConfigError as error:
        raise CheckpointError(f"{checkpoint}: holds settings this version does not "
                              f"know ({error})") from None


def check_origin(config: Config) -> None:
    """ConfigError where settings contradict each other or the checkpoint of `train.init`."""
    settings, origin = config.train, origin_of(config)
    if settings.init is None or origin is None:
        return
    if settings.encoder_checkpoint is not None:
        raise ConfigError("train.init, train.encoder_checkpoint: expected one of them, got both; "
                          "train.init brings an encoder as well")
    header = read_header(origin)
    if takes_steps(header) != settings.makes_diffuser:
        kinds = ("an encoder trained alone", "a diffuser")
        raise ConfigError(f"train.init: expected {kinds[settings.makes_diffuser]} as train.target "
                          f"says, got {kinds[takes_steps(header)]} in {origin}"
                          + ("; give it as train.encoder_checkpoint" if settings.makes_diffuser
                             else ""))
    trained = trained_as(origin, header)
    for name, wanted, own in differences(config, trained):
        if name not in ADAPTS:
            raise ConfigError(f"train.init: expected model.{name} {own} as in {origin}, "
                              f"got {wanted}; remove that setting, or train.init")


def differences(config: Config, trained: Config) -> Iterator[tuple[str, object, object]]:
    """(name, here, there) of `model` settings that are not the same, the family first."""
    here, there = config.model.model_dump(), trained.model.model_dump()
    for name in sorted(here | there, key=lambda name: name != "family"):
        if here.get(name) != there.get(name):
            yield name, here.get(name), there.get(name)


def initial_weights(config: Config, model: nn.Module) -> tuple[dict[str, Tensor], str]:
    """What `train.init` gives to the configured model, and a line on what it does not.

    CheckpointError where it gives nothing.
    """
    origin = origin_of(config)
    tensors, header = load_weights(origin)
    trained, remade = trained_as(origin, header), {}
    if trained.model.channels != config.model.channels:
        try:
            remade = to_channels(tensors, trained.model, config.model.channels)
        except RuntimeError:
            raise CheckpointError(f"{origin}: expected weights that fit its own `model` settings, "
                                  "got others; copy or train it again") from None
    if trained.model.told_noise != config.model.told_noise:
        remade |= to_noise_told(tensors | remade, config.model.told_noise)
    wanted = {name: value.shape for name, value in model.state_dict().items()}
    taken = {name: value for name, value in (tensors | remade).items()
             if wanted.get(name) == value.shape}
    if not taken:
        raise CheckpointError(f"{origin}: holds no weights that fit the configured model; remove "
                              "`model` settings to use the checkpoint's own")
    told = f"train.init: {len(taken)} of {len(wanted)} tensors from {origin.name}"
    if made := taken.keys() & remade.keys():
        told += f", {len(made)} of them made for {new_inputs(config, trained)}"
    told += f"; new: {named(wanted.keys() - taken.keys())}"
    if left := tensors.keys() - wanted.keys():
        told += f"; left out: {named(left)}"
    if trained.diffusion != config.diffusion:
        told += "; it was trained with other `diffusion` settings"
    return taken, told


def new_inputs(config: Config, trained: Config) -> str:
    """What else an encoder sees than the one it is made of."""
    now, before = config.model, trained.model
    channels = [f"{now.channels} of {before.channels} channels"] * (now.channels != before.channels)
    noise = ["noise that is told" if now.told_noise else "noise that is not told"]
    return " and ".join(channels + noise * (now.told_noise != before.told_noise))


def named(names: set[str]) -> str:
    """The first of them, and how many more; none."""
    first, more = sorted(names)[:NAMED], len(names) - NAMED
    return (", ".join(first) + (f" and {more} more" if more > 0 else "")) or "none"


def start_from(model: nn.Module, config: Config) -> None:
    """Put the weights of `train.init` into a model."""
    taken, _ = initial_weights(config, model)
    model.load_state_dict(taken, strict=False)
