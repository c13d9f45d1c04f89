"""A head that expects the error of the regression, trained beside it or for a model that exists:
then nothing else of that changes, neither weights nor what its checkpoint says of itself."""
from collections.abc import Mapping

from swinmpi.config import Config
from swinmpi.errors import ConfigError
from swinmpi.storage.header import read_header
from swinmpi.training.origin import differences, origin_of, trained_as

MAY_DIFFER = ("difficulty_head", "window_px")
OWN = ("swinmpi", "update", "model", "train")
"""What a checkpoint with a new head says by itself."""


def check_head(config: Config) -> None:
    """ConfigError where a head cannot be trained as asked, whatever it is for."""
    settings, model = config.train, config.model
    if settings.keeps_model:
        if not model.tells_difficulty:
            raise ConfigError("train.target difficulty: expected a model of family aligned, got "
                              f"{model.family}")
        if settings.init is None:
            raise ConfigError("train.init: expected the checkpoint that gets a head, with "
                              "train.target difficulty, got nothing; add --set train.init=FILE")
        if not model.difficulty_head:
            raise ConfigError("model.difficulty_head: expected true with train.target difficulty, "
                              "which trains it alone, got false; remove that setting")
    elif not settings.makes_diffuser and getattr(model, "difficulty_head", False):
        raise ConfigError("model.difficulty_head: expected false with train.target encoder, which "
                          "trains no head, got true; add one to the finished diffuser by "
                          "train.target=difficulty")


def check_head_alone(config: Config) -> None:
    """ConfigError where the model that gets a head is not the configured one."""
    if not config.train.keeps_model:
        return
    origin = origin_of(config)
    trained = trained_as(origin, read_header(origin))
    for name, wanted, own in differences(config, trained):
        if name not in MAY_DIFFER:
            raise ConfigError(f"train.target difficulty: expected model.{name} {own} as in "
                              f"{origin}, got {wanted}; remove that setting")
    if trained.diffusion != config.diffusion:
        raise ConfigError("train.target difficulty: expected the `diffusion` settings of "
                          f"{origin}, got others; remove them")


def words_beneath(config: Config, header: Mapping | None = None) -> dict:
    """What the checkpoint of a model that gets a head said of itself, and says still; nothing
    where a run trains more. header: of the run's own newest state, where it goes on."""
    if not config.train.keeps_model:
        return {}
    header = read_header(origin_of(config)) if header is None else header
    return {name: value for name, value in header.items() if name not in OWN}
