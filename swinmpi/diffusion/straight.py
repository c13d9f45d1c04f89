"""The straight path: from noise around the base along a line to the truth.

Posterior-mean rectified flow (Ohayon et al. 2024, arXiv 2410.00418): with u = (t + 1) / T

    x_t = (1 - u) x_0 + u sigma eps,    v = x_0 - sigma eps, the velocity along the line.

x_0 being what is missing in the base, x_T is the base with noise of deviation sigma on it. What a
squared error learns is E[v | x_t], whose flow has the right distribution at its end.
"""
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from swinmpi.diffusion.schedule import at


@dataclass(frozen=True, eq=False)
class Straight:
    """See path.py. steps: T; start_std: sigma, above 0, in units of x_0."""

    steps: int
    start_std: float

    @property
    def initial_std(self) -> float:
        return self.start_std

    @cached_property
    def shares(self) -> Tensor:
        """u of every t, (T,) float64, rising to 1."""
        return torch.arange(1, self.steps + 1, dtype=torch.float64) / self.steps

    def amplitudes(self, t: Tensor | int):
        u = at(self.shares, t)
        return 1 - u, self.start_std * u

    def velocity(self, t: Tensor | int):
        return 1.0, -self.start_std

    def x_0_of_v(self, t: Tensor | int):
        return 1.0, at(self.shares, t)

    def levels(self, times: Sequence[int]) -> list[float]:
        """u."""
        return [self.shares[t].item() for t in times] + [0.0]
