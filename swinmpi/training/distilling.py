"""Distillation: rounds in which a student learns to take half the steps of its teacher, which is
the student of the round before."""
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from swinmpi.config import Config, ModelConfig
from swinmpi.diffusion.distillation import Halving, halving
from swinmpi.diffusion.process import q_sample
from swinmpi.errors import CheckpointError, ConfigError
from swinmpi.families.family import Family, Objective
from swinmpi.families.loading import make_family
from swinmpi.sampling.settings import DISTILLED_KEY, FREE, distilled_steps, takes_steps
from swinmpi.storage.checkpoint import file_sha256, load_into, load_weights
from swinmpi.storage.header import read_header
from swinmpi.training.origin import differences, origin_of, trained_as

TEACHER_KEY = "teacher"  # of a checkpoint's header


@dataclass(frozen=True, eq=False)
class Distillation(Objective):
    """What a teacher's two steps say. The teacher is told what the student is: their encoder is the
    same, and frozen."""

    halving: Halving | None = None
    teacher: Callable[..., Tensor] | None = None

    def on_windows(self, network: Callable[..., Tensor], x_0: Tensor, eps: Tensor, t: Tensor,
                   told: Sequence[Tensor]) -> Tensor:
        """See Objective; any t stands for the student's step that it lies in."""
        step = self.halving.step_of(t)
        t = self.halving.times[step]
        x_t = q_sample(x_0, t, eps, self.path)
        with torch.no_grad():
            wanted = self.halving.wanted(lambda x_t, t: self.teacher(x_t, t, *told).float(), x_t,
                                         step)
        return self.distance(network(x_t, t, *told).float(), wanted)


def taught(objective: Objective, config: Config, teacher: Family,
           device: torch.device | str) -> Distillation:
    """The objective of a student of `sampler.steps` steps."""
    return Distillation(**{**vars(objective), "regression_weight": 0.0},
                        halving=halving(config.diffusion, config.sampler.steps, device),
                        teacher=teacher.predict)


@dataclass(frozen=True)
class Rounds:
    """How the updates of a run are shared out. steps: of the student, by round; one round of no
    steps where nothing is distilled."""

    updates: int
    steps: tuple[int | None, ...] = (None,)

    @property
    def each(self) -> int:
        """Updates of a round."""
        return self.updates // len(self.steps)

    @property
    def distils(self) -> bool:
        return self.steps != (None,)

    def begins_at(self, update: int) -> bool:
        """Whether a round begins after so many updates."""
        return self.distils and update < self.updates and update % self.each == 0

    def ends_at(self, update: int) -> bool:
        """Whether one has ended with this update."""
        return update > 0 and update % self.each == 0

    def number(self, update: int) -> int:
        """The round that the state after so many updates belongs to, the one that ends there."""
        return min(max(update - 1, 0) // self.each, len(self.steps) - 1)


def rounds_of(config: Config) -> Rounds:
    settings = config.train
    return Rounds(settings.updates,
                  tuple(settings.student_steps) if settings.distils else (None,))


def in_round(config: Config, number: int) -> Config:
    """The settings of a round: they make the student's steps those that it recommends."""
    return config.replaced(sampler={"steps": config.train.student_steps[number]})


def prepared(config: Config) -> Config:
    """With what a distillation settles: the encoder stays as it is."""
    if not config.train.distils:
        return config
    return in_round(config.replaced(train={"freeze_encoder": True}), 0)


def make_teacher(model: ModelConfig, device: torch.device,
                 memory_format: torch.memory_format) -> Family:
    """A network that learns nothing; its weights come with the round."""
    teacher = make_family(model)
    teacher.model.eval().requires_grad_(False)
    teacher.model.to(device, memory_format=memory_format)
    return teacher


def load_teacher(teacher: Family, config: Config, number: int) -> None:
    """The weights of a round's teacher."""
    path = teacher_path(config, number)
    load_into(teacher.model, load_weights(path)[0], str(path))


def teacher_path(config: Config, number: int) -> Path:
    """Where the teacher of a round lies."""
    if not number:
        return origin_of(config)
    return student_path(Path(config.train.output), config.train.student_steps[number - 1])


def student_path(folder: Path, steps: int) -> Path:
    """The finished student of a round."""
    return folder / f"steps-{steps}.safetensors"


def first_teacher(config: Config) -> dict:
    """Who taught the first round, as checkpoints of students say it."""
    origin = origin_of(config)
    return {"name": origin.name, "sha256": file_sha256(origin),
            "steps": 2 * config.train.student_steps[0]}


def student_words(config: Config, taught_by: Mapping) -> dict:
    """What a student's checkpoint says besides: the steps it is for, and its first teacher."""
    if not config.train.distils:
        return {}
    return {DISTILLED_KEY: config.sampler.steps, TEACHER_KEY: taught_by}


def check_distillation(config: Config) -> None:
    """ConfigError where settings of a distillation contradict each other."""
    settings = config.train
    if not settings.distils:
        if settings.teacher is not None:
            raise ConfigError("train.teacher: expected none with train.target "
                              f"{settings.target}, got {settings.teacher}; set "
                              "train.target=distill, or start from it by train.init")
        return
    if settings.teacher is None:
        raise ConfigError("train.teacher: expected the checkpoint to distil, got nothing; add "
                          "--set train.teacher=FILE")
    check_student(config)
    check_rounds(config)


def check_teacher(config: Config) -> None:
    """ConfigError or CheckpointError where the first teacher is not the configured model."""
    settings, origin = config.train, origin_of(config)
    if not settings.distils:
        return
    header = read_header(origin)
    if not takes_steps(header):
        raise ConfigError(f"train.teacher: expected a diffuser, got an encoder trained alone in "
                          f"{origin}")
    trained = trained_as(origin, header)
    for name, wanted, own in differences(config, trained):
        if f"model.{name}" not in FREE:
            raise ConfigError(f"train.teacher: expected model.{name} {own} as in {origin}, "
                              f"got {wanted}; remove that setting")
    for name, own in trained.diffusion.model_dump(exclude={"variance"}).items():
        if getattr(config.diffusion, name) != own:
            raise ConfigError(f"train.teacher: expected diffusion.{name} {own} as in {origin}, got "
                              f"{getattr(config.diffusion, name)}; remove that setting")
    steps = distilled_steps(header)
    if steps not in (None, 2 * settings.student_steps[0]):
        raise ConfigError(f"train.student_steps: expected {steps // 2} first, since {origin} was "
                          f"distilled for {steps} steps, got {settings.student_steps[0]}")


def check_student(config: Config) -> None:
    """ConfigError where the configured model cannot be a student."""
    settings, sampler = config.train, config.sampler
    if settings.init is not None or settings.encoder_checkpoint is not None:
        raise ConfigError("train.init, train.encoder_checkpoint: expected none with train.target "
                          "distill, whose student starts as its teacher; remove them")
    if not config.model.can_be_taught:
        raise ConfigError("train.target distill: expected a teacher of family aligned, "
                          f"got {config.model.family}")
    if config.diffusion.prediction == "eps":
        raise ConfigError("train.target distill: expected a teacher that predicts v or x_0, whose "
                          "error stays small where x_t is noise, got one of eps")
    usual = config.diffusion.methods[0]
    if (sampler.method, sampler.eta) != (usual, 0):
        raise ConfigError(f"sampler.method: expected {usual}, with sampler.eta 0, by which a "
                          f"student is taught, got {sampler.method} and {sampler.eta:g}")


def check_rounds(config: Config) -> None:
    """ConfigError where rounds do not follow each other."""
    settings, steps = config.train, config.train.student_steps
    for before, then in zip(steps, steps[1:], strict=False):
        if before != 2 * then:
            raise ConfigError("train.student_steps: expected each half of the one before, such as "
                              f"[8, 4, 2, 1], got {steps}")
    if 2 * steps[0] > config.diffusion.steps:
        raise ConfigError("train.student_steps: expected at most half of diffusion.steps = "
                          f"{config.diffusion.steps}, got {steps[0]}")
    if settings.updates % len(steps):
        raise ConfigError(f"train.updates: expected a multiple of {len(steps)}, the rounds of "
                          f"train.student_steps, got {settings.updates}")


def check_goes_on(config: Config, header: Mapping, path: Path) -> None:
    """ConfigError or CheckpointError where a run to be resumed had other rounds or another teacher,
    or the student it learns from is gone. path: its newest state."""
    if not config.train.distils:
        return
    before, told = header.get("train", {}), header.get(TEACHER_KEY)
    if not isinstance(told, Mapping) or "sha256" not in told:
        raise CheckpointError(f"{path}: expected what it was taught by, got {told!r:.40}; remove "
                              "this folder to resume from the one before")
    for name in ("student_steps", "updates"):
        if before.get(name) != getattr(config.train, name):
            raise ConfigError(f"{path}: was distilled with train.{name} {before.get(name)}, not "
                              f"{getattr(config.train, name)}; resume with the same --config and "
                              "--set")
    rounds, update = rounds_of(config), header.get("update")
    if type(update) is not int or update % rounds.each == 0:
        return  # the next round's teacher is in the state itself
    number = rounds.number(update)
    teacher = teacher_path(config, number)
    told = read_header(teacher)
    if number and distilled_steps(told) != config.train.student_steps[number - 1]:
        raise CheckpointError(f"{teacher}: expected the student of the round before, got another "
                              "checkpoint; start the run anew in another train.output")
    if not number and header[TEACHER_KEY]["sha256"] != file_sha256(teacher):
        raise ConfigError(f"train.teacher: expected the one that {path} was taught by, got another "
                          f"file, {teacher}; resume with the same --config and --set")
