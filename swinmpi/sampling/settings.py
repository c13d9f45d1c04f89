"""The settings of a run with a trained model: what its checkpoint recommends, what may be changed,
what cannot be."""
from collections.abc import Mapping, Sequence
from pathlib import Path

from swinmpi.config import PRESETS, Config, load_config
from swinmpi.config.data_section import MEASURE
from swinmpi.config.families import FAMILIES
from swinmpi.errors import CheckpointError, ConfigError
from swinmpi.storage.outputs.mpio import check_backend
from swinmpi.storage.values import ValueRange

# What the weights mean, but for FREE: that may differ from training.
MEANING = {"model": True, "diffusion": True, "train": {"target"}}
ADDED = {"diffusion": {"beta_start": None, "beta_end": None, "path": "curved",
                       "start_std": 0.5},
         "sampler": {"clip_result": None, "start": "as_trained", "quiet_steps": 1,
                     "coherence": None, "overlap": 1, "adaptive": None, "adaptive_steps": 1,
                     "adaptive_by": "head"}}
DISTILLED_KEY = "distilled_steps"  # of a checkpoint's header
PRESETS_KEY = "presets"  # likewise: those that it has settings of its own for
FREE = ("model.window_px", "model.dropout", "diffusion.variance")
# The first step from x_T, which holds next to nothing of the image, is a guess; more correct it.
FEWEST_STEPS_OF_EPS = 5


def settings_of(header: Mapping) -> dict:
    """The settings a checkpoint recommends: its model, its forward process, the sampler it was
    validated with, and whether it is a diffuser or an encoder alone."""
    settings = {name: header[name] for name in ("model", "diffusion", "sampler") if name in header}
    return settings | {"train": {"target": header.get("target", "diffuser")}}


def presets_of(header: Mapping, trained: Config) -> dict[str, dict]:
    """The presets as a checkpoint takes them: its own where it has some, else by a method that
    walks its path, in the steps it was distilled for (faithful: without noise), and in a few at
    least where it predicts eps. CheckpointError where its own cannot be read."""
    methods, steps = trained.diffusion.methods, distilled_steps(header)
    own = own_presets(header)
    made = {}
    for name, preset in PRESETS.items():
        if name in own:
            made[name] = own[name]
            continue
        sampler = dict(preset.get("sampler", {}))
        if sampler.get("method", methods[0]) not in methods:
            sampler["method"] = methods[0]
        if steps is not None and "steps" in sampler:
            sampler["steps"] = steps
            if name == "faithful":  # what a student makes of noise is a sample, not the mean
                sampler["noise_scale"] = 0.0
        elif trained.diffusion.prediction == "eps" and "steps" in sampler:
            sampler["steps"] = max(sampler["steps"], FEWEST_STEPS_OF_EPS)
        made[name] = preset | ({"sampler": sampler} if sampler else {})
    return made


def own_presets(header: Mapping) -> Mapping[str, Mapping]:
    """Settings of the sampler, in sections, by preset; CheckpointError."""
    told = header.get(PRESETS_KEY, {})
    if not (isinstance(told, Mapping) and all(
            isinstance(preset, Mapping) and isinstance(preset.get("sampler"), Mapping)
            for preset in told.values())):
        raise CheckpointError("the checkpoint's header: expected presets with sections `sampler`, "
                              f"got {str(told)[:60]}; copy or download it again")
    return told


def distilled_steps(header: Mapping) -> int | None:
    """How many steps a checkpoint was distilled for; None for one that was not."""
    steps = header.get(DISTILLED_KEY)
    return steps if type(steps) is int and steps > 0 else None


def takes_steps(header: Mapping) -> bool:
    """Whether a checkpoint holds a diffuser, not an encoder trained alone."""
    return header.get("target", "diffuser") == "diffuser"


def resolve_config(header: Mapping, checkpoint: Path, files: Sequence[Path | str],
                   overrides: Sequence[str], preset: str | None) -> Config:
    """The configuration of a run with this checkpoint. CheckpointError when its own settings are
    not known here, or when others ask for another model than it is."""
    try:
        trained = load_config(base=settings_of(header))
    except ConfigError as error:
        raise CheckpointError(f"{checkpoint}: holds settings this version does not know ({error}); "
                              "retrain or update") from None
    config = load_config(files, overrides, preset, settings_of(header),
                         presets_of(header, trained))
    wanted, own = (flat(settings.model_dump(include=MEANING)) for settings in (config, trained))
    if wanted["train.target"] in ("distill", "difficulty"):
        wanted["train.target"] = "diffuser"  # which a student is, and a model that gets a head
    for name in sorted(wanted, key=lambda name: name != "model.family"):
        if name not in FREE and wanted[name] != own.get(name):
            raise CheckpointError(f"{checkpoint}: expected a model with {name} {wanted[name]}, "
                                  f"as configured, but it was trained with {own.get(name)}; "
                                  "remove that setting, or choose another --checkpoint or --model")
    check_noise(config, checkpoint)
    if config.model.told_noise and config.data.noise is None:
        config = config.replaced(data={"noise": MEASURE})
    return config.replaced(output={"consistent": consistency(config, header)})


def check_noise(config: Config, checkpoint: Path) -> None:
    """ConfigError where the noise level cannot be told as asked."""
    noise, blur = config.data.noise, config.data.blur_px
    if noise is not None and not config.model.told_noise:
        raise ConfigError("data.noise: expected a checkpoint that is told how noisy images are "
                          f"(model.noise_aware), got {checkpoint}, which is not; remove it, or "
                          "name another model")
    if isinstance(noise, list):
        raise ConfigError(f"data.noise: expected one level, or {MEASURE}, to sample with, got "
                          f"{noise}, which is for training")
    if blur is not None:
        raise ConfigError(f"data.blur_px: expected none to sample with, got {blur}; it is for "
                          "training")


def consistency(config: Config, header: Mapping) -> bool | float:
    """Whether, or with which weight, samples are made to agree with their LR image: yes, unless
    told otherwise, for a family that keeps to LR where nothing but shrinking made LR; where a
    network takes noise away, agreeing would bring it back, so only images that are said to have
    none."""
    told = config.output.consistent
    if told is not None:
        return bool(told) if told in (0, 1) else told
    return (config.model.keeps_to_lr and takes_steps(header) and is_only_shrunk(config, header)
            and not sees_edges_joined(config))


def is_only_shrunk(config: Config, header: Mapping) -> bool:
    """Whether LR images such as a checkpoint learned from are HR images, shrunk by bicubic
    imresize, and nothing else; of a network that is told of noise, those that are said to have
    none."""
    noisy = config.model.told_noise and config.data.noise != 0
    blurred = header.get("degradation") or header.get("blur_px")
    return not (noisy or blurred) and header.get("lr_kernel", "bicubic") == "bicubic"


def sees_edges_joined(config: Config) -> bool:
    """Whether opposite edges of an image are neighbours for all that looks at it."""
    return config.sampler.shift.border == "wrap" and config.model.joins_edges


def check_settings(files: Sequence[Path | str], overrides: Sequence[str],
                   preset: str | None) -> Config:
    """The settings without those of the checkpoint. ConfigError for settings that are wrong
    whatever family of model it holds."""
    refusals = []
    for family in FAMILIES:
        try:
            return load_config(files, overrides, preset, {"model": {"family": family}})
        except ConfigError as error:
            refusals.append(error)
    raise refusals[-1]


def check_shift(config: Config) -> None:
    """ConfigError where the one window over an image should be moved."""
    pattern = config.sampler.shift.pattern
    if config.model.window_px is None and pattern != "none":
        raise ConfigError("sampler.shift.pattern: expected none, because one window is the whole "
                          f"image (model.window_px is not set), got {pattern}; "
                          "remove it or set model.window_px")


def check_path(config: Config) -> None:
    """ConfigError where settings do not fit the path from noise to x_0."""
    diffusion, sampler = config.diffusion, config.sampler
    if sampler.method not in diffusion.methods:
        raise ConfigError(f"sampler.method: expected {' or '.join(diffusion.methods)} with "
                          f"diffusion.path {diffusion.path}, got {sampler.method}")
    if diffusion.path == "curved":
        if diffusion.start_std != ADDED["diffusion"]["start_std"]:
            raise ConfigError("diffusion.start_std: expected none with diffusion.path curved, its "
                              "noise being the schedule's; remove it, or set "
                              "diffusion.path=straight")
        return
    if diffusion.prediction == "eps":
        raise ConfigError("diffusion.prediction: expected v or x_0 with diffusion.path straight, "
                          "which starts where eps says nothing of x_0, got eps")
    if diffusion.schedule != "cosine" or diffusion.betas_given != (None, None):
        raise ConfigError("diffusion.schedule, beta_start, beta_end: expected none with "
                          "diffusion.path straight, which has no schedule; remove them")
    if sampler.start == "unit":
        raise ConfigError("sampler.start: expected as_trained with diffusion.path straight, whose "
                          f"noise has deviation {diffusion.start_std:g} (diffusion.start_std), "
                          "got unit")


def check_overlap(config: Config) -> None:
    """ConfigError where windows of the last step cannot overlap as asked."""
    shift = config.sampler.shift
    if config.sampler.overlap == 1:
        return
    moves = shift.pattern == "circular" and shift.circular == "turn" and shift.edge == "roll"
    if not moves or shift.max_px == 0 or config.model.window_px is None:
        raise ConfigError("sampler.overlap: expected 1 unless windows move by "
                          f"sampler.shift.pattern circular in turn, got {config.sampler.overlap}, "
                          "which may come from a preset; set sampler.overlap=1, or "
                          "pattern=circular, circular=turn, edge=roll, a max_px above 0 and "
                          "model.window_px")


def check_adaptive(config: Config) -> None:
    """ConfigError where parts of an image cannot take fewer steps as asked."""
    sampler, model = config.sampler, config.model
    if sampler.adaptive is None:
        for name in ("adaptive_steps", "adaptive_by"):
            if (value := getattr(sampler, name)) != ADDED["sampler"][name]:
                raise ConfigError(f"sampler.{name}: expected sampler.adaptive beside it, the share "
                                  f"of easy tiles, got {value} alone; set sampler.adaptive=0.5, or "
                                  "remove it")
        return
    if not sampler.diffuses:
        raise ConfigError("sampler.adaptive: expected none with sampler.method regression, which "
                          f"takes no steps, got {sampler.adaptive:g}; remove it")
    if not model.tells_difficulty:
        raise ConfigError("sampler.adaptive: expected a model of family aligned, whose regression "
                          f"easy parts start from, got {model.family}; remove it")
    if sampler.adaptive_steps > sampler.steps:
        raise ConfigError("sampler.adaptive_steps: expected at most sampler.steps = "
                          f"{sampler.steps}, got {sampler.adaptive_steps}")
    if sampler.adaptive_by == "head" and not model.difficulty_head:
        raise ConfigError("sampler.adaptive_by: expected a checkpoint with a head that tells what "
                          "is hard (train.target difficulty), got one without; set "
                          "sampler.adaptive_by=detail")


def check_consistent(config: Config) -> None:
    """ConfigError where settings of a sampling run contradict each other."""
    sampler, model = config.sampler, config.model
    check_shift(config)
    check_path(config)
    check_overlap(config)
    check_adaptive(config)
    if sampler.steps > config.diffusion.steps:
        raise ConfigError("sampler.steps: expected at most diffusion.steps = "
                          f"{config.diffusion.steps}, got {sampler.steps}")
    check_edge(config)
    if (config.parallel.exchange != "root"
            and (sampler.shift.edge != "roll" or model.sees_whole_x_t)):
        raise ConfigError(f"parallel.exchange: {config.parallel.exchange} keeps every "
                          "image in parts, but this model or shift looks at whole images "
                          "(sampler.shift.edge crop_*, model.condition_on with x_t); use root")
    if isinstance(config.output.value_range, list):
        ValueRange(*config.output.value_range)
    check_backend(config.output.backend)
    if config.output.consistent and sees_edges_joined(config):
        raise ConfigError("output.consistent: expected false with sampler.shift.border wrap, which "
                          "joins the edges that shrinking mirrors images at, got a weight of "
                          f"{config.output.consistent:g}; set one of them otherwise")
    if config.output.regression and not model.regresses:
        raise ConfigError("output.regression: expected a model of family aligned or latent, "
                          f"whose encoder regresses, got {model.family}; set it to false")


def check_regression(config: Config, is_diffuser: bool) -> None:
    """ConfigError where there should be no diffusion, but nothing makes an image without, or steps
    of what takes none.
    is_diffuser: what the checkpoint holds, else an encoder alone."""
    model = config.model
    if config.sampler.adaptive is not None and not is_diffuser:
        raise ConfigError("sampler.adaptive: expected a checkpoint that takes steps, got an "
                          "encoder trained alone; remove it")
    regresses = model.regresses if is_diffuser else model.learns
    if not (config.sampler.diffuses or regresses):
        raise ConfigError("sampler.method: for regression (--preset regression) expected a model "
                          "of family aligned or latent, whose encoder regresses, or an encoder "
                          f"trained alone, got {model.family}; use another preset or method")


def check_edge(config: Config) -> None:
    """ConfigError where windows cannot be moved as sampler.shift.edge says."""
    shift, model = config.sampler.shift, config.model
    if shift.edge != "roll" and not (model.may_crop and shift.border == "wrap"):
        raise ConfigError(f"sampler.shift.edge: {shift.edge} is the thesis's first "
                          "attempt, for model.family thesis and sampler.shift.border wrap, "
                          f"got {model.family} and {shift.border}; use roll")


def deciding(config: Config) -> dict:
    """The sections that decide the pixels, as fingerprints hold them: what older versions did not
    know is there where it differs from what they did."""
    settings = config.model_dump(include={"model", "diffusion", "sampler"})
    for section, before in ADDED.items():
        for name, value in before.items():
            if settings[section].get(name) == value:
                del settings[section][name]
    # Neither shows in the pixels of a checkpoint, which has layers of its own, nor what is unsaid.
    for name in ("layers", "dropout", *config.model.unsaid):
        settings["model"].pop(name, None)
    if settings["sampler"]["shift"]["circular"] == "turn":
        del settings["sampler"]["shift"]["circular"]
    return settings


def flat(settings: Mapping) -> dict:
    """{"model": {"scale": 2}} -> {"model.scale": 2}."""
    return {f"{section}.{key}": value for section, values in settings.items()
            for key, value in values.items()}
