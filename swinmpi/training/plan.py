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
from swinmpi.training.setup import check_run


@dataclass(frozen=True)
class TrainingPlan:
    """A run that can be done. newest: the name of the state that it goes on from,
    None at update 0."""

    config: Config
    num_parameters: int
    num_train: int
    num_validate: int
    size_px: int
    scale: float
    newest: str | None

    @property
    def num_epochs(self) -> float:
        settings = self.config.train
        return settings.updates * settings.batch_images / self.num_train


def plan(config: Config, num_ranks: int, resume: bool) -> TrainingPlan:
    """Validate everything, in one line; writes nothing. On one process.

    Raises ConfigError, StackError or CheckpointError.
    """
    device = planned_device(config.parallel.device)
    config = config.replaced(parallel={
        "precision": settled_precision(config.parallel.precision, device)})
    settings = config.train
    folder = CheckpointFolder(Path(settings.output), settings.keep_last)
    check_run(config, num_ranks, folder, resume)
    with torch.device("meta"):
        num_parameters = count_parameters(
            make_family(config.model, settings.target == "diffuser").model)
    newest = folder.latest()
    with PairReader(settings.data) as pairs:
        return TrainingPlan(config, num_parameters, len(pairs.train_indices),
                            len(pairs.validate_indices),
                            pairs.size_px, pairs.scale, newest and newest.name)


def describe(plan: TrainingPlan) -> str:
    """What the run will do, in a few lines."""
    settings = plan.config.train
    return "\n".join([
        f"data    {settings.data}: {plan.num_train} images to train, "
        f"{plan.num_validate} to validate, {plan.size_px} px, scale {plan.scale:g}",
        f"model   {plan.config.model.family}, {plan.num_parameters / 1e6:.2f} M parameters, "
        f"trained for {settings.target}",
        f"run     {settings.updates} updates of {settings.batch_images} images "
        f"({plan.num_epochs:.1f} epochs)",
        f"output  {settings.output}: "
        f"{settings.keep_last} checkpoints of {16e-6 * plan.num_parameters:.0f} MB, "
        f"{f'goes on from {plan.newest}' if plan.newest else 'starts at update 0'}"])
