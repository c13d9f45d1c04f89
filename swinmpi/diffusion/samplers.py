"""Samplers: from x_T to x_0 in any number of steps, by DDPM (thesis algorithm 2.2), DDIM or DPM-Solver++ (2M).

With x_0 worked out from the network's output, every method here is one linear rule,
    x_prev = of_x_t x_t + of_x_0 x_0 + of_last_x_0 (x_0 of the step before) + of_noise noise,
so a method is a table of coefficients: worked out in float64, applied element by element to any part of an image.
"""
import math
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from swinmpi.config import DiffusionConfig, SamplerConfig
from swinmpi.diffusion.process import combine, posterior_coefficients, to_x_0, x_0_factors
from swinmpi.diffusion.schedule import Schedule


@dataclass(frozen=True)
class StepRule:
    """The four factors of one step."""

    of_x_t: float
    of_x_0: float
    of_last_x_0: float = 0.0
    of_noise: float = 0.0


@dataclass(frozen=True, eq=False)
class Sampler:
    """A plan of steps; step i goes from timesteps[i] to timesteps[i + 1], the last one to x_0. Made by make_sampler."""

    timesteps: tuple[int, ...]
    rules: tuple[StepRule, ...]
    prediction: str
    clip_x_0: float | None
    schedule: Schedule

    def needs_noise(self, step: int) -> bool:
        """Whether this step adds noise; never the last (z = 0)."""
        return self.rules[step].of_noise != 0

    @property
    def looks_back(self) -> bool:
        """Whether some step needs the x_0 of the step before (`history`)."""
        return any(rule.of_last_x_0 != 0 for rule in self.rules)

    def step(self, step: int, x_t: Tensor, output: Tensor, noise: Tensor | None = None,
             history: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """(x_prev, history for the next step) from x_t at timesteps[step] and the network's output for it.

        All tensors (N, C, H, W) of one shape; noise ~ N(0, 1) where needs_noise(step). history is None at first; where
        a method looks back it is a tensor over the same pixels as x_t and has to follow x_t through every shift.
        Raises ValueError where noise or history is needed and missing.
        """
        rule, t = self.rules[step], self.timesteps[step]
        looked_back_at = self._is_looked_back_at(step)
        if self.clip_x_0 is None and not looked_back_at:
            # Nobody needs x_0 itself: it is linear in x_t and the output, and that spares half the passes over the memory.
            of_x_t, of_output = x_0_factors(self.prediction, t, self.schedule)
            x_prev = combine(rule.of_x_t + rule.of_x_0 * of_x_t, x_t, rule.of_x_0 * of_output, output.to(x_t.dtype))
        else:
            x_0 = to_x_0(self.prediction, output, x_t, t, self.schedule)
            if self.clip_x_0 is not None:
                x_0 = x_0.clamp(-self.clip_x_0, self.clip_x_0)
            x_prev = combine(rule.of_x_t, x_t, rule.of_x_0, x_0)
        for what, factor, term in (("history", rule.of_last_x_0, history), ("noise", rule.of_noise, noise)):
            if factor != 0 and term is None:
                raise ValueError(f"sampler step {step}: expected {what}, got None")
            if factor != 0:
                x_prev.add_(factor * term)
        return x_prev, x_0 if looked_back_at else None

    def _is_looked_back_at(self, step: int) -> bool:
        return step + 1 < len(self.rules) and self.rules[step + 1].of_last_x_0 != 0


def make_sampler(config: SamplerConfig, diffusion: DiffusionConfig, schedule: Schedule) -> Sampler:
    """The sampler of a configuration. It scales the noise of each step by noise_scale; x_T's is the caller's to scale.

    clip_x_0 limits the x_0 inside each step and with it the noise that x_t is then taken to hold.
    Raises ValueError for more steps than the schedule has.
    """
    times = timesteps(config.steps, schedule.steps)
    abar = [schedule.alphas_cumprod[t].item() for t in times] + [1.0]
    if config.method == "ddpm":
        rules = [_ddpm(now, then, diffusion.variance, config.noise_scale) for now, then in pairwise(abar)]
    elif config.method == "ddim":
        rules = [_ddim(now, then, config.eta, config.noise_scale) for now, then in pairwise(abar)]
    else:
        rules = _dpmpp_2m(abar)
    return Sampler(tuple(times), tuple(rules), diffusion.prediction, config.clip_x_0, schedule)


def timesteps(num_steps: int, schedule_steps: int) -> list[int]:
    """num_steps values of t, falling from T - 1, evenly spaced ("trailing"): x_T is always where training ended.

    Raises ValueError unless 1 <= num_steps <= T.
    """
    if not 1 <= num_steps <= schedule_steps:
        raise ValueError(f"sampler.steps: expected 1..{schedule_steps} (diffusion.steps), got {num_steps}")
    return [round(schedule_steps * (num_steps - i) / num_steps) - 1 for i in range(num_steps)]


def initial_std(schedule: Schedule) -> float:
    """sqrt(1 - abar_T): x_T starts as this times N(0, 1), as noisy as training left it (and times noise_scale)."""
    return math.sqrt(1 - schedule.alphas_cumprod[-1].item())


def _ddpm(abar_t: float, abar_prev: float, variance: str, noise_scale: float) -> StepRule:
    """Thesis algorithm 2.2 and eq. 1.9 (Ho et al. 2020, algorithm 2), for a stride of any length."""
    of_x_0, of_x_t, spread = posterior_coefficients(abar_t, abar_prev, variance)
    of_noise = 0.0 if abar_prev == 1 else noise_scale * math.sqrt(spread)
    return StepRule(of_x_t, of_x_0, of_noise=of_noise)


def _ddim(abar_t: float, abar_prev: float, eta: float, noise_scale: float) -> StepRule:
    """Song et al. 2021, eqs. 12 and 16; eta 1: DDPM with the posterior's variance, eta 0: the probability-flow ODE."""
    spread = eta ** 2 * posterior_coefficients(abar_t, abar_prev, "posterior")[2]
    of_eps = math.sqrt(1 - abar_prev - spread)
    of_x_t = of_eps / math.sqrt(1 - abar_t)
    return StepRule(of_x_t, math.sqrt(abar_prev) - of_x_t * math.sqrt(abar_t), of_noise=noise_scale * math.sqrt(spread))


def _dpmpp_2m(abar: list[float]) -> list[StepRule]:
    """Lu et al. 2022, algorithm 2: x_0 extrapolated in lambda = log(a / s) from two steps, one at the first and last.

    Its one-step rule is DDIM with eta 0.
    """
    rules = [_ddim(now, then, eta=0.0, noise_scale=0.0) for now, then in pairwise(abar)]
    log_snr = [math.log(a / (1 - a)) / 2 for a in abar[:-1]]
    for i in range(1, len(rules) - 1):
        ahead = (log_snr[i + 1] - log_snr[i]) / (log_snr[i] - log_snr[i - 1]) / 2
        rules[i] = StepRule(rules[i].of_x_t, rules[i].of_x_0 * (1 + ahead), of_last_x_0=-rules[i].of_x_0 * ahead)
    return rules
