"""The way from noise to x_0: x_t = a x_0 + s eps, with amplitudes a and s that change with t.

Two ship: `Schedule`, the curved way of DDPM, and `Straight`. A path decides what `v` means and
which samplers walk it (METHODS in samplers.py). Another is one file, a line here and its name among
the settings.
"""
from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from swinmpi.config import DiffusionConfig
from swinmpi.diffusion.schedule import schedule_of
from swinmpi.diffusion.straight import Straight

Factors = tuple[float | Tensor, float | Tensor]
"""Of two tensors: floats for an int t, else float or (N, 1, 1, 1) float64 on t's device."""


class Path(Protocol):
    """Where x_t lies between noise (t = T - 1) and x_0; t is 0-based, an int or (N,) int64."""

    @property
    def steps(self) -> int:
        """T."""

    @property
    def initial_std(self) -> float:
        """Of the noise in x_T, which is all that is known of it at the start."""

    def amplitudes(self, t: Tensor | int) -> Factors:
        """(a, s) of x_t = a x_0 + s eps."""

    def velocity(self, t: Tensor | int) -> Factors:
        """(of_x_0, of_eps) of v, the way x_t turns."""

    def x_0_of_v(self, t: Tensor | int) -> Factors:
        """(of_x_t, of_v) of x_0 = of_x_t x_t + of_v v."""

    def levels(self, times: Sequence[int]) -> list[float]:
        """What samplers know of these t, and of the end of the path after them."""


def path_of(config: DiffusionConfig) -> Path:
    """The path of a configuration; warns as `make_schedule`."""
    if config.path == "straight":
        return Straight(config.steps, config.start_std)
    return schedule_of(config)
