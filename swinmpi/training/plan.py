"""What a training run will do: settled before it starts, printed by a dry run."""
from dataclasses import dataclass
from pathlib import Path

import torch

from swinmpi.config import Config
from swinmpi.families.loading import make_family
from swinmpi.models.blocks import count_parameters
from swinmpi.parallel.device import planned_device, settled_precision
from swinmpi.storage.checkpoint import CheckpointFolder
from swinmpi.storage.pairs import PairReader
from swinmpi.storage.probe import inspect_pairs
from swinmpi.training.degrading import check_degrading
from swinmpi.training.difficulty import check_head
from swinmpi.training.distilling import check_distillation, prepared, rounds_of
from swinmpi.training.estimate import describe_cost
from swinmpi.training.fitting import check_fit, fitted, values_of
from swinmpi.training.origin import initial_weights
from swinmpi.training.preparation.degradation import in_words
from swinmpi.training.setup import check_drawing, check_encoder, check_run


@dataclass(frozen=True)
class TrainingPlan:
    """A run that can be done. pairs: what its file of pairs is, in a few words; newest: the name of
    the state that it goes on from, None at update 0; origin: a line on the checkpoint that it
    starts from, empty without one."""

    config: Config
    num_ranks: int
    num_parameters: int
    num_train: int
    pairs: tuple[str, ...]
    newest: str | None
    origin: str = ""

    @property
    def num_epochs(self) -> float:
        settings = self.config.train
        return settings.updates * settings.batch_images / self.num_train


def plan(config: Config, num_ranks: int, resume: bool) -> TrainingPlan:
    """Settle what the pairs decide, and validate everything, in one line; writes nothing. On one
    process.

    Raises ConfigError, StackError, OutputError or CheckpointError.
    """
    device = planned_device(config.parallel.device)
    config = config.replaced(parallel={
        "precision": settled_precision(config.parallel.precision, device)})
    folder = CheckpointFolder(Path(config.train.output), config.train.keep_last)
    check_encoder(config)
    check_distillation(config)
    check_head(config)
    config = prepared(config)
    folder.check()
    inspect_pairs(config.train.data)
    with PairReader(config.train.data) as pairs:
        config = fitted(config, pairs)
        check_drawing(config)
        check_fit(config, pairs, num_ranks)
        check_degrading(config, pairs)
        num_train, words = len(pairs.train_indices), words_of(pairs)
        values = values_of(pairs, config)
    check_run(config, folder, resume, values)
    with torch.device("meta"):
        family = make_family(config.model, config.train.makes_diffuser)
    newest = folder.latest()
    origin = (initial_weights(config, family.model)[1]
              if config.train.init is not None and newest is None else "")
    return TrainingPlan(config, num_ranks, count_parameters(family.model), num_train, words,
                        newest and newest.name, origin)


def words_of(pairs: PairReader) -> tuple[str, ...]:
    """What a file of pairs holds, a line each."""
    range_words = ("not told by the pairs" if pairs.value_range is None else
                   f"{pairs.value_range[0]:g} to {pairs.value_range[1]:g} of {pairs.value_dtype} "
                   "become -1 to 1")
    degraded = in_words(pairs.degradation)
    return (f"data    {pairs.path}: {len(pairs.train_indices)} images to train, "
            f"{len(pairs.validate_indices)} to validate, {pairs.size_px} px, "
            f"scale {pairs.scale:g}, {'grey' if pairs.channels == 1 else 'RGB'}",
            *([f"        LR made with {degraded}"] if degraded else []),
            f"range   {range_words}")


def words_of_rounds(config: Config) -> list[str]:
    """A line on what a distillation goes through; none where nothing is distilled."""
    settings = config.train
    if not settings.distils:
        return []
    steps = [2 * settings.student_steps[0], *settings.student_steps]
    return [f"rounds  {' -> '.join(map(str, steps))} steps, {rounds_of(config).each} updates each, "
            f"first taught by {settings.teacher}"]


def describe(plan: TrainingPlan) -> str:
    """What the run will do, in a few lines."""
    settings = plan.config.train
    return "\n".join([
        *plan.pairs,
        f"model   {plan.config.model.family}, {plan.num_parameters / 1e6:.2f} M parameters, "
        f"trained for {settings.target}",
        *([f"        {plan.origin}"] if plan.origin else []),
        *words_of_rounds(plan.config),
        f"run     {settings.updates} updates of {settings.batch_images} images "
        f"({plan.num_epochs:.1f} epochs), crops of {settings.crop_px} px",
        *describe_cost(plan.config, plan.num_ranks, plan.num_parameters),
        f"output  {settings.output}: "
        f"{settings.keep_last} checkpoints of {16e-6 * plan.num_parameters:.0f} MB, "
        f"{f'goes on from {plan.newest}' if plan.newest else 'starts at update 0'}"])
