"""Figures of ensembles: closed forms, and ensembles of which the answer is known."""
from math import erf, exp, pi, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swinmpi.images.ensembles import (
    LEVELS,
    fair_crps,
    fit_errors,
    rank_shares,
    reliability,
    reliability_curve,
    reliability_of_moments,
    spread_skill,
    widened,
    widening,
)


def drawn(count=8, pixels=200_000, spread=1.0, seed=0):
    """(members, truth): the truth is drawn as the members are, if spread is 1."""
    random = np.random.default_rng(seed)
    centre, width = random.normal(size=pixels), random.uniform(0.5, 2, pixels)
    members = centre + spread * width * random.standard_normal((count, pixels))
    return members, centre + width * random.standard_normal(pixels)


def slow_crps(members, truth):
    count = len(members)
    pairs = sum(np.abs(a - b) for a in members for b in members)
    return float((np.abs(members - truth).mean(axis=0) - pairs / (2 * count * (count - 1))).mean())


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 6), st.integers(0, 2**32 - 1))
def test_fair_crps_is_its_formula(count, seed):
    random = np.random.default_rng(seed)
    members, truth = random.integers(0, 5, (count, 7)).astype(float), random.normal(size=7)
    assert fair_crps(members, truth) == pytest.approx(slow_crps(members, truth), abs=1e-12)


def test_an_ensemble_that_knows_the_truth_scores_zero():
    truth = np.random.default_rng(0).normal(size=(3, 9, 9))
    found = reliability(np.stack([truth] * 4), truth)
    assert found.crps == 0
    assert np.isnan(found.spread_skill) and np.isnan(found.correlation)


def test_crps_of_normal_samples_is_the_closed_form():
    """Gneiting and Raftery 2007, doi 10.1198/016214506000001437, eq. 21, at y = 1."""
    members = np.random.default_rng(0).standard_normal((40, 50_000))
    expected = (erf(1 / sqrt(2)) + 2 * exp(-0.5) / sqrt(2 * pi) - 1 / sqrt(pi))
    assert fair_crps(members, np.ones(50_000)) == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("count", [4, 8, 32])
def test_an_ensemble_drawn_like_the_truth_is_right(count):
    found = reliability(*drawn(count))
    assert found.spread_skill == pytest.approx(1, abs=0.02)
    assert np.abs(found.ranks - 1 / (count + 1)).max() < 0.005
    assert found.coverage == pytest.approx({level: level for level in LEVELS}, abs=0.005)
    assert found.correlation > 0.1


@pytest.mark.parametrize("spread", [0.43, 2.0])
def test_a_factor_makes_a_wrong_spread_right(spread):
    members, truth = drawn(16, spread=spread)
    before, after = reliability(members, truth), reliability(members, truth, factor=1 / spread)
    assert before.spread_skill < 0.7 if spread < 1 else before.spread_skill > 1.5
    # The mean of the narrow ensemble is nearer to the centre than the corrected one believes.
    assert after.spread_skill == pytest.approx(1, abs=0.1)
    assert abs(after.coverage[0.9] - 0.9) < abs(before.coverage[0.9] - 0.9)
    assert after.crps < before.crps


def test_too_narrow_an_ensemble_has_the_truth_at_its_ends_and_a_wide_one_inside():
    narrow, wide = (reliability(*drawn(spread=spread)).ranks for spread in (0.4, 2.5))
    assert narrow[0] > 2 / 9 and narrow[-1] > 2 / 9
    assert wide[0] < 0.5 / 9 and wide[4] > 1.5 / 9


def test_ties_count_for_each_of_their_ranks():
    members = np.array([[1.0], [1.0], [2.0]])
    assert rank_shares(members, np.array([1.0])).tolist() == pytest.approx([1/3, 1/3, 1/3, 0])
    assert rank_shares(members, np.array([3.0])).tolist() == [0, 0, 0, 1]


def test_a_reliability_curve_is_a_diagonal_when_right():
    random = np.random.default_rng(0)
    std = random.uniform(0.1, 3, 100_000)
    stated, found = reliability_curve(std, np.abs(std * random.standard_normal(std.size)))
    assert len(stated) == 10 and np.all(np.diff(stated) > 0)
    assert np.allclose(stated, found, rtol=0.05)


def test_pixels_without_a_number_count_nowhere():
    members, truth = drawn(4, 1000)
    expected = reliability(members, truth)
    members = np.concatenate([members, np.ones((4, 2))], axis=1)
    members[2, -1] = np.nan
    found = reliability(members, np.append(truth, [np.nan, 5.0]))
    assert found.crps == expected.crps and found.coverage == expected.coverage


def test_moments_tell_what_members_do_but_for_crps_and_ranks():
    members, truth = drawn(6, 5000, spread=0.5)
    whole = reliability(members, truth)
    alone = reliability_of_moments(members.mean(axis=0), members.std(axis=0, ddof=1), truth, 6)
    assert alone.coverage == pytest.approx(whole.coverage)
    assert alone.spread_skill == pytest.approx(whole.spread_skill)
    assert np.isnan(alone.crps) and np.isnan(alone.ranks).all()


@pytest.mark.parametrize("count", [3, 8, 40])
@pytest.mark.parametrize("floor", [0.0, 1.5])
def test_what_is_learned_makes_the_normal_interval_right(count, floor):
    """1.645 deviations around the mean hold 90 %; learned on one half of the pixels, shown on the
    other. floor: of an error that no member knows."""
    members, truth = drawn(count, spread=0.43)
    truth = truth + floor * np.random.default_rng(9).standard_normal(truth.size)
    std, error = members.std(axis=0, ddof=1), np.abs(truth - members.mean(axis=0))
    learned = fit_errors(std[::2], error[::2])
    stated = widened(std[1::2], *learned)
    assert (error[1::2] <= 1.6449 * stated).mean() == pytest.approx(0.9, abs=0.005)
    assert spread_skill(stated, error[1::2], 1 << 40) == pytest.approx(1, abs=0.05)


def test_a_known_factor_and_floor_are_found():
    random = np.random.default_rng(0)
    std = random.uniform(0.1, 3, 400_000)
    found = fit_errors(std, np.abs(widened(std, 2.5, 0.8) * random.standard_normal(std.size)))
    assert found == pytest.approx((2.5, 0.8), rel=0.03)


def test_few_samples_state_wider_intervals():
    assert widening(2) > widening(5) > widening(40) > widening(1 << 40) == pytest.approx(1)


def test_a_spread_of_nothing_cannot_be_widened():
    assert np.isnan(fit_errors(np.zeros(10), np.ones(10))).all()
    assert np.isnan(fit_errors(np.ones(10), np.zeros(10))).all()


@pytest.mark.parametrize("count,pixels", [(1, 5), (3, 0)])
def test_what_cannot_be_computed_is_nan(count, pixels):
    found = reliability(np.zeros((count, pixels)), np.zeros(pixels))
    assert np.isnan([found.crps, found.spread_skill, *found.coverage.values()]).all()
