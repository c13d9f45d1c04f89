"""Typed, strict configuration: one model per YAML section; load, override, preset, dump.

Later sources win: defaults, what the checkpoint recommends, preset, `--config` files, `--set`.
"""
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from swinmpi.errors import ConfigError
from swinmpi.yamltext import parse_override, read_yaml

# Beyond any network and machine, so that a slip of the pen is told, not computed.
WIDEST, DEEPEST, MOST_AT_ONCE = 1 << 14, 1 << 8, 1 << 12
Width = Annotated[int, Field(le=WIDEST)]


class Section(BaseModel):
    """A YAML section: unknown keys and silent type conversions are refused, values never change after loading."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class DataConfig(Section):
    """What `swinmpi-prepare` cuts and how it degrades it."""

    size_px: int = Field(192, ge=8, le=8192, description="side of the HR crops (or of the whole padded images)")
    mode: Literal["crop", "whole"] = "crop"
    crops_per_image: int = Field(16, gt=0, le=1 << 30, description="from each training image, at most")
    validate_crops: int | None = Field(None, gt=0, le=1 << 30, description="from each validation image; as training when "
                                       "absent")
    coverage: float | None = Field(None, gt=0, le=1e6, description="at most this many crops over each pixel of a (reduced) "
                                   "image; gives small images fewer crops")
    reduce_spread: float = Field(1.0, ge=1, le=1000, description="shrink by a factor drawn from reduce .. reduce * this")
    scale: float = Field(2.0, gt=1, le=64, description="HR size / LR size")
    kernel: Literal["bicubic", "bilinear"] = "bicubic"
    flat_reject: float = Field(0.85, ge=0, le=1, description="probability with which a flat crop is drawn again")
    flat_threshold: float = Field(0.02, ge=0, description="a crop is flat below this standard deviation (range 0..1)")
    validate_share: float = Field(0.1, ge=0, lt=1)
    channels: Literal[1, 3] = 3
    seed: int = Field(0, ge=0, lt=2**63)


class AlignedModel(Section):
    """Each window sees the features that lie under it; lean U-Net. The default family."""

    family: Literal["aligned"] = "aligned"
    scale: Literal[2, 3, 4] = 2
    channels: Literal[1, 3] = 3
    window_px: int = Field(48, ge=16, le=4096, multiple_of=4)
    encoder_channels: int = Field(48, gt=0, le=WIDEST)
    encoder_blocks: int = Field(8, gt=0, le=DEEPEST)
    feature_channels: int = Field(16, gt=0, le=WIDEST, description="channels of the features on the HR grid")
    global_channels: int = Field(32, gt=0, le=WIDEST)
    unet_channels: list[Width] = Field([48, 96], min_length=2, max_length=4)
    unet_blocks: int = Field(1, gt=0, le=DEEPEST, description="residual blocks per level")
    attention_heads: int = Field(4, gt=0)
    residual_gain: float = Field(16.0, ge=1e-6, le=1e6, description="x_0 = (HR - regression) * residual_gain, images in "
                                 "-1..1")

    @model_validator(mode="after")
    def network_can_be_built(self):
        deepest, steps = self.unet_channels[-1], 2 ** len(self.unet_channels)
        if any(width < 8 or width % 8 for width in self.unet_channels):
            raise ValueError(f"unet_channels in multiples of 8 (the groups of the normalisation), not {self.unet_channels}")
        if deepest % self.attention_heads:
            raise ValueError(f"attention_heads that divide the last of unet_channels, {deepest}, not {self.attention_heads}")
        if self.window_px % steps:
            raise ValueError(f"window_px in multiples of {steps} with {len(self.unet_channels)} resolutions, "
                             f"not {self.window_px}")
        return self


class ThesisModel(Section):
    """As published: every window is told the whole LR image and where it lies in it (a Gaussian mask)."""

    family: Literal["thesis"] = "thesis"
    scale: Literal[2, 3, 4] = 2
    channels: Literal[1, 3] = 3
    window_px: int = Field(32, ge=16, le=4096, multiple_of=8)
    encoder: Literal["conv", "rrdb", "none"] = "rrdb"
    condition_on: Literal["lr", "lr+x_t", "x_t"] = Field("lr", description="x_t alone: image synthesis, no LR")
    rrdb_blocks: int = Field(8, gt=0, le=DEEPEST)
    rrdb_channels: int = Field(32, gt=0, le=WIDEST)
    rrdb_growth: int = Field(32, gt=0, le=WIDEST)
    unet_channels: list[Width] = Field([64, 128, 256, 256], min_length=4, max_length=4)
    bottleneck_channels: int = Field(512, gt=0, le=WIDEST)
    attention_heads: int = Field(4, gt=0, validate_default=True, description="must divide all of unet_channels")
    mask_width: float = Field(1.5, ge=1e-3, le=1e3, description="sigma of the mask over half a window")
    residual_gain: float = Field(2.0, ge=1e-6, le=1e6, description="x_0 = clip((HR - bicubic) * residual_gain, -1, 1)")

    @field_validator("attention_heads")
    @classmethod
    def divides_widths(cls, value, info):
        widths = info.data.get("unet_channels", [])
        if any(width < 1 or width % value for width in widths):
            raise ValueError(f"must divide every one of unet_channels {widths}")
        return value


ModelConfig = AlignedModel | ThesisModel


class DiffusionConfig(Section):
    """The forward process the network is trained on."""

    schedule: Literal["linear", "cosine", "quadratic", "thesis64", "thesis128"] = "cosine"
    steps: int = Field(1000, gt=1, le=100_000, description="T")
    prediction: Literal["eps", "v", "x_0"] = "v"
    variance: Literal["beta", "posterior"] = "beta"


class ShiftConfig(Section):
    """How the window grid moves between steps."""

    pattern: Literal["none", "circular", "random"] = "circular"
    max_px: int | None = Field(None, ge=0, le=1 << 16, description="s; a quarter of the window when absent (thesis table "
                               "3.1)")
    border: Literal["reflect", "wrap"] = "reflect"
    edge: Literal["roll", "crop_pad", "crop_resize"] = Field("roll", description="crop_*: the thesis's first attempt")


class SamplerConfig(Section):
    """The dial between fidelity and detail."""

    method: Literal["ddpm", "ddim", "dpmpp_2m"] = "ddim"
    steps: int = Field(10, gt=0)
    eta: float = Field(0.0, ge=0, le=1, description="DDIM only; 0: probability-flow ODE, 1: as random as DDPM")
    noise_scale: float = Field(1.0, ge=0, le=1e6, description="factor on x_T and on the noise of every step")
    clip_x_0: float | None = Field(None, gt=0, description="limit of |x_0| inside a step")
    shift: ShiftConfig = ShiftConfig()
    seed: int = Field(0, ge=0, lt=2**63)


class ParallelConfig(Section):
    """How the work is laid over ranks, threads and devices."""

    exchange: Literal["root", "torus"] = Field("root", description="torus: ranks pass strips to each other, none holds "
                                               "the image")
    ranks_per_image: int | Literal["all", "auto"] = "all"
    images_per_step: int | Literal["auto"] = "auto"
    threads: int | Literal["auto"] = "auto"
    micro_batch: int | Literal["auto"] = Field("auto", description="windows per call of the U-Net")
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    encoder_cache: bool = Field(True, description="false recomputes the encoder every step, for comparison only")
    channels_last: bool = True
    fused_attention: bool = Field(True, description="scaled_dot_product_attention instead of explicit softmax")

    @field_validator("ranks_per_image", "images_per_step", "threads", "micro_batch")
    @classmethod
    def positive(cls, value):
        if isinstance(value, int) and not 1 <= value <= MOST_AT_ONCE:
            raise ValueError(f"at least 1 and at most {MOST_AT_ONCE}")
        return value


class TrainConfig(Section):
    """Algorithm 2.1 and its surroundings."""

    data: str | None = Field(None, description="HDF5 file of swinmpi-prepare")
    output: str = Field("runs/train", description="folder of checkpoints, log and curves")
    target: Literal["diffuser", "encoder"] = "diffuser"
    encoder_checkpoint: str | None = Field(None, description="weights of a pre-trained encoder to start from")
    freeze_encoder: bool = False
    updates: int = Field(10000, gt=0)
    batch_images: int = Field(16, gt=0, le=1 << 16, description="images per update, all ranks together")
    crop_px: int = Field(96, gt=0, le=8192, description="HR crop taken from each stored image")
    batch: Literal["image", "iid"] = Field("iid", description="all windows of a frame together, or drawn one by one")
    windows_per_image: int = Field(4, gt=0, le=1 << 16, description="iid only")
    accumulate: int = Field(1, gt=0, description="micro steps per update")
    optimizer: Literal["adam"] = "adam"
    learning_rate: float = Field(3e-4, gt=0)
    warmup_updates: int = Field(200, ge=0)
    annealing: Literal["none", "tail", "epoch"] = Field("tail", description="cosine per update over the last part, or "
                                                        "per epoch as in the thesis")
    annealing_share: float = Field(0.3, gt=0, le=1, description="tail: part of the updates that anneals")
    annealing_epochs: int = Field(200, gt=0, description="epoch: T_max")
    loss: Literal["l1", "smooth_l1"] = "l1"
    regression_weight: float = Field(20.0, ge=0, description="weight of L1(regression), aligned family")
    clip_norm: float | None = Field(1.0, gt=0)
    ema_decay: float = Field(0.999, ge=0, lt=1, description="mu of eq. 2.1")
    ema_ramp: bool = Field(True, description="start from a short average: min(mu, (1 + n) / (10 + n))")
    augment: bool = Field(True, description="flips and quarter turns")
    checkpoint_every: int = Field(500, gt=0)
    keep_last: int = Field(2, gt=0)
    validate_every: int = Field(500, gt=0)
    validate_images: int = Field(8, gt=0)
    log_every: int = Field(50, gt=0)
    seed: int = Field(0, ge=0, lt=2**63)


class OutputConfig(Section):
    """What the finished file looks like."""

    backend: Literal["gather", "mpio"] = Field("gather", description="gather: rank 0 writes; mpio: all ranks, needs a "
                                               "parallel h5py")
    compression: int = Field(4, ge=0, le=9, description="gzip level of the packed file")
    regression: bool = Field(False, description="also keep the encoder's regression, as dataset `regression`")
    value_range: list[float] | None = Field(None, min_length=2, max_length=2,
                                            description="[low, high] mapped to -1..1; measured when absent")


class Config(Section):
    """Everything but the input and output of one command."""

    data: DataConfig = DataConfig()
    model: ModelConfig = Field(AlignedModel(), discriminator="family")
    diffusion: DiffusionConfig = DiffusionConfig()
    sampler: SamplerConfig = SamplerConfig()
    parallel: ParallelConfig = ParallelConfig()
    train: TrainConfig = TrainConfig()
    output: OutputConfig = OutputConfig()

    @model_validator(mode="before")
    @classmethod
    def default_family(cls, values):
        if isinstance(values, dict) and isinstance(values.get("model"), dict):
            return values | {"model": {"family": "aligned"} | values["model"]}
        return values


PRESETS: dict[str, dict] = {
    "faithful": {"sampler": {"method": "ddim", "steps": 5, "noise_scale": 0.3}},
    "balanced": {"sampler": {"method": "ddim", "steps": 10, "noise_scale": 1.0}},
    "detailed": {"sampler": {"method": "ddim", "steps": 25, "noise_scale": 1.0}},
}


def load_config(files: Sequence[Path | str] = (), overrides: Sequence[str] = (), preset: str | None = None,
                base: Mapping[str, Any] | None = None) -> Config:
    """Merge base, preset, YAML files and `section.key=value` overrides into a validated Config.

    Raises ConfigError naming the source, the key, what was expected and what came.
    """
    merged: dict = {}
    sources = [("checkpoint", dict(base or {}))]
    if preset is not None:
        sources.append((f"preset {preset}", PRESETS[preset]))
    sources += [(str(path), read_yaml(path)) for path in files]
    sources += [(f"--set {text}", parse_override(text)) for text in overrides]
    for name, values in sources:
        merged = merge(merged, values)
        validate(merged, name)
    return validate(merged, "configuration")


def validate(values: Mapping[str, Any], source: str) -> Config:
    """Check a nested dict; ConfigError reads `source: key: expected ..., got ...`."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{source}: {describe(error)}") from None


def dump_yaml(config: Config) -> str:
    """The resolved configuration as YAML that `--config` accepts."""
    return yaml.safe_dump(config.model_dump(), sort_keys=False)


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict:
    """Nested dicts key by key, anything else replaced by `above`; another model family starts from its own defaults."""
    merged = dict(below)
    for key, value in above.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            changes_family = "family" in value and value["family"] != merged[key].get("family", "aligned")
            merged[key] = dict(value) if changes_family else merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def describe(error: ValidationError) -> str:
    """The first problem of a pydantic error in one line; the alternatives of a union are joined by `or`."""
    problems = error.errors()
    where = key_of(problems[0])
    key = ".".join(where)
    if problems[0]["type"] == "extra_forbidden":
        return f"unknown key {key}{suggest(where)}"
    messages = []
    for problem in problems:
        if key_of(problem) == where:
            message = problem["msg"].removeprefix("Value error, ").removeprefix("Input should be ").removeprefix("a valid ")
            messages.append(message[0].lower() + message[1:])
    came = problems[0].get("input")
    got = "" if isinstance(came, Mapping) and problems[0]["type"] == "value_error" else f", got {came!r}"
    return f"{key}: expected {' or '.join(dict.fromkeys(messages))}{got}"


def key_of(problem: Mapping) -> list[str]:
    """The YAML key of a pydantic error, without the tags of unions."""
    tags = ("aligned", "thesis", "int", "str")
    return [str(part) for part in problem["loc"] if part not in tags and not str(part).startswith("literal[")]


def suggest(where: Sequence[str]) -> str:
    """`; did you mean sampler.steps?` or the keys that exist there."""
    known, key = known_keys(), ".".join(where)
    if key in known:
        return "; it belongs to the other model.family"
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.7)
    if close:
        return f"; did you mean {close[0]}?"
    prefix = ".".join(where[:-1])
    siblings = [key for key in known if key.rpartition(".")[0] == prefix] or list(Config.model_fields)
    return f"; known here: {', '.join(siblings)}"


def known_keys() -> list[str]:
    keys = []
    for section, values in Config().model_dump().items():
        keys += [f"{section}.{key}" for key in values]
        keys += [f"{section}.{key}.{inner}" for key, value in values.items() if isinstance(value, dict) for inner in value]
    keys += [f"model.{key}" for key in ThesisModel.model_fields if f"model.{key}" not in keys]
    return keys
