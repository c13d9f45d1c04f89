"""Before the first update: whatever can be wrong with a training run, and encoders that
were trained alone."""
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from swinmpi.config import Config, load_config
from swinmpi.errors import CheckpointError, ConfigError
from swinmpi.families.loading import check_size, make_family
from swinmpi.models.thesis_encoders import RRDBEncoder
from swinmpi.sampling.settings import check_edge, check_overlap, check_path, check_shift
from swinmpi.storage.checkpoint import (
    CheckpointFolder,
    check_shapes,
    load_into,
    load_state,
    load_weights,
)
from swinmpi.storage.files import tell
from swinmpi.training.difficulty import check_head_alone
from swinmpi.training.distilling import check_goes_on, check_teacher
from swinmpi.training.log import Averages
from swinmpi.training.origin import check_origin
from swinmpi.windows.shift import max_shift_of

OPTIMIZERS = {"adam": torch.optim.Adam}  # by `train.optimizer`


def check_run(config: Config, folder: CheckpointFolder, resume: bool, values: Mapping) -> None:
    """Whatever can be wrong with a network and its folder before training starts, in one line;
    writes nothing. values: what a checkpoint keeps of the pairs. Not collective."""
    newest = folder.latest()
    check_size(config.model)
    if not (resume and newest is not None):
        check_origin(config)
        check_head_alone(config)
        check_teacher(config)
    check_encoder_checkpoint(config, resuming=resume and newest is not None)
    if newest is not None and not resume:
        raise ConfigError(f"{folder.root}: holds a training run already; go on with --resume, "
                          "or choose another --set train.output=FOLDER")
    if newest is not None:
        tell_other_pairs(config, check_state(config, newest), values)


def check_drawing(config: Config) -> None:
    """ConfigError where windows or times cannot be drawn as asked."""
    settings, shift, model = config.train, config.sampler.shift, config.model
    check_shift(config)
    check_path(config)
    check_overlap(config)
    check_edge(config)
    if config.sampler.adaptive is not None:
        raise ConfigError("sampler.adaptive: expected none in training, whose samples are judged "
                          f"as they are without, got {config.sampler.adaptive:g}; remove it")
    if settings.target == "diffuser" and not config.sampler.diffuses:
        raise ConfigError("sampler.method: expected a reverse process to validate a diffuser with, "
                          "got regression; set another method")
    if shift.edge != "roll" and settings.crop_px <= max_shift_of(shift, model.window_px):
        raise ConfigError(f"sampler.shift.edge: {shift.edge} would cut too much off crops of "
                          f"{settings.crop_px} px (train.crop_px); use roll")
    if settings.first_t >= config.diffusion.steps:
        raise ConfigError("train.first_t: expected less than diffusion.steps = "
                          f"{config.diffusion.steps}, got {settings.first_t}")
    special = (settings.shift_of, settings.circular) != ("image", "drawn")
    if special and model.draws_freely and settings.batch == "iid":
        raise ConfigError("train.shift_of, train.circular: expected image and drawn with "
                          f"train.batch iid of model.family {model.family}, whose windows lie on "
                          f"no frame, got {settings.shift_of} and {settings.circular}; set "
                          "train.batch=image")
    if settings.circular == "turn" and shift.pattern != "circular":
        raise ConfigError("train.circular: expected drawn, since sampler.shift.pattern is "
                          f"{shift.pattern}, got turn")


def check_encoder(config: Config) -> None:
    """ConfigError where the encoder cannot be trained alone, loaded or frozen as asked."""
    settings, model = config.train, config.model
    reused = settings.encoder_checkpoint is not None
    if settings.target == "encoder" and (reused or settings.freeze_encoder):
        raise ConfigError("train.encoder_checkpoint, train.freeze_encoder: "
                          "expected none with train.target=encoder, which "
                          "trains an encoder from the start; remove them")
    if not model.learns:
        raise ConfigError(f"model.family: expected a model that learns, got {model.family}, which "
                          "has no weights; sample with it at once: swinmpi-sample --model "
                          f"{model.family}_x{model.scale}")
    if (settings.target == "encoder" or reused) and not model.encoder_stands_alone:
        if not hasattr(model, "encoder"):
            raise ConfigError("train.target, train.encoder_checkpoint: expected a family with an "
                              f"encoder that can be trained alone, got {model.family}, which has "
                              "none; remove them")
        raise ConfigError("model.encoder: expected rrdb, the one of this family that can be "
                          f"trained alone, got {model.encoder}")
    if model.diffuses_code and settings.target == "diffuser" and not (reused or settings.init):
        raise ConfigError("train.encoder_checkpoint: expected the autoencoder that model.family "
                          f"{model.family} is trained in, got none; train it with --set "
                          "train.target=encoder, and give its best.safetensors here")
    if settings.freeze_encoder and not (reused or settings.init or settings.distils):
        raise ConfigError("train.freeze_encoder: expected train.encoder_checkpoint or train.init, "
                          "the weights to keep, got none; train them with --set "
                          "train.target=encoder")


def check_encoder_checkpoint(config: Config, resuming: bool) -> None:
    """CheckpointError unless the pre-trained encoder that is asked for is there and fits. A run
    that goes on does not read it again."""
    checkpoint = config.train.encoder_checkpoint
    if checkpoint is not None and not resuming:
        load_encoder(make_family(config.model).model.encoder, checkpoint)


def check_same_run(config: Config, header: Mapping, path: Path) -> None:
    """ConfigError where a checkpoint was trained to another end."""
    try:
        saved = load_config(base={name: header.get(name, {}) for name in ("model", "diffusion")})
    except ConfigError as error:
        raise CheckpointError(f"{path}: holds settings this version does not "
                              f"know ({error})") from None
    if not isinstance(trained := header.get("train", {}), Mapping):
        raise CheckpointError(f"{path}: expected its `train` settings, got {trained!r}; "
                              "remove this folder to resume from the one before")
    now = config.train
    before = saved.replaced(train={"target": trained.get("target", now.target),
                                   "freeze_encoder": trained.get("freeze_encoder", False)})
    for section, keys in (("model", None), ("diffusion", None),
                          ("train", {"target", "freeze_encoder"})):
        was, wanted = (getattr(one, section).model_dump(include=keys) for one in (before, config))
        for name in was.keys() | wanted.keys():
            if was.get(name) != wanted.get(name):
                what = section if keys is None else f"{section}.{name}"
                raise ConfigError(f"{path}: was trained with other `{what}` settings: "
                                  f"{section}.{name} {was.get(name)}, not {wanted.get(name)}; "
                                  "resume with the same --config and --set")


def tell_other_pairs(config: Config, header: Mapping, values: Mapping) -> None:
    """A line where a run goes on with pairs of other values, or degraded in another way, than
    before: it may be meant so. A model that gets a head tells of its own pairs alone."""
    if config.train.keeps_model:
        return
    for name in ("value_range", "value_dtype", "degradation", "lr_kernel", "noise", "blur_px"):
        before, now = header.get(name), values.get(name)
        if before != now:
            tell(f"{config.train.data}: has {name} {now or 'none'}, the run so far had "
                 f"{before or 'none'}; the checkpoint will tell of these pairs alone")


def check_state(config: Config, path: Path) -> dict:
    """Whatever would keep a run from going on from an `update-*` folder; no network is made.
    Returns what its checkpoint says about itself."""
    with torch.device("meta"):
        model = make_family(config.model, config.train.makes_diffuser).model
    freeze_untrained(model, config)
    weights, header = load_weights(path / "weights.safetensors")
    check_same_run(config, header, path)
    check_goes_on(config, header, path)
    for tensors in (weights, load_weights(path / "ema.safetensors")[0]):
        check_shapes(model.state_dict(), tensors, str(path))
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with fitting_state(path):
        state = load_state(path)
        checked_progress(state)
        checked_averages(state)
        load_moments(OPTIMIZERS[config.train.optimizer](trainable), state["optimizer"]["state"])
        torch.amp.GradScaler("cpu", enabled=config.parallel.precision == "fp16").load_state_dict(
            state["scaler"])
        torch.Generator().set_state(state["torch_rng"])
    return header


@contextmanager
def fitting_state(path: Path) -> Iterator[None]:
    """CheckpointError where the training state of an `update-*` folder does not hold what
    is looked for inside."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise CheckpointError(f"{path / 'state.pt'}: does not fit this run "
                              f"({type(error).__name__}: {error}); remove this "
                              "folder to resume from the one before") from None


def checked_progress(state: Mapping) -> tuple[int, float]:
    """`update` and `best` of a training state; TypeError or ValueError where they are none."""
    update, best = state["update"], state["best"]
    if type(update) is not int or update < 0 or type(best) is not float:
        raise ValueError("expected a number of updates and a loss, "
                         f"got {update!r:.40} and {best!r:.40}")
    return update, best


def checked_averages(state: Mapping) -> Averages:
    """Of a training state; none in those of versions that logged single updates. TypeError or
    ValueError where they are none."""
    saved = state.get("losses", {"count": 0, "sums": {}})
    count, sums = saved["count"], saved["sums"]
    named = all(type(name) is str and type(value) is float and math.isfinite(value)
                for name, value in sums.items())
    if type(count) is not int or count < 0 or not named or bool(sums) != bool(count):
        raise ValueError(f"expected sums of losses, got {saved!r:.80}")
    return Averages(count, dict(sums))


def load_moments(optimizer: Optimizer, moments: Mapping[int, Mapping[str, Tensor]]) -> None:
    """Adam's moments by the number of the parameter; the settings of the optimiser are this run's.
    ValueError, or whatever else such a file provokes, where they do not fit."""
    own = optimizer.state_dict()["param_groups"]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, moment in moments.items():
        shape = parameters[number].shape
        came = {name: (tuple(value.shape), value.dtype) for name, value in moment.items()}
        wanted = {"step": ((), torch.float32)} | {name: (tuple(shape), torch.float32)
                                                  for name in ("exp_avg", "exp_avg_sq")}
        if came != wanted:
            raise ValueError(f"moments of parameter {number} should be {wanted}, are {came}")
    optimizer.load_state_dict({"state": dict(moments), "param_groups": own})


def start_folder(folder: CheckpointFolder) -> Path | None:
    """Make the folder ready for writing; the state to go on from, if any."""
    folder.create()
    return folder.latest()


def load_encoder(encoder: nn.Module, checkpoint: str) -> None:
    """Start from an encoder trained alone; of an RRDB that is the trunk."""
    weights, _ = load_weights(checkpoint)
    if isinstance(encoder, RRDBEncoder):
        encoder.load_trunk(weights)
    else:
        load_into(encoder, weights, checkpoint)


def freeze_untrained(model: nn.Module, config: Config) -> None:
    """Only what a run trains asks for gradients."""
    if config.train.freeze_encoder:
        freeze(model.encoder)
    if config.train.keeps_model:
        model.requires_grad_(False)
        model.encoder.difficulty.requires_grad_(True)


def freeze(encoder: nn.Module) -> None:
    """What was trained alone no longer changes."""
    if isinstance(encoder, RRDBEncoder):
        encoder.freeze_trunk()
    else:
        encoder.requires_grad_(False)
