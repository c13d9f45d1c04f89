"""The section `train`: how a network is trained, from what, and towards what."""
from typing import Annotated, Literal

from pydantic import Field

from swinmpi.config.base import MOST_SEED, Count, Section


class TrainConfig(Section):
    """Algorithm 2.1 and its surroundings."""

    data: str | None = Field(None, description="HDF5 file of swinmpi-prepare")
    output: str = Field("runs/train", description="folder of checkpoints and log, and of curves "
                        "where matplotlib is installed")
    target: Literal["diffuser", "encoder", "distill", "difficulty"] = Field(
        "diffuser", description="encoder: train the encoder alone, as a regression super-resolver, "
        "family latent with its autoencoder, which a diffuser needs as encoder_checkpoint; "
        "distill: a diffuser that takes one step where its teacher takes two (Salimans and Ho "
        "2022), family aligned; its encoder stays the teacher's; "
        "difficulty: a head for sampler.adaptive, and nothing else of train.init")
    teacher: str | None = Field(None, description="target distill: checkpoint, or name of a "
                                "shipped model, that the student starts as and learns from")
    student_steps: Annotated[list[Count], Field(min_length=1, max_length=12)] = Field(
        [8, 4, 2, 1], description="target distill: steps of the student in each round, half of "
        "those before; the teacher of the first takes twice as many, later ones are the student of "
        "the round before; updates are shared out evenly")
    init: str | None = Field(None, description="checkpoint, or name of a shipped model, to start "
                             "from: its model and diffusion where nothing else is said, and all "
                             "weights that fit; between 3 and 1 channels they are made to")
    encoder_checkpoint: str | None = Field(None, description="weights of a pre-trained encoder to "
                                           "start from")
    freeze_encoder: bool = Field(False, description="keep those weights as they are")
    updates: int = Field(10000, gt=0, description="of the weights, in the whole run")
    batch_images: int = Field(16, gt=0, le=1 << 16, description="images per update, all ranks "
                              "together")
    crop_px: int = Field(96, gt=0, le=8192, description="side of the HR crop taken from each "
                         "stored image; less when absent and the pairs are smaller")
    batch: Literal["image", "iid"] = Field(
        "iid", description="all windows of a frame together, or drawn one by one (thesis 3.2.5)")
    windows_per_image: int = Field(4, gt=0, le=1 << 16, description="drawn from each image, batch "
                                   "iid only")
    shift_of: Literal["image", "batch"] = Field(
        "image", description="image: every image has a shift of its own; batch: all images of a "
        "micro step, on all ranks, have the same (code)")
    circular: Literal["drawn", "turn"] = Field(
        "drawn", description="sampler.shift.pattern circular, in training: one of the four shifts "
        "drawn, or in turn from image to image, with shift_of batch from micro step to micro step")
    first_t: int = Field(0, ge=0, description="the least t that is drawn (code: 1)")
    accumulate: int = Field(1, gt=0, description="micro steps per update")
    optimizer: Literal["adam"] = Field("adam", description="the optimiser")
    learning_rate: float = Field(3e-4, gt=0, description="at its highest")
    warmup_updates: int = Field(200, ge=0, description="updates in which the learning rate rises")
    annealing: Literal["none", "tail", "epoch", "halve", "linear"] = Field(
        "tail", description="how the learning rate falls: cosine over the last part, or per epoch "
        "as in the thesis, or by half at a time as in SRDiff, or evenly to 0; with target distill "
        "in every round")
    annealing_share: float = Field(0.3, gt=0, le=1, description="tail: part of the updates that "
                                   "anneals")
    annealing_epochs: int = Field(200, gt=0, description="epoch: T_max of the cosine")
    annealing_updates: int = Field(100_000, gt=0, description="halve: updates between two halvings")
    loss: Literal["l1", "smooth_l1", "l2"] = Field("l1", description="distance of the prediction "
                                                   "to its target; l2: squared")
    regression_weight: float = Field(20.0, ge=0, description="weight of L1(regression), families "
                                     "aligned, latent and srdiff")
    clip_norm: float | None = Field(1.0, gt=0, description="limit of the gradient's norm")
    ema_decay: float = Field(0.999, ge=0, lt=1, description="mu of the averaged weights (thesis "
                             "eq. 2.1)")
    ema_ramp: bool = Field(True, description="start from a short average: min(mu, (1 + n) / "
                           "(10 + n)) after n updates")
    ema_start: int = Field(0, ge=0, description="first updates in which the average is a copy of "
                           "the weights (code: 2000)")
    augment: bool = Field(True, description="flips and quarter turns")
    checkpoint_every: int = Field(500, gt=0, description="updates between saved states")
    keep_last: int = Field(2, gt=0, description="saved states to keep")
    validate_every: int = Field(500, gt=0, description="updates between validations")
    validate_images: int = Field(8, gt=0, description="images sampled in a validation")
    log_every: int = Field(50, gt=0, description="updates between lines of log.jsonl, "
                           "each with the mean losses since the line before")
    seed: int = Field(0, ge=0, lt=MOST_SEED, description="of first weights, crops, windows, times "
                      "and noise")
    compile: bool = Field(False, description="have torch.compile make the networks' kernels: takes "
                          "a minute or more at the start, for long runs on a GPU; where it cannot, "
                          "a line says so and the run goes on without")

    @property
    def unsaid(self) -> set[str]:
        """Settings younger than the first checkpoints, where they say nothing: left out of what is
        kept and compared, so that older runs go on."""
        silent = {name for name in ("compile", "init", "teacher") if not getattr(self, name)}
        return silent if self.distils else silent | {"student_steps"}

    @property
    def makes_diffuser(self) -> bool:
        """Whether what is trained takes steps; else it is an encoder alone."""
        return self.target != "encoder"

    @property
    def keeps_model(self) -> bool:
        """Whether the model of train.init stays as it is, and only gets a head."""
        return self.target == "difficulty"

    @property
    def distils(self) -> bool:
        """Whether a teacher says what is wanted."""
        return self.target == "distill"
