"""Means, standard errors and the order of arms against closed forms; the error along the border."""
import math

import numpy as np
import pytest

from swinmpi.evaluation.statistics import standard_error_of
from swinmpi.experiments.band_figures import BAND_FIGURES
from swinmpi.experiments.definition import Arm
from swinmpi.experiments.edges import RING_PX, edge_excess
from swinmpi.experiments.statistics import ranking, remarks, summary
from swinmpi.images.figures import ComparedImage


def result(psnr: list, remarks=()) -> dict:
    return {"figures": {"sr": {"psnr": psnr}}, "remarks": list(remarks)}


def test_the_standard_error_is_that_of_the_mean():
    """Of n draws of deviation 1 it is 1 / sqrt(n), as the spread of many means shows."""
    draws = np.random.default_rng(0).standard_normal((400, 25))
    errors = [standard_error_of(row) for row in draws]
    assert np.mean(errors) == pytest.approx(1 / 5, rel=0.03)
    assert np.std(draws.mean(axis=1)) == pytest.approx(1 / 5, rel=0.1)
    assert standard_error_of([1.0, 3.0, math.nan]) == pytest.approx(1.0)
    assert all(math.isnan(standard_error_of(few)) for few in ([], [1.0], [1.0, math.inf]))


def test_a_summary_leaves_out_what_is_not_there():
    assert summary(np.array([1.0, 3.0, np.nan])) == {"mean": 2.0, "standard_error": 1.0,
                                                     "images": 2}
    assert summary(np.array([np.nan])) == {"mean": None, "standard_error": None, "images": 0}


def test_the_order_is_judged_image_by_image():
    """Images differ by far more than arms do; seeds are averaged first."""
    arms = [Arm(name=name, published={"psnr": psnr})
            for name, psnr in (("worst", 25.0), ("best", 28.0), ("middle", 27.0))]
    results = {"worst": [result([20, 30, 40])],
               "best": [result([21, 31.2, 41]), result([22, 32.2, 42])],
               "middle": [result([19.5, 29.4, 39.5])]}
    found = {(one["better_in_thesis"], one["worse_in_thesis"]): one
             for one in ranking(arms, results)}
    first = found["best", "worst"]
    assert (first["thesis_db"], first["verdict"]) == (3.0, "agrees")
    assert first["here_db"] == pytest.approx(np.mean([1.5, 1.7, 1.5]))
    assert first["standard_error"] == pytest.approx(np.std([1.5, 1.7, 1.5], ddof=1) / 3**0.5)
    assert found["middle", "worst"]["verdict"] == "contradicts"
    results["middle"] = [result([21, 29, 40])]
    assert [one["verdict"] for one in ranking(arms, results) if "middle" in one.values()
            and "worst" in one.values()] == ["undecided"]


def test_one_image_decides_nothing():
    arms = [Arm(name=name, published={"psnr": psnr}) for name, psnr in (("a", 1.0), ("b", 2.0))]
    only, = ranking(arms, {"a": [result([1.0])], "b": [result([9.0])]})
    assert only["verdict"] == "undecided" and only["standard_error"] is None


def test_remarks_name_their_arms_unless_all_have_them():
    results = {"a": [result([1], ["of all", "of a"])], "b": [result([1], ["of all"])]}
    assert remarks(results) == ["of all", "a: of a"]


def test_the_edge_is_the_error_along_the_border_over_that_inside():
    hr = np.zeros((40, 48, 3))
    error = np.full(hr.shape, 3.0)
    error[RING_PX:-RING_PX, RING_PX:-RING_PX] = 1.5
    assert edge_excess(ComparedImage(error, hr, hr, 255.0)) == pytest.approx(2.0)
    assert edge_excess(ComparedImage(error * 0 + 1, hr, hr, 255.0)) == 1.0
    small = np.ones((16, 16, 1))
    assert math.isnan(edge_excess(ComparedImage(small, small * 0, small, 255.0)))
    assert math.isnan(edge_excess(ComparedImage(hr, hr, hr, 255.0)))


def test_noise_in_the_diagonal_band_is_seen_there_alone():
    rng = np.random.default_rng(0)
    hr = rng.normal(0, 10, (21, 30, 3))
    checks = np.where(np.indices(hr.shape[:2]).sum(0) % 2, -1.0, 1.0)[:, :, None]
    rows, cols = (np.arange(side // 2).repeat(2) for side in (20, 30))
    noise = np.zeros_like(hr)
    noise[:20] = checks[:20] * rng.normal(0, 10, (10, 15, 3))[rows][:, cols]
    told = {figure.name: figure.compared(ComparedImage(hr + noise, hr, None, 255.0))
            for figure in BAND_FIGURES}
    assert max(told[f"error_{band}"] for band in ("LL", "LH", "HL")) < 1e-9
    assert told["error_HH"] == pytest.approx(2, rel=0.1), "a coefficient is twice its pixels"
    assert told["power_HH"] == pytest.approx(math.hypot(1, told["error_HH"]), rel=0.1)
    empty = ComparedImage(hr, hr * 0, None, 255.0)
    assert all(math.isnan(figure.compared(empty)) for figure in BAND_FIGURES)
