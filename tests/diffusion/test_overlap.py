"""Overlapping windows in the last step: the mean of predictions, and where they are made."""
import pytest
import torch

from swinmpi.config import DiffusionConfig, SamplerConfig, load_config
from swinmpi.diffusion.samplers import make_sampler
from swinmpi.diffusion.schedule import make_schedule
from swinmpi.errors import ConfigError
from swinmpi.sampling.process import make_process
from swinmpi.sampling.settings import check_overlap, deciding
from swinmpi.storage.error_bars import decided_by

COSINE = make_schedule("cosine", 1000)


def sampler_of(overlap, method="ddim", steps=3, **settings):
    return make_sampler(SamplerConfig(method=method, steps=steps, overlap=overlap, **settings),
                        DiffusionConfig(), COSINE)


def draw(seed):
    return torch.randn(1, 2, 4, 4, dtype=torch.float64,
                       generator=torch.Generator().manual_seed(seed))


def walk(sampler, output_of):
    """x_0 from x_T; output_of: what the network returns in an evaluation."""
    x_t, kept = draw(0), ()
    for number in range(len(sampler.evaluations)):
        noise = draw(100 + number) if sampler.needs_noise(number) else None
        x_t, kept = sampler.step(number, x_t, output_of(number), noise, kept)
    return x_t


@pytest.mark.parametrize("overlap", [2, 4])
@pytest.mark.parametrize("method, steps", [("ddim", 1), ("ddim", 3), ("ddpm", 3), ("dpmpp_2m", 4),
                                           ("heun", 2)])
def test_the_result_is_the_mean_of_results(method, steps, overlap):
    """Methods are linear: so is the last step in the network's last output."""
    plain, made = (sampler_of(count, method, steps) for count in (1, overlap))
    last = len(plain.evaluations) - 1
    assert made.timesteps == plain.timesteps + plain.timesteps[-1:] * (overlap - 1)
    results = [walk(plain, lambda number, j=j: draw(number + (j if number == last else 0) + 1))
               for j in range(overlap)]
    torch.testing.assert_close(walk(made, lambda number: draw(number + 1)),
                               torch.stack(results).mean(0))


def test_every_prediction_is_limited_before():
    made = sampler_of(2, steps=1, clip_x_0=0.5)
    x_t, answers = walk(made, lambda number: draw(number + 1)), []
    plain = sampler_of(1, steps=1, clip_x_0=0.5)
    for number in (0, 1):
        answers.append(walk(plain, lambda _, number=number: draw(number + 1)))
    torch.testing.assert_close(x_t, (answers[0] + answers[1]) / 2)


@pytest.mark.parametrize("overlap, shifts", [
    (1, [(0, 0), (0, 24)]), (2, [(0, 0), (0, 24), (24, 0)]),
    (4, [(0, 0), (0, 24), (24, 24), (24, 0), (0, 0)])])
def test_the_last_step_is_made_at_opposite_or_all_shifts(overlap, shifts):
    config = load_config(overrides=["sampler.steps=2", f"sampler.overlap={overlap}",
                                    "sampler.shift.max_px=24"])
    process = make_process(config.sampler, config.diffusion, config.model.window_px)
    assert [process.shift_at(0, 0, number) for number in range(process.num_evaluations)] == shifts


@pytest.mark.parametrize("overrides", [
    ["sampler.shift.pattern=none"], ["sampler.shift.pattern=random"], ["sampler.shift.max_px=0"],
    ["sampler.shift.circular=drawn"], ["model.family=vanilla", "sampler.shift.pattern=circular"]])
def test_where_windows_do_not_move_in_turn_it_is_refused(overrides):
    with pytest.raises(ConfigError, match="sampler.overlap: expected 1 unless windows move"):
        check_overlap(load_config(overrides=[*overrides, "sampler.overlap=2"]))
    check_overlap(load_config(overrides=overrides))


def test_a_regression_has_no_last_step():
    config = load_config(overrides=["sampler.method=regression", "sampler.overlap=2"])
    process = make_process(config.sampler, config.diffusion, config.model.window_px)
    assert process.num_evaluations == 0


def test_settings_that_say_nothing_about_it_stay_what_they_were():
    for settings, there in ((load_config(), False),
                            (load_config(overrides=["sampler.overlap=2"]), True)):
        assert ("overlap" in deciding(settings)["sampler"]) == there
        assert ("overlap" in decided_by(settings)["sampler"]) == there
