"""Noise schedules: how fast the forward process turns an image into noise. Tables are
float64 on the CPU."""
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from swinmpi.config import DiffusionConfig

Ends = tuple[float | None, float | None]
MAX_BETA = 0.999
MAX_LAST_ALPHAS_CUMPROD = 0.01


@dataclass(frozen=True, eq=False)
class Schedule:
    """The curved path of DDPM, see path.py; a^2 + s^2 = 1.

    The tables that follow from betas (T,), float64, 0 < beta < 1; their index t is 0-based
    (thesis eqs. 1.1, 1.2).

    Raises ValueError where betas are not such a table.
    """

    betas: Tensor

    def __post_init__(self):
        if self.betas.dtype != torch.float64 or self.betas.ndim != 1 or not len(self.betas):
            raise ValueError("betas: expected float64 of shape (T,), "
                             f"got {self.betas.dtype} {tuple(self.betas.shape)}")
        if not bool(((self.betas > 0) & (self.betas < 1)).all()):
            raise ValueError("betas: expected 0 < beta < 1, "
                             f"got {self.betas.min():.3g}..{self.betas.max():.3g}")

    @property
    def steps(self) -> int:
        """T."""
        return len(self.betas)

    @cached_property
    def alphas(self) -> Tensor:
        """alpha_t = 1 - beta_t, (T,)."""
        return 1 - self.betas

    @cached_property
    def alphas_cumprod(self) -> Tensor:
        """abar_t = alpha_0 ... alpha_t, the share of x_0 in the variance of x_t, (T,), falling."""
        return self.alphas.cumprod(0)

    @cached_property
    def alphas_cumprod_prev(self) -> Tensor:
        """abar_{t-1}, (T,), with 1 before the first step: x_0 itself holds no noise."""
        return torch.cat([torch.ones(1, dtype=torch.float64), self.alphas_cumprod[:-1]])

    @property
    def initial_std(self) -> float:
        """sqrt(1 - abar_T), the share of noise in x_T (its amplitude)."""
        return math.sqrt(1 - self.alphas_cumprod[-1].item())

    def amplitudes(self, t: Tensor | int):
        """a = sqrt(abar_t), s = sqrt(1 - abar_t)."""
        abar = at(self.alphas_cumprod, t)
        if isinstance(abar, float):
            return math.sqrt(abar), math.sqrt(1 - abar)
        return abar.sqrt(), (1 - abar).sqrt()

    def velocity(self, t: Tensor | int):
        """v = a eps - s x_0 (Salimans and Ho 2022, appendix D)."""
        a, s = self.amplitudes(t)
        return -s, a

    def x_0_of_v(self, t: Tensor | int):
        """x_0 = a x_t - s v."""
        a, s = self.amplitudes(t)
        return a, -s

    def levels(self, times: Sequence[int]) -> list[float]:
        """abar."""
        return [self.alphas_cumprod[t].item() for t in times] + [1.0]


def at(table: Tensor, t: Tensor | int):
    """table[t], shaped to be multiplied with images.

    A negative int is an error, not an index from the end.
    """
    if isinstance(t, Tensor):
        return table.to(t.device)[t].view(-1, 1, 1, 1)
    if not 0 <= t < len(table):
        raise ValueError(f"t: expected 0..{len(table) - 1}, got {t}")
    return table[t].item()


def schedule_of(config: DiffusionConfig) -> Schedule:
    """As `make_schedule`, of the settings."""
    return make_schedule(config.schedule, config.steps, config.betas_given)


def make_schedule(name: str, steps: int, ends: Ends = (None, None)) -> Schedule:
    """The named schedule with T = steps; warns where x_T would still show the image.
    Names and ends as in `betas`."""
    schedule = Schedule(betas(name, steps, ends))
    last = schedule.alphas_cumprod[-1].item()
    if last > MAX_LAST_ALPHAS_CUMPROD:
        warnings.warn(f"schedule {name} with {steps} steps ends at alphas_cumprod {last:.2g}, "
                      f"above {MAX_LAST_ALPHAS_CUMPROD}: x_T still holds some of the image, "
                      "so samples start off the training distribution; "
                      "diffusion.schedule=cosine avoids this", stacklevel=2)
    return schedule


def betas(name: str, steps: int, ends: Ends = (None, None)) -> Tensor:
    """beta_0..beta_{T-1}, (T,) float64, at most 0.999.

    linear: 1e-4..0.02 for T = 1000 (Ho et al. 2020), scaled by 1000 / T so that x_T is equally
    noisy for any T. quadratic: the same ends, the square root of beta rises linearly.
    cosine: abar falls as cos^2 (Nichol and Dhariwal 2021, eq. 17).
    thesis64, thesis128: linear 0.007..0.02 and 0.001..0.015 whatever T, as published.
    ends: beta_0 and beta_{T-1} in place of linear's or quadratic's, not scaled.
    Raises ValueError for another name or steps < 1.
    """
    if name not in BETAS:
        raise ValueError(f"schedule: expected one of {', '.join(BETAS)}, got {name!r}")
    if steps < 1:
        raise ValueError(f"schedule {name}: expected at least 1 step, got {steps}")
    if ends != (None, None):
        return RISING[name](*ends, steps).clamp(max=MAX_BETA)
    return BETAS[name](steps).clamp(max=MAX_BETA)


def _rising(first: float, last: float, steps: int) -> Tensor:
    return torch.linspace(first, last, steps, dtype=torch.float64)


def _linear(steps: int) -> Tensor:
    return _rising(1e-4, 0.02, steps) * (1000 / steps)


def _squares(first: float, last: float, steps: int) -> Tensor:
    return _rising(math.sqrt(first), math.sqrt(last), steps) ** 2


def _quadratic(steps: int) -> Tensor:
    return _squares(1e-4, 0.02, steps) * (1000 / steps)


def _cosine(steps: int, offset: float = 0.008) -> Tensor:
    time = torch.arange(steps + 1, dtype=torch.float64) / steps
    abar = torch.cos((time + offset) / (1 + offset) * math.pi / 2) ** 2
    return 1 - abar[1:] / abar[:-1]


RISING = {"linear": _rising, "quadratic": _squares}
BETAS = {
    "linear": _linear,
    "cosine": _cosine,
    "quadratic": _quadratic,
    "thesis64": lambda steps: _rising(0.007, 0.02, steps),
    "thesis128": lambda steps: _rising(0.001, 0.015, steps),
}
