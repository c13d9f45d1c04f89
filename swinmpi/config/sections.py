"""The settings: one model per YAML section, every key typed, bounded and described.

docs/configuration.md is generated from the descriptions (`python -m swinmpi.config.document`).
"""
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from swinmpi.config.base import MOST_SEED, Count, Section
from swinmpi.config.data_section import DataConfig
from swinmpi.config.families import DEFAULT_FAMILY, FAMILIES, ModelConfig
from swinmpi.config.model_sections import AlignedModel
from swinmpi.config.train_section import TrainConfig

METHODS_OF_PATH = {"curved": ("ddim", "ddpm", "dpmpp_2m", "heun", "regression"),
                   "straight": ("euler", "heun", "regression")}


class DiffusionConfig(Section):
    """The forward process that the network is trained on."""

    path: Literal["curved", "straight"] = Field(
        "curved", description="from noise to x_0: curved: as DDPM, by the schedule; straight: on a "
        "line from noise around the base (aligned: the regression) to the truth, as PMRF (arXiv "
        "2410.00418), for few steps; v is the velocity on it, and train.loss should be l2")
    start_std: float = Field(0.5, ge=1e-6, le=1e6, description="path straight: deviation of the "
                             "noise it starts from, in units of x_0, whose own is near 0.5 in "
                             "family aligned")
    schedule: Literal["linear", "cosine", "quadratic", "thesis64", "thesis128"] = Field(
        "cosine", description="how beta rises with t; thesis64 and thesis128 are the published "
        "ranges, which leave some of the image in x_T")
    steps: int = Field(1000, gt=1, le=100_000, description="T, the number of noise levels")
    beta_start: float | None = Field(None, gt=0, lt=1, description="beta at t = 0; with beta_end "
                                     "it takes the place of linear's or quadratic's own range, "
                                     "for any T")
    beta_end: float | None = Field(None, gt=0, lt=1, description="beta at t = T - 1")
    prediction: Literal["eps", "v", "x_0"] = Field("v", description="what the network predicts")
    variance: Literal["beta", "posterior"] = Field(
        "beta", description="sigma^2 of a DDPM step (sampler.method=ddpm); may be changed after "
        "training")

    @property
    def contradiction(self) -> str | None:
        """What is expected of settings that do not fit each other, and what came; they may be set
        one after the other, so it is asked when all are there."""
        first, last = self.betas_given
        if first is None and last is None:
            return None
        if first is None or last is None:
            return "beta_start and beta_end together, got one of them"
        if self.schedule not in ("linear", "quadratic"):
            return ("schedule linear or quadratic with beta_start and beta_end, which set its "
                    f"range, got {self.schedule}")
        return (f"beta_start of at most beta_end = {last:g}, got {first:g}" if first > last
                else None)

    @property
    def methods(self) -> tuple[str, ...]:
        """`sampler.method`s that walk the path, the usual one first."""
        return METHODS_OF_PATH[self.path]

    @property
    def betas_given(self) -> tuple[float | None, float | None]:
        """beta_start and beta_end."""
        return self.beta_start, self.beta_end


class ShiftConfig(Section):
    """How the window grid moves between steps; training draws its windows likewise."""

    pattern: Literal["none", "circular", "random"] = Field(
        "circular", description="circular: (0, 0), (0, s), (s, s), (s, 0) in turn; random: drawn "
        "for each step; none when absent and one window is the whole image")
    circular: Literal["turn", "drawn"] = Field(
        "turn", description="pattern circular, in sampling: turn: the four shifts in turn; drawn: "
        "one of them drawn for each step; training has train.circular")
    max_px: int | None = Field(None, ge=0, le=1 << 16, description="s; a quarter of the window "
                               "when absent (thesis table 3.1)")
    border: Literal["reflect", "wrap"] = Field(
        "reflect", description="what lies outside of the image: its mirror image, or, as in the "
        "thesis, its opposite edge; wrap is for textures that tile, and joins the edges of whole "
        "windows")
    edge: Literal["roll", "crop_pad", "crop_resize"] = Field(
        "roll", description="crop_*: the thesis's first attempt, which leaves noisy edges")


class SamplerConfig(Section):
    """The dial between fidelity and detail."""

    method: Literal["ddpm", "ddim", "dpmpp_2m", "heun", "euler", "regression"] = Field(
        "ddim", description="the reverse process; heun evaluates the network twice a step; for "
        "diffusion.path straight euler, which it is when absent, or heun; regression: none of it, "
        "the image that the encoder regresses is the result (families aligned and latent, and "
        "encoders trained alone)")
    steps: int = Field(10, gt=0, description="of the reverse process; more give more detail")
    eta: float = Field(0.0, ge=0, le=1, description="ddim only; 0: probability-flow ODE, 1: as "
                       "random as ddpm")
    noise_scale: float = Field(1.0, ge=0, le=1e6, description="factor on x_T and on the noise of "
                               "every step; below 1: less detail, nearer to the truth on average")
    clip_x_0: float | None = Field(None, gt=0, description="limit of |x_0| inside a step")
    clip_result: float | None = Field(None, gt=0, description="limit of |x_0| after the last "
                                      "step alone (code: 1)")
    start: Literal["as_trained", "unit"] = Field(
        "as_trained", description="x_T: as_trained: noise as strong as the schedule left it in "
        "training; unit: N(0, 1), as algorithm 2.2 reads")
    quiet_steps: int = Field(1, ge=1, description="last steps that add no noise (code: 2)")
    overlap: Literal[1, 2, 4] = Field(
        1, description="evaluations of the network in the last step, at opposite or all shifts, of "
        "which the mean is taken, so that seams fade that few steps leave; half a window apart "
        "where shift.max_px is half a window; pattern circular only")
    coherence: float | None = Field(
        None, ge=1, le=1e6, description="over so many images that follow each other, slices of a "
        "volume or frames of a film, noise changes into another one, so that detail does not "
        "flicker; when absent every image has noise of its own")
    adaptive: float | None = Field(
        None, ge=0, le=1, description="share of the tiles of every image, the easiest, for which "
        "the last adaptive_steps are enough: while a window shows no other it is not evaluated "
        "before them, its x_t staying the regression under noise; family aligned")
    adaptive_steps: int = Field(1, gt=0, description="adaptive: last steps, in which all windows "
                                "are evaluated")
    adaptive_by: Literal["head", "detail"] = Field(
        "head", description="adaptive: which tiles are easy: head: those where the checkpoint "
        "expects the least error (train.target difficulty); detail: those where the encoder adds "
        "the least to the enlarged LR image, for checkpoints without such a head")
    shift: ShiftConfig = Field(ShiftConfig(), description="how the window grid moves")
    seed: int = Field(0, ge=0, lt=MOST_SEED, description="of x_T, the noise and random shifts; "
                      "member k of an ensemble is the run with seed + k")

    @property
    def diffuses(self) -> bool:
        """Whether there is a reverse process at all."""
        return self.method != "regression"


class ParallelConfig(Section):
    """How the work is laid over ranks, threads and devices, and how it is computed."""

    exchange: Literal["root", "torus"] = Field(
        "root", description="root: rank 0 holds the image and sends every frame; torus: ranks pass "
        "strips to each other, none holds the image")
    ranks_per_image: Count | Literal["all", "auto"] = Field(
        "all", description="ranks that work on one image; auto: for throughput")
    images_per_step: Count | Literal["auto"] = Field(
        "auto", description="images that travel together; auto: until every rank has windows "
        "enough")
    shares: Literal["equal", "measured"] | list[Annotated[float, Field(gt=0)]] = Field(
        "equal", description="how many of an image's windows each rank gets; measured: by how fast "
        "ranks are, which is measured in a second before the run, for nodes that are not alike; or "
        "a list of numbers above 0, one for each rank, in proportion; none shows in the result")
    threads: Count | Literal["auto"] = Field(
        "auto", description="of every rank; auto: OMP_NUM_THREADS, else the node's cores shared "
        "out")
    micro_batch: Count | Literal["auto"] = Field(
        "auto", description="windows per call of the U-Net; decides the last bits; auto: by the "
        "windows of an image, one where they are few")
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"] = Field(
        "auto", description="of the networks; auto: tf32 on a GPU that has it, else fp32; bf16 is "
        "faster where the processor computes with it; tf32 and fp16 are for GPUs, elsewhere fp32 "
        "takes their place")
    staging: Literal["auto", "host", "device"] = Field(
        "auto", description="where MPI finds what ranks send each other: in host memory, or in "
        "that of the device, for an MPI library that takes it (CUDA-aware); auto: the device's "
        "where the library says so")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto: a GPU where there is one")
    encoder_cache: bool = Field(True, description="false runs the encoder again in every step, for "
                                "comparison only")
    channels_last: bool = Field(True, description="memory format of the networks, for comparison "
                                "only")
    compile: bool = Field(False, description="compile the U-Net for every size of call when it is "
                          "first met (torch.compile; needs a C++ compiler, on a GPU Triton): for "
                          "long runs; changes the last digits")
    fused_attention: bool = Field(True, description="scaled_dot_product_attention instead of an "
                                  "explicit softmax, for comparison only")

    @field_validator("shares", mode="before")
    @classmethod
    def are_told(cls, value: Any) -> Any:
        if value in ("equal", "measured"):
            return value
        if isinstance(value, list) and all(type(one) in (int, float) and 0 < one < math.inf
                                           for one in value):
            return value
        raise ValueError("equal, measured or a list of numbers above 0, one for each rank")


class OutputConfig(Section):
    """What the finished file looks like."""

    backend: Literal["gather", "mpio"] = Field(
        "gather", description="gather: rank 0 writes; mpio: all ranks, needs a parallel h5py")
    compression: int = Field(4, ge=0, le=9, description="gzip level of the packed file")
    regression: bool = Field(False, description="also keep the encoder's regression, as data set "
                             "`regression`; families aligned and latent")
    consistent: bool | Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="true: finished samples are changed by the least that makes them shrink "
        "to the LR image exactly (bicubic imresize); a weight of 0..1 goes that part of the way, "
        "for LR images with noise; when absent true for diffusers of families aligned and latent "
        "that were trained on LR images made by shrinking alone (with model.noise_aware: and "
        "data.noise is 0), unless sampler.shift.border is wrap, else false")
    picture: bool = Field(True, description="draw OUT.png beside OUT.h5, for pictures "
                          "OUT/swinmpi.png: the first, the middle and the worst image beside LR "
                          "and bicubic; not of shards, but of what is merged of them")
    lr: bool = Field(False, description="also keep the LR images, in a NeXus group of their own, "
                     "/entry/lr")
    members: bool | Literal["exact"] = Field(
        False, description="of an ensemble, also keep every sample: `sr` is the first, `member_1` "
        "to `member_K-1` are the others; for swinmpi-evaluate and --members; exact: unrounded as "
        "well, in 4 bytes a value, so that --members need not make them again")
    value_range: Annotated[list[float], Field(min_length=2, max_length=2)] | Literal[
        "measured"] | None = Field(
        None, description="[low, high], raw values mapped to -1..1; measured: the stack's own, by "
        "the type for 8 bit; when absent that, or the range that the checkpoint was trained on "
        "where the stack's own is near to it")

    @field_validator("consistent", mode="before")
    @classmethod
    def is_a_weight(cls, value: Any) -> Any:
        if value is not None and not (type(value) in (bool, int, float) and 0 <= value <= 1):
            raise ValueError("true, false or a number from 0 to 1")
        return value


class Config(Section):
    """Everything but the input and output of one command."""

    data: DataConfig = Field(DataConfig(), description="swinmpi-prepare")
    model: ModelConfig = Field(AlignedModel(), discriminator="family", description="the network")
    diffusion: DiffusionConfig = Field(DiffusionConfig(), description="the forward process")
    sampler: SamplerConfig = Field(SamplerConfig(), description="the reverse process")
    parallel: ParallelConfig = Field(ParallelConfig(), description="ranks, threads, devices")
    train: TrainConfig = Field(TrainConfig(), description="swinmpi-train")
    output: OutputConfig = Field(OutputConfig(), description="the file of swinmpi-sample")

    @model_validator(mode="before")
    @classmethod
    def default_family(cls, values):
        if isinstance(values, dict) and isinstance(values.get("model"), dict):
            return values | {"model": {"family": DEFAULT_FAMILY} | values["model"]}
        return values

    @model_validator(mode="before")
    @classmethod
    def one_window_stays(cls, values):
        """Without a word on it, the one window over an image is not moved."""
        if not (isinstance(values, dict) and isinstance(values.get("model"), dict)):
            return values
        section = FAMILIES.get(str(values["model"].get("family")))
        sampler = values.get("sampler", {})
        shift = sampler.get("shift", {}) if isinstance(sampler, dict) else None
        if section is None or not isinstance(shift, dict):
            return values
        window_px = section.model_fields["window_px"].default
        if values["model"].get("window_px", window_px) is not None:
            return values
        return values | {"sampler": sampler | {"shift": {"pattern": "none"} | shift}}

    @model_validator(mode="before")
    @classmethod
    def method_of_the_path(cls, values):
        """Without a word on it, a straight path is walked by its own method."""
        if not isinstance(values, dict):
            return values
        diffusion, sampler = values.get("diffusion"), values.get("sampler", {})
        straight = isinstance(diffusion, dict) and diffusion.get("path") == "straight"
        if not (straight and isinstance(sampler, dict)):
            return values
        return values | {"sampler": {"method": METHODS_OF_PATH["straight"][0]} | sampler}

    def replaced(self, **sections: Mapping[str, Any]) -> "Config":
        """A copy with other values, not validated: `config.replaced(sampler={"steps": 1})`."""
        return self.model_copy(update={name: getattr(self, name).model_copy(update=dict(values))
                                       for name, values in sections.items()})
