"""What a student is taught, against two steps taken one after the other, and on Gaussian data,
where a student can be as good as its teacher."""
from itertools import pairwise

import pytest
import torch

from swinmpi.config import DiffusionConfig, SamplerConfig
from swinmpi.diffusion.distillation import halving
from swinmpi.diffusion.path import path_of
from swinmpi.diffusion.process import q_sample, to_x_0
from swinmpi.diffusion.samplers import make_sampler

PATHS = {"curved": ("ddim", {}), "straight": ("euler", {"start_std": 0.7})}
every_path = pytest.mark.parametrize("path", PATHS)
MEAN, DEVIATION = 0.4, 0.2


def draw(seed, shape):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def config_of(path, prediction="v", steps=1000):
    return DiffusionConfig(path=path, prediction=prediction, steps=steps, **PATHS[path][1])


def sampler_of(config, steps):
    return make_sampler(SamplerConfig(method=PATHS[config.path][0], steps=steps), config,
                        path_of(config))


def network(x_t, t):
    """Anything that is not linear."""
    return torch.sin(3 * x_t + t.view(-1, 1, 1, 1) / 100)


@every_path
@pytest.mark.parametrize("prediction", ["v", "x_0"])
@pytest.mark.parametrize("steps", [8, 4, 3, 1])
def test_one_step_of_the_student_ends_where_two_of_the_teacher_do(steps, prediction, path):
    config = config_of(path, prediction)
    made, teacher, student = (halving(config, steps), sampler_of(config, 2 * steps),
                              sampler_of(config, steps))
    assert made.times.tolist() == list(student.timesteps)
    for step in range(steps):
        x_t = draw(step, (2, 3, 4, 5))
        there = x_t
        for number in (2 * step, 2 * step + 1):
            t = torch.full((2,), teacher.timesteps[number])
            there, _ = teacher.step(number, there, network(there, t))
        wanted = made.wanted(network, x_t, torch.full((2,), step))
        torch.testing.assert_close(student.step(step, x_t, wanted)[0], there)


@pytest.mark.parametrize("steps", [8, 2])
def test_the_target_is_the_paper_s(steps):
    """Salimans and Ho 2022, algorithm 2, with their z, alpha and sigma."""
    config = config_of("curved")
    made, teacher = halving(config, steps), sampler_of(config, 2 * steps)
    for step in range(steps):
        z_t, t = draw(step, (1, 1, 4, 4)), torch.tensor([teacher.timesteps[2 * step]])
        z_s = z_t
        for number in (2 * step, 2 * step + 1):
            z_s, _ = teacher.step(number, z_s, network(z_s, torch.tensor(
                [teacher.timesteps[number]])))
        alpha, sigma = (one.item() for one in made.path.amplitudes(t))
        last = step == steps - 1
        alpha_s, sigma_s = ((1.0, 0.0) if last else
                            made.path.amplitudes(teacher.timesteps[2 * step + 2]))
        x = (z_s - sigma_s / sigma * z_t) / (alpha_s - sigma_s / sigma * alpha)
        told = to_x_0("v", made.wanted(network, z_t, torch.tensor([step])), z_t, t, made.path)
        torch.testing.assert_close(told, x)


@every_path
@pytest.mark.parametrize("steps", [16, 5, 1])
def test_any_time_belongs_to_a_step_and_all_come_evenly(steps, path):
    made = halving(config_of(path), steps)
    counts = torch.bincount(made.step_of(torch.arange(1000)), minlength=steps)
    assert len(counts) == steps and counts.min() >= 1000 // steps
    assert made.step_of(torch.tensor([999, 0])).tolist() == [0, steps - 1]


def best(config, x_t, t):
    """E[v | x_t] of Gaussian data, which is linear in x_t."""
    path, shape = path_of(config), (-1, 1, 1, 1)
    a, s = (torch.as_tensor(one).view(shape) for one in path.amplitudes(t))
    p, q = (torch.as_tensor(one).view(shape) for one in path.velocity(t))
    share = (p * a * DEVIATION**2 + q * s) / (a**2 * DEVIATION**2 + s**2)
    return p * MEAN + share * (x_t - a * MEAN)


@every_path
def test_students_that_can_learn_everything_end_where_the_first_teacher_does(path):
    """16 -> 8 -> 4 -> 2 -> 1 steps, each a straight line through what it was taught."""
    config = config_of(path)
    x_T = path_of(config).initial_std * draw(0, (1, 1, 8, 8))
    teacher, ends = (lambda x_t, t: best(config, x_t, t)), []
    for steps in (16, 8, 4, 2, 1):
        sampler, x_t = sampler_of(config, steps), x_T
        for number, t in enumerate(sampler.timesteps):
            x_t, _ = sampler.step(number, x_t, teacher(x_t, torch.tensor([t])))
        ends.append(x_t)
        if steps > 1:
            teacher = fitted(halving(config, steps // 2), teacher)
    for before, then in pairwise(ends):
        torch.testing.assert_close(then, before)


def fitted(made, teacher):
    """A network of two numbers for each step, by least squares."""
    lines = {}
    for step, t in enumerate(made.times.tolist()):
        x_0, eps = MEAN + DEVIATION * draw(1, (1, 1, 16, 16)), draw(2, (1, 1, 16, 16))
        x_t = q_sample(x_0, t, eps, made.path)
        wanted = made.wanted(teacher, x_t, torch.tensor([step])).flatten()
        columns = torch.stack([x_t.flatten(), torch.ones(256, dtype=torch.float64)], dim=1)
        lines[t] = torch.linalg.lstsq(columns, wanted[:, None]).solution.flatten()
    return lambda x_t, t: lines[t.item()][0] * x_t + lines[t.item()][1]
