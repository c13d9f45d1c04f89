"""Schedules and the forward process against diffusers' tables, closed forms and Bayes' rule."""
import warnings

import pytest
import torch
from diffusers import DDPMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from swinmpi.diffusion.process import (
    PREDICTIONS,
    posterior_coefficients,
    q_sample,
    target,
    to_x_0,
    v_target,
)
from swinmpi.diffusion.schedule import BETAS, Schedule, betas, make_schedule

COSINE = make_schedule("cosine", 1000)


def pictures(count=3, dtype=torch.float64, seed=0):
    """Two different batches (count, 3, 4, 5)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, count, 3, 4, 5, dtype=dtype, generator=generator)


def posterior(x_0, x_t, t, variance):
    """Mean and variance of q(x_{t-1} | x_t, x_0)."""
    t = torch.as_tensor(t).view(-1, 1, 1, 1)
    of_x_0, of_x_t, spread = posterior_coefficients(
        COSINE.alphas_cumprod[t], COSINE.alphas_cumprod_prev[t], variance)
    return of_x_0 * x_0 + of_x_t * x_t, spread


@pytest.mark.parametrize("name, theirs", [
    ("linear", "linear"), ("quadratic", "scaled_linear"), ("cosine", "squaredcos_cap_v2")])
def test_published_schedules_equal_diffusers(name, theirs):
    oracle = DDPMScheduler(1000, beta_schedule=theirs, beta_start=1e-4, beta_end=0.02)
    torch.testing.assert_close(betas(name, 1000).float(), oracle.betas, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name, first, last, last_abar", [("thesis64", 0.007, 0.02, 0.26),
                                                          ("thesis128", 0.001, 0.015, 0.44)])
def test_thesis_schedules_are_as_published_and_warn(name, first, last, last_abar):
    warning = f"schedule {name} with 100 steps ends at alphas_cumprod 0"
    with pytest.warns(UserWarning, match=warning):
        schedule = make_schedule(name, 100)
    published = torch.linspace(first, last, 100, dtype=torch.float64)
    torch.testing.assert_close(schedule.betas, published)
    assert schedule.alphas_cumprod[-1].item() == pytest.approx(last_abar, abs=0.01)


@pytest.mark.parametrize("name", ["linear", "cosine", "quadratic"])
@pytest.mark.parametrize("steps", [10, 100, 1000])
def test_other_schedules_end_in_noise_for_any_number_of_steps(name, steps):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        schedule = make_schedule(name, steps)
    assert schedule.steps == steps
    assert schedule.betas.dtype == torch.float64 and schedule.betas.max() <= 0.999


@pytest.mark.parametrize("name", BETAS)
def test_tables_follow_from_betas(name):
    schedule = Schedule(betas(name, 50))
    by_hand = torch.stack([torch.prod(1 - schedule.betas[:t + 1]) for t in range(50)])
    torch.testing.assert_close(schedule.alphas_cumprod, by_hand)
    torch.testing.assert_close(schedule.alphas, 1 - schedule.betas)
    assert schedule.alphas_cumprod_prev[0] == 1
    assert torch.equal(schedule.alphas_cumprod_prev[1:], schedule.alphas_cumprod[:-1])


def test_impossible_schedules_are_refused():
    with pytest.raises(ValueError, match="expected one of linear, cosine, .* got 'sigmoid'"):
        betas("sigmoid", 10)
    with pytest.raises(ValueError, match="at least 1 step, got 0"):
        betas("cosine", 0)
    with pytest.raises(ValueError, match="0 < beta < 1"):
        Schedule(torch.tensor([0.1, 1.0], dtype=torch.float64))
    with pytest.raises(ValueError, match="float64"):
        Schedule(torch.tensor([0.1, 0.2]))


def test_q_sample_is_equation_1_2_and_equals_diffusers():
    x_0, eps = pictures()
    t = torch.tensor([0, 500, 999])
    abar = COSINE.alphas_cumprod[t].view(3, 1, 1, 1)
    by_hand = abar.sqrt() * x_0 + (1 - abar).sqrt() * eps
    torch.testing.assert_close(q_sample(x_0, t, eps, COSINE), by_hand)
    oracle = DDPMScheduler(1000)
    oracle.alphas_cumprod = COSINE.alphas_cumprod
    torch.testing.assert_close(q_sample(x_0, t, eps, COSINE), oracle.add_noise(x_0, eps, t))
    torch.testing.assert_close(v_target(x_0, eps, t, COSINE), oracle.get_velocity(x_0, eps, t))


def test_q_sample_is_a_chain_of_single_noisings():
    """Equation 1.2 is equation 1.1 applied t + 1 times: mean and variance of the chain."""
    schedule = make_schedule("linear", 30)
    mean, variance = 1.0, 0.0
    one = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    zero = torch.zeros_like(one)
    for t, beta in enumerate(schedule.betas.tolist()):
        mean, variance = mean * (1 - beta) ** 0.5, variance * (1 - beta) + beta
        assert q_sample(one, t, zero, schedule).item() == pytest.approx(mean)
        assert q_sample(zero, t, one, schedule).item() ** 2 == pytest.approx(variance)


@pytest.mark.parametrize("kind", PREDICTIONS)
@settings(max_examples=25, deadline=None)
@given(t=st.lists(st.integers(0, 999), min_size=3, max_size=3), seed=st.integers(0, 99))
def test_every_prediction_gives_back_x_0(kind, t, seed):
    x_0, eps = pictures(seed=seed)
    t = torch.tensor(t)
    x_t = q_sample(x_0, t, eps, COSINE)
    output = target(kind, x_0, eps, t, COSINE)
    # abar_T = 2.4e-9: an eps in float64 knows x_0 to 1e-16 / 5e-5
    torch.testing.assert_close(to_x_0(kind, output, x_t, t, COSINE), x_0, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("t", [0, 37, 999])
def test_one_t_for_all_has_the_bits_of_a_t_for_each(t):
    x, y = pictures(dtype=torch.float32)
    each = torch.full((3,), t)
    assert torch.equal(q_sample(x, t, y, COSINE), q_sample(x, each, y, COSINE))
    for kind in PREDICTIONS:
        assert torch.equal(target(kind, x, y, t, COSINE), target(kind, x, y, each, COSINE))
        assert torch.equal(to_x_0(kind, y, x, t, COSINE), to_x_0(kind, y, x, each, COSINE))


@pytest.mark.parametrize("kind", PREDICTIONS)
def test_a_half_precision_output_loses_nothing_more(kind):
    x_t, output = pictures(dtype=torch.float32)
    half = output.bfloat16()
    for t in (300, torch.tensor([1, 2, 300])):
        x_0 = to_x_0(kind, half, x_t, t, COSINE)
        assert torch.equal(x_0, to_x_0(kind, half.float(), x_t, t, COSINE))


def test_posterior_is_bayes_rule():
    """Equation 1.5: the product of two Gaussians in x_{t-1}, q(x_t | x_{t-1}) q(x_{t-1} | x_0)."""
    x_0, x_t = pictures()
    t = torch.tensor([1, 400, 999])
    beta, before = COSINE.betas[t].view(3, 1, 1, 1), COSINE.alphas_cumprod_prev[t].view(3, 1, 1, 1)
    variance = 1 / ((1 - beta) / beta + 1 / (1 - before))
    mean = variance * ((1 - beta).sqrt() / beta * x_t + before.sqrt() / (1 - before) * x_0)
    got_mean, got_variance = posterior(x_0, x_t, t, "posterior")
    torch.testing.assert_close(got_mean, mean)
    torch.testing.assert_close(got_variance, variance)
    torch.testing.assert_close(posterior(x_0, x_t, t, "beta")[1], beta)


def test_posterior_mean_is_equation_1_6():
    x_0, eps = pictures()
    for t in (0, 1, 500, 999):
        alpha, beta, abar = COSINE.alphas[t], COSINE.betas[t], COSINE.alphas_cumprod[t]
        x_t = q_sample(x_0, t, eps, COSINE)
        mean = (x_t - beta / (1 - abar).sqrt() * eps) / alpha.sqrt()
        torch.testing.assert_close(posterior(x_0, x_t, t, "beta")[0], mean)


def test_first_step_back_is_certain():
    x_0, x_t = pictures()
    mean, variance = posterior(x_0, x_t, 0, "posterior")
    torch.testing.assert_close(mean, x_0)
    assert variance == 0


def test_wrong_words_and_times_are_refused():
    x, y = pictures()
    for call in (lambda: target("score", x, y, 0, COSINE),
                 lambda: to_x_0("score", x, y, 0, COSINE)):
        message = "prediction: expected one of eps, v, x_0, got 'score'"
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(ValueError, match="variance: expected one of beta, posterior"):
        posterior_coefficients(0.1, 0.2, "learned")
    for t in (-1, 1000):
        with pytest.raises(ValueError, match=f"t: expected 0..999, got {t}"):
            q_sample(x, t, y, COSINE)
