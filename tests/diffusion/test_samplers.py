"""Samplers step by step against diffusers' schedulers, and against data whose best prediction
is known exactly."""
from itertools import pairwise, product

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    HeunDiscreteScheduler,
)
from hypothesis import given
from hypothesis import strategies as st

from swinmpi.config import DiffusionConfig, SamplerConfig
from swinmpi.diffusion import samplers
from swinmpi.diffusion.process import PREDICTIONS, target, to_x_0
from swinmpi.diffusion.samplers import make_sampler, timesteps
from swinmpi.diffusion.schedule import make_schedule

COSINE = make_schedule("cosine", 1000)
LINEAR = make_schedule("linear", 40)
THEIR_PREDICTIONS = {"eps": "epsilon", "v": "v_prediction", "x_0": "sample"}
EVERY_METHOD = [("ddpm", 0.0), ("ddim", 0.0), ("ddim", 0.5), ("dpmpp_2m", 0.0),
                ("heun", 0.0)]
# (schedule, number of steps): all of T, strided, very few, one
SPANS = [(LINEAR, 40), (LINEAR, 10), (COSINE, 20), (COSINE, 4), (COSINE, 1)]


def sampler_for(method, schedule, steps, prediction="v", variance="beta", **settings):
    return make_sampler(SamplerConfig(method=method, steps=steps, **settings),
                        DiffusionConfig(prediction=prediction, variance=variance,
                                        steps=schedule.steps), schedule)


def oracle_for(kind, schedule, steps, prediction, clip, **settings):
    """diffusers' scheduler on our float64 table (its own is float32), which is what both
    are compared on."""
    if clip is not None:
        settings |= {"clip_sample": True, "clip_sample_range": clip}
    elif kind is not DPMSolverMultistepScheduler:
        settings |= {"clip_sample": False}
    settings |= {"prediction_type": THEIR_PREDICTIONS[prediction], "timestep_spacing": "trailing"}
    oracle = kind(schedule.steps, **settings)
    oracle.alphas_cumprod = schedule.alphas_cumprod
    oracle.set_timesteps(steps)
    return oracle


def draw(seed, dtype=torch.float64, shape=(2, 3, 5, 7)):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def compare(sampler, oracle, their_step, tolerance=1e-9):
    """Walk from x_T with a new random output every step; both step from the same x_t, each with
    its own memory."""
    assert list(sampler.timesteps) == oracle.timesteps.tolist()
    x_t, kept = draw(0), ()
    for step, t in enumerate(sampler.timesteps):
        output, noise = draw(1000 + step), draw(2000 + step)
        expected = their_step(step, t, x_t, output)
        x_t, kept = sampler.step(step, x_t, output, noise if sampler.needs_noise(step) else None,
                                 kept)
        torch.testing.assert_close(x_t, expected.to(x_t.dtype), rtol=tolerance,
                                   atol=tolerance * expected.abs().max())


@pytest.mark.parametrize("prediction, variance", product(PREDICTIONS, ["beta", "posterior"]))
@pytest.mark.parametrize("clip", [None, 0.7])
@pytest.mark.parametrize("schedule, steps", SPANS)
def test_ddpm_equals_diffusers(schedule, steps, clip, prediction, variance):
    sampler = sampler_for("ddpm", schedule, steps, prediction, variance, clip_x_0=clip)
    oracle = oracle_for(DDPMScheduler, schedule, steps, prediction, clip,
                        variance_type="fixed_large" if variance == "beta" else "fixed_small")

    def their_step(step, t, x_t, output):
        answer = oracle.step(output, t, x_t, generator=torch.Generator().manual_seed(2000 + step))
        # algorithm 2.2 has z = 0 at the last step; diffusers at t = 0, which
        # a strided walk never visits
        return answer.pred_original_sample if step == steps - 1 else answer.prev_sample

    compare(sampler, oracle, their_step)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("clip", [None, 0.7])
@pytest.mark.parametrize("schedule, steps", SPANS)
def test_ddim_equals_diffusers(schedule, steps, clip, eta, prediction):
    sampler = sampler_for("ddim", schedule, steps, prediction, eta=eta, clip_x_0=clip)
    oracle = oracle_for(DDIMScheduler, schedule, steps, prediction, clip)
    compare(sampler, oracle, lambda step, t, x_t, output: oracle.step(
        output, t, x_t, eta=eta, use_clipped_model_output=clip is not None,
        variance_noise=draw(2000 + step) if eta > 0 else None).prev_sample)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("schedule, steps", SPANS)
def test_dpmpp_2m_equals_diffusers(schedule, steps, prediction):
    sampler = sampler_for("dpmpp_2m", schedule, steps, prediction)
    oracle = oracle_for(DPMSolverMultistepScheduler, schedule, steps, prediction, None,
                        algorithm_type="dpmsolver++", solver_order=2, solver_type="midpoint",
                        lower_order_final=True, final_sigmas_type="zero")
    # it casts x_t to float32 inside
    compare(sampler, oracle, lambda step, t, x_t, output: oracle.step(output, t, x_t).prev_sample,
            tolerance=2e-6)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("clip", [None, 0.7])
@pytest.mark.parametrize("schedule, steps", SPANS)
def test_heun_equals_diffusers(monkeypatch, schedule, steps, clip, prediction):
    """Theirs works on x_t / a, at the noise levels sigma = s / a, here in float64 as ours; it knows
    no limit of sigma."""
    monkeypatch.setattr(samplers, "SIGMA_MAX", float("inf"))
    sampler = sampler_for("heun", schedule, steps, prediction, clip_x_0=clip)
    oracle = oracle_for(HeunDiscreteScheduler, schedule, steps, prediction, clip)
    abar = schedule.alphas_cumprod[list(sampler.timesteps)]
    levels = torch.cat([((1 - abar) / abar).sqrt(), torch.zeros(1, dtype=torch.float64)])
    torch.testing.assert_close(oracle.sigmas, levels.float(), rtol=1e-4, atol=0)
    oracle.sigmas, amplitudes = levels, torch.cat([abar.sqrt(), torch.ones(1, dtype=torch.float64)])
    compare(sampler, oracle, lambda number, t, x_t, output: oracle.step(
        output, t, x_t / amplitudes[number]).prev_sample * amplitudes[number + 1])


def test_heun_evaluates_twice_a_step_and_nears_the_solution_faster_than_ddim():
    sampler = sampler_for("heun", COSINE, 6)
    # The first step starts where there is no image, the last one ends at it: one evaluation each.
    assert len(sampler.evaluations) == 10 and sampler.num_kept == 1
    errors = [abs(std_of_samples(sampler_for(method, COSINE, steps), 0.5) - 0.5)
              for method, steps in (("heun", 20), ("ddim", 38))]
    assert errors[0] < errors[1] / 3


def test_ddim_with_eta_1_is_ddpm_with_the_posterior_variance():
    ddim, ddpm = (sampler_for("ddim", COSINE, 7, eta=1.0),
                  sampler_for("ddpm", COSINE, 7, variance="posterior"))
    for step in range(7):
        torch.testing.assert_close(ddim.step(step, draw(0), draw(1), draw(2))[0],
                                   ddpm.step(step, draw(0), draw(1), draw(2))[0])


@pytest.mark.parametrize("method, eta", EVERY_METHOD)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_perfect_prediction_of_one_image_ends_at_that_image(method, eta, prediction):
    x_0, x_t, kept = draw(5), draw(6), ()
    sampler = sampler_for(method, COSINE, 12, prediction, eta=eta)
    for step, t in enumerate(sampler.timesteps):
        abar = COSINE.alphas_cumprod[t]
        eps = (x_t - abar.sqrt() * x_0) / (1 - abar).sqrt()
        output = target(prediction, x_0, eps, t, COSINE)
        x_t, kept = sampler.step(step, x_t, output, draw(100 + step), kept)
    torch.testing.assert_close(x_t, x_0)


def std_of_samples(sampler, data_std):
    """Exact standard deviation of the samples where x_0 ~ N(0, data_std^2).

    There the best eps is linear in x_t, so x_0 is a weighted sum of x_T and the noises: item 0
    of the batch follows the weight of x_T, item 1 + i that of step i's noise.
    """
    steps = len(sampler.timesteps)
    x_t, kept = torch.zeros(1 + steps, 1, 1, 1, dtype=torch.float64), ()
    x_t[0] = sampler.path.initial_std
    for step, t in enumerate(sampler.timesteps):
        abar = sampler.path.alphas_cumprod[t].item()
        eps = (1 - abar) ** 0.5 / (abar * data_std ** 2 + 1 - abar) * x_t
        noise = torch.zeros_like(x_t)
        noise[1 + step] = 1
        output = target(sampler.prediction, to_x_0("eps", eps, x_t, t, sampler.path), eps, t,
                        sampler.path)
        x_t, kept = sampler.step(step, x_t, output, noise, kept)
    return x_t.square().sum().sqrt().item()


@pytest.mark.parametrize("data_std", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("method, eta, variance, steps, tolerance",
                         [("ddpm", 0.0, "beta", 1000, 0.02), ("ddpm", 0.0, "posterior", 1000, 0.02),
                          ("ddim", 0.0, "beta", 1000, 0.01), ("ddim", 1.0, "beta", 1000, 0.02),
                          ("dpmpp_2m", 0.0, "beta", 250, 0.01)])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_gaussian_data_keeps_its_spread(method, eta, variance, steps, tolerance, data_std,
                                        prediction):
    sampler = sampler_for(method, COSINE, steps, prediction, variance, eta=eta)
    assert std_of_samples(sampler, data_std) == pytest.approx(data_std, rel=tolerance)


def test_dpmpp_2m_needs_fewer_steps_than_ddim():
    samplers = [sampler_for(method, COSINE, 20) for method in ("ddim", "dpmpp_2m")]
    ddim, dpmpp_2m = (abs(std_of_samples(sampler, 0.5) - 0.5) for sampler in samplers)
    assert dpmpp_2m < ddim / 3


@pytest.mark.parametrize("method, eta", EVERY_METHOD)
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_part_of_the_image_has_the_bits_of_the_whole(method, eta, prediction, clip):
    """What lets every rank step its own windows: odd sizes, so that vector and remainder loops
    meet other pixels."""
    sampler = sampler_for(method, COSINE, 6, prediction, eta=eta, clip_x_0=clip, noise_scale=0.7)
    rows, cols = slice(3, 14), slice(5, 18)

    def run(part):
        x_t, kept = part(draw(0, torch.float32, (2, 3, 17, 23))), ()
        for step in range(6):
            output, noise = (part(draw(seed + step, torch.float32, (2, 3, 17, 23)))
                             for seed in (10, 20))
            x_t, kept = sampler.step(step, x_t, output, noise, kept)
        return x_t

    whole = run(lambda x: x)
    assert whole.dtype == torch.float32
    for index in ((slice(None), slice(None), rows, cols), (slice(1, 2),),
                  (Ellipsis, slice(22, 23))):
        assert torch.equal(run(lambda x, index=index: x[index].contiguous()), whole[index])
        assert torch.equal(run(lambda x, index=index: x[index]), whole[index])


@pytest.mark.parametrize("method, eta", [("ddpm", 0.0), ("ddim", 0.5)])
def test_noise_scale_is_a_factor_on_the_noise(method, eta):
    full, dimmed = (sampler_for(method, COSINE, 5, eta=eta, noise_scale=scale)
                    for scale in (1.0, 0.3))
    for step in range(5):
        torch.testing.assert_close(dimmed.step(step, draw(0), draw(1), draw(2))[0],
                                   full.step(step, draw(0), draw(1), 0.3 * draw(2))[0])


def test_noise_is_needed_only_where_it_is_used():
    def needs(*arguments, **settings):
        return [sampler_for(*arguments, **settings).needs_noise(step) for step in range(4)]

    assert needs("ddpm", COSINE, 4) == needs("ddim", COSINE, 4,
                                             eta=0.1) == [True, True, True, False]
    assert not any(needs("ddim", COSINE, 4) + needs("dpmpp_2m", COSINE, 4))
    assert not any(needs("ddpm", COSINE, 4, noise_scale=0.0))


def test_missing_noise_or_history_is_named():
    with pytest.raises(ValueError, match="evaluation 0: expected noise, got none"):
        sampler_for("ddpm", COSINE, 4).step(0, draw(0), draw(1))
    with pytest.raises(ValueError, match="evaluation 1: expected 1 kept tensors, got none"):
        sampler_for("dpmpp_2m", COSINE, 4).step(1, draw(0), draw(1))


@pytest.mark.parametrize("method, eta", EVERY_METHOD)
def test_a_step_is_pure(method, eta):
    sampler = sampler_for(method, COSINE, 4, eta=eta)
    inputs = [draw(seed) for seed in range(4)]
    before = [x.clone() for x in inputs]
    state = torch.get_rng_state()
    first, _ = sampler.step(1, *inputs)
    again, _ = sampler.step(1, *inputs)
    assert torch.equal(first, again) and torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(x, y) for x, y in zip(inputs, before, strict=True))


@given(st.data())
def test_timesteps_fall_from_the_last_to_at_least_zero(data):
    schedule_steps = data.draw(st.integers(1, 2000))
    num_steps = data.draw(st.integers(1, schedule_steps))
    times = timesteps(num_steps, schedule_steps)
    assert len(times) == num_steps and times[0] == schedule_steps - 1 and times[-1] >= 0
    assert all(now > then for now, then in pairwise(times))


@pytest.mark.parametrize("num_steps", [1, 3, 7, 10, 16, 250, 999, 1000])
def test_timesteps_equal_diffusers_trailing(num_steps):
    oracle = DDIMScheduler(1000, timestep_spacing="trailing")
    oracle.set_timesteps(num_steps)
    assert timesteps(num_steps, 1000) == oracle.timesteps.tolist()


@pytest.mark.parametrize("num_steps", [0, 41])
def test_an_impossible_number_of_steps_is_refused(num_steps):
    with pytest.raises(ValueError, match=f"sampler.steps: expected 1..40 .* got {num_steps}"):
        timesteps(num_steps, 40)


def test_x_t_starts_as_noisy_as_training_left_it():
    with pytest.warns(UserWarning):
        thesis = make_schedule("thesis64", 100)
    assert thesis.initial_std == pytest.approx((1 - 0.25668) ** 0.5, abs=1e-4)
    assert COSINE.initial_std == pytest.approx(1)
