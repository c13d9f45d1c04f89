"""Progressive distillation (Salimans and Ho 2022, arXiv 2202.00512): what a student should predict
to arrive in one step where its teacher arrives in two."""
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from swinmpi.config import DiffusionConfig, SamplerConfig
from swinmpi.diffusion.path import Path, path_of
from swinmpi.diffusion.process import combine, output_for, to_x_0
from swinmpi.diffusion.samplers import METHODS, Rule, timesteps

Network = Callable[[Tensor, Tensor], Tensor]
"""(x_t (n, C, h, w), t (n,)) -> output."""


@dataclass(frozen=True, eq=False)
class Halving:
    """The steps of a student, and the two of its teacher in each; made by `halving`.

    In order from noise to x_0, (N,): t at the start of a step, t of the teacher's second, the first
    of its rules, and the share of its first x_0 in what the student should predict.
    """

    path: Path
    prediction: str
    times: Tensor
    between: Tensor
    of_x_t: Tensor
    of_x_0: Tensor
    of_first: Tensor

    def step_of(self, t: Tensor) -> Tensor:
        """The student's step that any t (n,) of 0..T - 1 belongs to: a t drawn evenly gives steps
        drawn evenly."""
        return (self.path.steps - 1 - t) * len(self.times) // self.path.steps

    def wanted(self, teacher: Network, x_t: Tensor, step: Tensor) -> Tensor:
        """What the student should return for x_t (n, C, h, w) at the start of `step` (n,).

        The teacher's steps end at z = r x_t + q x, where r and q are those of the student's own
        step, so x is what it should predict (eq. 8). Written out, x is a mean of the teacher's two
        predictions; at the last step the second alone, where q and r of the paper's form are fine
        but small numbers would be divided by each other.
        """
        t, between = self.times[step], self.between[step]
        first = to_x_0(self.prediction, teacher(x_t, t), x_t, t, self.path)
        midway = combine(shaped(self.of_x_t, step), x_t, shaped(self.of_x_0, step), first)
        second = to_x_0(self.prediction, teacher(midway, between), midway, between, self.path)
        share = shaped(self.of_first, step)
        return output_for(self.prediction, combine(share, first, 1 - share, second), x_t, t,
                          self.path)


def halving(diffusion: DiffusionConfig, steps: int, device: torch.device | str = "cpu") -> Halving:
    """For a student of `steps` steps; the teacher takes twice as many, by the usual method of the
    path without noise. ValueError where the path has too few."""
    path = path_of(diffusion)
    times = timesteps(2 * steps, path.steps)
    rules = deterministic(diffusion, times, path)
    firsts, seconds = rules[::2], rules[1::2]
    shares = [then.of_x_t * first.of_x_0 / (then.of_x_t * first.of_x_0 + then.of_x_0)
              for first, then in zip(firsts, seconds, strict=True)]

    def table(values, kind=torch.float64) -> Tensor:
        return torch.tensor(values, dtype=kind, device=device)

    return Halving(path, diffusion.prediction, table(times[::2], torch.int64),
                   table(times[1::2], torch.int64), table([one.of_x_t for one in firsts]),
                   table([one.of_x_0 for one in firsts]), table(shares))


def deterministic(diffusion: DiffusionConfig, times: list[int], path: Path) -> list[Rule]:
    """The rules of steps at `times` that need one evaluation each and add no noise."""
    method = diffusion.methods[0]
    evaluations = METHODS[diffusion.path][method](times, path.levels(times),
                                                  SamplerConfig(method=method, eta=0.0), diffusion)
    return [one.rule for one in evaluations]


def shaped(table: Tensor, step: Tensor) -> Tensor:
    """To be multiplied with images."""
    return table[step].view(-1, 1, 1, 1)
