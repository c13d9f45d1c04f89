"""The published process: own ranges of beta, N(0, I) at the start, a clamp and quiet steps at the
end, shifts that are drawn."""
import pytest
import torch

from swinmpi.config import DiffusionConfig, SamplerConfig, load_config
from swinmpi.diffusion.samplers import make_sampler
from swinmpi.diffusion.schedule import make_schedule, schedule_of
from swinmpi.errors import ConfigError
from swinmpi.sampling.process import make_process
from swinmpi.windows.shift import circular_shift

COSINE = make_schedule("cosine", 100)


def sampler(**settings):
    return make_sampler(SamplerConfig(steps=5, **settings), DiffusionConfig(steps=100), COSINE)


@pytest.mark.filterwarnings("ignore:schedule")
def test_own_betas_are_the_published_range():
    own = DiffusionConfig(schedule="linear", steps=100, beta_start=0.007, beta_end=0.02)
    assert torch.equal(schedule_of(own).betas, make_schedule("thesis64", 100).betas)
    squares = DiffusionConfig(schedule="quadratic", steps=50, beta_start=0.01, beta_end=0.04)
    roots = torch.linspace(0.1, 0.2, 50, dtype=torch.float64)
    torch.testing.assert_close(schedule_of(squares).betas, roots**2)


@pytest.mark.parametrize(("overrides", "message"), [
    (["beta_start=0.1"], "together"), (["beta_start=0.1", "beta_end=0.2"], "linear or quadratic"),
    (["beta_end=0.1"], "together"),
    (["schedule=linear", "beta_start=0.3", "beta_end=0.2"], "at most beta_end"),
    (["schedule=linear", "beta_start=0.3", "beta_end=1.5"], "less than 1"),
    (["schedule=thesis64", "beta_start=0.1", "beta_end=0.2"], "linear or quadratic")])
def test_betas_that_make_no_range_are_refused(overrides, message):
    with pytest.raises(ConfigError, match=message):
        load_config(overrides=[f"diffusion.{text}" for text in overrides])


def test_x_t_starts_as_training_left_it_or_from_unit_noise():
    assert sampler().initial_std == (1 - COSINE.alphas_cumprod[-1].item()) ** 0.5
    assert sampler(start="unit").initial_std == 1.0


def test_the_clamp_is_of_the_last_step_alone():
    plain, clamped = sampler(), sampler(clip_result=0.5)
    x_t, output = 3 * torch.randn(2, 1, 3, 4, 4)
    for number in range(5):
        wanted, _ = plain.step(number, x_t, output)
        wanted = wanted.clamp(-0.5, 0.5) if number == 4 else wanted
        assert torch.equal(clamped.step(number, x_t, output)[0], wanted)


@pytest.mark.parametrize("quiet", [1, 2, 9])
def test_the_last_steps_are_quiet(quiet):
    noisy = sampler(method="ddpm", quiet_steps=quiet)
    assert [noisy.needs_noise(number) for number in range(5)] == [k < 5 - quiet for k in range(5)]


def test_circular_shifts_are_drawn_from_the_four():
    config = load_config(overrides=["sampler.shift.circular=drawn", "sampler.shift.max_px=4"])
    process = make_process(config.sampler, config.diffusion, 48)
    drawn = [process.shift_at(0, 7, number) for number in range(40)]
    assert drawn == [process.shift_at(0, 7, number) for number in range(40)]
    assert set(drawn) == {circular_shift(k, 4) for k in range(4)}
    assert drawn != [process.shift_at(1, 7, number) for number in range(40)]
    assert drawn != [circular_shift(number, 4) for number in range(40)]
