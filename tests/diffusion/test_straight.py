"""The straight path: its maths against closed forms, of Gaussian data above all, whose velocity is
known exactly."""
import math

import pytest
import torch

from swinmpi.config import DiffusionConfig, SamplerConfig, load_config
from swinmpi.diffusion.path import path_of
from swinmpi.diffusion.process import q_sample, to_x_0, v_target
from swinmpi.diffusion.samplers import METHODS, make_sampler
from swinmpi.diffusion.straight import Straight
from swinmpi.errors import ConfigError
from swinmpi.sampling.settings import check_path, deciding

PATH = Straight(1000, 0.7)
MEAN, DEVIATION = 0.4, 0.2


def draw(seed, shape=(4, 2, 3, 5)):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def sampler_for(method, steps, prediction="v", **settings):
    return make_sampler(SamplerConfig(method=method, steps=steps, **settings),
                        DiffusionConfig(path="straight", prediction=prediction), PATH)


def best_velocity(x_t, t):
    """E[v | x_t] where x_0 ~ N(MEAN, DEVIATION^2): regression of one Gaussian on another."""
    u, noise = (t + 1) / PATH.steps, PATH.start_std
    variance = ((1 - u) * DEVIATION) ** 2 + (u * noise) ** 2
    together = (1 - u) * DEVIATION**2 - u * noise**2
    return MEAN + together / variance * (x_t - (1 - u) * MEAN)


def sampled(sampler, x_t):
    kept = ()
    for number, t in enumerate(sampler.timesteps):
        x_t, kept = sampler.step(number, x_t, best_velocity(x_t, t), kept=kept)
    return x_t


def test_x_t_lies_on_a_line():
    x_0, eps, t = draw(0), draw(1), torch.tensor([0, 249, 499, 999])
    x_t = q_sample(x_0, t, eps, PATH)
    torch.testing.assert_close(x_t[3], 0.7 * eps[3])
    torch.testing.assert_close(x_t[2], 0.5 * x_0[2] + 0.35 * eps[2])
    # The velocity leads from anywhere on it to x_0, in the time that is left.
    left = (t + 1).view(-1, 1, 1, 1) / 1000
    torch.testing.assert_close(x_t + left * v_target(x_0, eps, t, PATH), x_0)


@pytest.mark.parametrize("t", [0, 400, 999])
def test_x_0_comes_back_from_every_prediction(t):
    x_0, eps = draw(0), draw(1)
    x_t = q_sample(x_0, t, eps, PATH)
    for kind, output in (("v", v_target(x_0, eps, t, PATH)), ("x_0", x_0)):
        torch.testing.assert_close(to_x_0(kind, output, x_t, t, PATH), x_0)


@pytest.mark.parametrize("method, steps, tolerance", [("euler", 1000, 2e-3), ("heun", 100, 5e-4)])
def test_gaussian_data_get_the_right_mean_and_deviation(method, steps, tolerance):
    """The flow of a Gaussian to a Gaussian is x_0 = mean + deviation eps."""
    eps, sampler = draw(2, (1, 1, 64, 64)), sampler_for(method, steps)
    made = sampled(sampler, sampler.path.initial_std * eps)
    torch.testing.assert_close(made, MEAN + DEVIATION * eps, rtol=0, atol=tolerance)


def test_one_step_is_the_mean():
    made = sampled(sampler_for("euler", 1), 0.7 * draw(3))
    torch.testing.assert_close(made, torch.full_like(made, MEAN))


def test_heun_is_of_second_order():
    def error(method, steps):
        return (sampled(sampler_for(method, steps), 0.7 * eps) - MEAN
                - DEVIATION * eps).abs().max()

    eps = draw(4)
    orders = {method: math.log2(error(method, 50) / error(method, 100))
              for method in METHODS["straight"]}
    assert orders["euler"] == pytest.approx(1, abs=0.1)
    assert orders["heun"] > 1.7


@pytest.mark.parametrize("method, steps", [("euler", 4), ("heun", 7)])
def test_every_step_is_euler_s_or_heun_s(method, steps):
    """Against the steps as textbooks write them."""
    sampler, x_t = sampler_for(method, steps), 0.7 * draw(5)
    by_hand, times = x_t, [round(1000 * (steps - i) / steps) - 1 for i in range(steps)]
    for t, then in zip(times, [*times[1:], -1], strict=True):
        h, v = (t - then) / 1000, best_velocity(by_hand, t)
        if method == "heun" and then >= 0:
            v = (v + best_velocity(by_hand + h * v, then)) / 2
        by_hand = by_hand + h * v
    torch.testing.assert_close(sampled(sampler, x_t), by_hand)


def test_limits_hold_on_it_too():
    sampler = sampler_for("euler", 1, clip_x_0=0.3)
    assert float(sampled(sampler, 0.7 * draw(6)).max()) == 0.3


def test_settings_name_it():
    config = load_config(overrides=["diffusion.path=straight", "diffusion.start_std=0.7"])
    assert config.sampler.method == "euler"
    made = path_of(config.diffusion)
    assert (made.steps, made.initial_std) == (1000, 0.7)
    assert path_of(load_config().diffusion).initial_std == pytest.approx(1)
    for own in (config, load_config()):
        assert set(own.diffusion.methods) == METHODS[own.diffusion.path].keys()


def test_fingerprints_of_curved_runs_stay():
    assert not {"path", "start_std"} & deciding(load_config())["diffusion"].keys()
    told = deciding(load_config(overrides=["diffusion.path=straight", "diffusion.start_std=1.0"]))
    assert (told["diffusion"]["path"], told["diffusion"]["start_std"]) == ("straight", 1.0)


@pytest.mark.parametrize("overrides, told", [
    (["sampler.method=euler"],
     "sampler.method: expected ddim or ddpm or dpmpp_2m or heun or regression with "
     "diffusion.path curved, got euler"),
    (["diffusion.path=straight", "sampler.method=ddim"],
     "sampler.method: expected euler or heun or regression with diffusion.path straight, got ddim"),
    (["diffusion.path=straight", "diffusion.prediction=eps"], "expected v or x_0"),
    (["diffusion.path=straight", "diffusion.schedule=linear"], "which has no schedule"),
    (["diffusion.path=straight", "sampler.start=unit"], "expected as_trained"),
    (["diffusion.start_std=0.1"], "expected none with diffusion.path curved"),
])
def test_what_does_not_fit_the_path_is_told(overrides, told):
    with pytest.raises(ConfigError, match=told):
        check_path(load_config(overrides=overrides))
