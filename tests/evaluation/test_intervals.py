"""Bootstrap intervals of means: as often right as they say, always the same."""
import math

import numpy as np
import pytest

from swinmpi.evaluation import statistics
from swinmpi.evaluation.report import difference
from swinmpi.evaluation.statistics import bootstrap_interval, plain_number, summary_of


def test_the_interval_holds_the_true_mean_as_often_as_it_says():
    """Of 300 draws of 60 skewed values with mean 1; percentile intervals are a little narrow."""
    draws = np.random.default_rng(0).exponential(1, (300, 60))
    held = [low <= 1 <= high for low, high in map(bootstrap_interval, draws)]
    assert np.mean(held) == pytest.approx(0.93, abs=0.04)


def test_for_many_values_it_is_the_normal_one():
    values = np.random.default_rng(1).normal(5, 2, 2000)
    found = summary_of(values)
    assert found.low == pytest.approx(found.mean - 1.96 * found.standard_error, abs=0.01)
    assert found.high == pytest.approx(found.mean + 1.96 * found.standard_error, abs=0.01)


def test_it_is_the_same_every_time_and_however_it_is_drawn(monkeypatch):
    values = np.random.default_rng(2).normal(size=50).tolist()
    before = bootstrap_interval(values)
    assert bootstrap_interval(values) == before
    monkeypatch.setattr(statistics, "DRAWN_AT_ONCE", 300)
    assert bootstrap_interval(values) == before, "pieces continue one series of random numbers"


def test_what_cannot_be_told_is_nan():
    one = summary_of([3.0, math.nan])
    assert (one.mean, one.images) == (3.0, 1)
    assert all(map(math.isnan, (one.standard_error, one.low, one.high)))
    assert math.isnan(summary_of([math.inf, 1.0]).low) and summary_of([math.inf, 1.0]).mean > 1e9
    assert summary_of([]).images == 0 and math.isnan(summary_of([]).mean)
    assert [plain_number(value) for value in (math.nan, math.inf, -math.inf, 2.0)] == \
        [None, "inf", "-inf", 2.0]


def test_equal_values_differ_by_nothing_even_where_they_are_infinite():
    assert difference([math.inf, 2.0, 3.0], [math.inf, 2.0, 1.0]) == [0.0, 0.0, 2.0]
    assert math.isnan(difference([math.nan], [1.0])[0])
