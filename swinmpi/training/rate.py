"""How the learning rate rises and falls in a run, or in a round of one."""
import math

from swinmpi.config import TrainConfig


def rate_factor(settings: TrainConfig, update: int, epoch: int,
                updates: int | None = None) -> float:
    """Learning rate over its peak: linear warm-up, then constant, cosine tail, the thesis's
    cosine per epoch (2.3), halved again and again, or falling evenly to 0.

    update: of `updates`, those of the run when absent.
    """
    updates = updates or settings.updates
    if update < settings.warmup_updates:
        return (update + 1) / settings.warmup_updates
    progress = 0.0
    if settings.annealing == "halve":
        return 0.5 ** (update // settings.annealing_updates)
    if settings.annealing == "linear":
        return 1 - update / updates
    if settings.annealing == "tail":
        start = updates * (1 - settings.annealing_share)
        progress = max(0.0, (update - start) / (updates - start))
    elif settings.annealing == "epoch":
        progress = epoch / settings.annealing_epochs
    return 0.5 * (1 + math.cos(math.pi * progress))
