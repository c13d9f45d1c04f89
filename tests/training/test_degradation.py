"""PSF, shot noise and read noise: their sizes, their keys, and what is written about them."""
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from swinmpi.config import load_config
from swinmpi.errors import ConfigError
from swinmpi.images.imresize import imresize
from swinmpi.training.preparation.degradation import in_words, make_lr


def settings(*overrides):
    return load_config(overrides=[f"data.{text}" for text in overrides]).data


def lr_of(hr, *overrides, place=(0, 0), ends=(0.0, 1.0)):
    config = settings(*overrides)
    return make_lr(hr, [side // 2 for side in hr.shape[:2]], config, place, ends)


def test_without_settings_it_is_imresize():
    hr = np.random.default_rng(0).integers(0, 256, (24, 20, 3), np.uint8)
    lr, drawn = lr_of(hr)
    np.testing.assert_array_equal(lr, imresize(hr, scale=0.5))
    assert drawn == {}
    same, drawn = lr_of(hr, "psf_px=0", "read_noise=[0, 0]")
    np.testing.assert_array_equal(same, lr)
    assert drawn == {}


@pytest.mark.parametrize("sigma", [0.7, 2.0])
def test_a_gaussian_spot_becomes_as_wide_as_theory_says(sigma):
    x = np.arange(64) - 31.5
    spot = np.exp(-(x ** 2) / (2 * 3.0 ** 2))
    lr, _ = lr_of((spot[:, None] * spot)[..., None], f"psf_px={sigma}")
    wide = np.exp(-(x ** 2) / (2 * (9 + sigma ** 2)))
    wide = (wide[:, None] * wide)[..., None] * 9 / (9 + sigma ** 2)
    np.testing.assert_allclose(lr, imresize(wide, scale=0.5), atol=2e-4)


def test_the_edge_is_mirrored_as_imresize_mirrors_it():
    hr = np.random.default_rng(1).random((16, 16, 1))
    lr, _ = lr_of(hr, "psf_px=1.5")
    large = np.pad(hr, ((16, 16), (16, 16), (0, 0)), mode="symmetric")
    expected = imresize(gaussian_filter(large, (1.5, 1.5, 0)), scale=0.5)[8:16, 8:16]
    np.testing.assert_allclose(lr, expected, atol=1e-9)


@pytest.mark.parametrize("ends", [(0.0, 1.0), (-100.0, 300.0)])
def test_noise_has_the_variance_of_photons_and_of_the_reading(ends):
    low, span = ends[0], ends[1] - ends[0]
    hr = np.full((400, 400, 1), low + 0.25 * span)
    lr, drawn = lr_of(hr, "photons=50", "read_noise=0.03", ends=ends)
    assert drawn == {"photons": 50.0, "read_noise": 0.03}
    unit = (lr - low) / span
    assert unit.mean() == pytest.approx(0.25, abs=2e-3)
    assert unit.var() == pytest.approx(0.25 / 50 + 0.03 ** 2, rel=0.03)


def test_below_the_range_there_are_no_photons():
    lr, _ = lr_of(np.full((8, 8, 1), -0.5), "photons=10")
    np.testing.assert_allclose(lr, -0.5)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float16, np.float32])
def test_dtypes_are_kept_and_do_not_wrap(dtype):
    top = 255 if dtype == np.uint8 else 1000
    hr = np.zeros((16, 16, 3), dtype)
    hr[:, 8:] = top
    lr, _ = lr_of(hr, "read_noise=3", ends=(0, top))
    assert lr.dtype == dtype and np.isfinite(lr).all() and lr.shape == (8, 8, 3)
    assert lr.astype(float)[:, 4:].mean() > lr.astype(float)[:, :4].mean()


def test_what_is_drawn_is_a_function_of_seed_image_and_crop():
    hr = np.random.default_rng(2).random((16, 16, 3))
    ranges = ("psf_px=[0.5, 2]", "photons=[10, 1000]", "read_noise=[0.01, 0.1]")
    first, drawn = lr_of(hr, *ranges, place=(3, 1))
    again, same = lr_of(hr, *ranges, place=(3, 1))
    np.testing.assert_array_equal(first, again)
    assert drawn == same
    others = [lr_of(hr, *ranges, *more, place=place)
              for more, place in (((), (3, 2)), ((), (1, 3)), (("seed=1",), (3, 1)))]
    for lr, values in others:
        assert not np.array_equal(lr, first) and values != drawn
    assert lr_of(hr, "psf_px=[0.5, 2]", place=(3, 1))[1] == {"psf_px": drawn["psf_px"]}


def test_draws_fill_their_ranges():
    hr = np.zeros((2, 2, 1))
    drawn = [lr_of(hr, "psf_px=[0, 2]", "photons=[10, 1000]", place=(0, crop))[1]
             for crop in range(300)]
    sigmas, photons = ([one[name] for one in drawn] for name in ("psf_px", "photons"))
    assert 0 <= min(sigmas) < 0.1 and 1.9 < max(sigmas) <= 2
    assert 10 <= min(photons) < 12 and 850 < max(photons) <= 1000
    assert np.median(photons) == pytest.approx(100, rel=0.25)


def test_grey_that_was_copied_to_colours_stays_grey():
    grey = np.random.default_rng(3).random((16, 16, 1))
    alone, _ = lr_of(grey, "photons=20", "read_noise=0.1")
    copied, _ = lr_of(grey.repeat(3, axis=2), "photons=20", "read_noise=0.1")
    np.testing.assert_array_equal(copied, alone.repeat(3, axis=2))


@pytest.mark.parametrize("override", ["psf_px=-1", "psf_px=[2, 1]", "psf_px=[1, 2, 3]",
                                      "photons=0", "photons=many", "read_noise=[0.1]",
                                      "read_noise=true", "photons=[10, .inf]"])
def test_other_settings_are_refused(override):
    name = override.partition("=")[0]
    with pytest.raises(ConfigError, match=rf"data\.{name}: expected a number from .*\[low, high\]"):
        settings(override)


def test_words_of_a_dry_run():
    ranges = settings("psf_px=[0.5, 2]", "photons=100").degradation
    assert in_words(ranges) == ("PSF of sigma 0.5 to 2 HR px, "
                                "shot noise of 100 photons at full scale")
    assert in_words({}) == ""
