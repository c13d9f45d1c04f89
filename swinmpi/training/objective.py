"""What training minimises (thesis algorithm 2.1): a family's losses, as one module for DDP."""
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from swinmpi.config import Config
from swinmpi.diffusion.path import path_of
from swinmpi.families.family import DISTANCES, Batch, Drawing, Family, Objective
from swinmpi.families.loading import make_family
from swinmpi.windows.grid import WindowGrid, window_over
from swinmpi.windows.shift import max_shift_of


class TrainingModule(nn.Module):
    """Forward: batch in, losses out. `model` is what is trained and saved."""

    def __init__(self, family: Family, objective: Objective):
        super().__init__()
        self.family, self.objective, self.model = family, objective, family.model

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return self.family.losses(batch, self.objective)


def make_training_module(config: Config) -> TrainingModule:
    """Of a configuration, with first weights from torch's generator."""
    family = make_family(config.model, config.train.makes_diffuser)
    return TrainingModule(family, make_objective(config, family))


def make_objective(config: Config, family: Family) -> Objective:
    """The objective of a configuration."""
    return Objective(path_of(config.diffusion),
                     config.diffusion.prediction, DISTANCES[config.train.loss],
                     config.train.regression_weight, training_grid(config, family),
                     config.sampler.shift.edge, config.train.keeps_model)


def make_drawing(config: Config, family: Family) -> Drawing:
    """How windows are drawn from a training crop."""
    shift = config.sampler.shift
    return Drawing(training_grid(config, family), shift.pattern, config.train.batch == "image",
                   config.train.windows_per_image, shift.edge)


def training_grid(config: Config, family: Family) -> WindowGrid:
    """The grid over x_0 of a training crop; with room for the shift whatever its pattern."""
    shift = config.sampler.shift
    side = config.train.crop_px * family.x_px_per_lr_px // config.model.scale
    window_px = window_over(side, side, config.model.window_px)
    if config.model.window_px is None:
        return WindowGrid(side, side, window_px, border=shift.border)
    return WindowGrid(side, side, window_px, max_shift_of(shift, window_px), shift.border)


def draw_times(family: Family, num_windows: int, num_times: int, rng: np.random.Generator,
               first: int = 0) -> np.ndarray:
    """t of every window of one image, int64 (num_windows,): its own, or one for all of them, from
    `first` on."""
    if not num_windows:
        return np.empty(0, np.int64)
    drawn = rng.integers(first, num_times, size=num_windows if family.time_per_window else 1)
    return np.broadcast_to(drawn, num_windows).copy()


def noise_of(family: Family, grid: WindowGrid, rngs: Sequence[np.random.Generator],
             device: torch.device) -> Tensor:
    """eps of training crops, each by a generator of its own: float32 (n, x_channels, h, w).

    On a CPU by these themselves; elsewhere by the device's, started by them: other numbers, as
    little dependent on ranks and batches.
    """
    return normal((family.x_channels, grid.height_px, grid.width_px), rngs, device)


def normal(shape: Sequence[int], rngs: Sequence[np.random.Generator],
           device: torch.device) -> Tensor:
    """N(0, 1) of images, float32 (n, *shape); see `noise_of`."""
    if device.type == "cpu":
        return torch.from_numpy(np.stack([rng.standard_normal(tuple(shape), dtype=np.float32)
                                          for rng in rngs]))
    return drawn_there(shape, rngs, device)


def drawn_there(shape: Sequence[int], rngs: Sequence[np.random.Generator],
                device: torch.device) -> Tensor:
    """N(0, 1) by the device's generator, float32 (n, *shape)."""
    eps, there = torch.empty(len(rngs), *shape, device=device), torch.Generator(device)
    for part, rng in zip(eps, rngs, strict=True):
        part.normal_(generator=there.manual_seed(int(rng.integers(2**63))))
    return eps
