"""Samplers: from x_T to x_0 in any number of steps; a method is a table of linear rules.

Every evaluation of the network gives an x_0, and with it every method here is linear:
    next x_t = of_x_t x_t + of_x_0 x_0 + sum of_kept kept + of_noise noise,
and so is what it keeps for later evaluations. The factors are worked out in float64 and applied
element by element, to any part of an image.

A method with one evaluation a step makes one `Evaluation` of a step, Heun's two; one that looks
back keeps tensors. Adding a method: a function here, its line in METHODS under the path that it
walks, its name in the settings.
"""
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from torch import Tensor

from swinmpi.config import DiffusionConfig, SamplerConfig
from swinmpi.diffusion.path import Path
from swinmpi.diffusion.process import combine, posterior_coefficients, to_x_0, x_0_factors


@dataclass(frozen=True)
class Rule:
    """The factors of one linear combination; of_kept: of the tensors kept before, in order."""

    of_x_t: float
    of_x_0: float
    of_kept: tuple[float, ...] = ()
    of_noise: float = 0.0

    def kept(self, x_t: Tensor, x_0: Tensor, before: Sequence[Tensor]) -> Tensor:
        """What is kept by it; before: what was."""
        made = (x_0 if (self.of_x_t, self.of_x_0) == (0, 1)
                else combine(self.of_x_t, x_t, self.of_x_0, x_0))
        for factor, tensor in zip(self.of_kept, before, strict=False):
            made = made + factor * tensor
        return made


X_0_ITSELF = Rule(0.0, 1.0)
SIGMA_MAX = 80.0
"""EDM's largest noise level over the data's (Karras et al. 2022, table 1)."""


@dataclass(frozen=True)
class Evaluation:
    """One call of the network, at t, and what follows: the next x_t, and what is kept after it."""

    t: int
    rule: Rule
    keeps: tuple[Rule, ...] = ()


@dataclass(frozen=True, eq=False)
class Sampler:
    """The evaluations from x_T to x_0, in order. Made by make_sampler."""

    evaluations: tuple[Evaluation, ...]
    prediction: str
    clip_x_0: float | None
    path: Path
    clip_result: float | None = None
    unit_start: bool = False
    overlap: int = 1
    spared: int = 0
    """First evaluations, which easy parts of an image do without."""

    @property
    def timesteps(self) -> tuple[int, ...]:
        """t of every evaluation."""
        return tuple(evaluation.t for evaluation in self.evaluations)

    @property
    def num_kept(self) -> int:
        """How many tensors like x_t are kept between evaluations, at most."""
        return max((len(evaluation.keeps) for evaluation in self.evaluations), default=0)

    @property
    def initial_std(self) -> float:
        """x_T is this times N(0, 1): as noisy as training left it, or 1."""
        return 1.0 if self.unit_start else self.path.initial_std

    def turn(self, number: int) -> int:
        """Which of the circular shifts an evaluation has, counted on: those that overlap in the
        last step have opposite ones, or all four."""
        last = len(self.evaluations) - self.overlap
        return number if number <= last else last + (number - last) * 4 // self.overlap

    def base_factor(self, number: int) -> float:
        """An output of so many times x_t stands for an x_0 of zero, the base."""
        of_x_t, of_output = x_0_factors(self.prediction, self.evaluations[number].t, self.path)
        return -of_x_t / of_output

    def needs_noise(self, number: int) -> bool:
        """Whether this evaluation adds noise; never the last (z = 0)."""
        return self.evaluations[number].rule.of_noise != 0

    def step(self, number: int, x_t: Tensor, output: Tensor, noise: Tensor | None = None,
             kept: Sequence[Tensor] = ()) -> tuple[Tensor, tuple[Tensor, ...]]:
        """(next x_t, tensors to keep) from x_t and the network's output in evaluation `number`.

        All tensors (N, C, H, W) of one shape; noise ~ N(0, 1) where needs_noise(number). kept: what
        the call before returned, over the same pixels as x_t; it has to follow x_t through every
        shift. Raises ValueError where noise or kept tensors are needed and missing.
        """
        evaluation = self.evaluations[number]
        rule = evaluation.rule
        if self.clip_x_0 is None and not evaluation.keeps:
            # Nobody needs x_0 itself: it is linear in x_t and the output, and that spares half the
            # passes over the memory.
            of_x_t, of_output = x_0_factors(self.prediction, evaluation.t, self.path)
            following = combine(rule.of_x_t + rule.of_x_0 * of_x_t, x_t, rule.of_x_0 * of_output,
                                output.to(x_t.dtype))
            keeping = ()
        else:
            x_0 = to_x_0(self.prediction, output, x_t, evaluation.t, self.path)
            if self.clip_x_0 is not None:
                x_0 = x_0.clamp(-self.clip_x_0, self.clip_x_0)
            following = combine(rule.of_x_t, x_t, rule.of_x_0, x_0)
            keeping = tuple(keep.kept(x_t, x_0, kept) for keep in evaluation.keeps)
        if len(kept) < len(rule.of_kept) or (rule.of_noise != 0 and noise is None):
            missing = ("noise" if len(kept) >= len(rule.of_kept)
                       else f"{len(rule.of_kept)} kept tensors")
            raise ValueError(f"sampler evaluation {number}: expected {missing}, got none")
        terms = [*zip(rule.of_kept, kept, strict=False), (rule.of_noise, noise)]
        for factor, term in terms:
            if factor != 0:
                following.add_(factor * term)
        if self.clip_result is not None and number == len(self.evaluations) - 1:
            following = following.clamp(-self.clip_result, self.clip_result)
        return following, keeping


def make_sampler(config: SamplerConfig, diffusion: DiffusionConfig, path: Path) -> Sampler:
    """The sampler of a configuration. It scales the noise of each step by noise_scale; x_T's is the
    caller's to scale.

    clip_x_0 limits the x_0 inside each step and with it the noise that x_t is then taken to hold.
    Raises ValueError for more steps than the path has.
    """
    times = timesteps(config.steps, path.steps)
    method = METHODS[diffusion.path][config.method]
    evaluations = method(times, path.levels(times), config, diffusion)
    spared = 0
    if config.adaptive is not None:
        late = times[-config.adaptive_steps:]
        spared = len(evaluations) - len(method(late, path.levels(late), config, diffusion))
    loud = len(evaluations) - config.quiet_steps
    evaluations = [one if number < loud else replace(one, rule=replace(one.rule, of_noise=0.0))
                   for number, one in enumerate(evaluations)]
    if config.overlap > 1 and evaluations:  # the regression has none
        evaluations = overlapping(evaluations, config.overlap)
    return Sampler(tuple(evaluations), diffusion.prediction, config.clip_x_0, path,
                   config.clip_result, config.start == "unit", config.overlap,
                   spared)


def overlapping(evaluations: Sequence[Evaluation], count: int) -> list[Evaluation]:
    """With `count` evaluations in place of the last, of which the mean x_0 is taken: all but one
    leave x_t and keep the sum of their x_0, in their order."""
    *before, last = evaluations
    stay, share = Rule(1.0, 0.0), last.rule.of_x_0 / count
    sums = [X_0_ITSELF] + [Rule(0.0, 1.0, (1.0,))] * (count - 2)
    return [*before, *(Evaluation(last.t, stay, (keep,)) for keep in sums),
            Evaluation(last.t, replace(last.rule, of_x_0=share, of_kept=(share,)))]


def timesteps(num_steps: int, schedule_steps: int) -> list[int]:
    """num_steps values of t, falling from T - 1, evenly spaced ("trailing"): x_T is always where
    training ended.

    Raises ValueError unless 1 <= num_steps <= T.
    """
    if not 1 <= num_steps <= schedule_steps:
        raise ValueError(f"sampler.steps: expected 1..{schedule_steps} (diffusion.steps), "
                         f"got {num_steps}")
    return [round(schedule_steps * (num_steps - i) / num_steps) - 1 for i in range(num_steps)]


def ddpm(times: Sequence[int], abar: Sequence[float], config: SamplerConfig,
         diffusion: DiffusionConfig) -> list[Evaluation]:
    """Thesis algorithm 2.2 and eq. 1.9 (Ho et al. 2020, algorithm 2), for strides of any length."""
    made = []
    for t, (now, then) in zip(times, pairwise(abar), strict=True):
        of_x_0, of_x_t, spread = posterior_coefficients(now, then, diffusion.variance)
        of_noise = 0.0 if then == 1 else config.noise_scale * math.sqrt(spread)
        made.append(Evaluation(t, Rule(of_x_t, of_x_0, of_noise=of_noise)))
    return made


def ddim(times: Sequence[int], abar: Sequence[float], config: SamplerConfig,
         diffusion: DiffusionConfig) -> list[Evaluation]:
    """Song et al. 2021, eqs. 12 and 16; eta 1: DDPM with the posterior's variance, eta 0: the
    probability-flow ODE."""
    return [Evaluation(t, ddim_rule(now, then, config.eta, config.noise_scale))
            for t, (now, then) in zip(times, pairwise(abar), strict=True)]


def ddim_rule(abar_t: float, abar_prev: float, eta: float = 0.0, noise_scale: float = 0.0) -> Rule:
    spread = eta ** 2 * posterior_coefficients(abar_t, abar_prev, "posterior")[2]
    of_eps = math.sqrt(1 - abar_prev - spread)
    of_x_t = of_eps / math.sqrt(1 - abar_t)
    return Rule(of_x_t, math.sqrt(abar_prev) - of_x_t * math.sqrt(abar_t),
                of_noise=noise_scale * math.sqrt(spread))


def dpmpp_2m(times: Sequence[int], abar: Sequence[float], config: SamplerConfig,
             diffusion: DiffusionConfig) -> list[Evaluation]:
    """DPM-Solver++ (2M), Lu et al. 2022, algorithm 2: x_0 extrapolated in lambda = log(a / s) from
    two steps, one at the first and last. Its one-step rule is DDIM with eta 0."""
    rules = [ddim_rule(now, then) for now, then in pairwise(abar)]
    log_snr = [math.log(a / (1 - a)) / 2 for a in abar[:-1]]
    for i in range(1, len(rules) - 1):
        ahead = (log_snr[i + 1] - log_snr[i]) / (log_snr[i] - log_snr[i - 1]) / 2
        rules[i] = Rule(rules[i].of_x_t, rules[i].of_x_0 * (1 + ahead), (-rules[i].of_x_0 * ahead,))
    looked_back_at = [bool(rule.of_kept) for rule in rules[1:]] + [False]
    return [Evaluation(t, rule, (X_0_ITSELF,) if keeps else ())
            for t, rule, keeps in zip(times, rules, looked_back_at, strict=True)]


def heun(times: Sequence[int], abar: Sequence[float], config: SamplerConfig,
         diffusion: DiffusionConfig) -> list[Evaluation]:
    """Karras et al. 2022 (EDM), algorithm 1, for x_t = a (x + sigma noise): a step of DDIM with eta
    0, then again with the mean of the slopes at both its ends; the last step is DDIM's.

    Slopes are d = (x_t / a - x_0) / sigma. What is kept is x + h d / 2 at the step's end, h being
    the change of sigma: half of the way along the slope at its start. From a sigma above SIGMA_MAX,
    where x_t holds no image, the slope is constant and a step of DDIM exact; there the correction
    would multiply the error of the slope at the step's end by h.
    """
    made = []
    for step, (now, then) in enumerate(pairwise(abar)):
        sigma, sigma_then = (math.sqrt((1 - a) / a) for a in (now, then))
        if then == 1 or sigma > SIGMA_MAX:
            made.append(Evaluation(times[step], ddim_rule(now, then)))
            continue
        half, half_then = ((sigma_then - sigma) / 2 / s for s in (sigma, sigma_then))
        amplitude = math.sqrt(then)
        first_half = Rule(amplitude * (1 + half) / math.sqrt(now), -amplitude * half)
        made += [Evaluation(times[step], ddim_rule(now, then), (first_half,)),
                 Evaluation(times[step + 1], Rule(half_then, -amplitude * half_then, (1.0,)))]
    return made


def regression(times: Sequence[int], abar: Sequence[float], config: SamplerConfig,
               diffusion: DiffusionConfig) -> list[Evaluation]:
    """Nothing is evaluated: what would be diffused is taken to be zero."""
    return []

def euler(times: Sequence[int], shares: Sequence[float], config: SamplerConfig,
          diffusion: DiffusionConfig) -> list[Evaluation]:
    """Steps along the velocity of a straight path, as in PMRF (Ohayon et al. 2024). v being
    (x_0 - x_t) / u, a step from u to u' leaves u' / u of the way to x_0."""
    return [Evaluation(t, euler_rule(now, then))
            for t, (now, then) in zip(times, pairwise(shares), strict=True)]


def euler_rule(now: float, then: float) -> Rule:
    return Rule(then / now, 1 - then / now)


def straight_heun(times: Sequence[int], shares: Sequence[float], config: SamplerConfig,
                  diffusion: DiffusionConfig) -> list[Evaluation]:
    """Euler's step, then again with the mean of the velocities at both its ends; the last step is
    Euler's, because at its end the velocity is not known. What is kept is half of the way along
    the velocity at the start."""
    made = []
    for step, (now, then) in enumerate(pairwise(shares)):
        whole = euler_rule(now, then)
        if then == 0:
            made.append(Evaluation(times[step], whole))
            continue
        half = whole.of_x_0 / 2
        half_then = (now - then) / 2 / then
        made += [Evaluation(times[step], whole, (Rule(1 - half, half),)),
                 Evaluation(times[step + 1], Rule(-half_then, half_then, (1.0,)))]
    return made


Method = Callable[[Sequence[int], Sequence[float], SamplerConfig, DiffusionConfig],
                  list[Evaluation]]
"""(t of every step, what the path's `levels` says of them, settings) -> the evaluations."""

METHODS: dict[str, dict[str, Method]] = {
    "curved": {"ddpm": ddpm, "ddim": ddim, "dpmpp_2m": dpmpp_2m, "heun": heun,
               "regression": regression},
    "straight": {"euler": euler, "heun": straight_heun, "regression": regression}}
"""By path and name."""
