"""The energy of the finest detail against that of twice its size."""
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from swinmpi.images.detail import fine_detail, usual_detail
from swinmpi.images.imresize import imresize

RNG = np.random.default_rng(0)
NOISE = RNG.normal(size=(1, 256, 256))


def photograph_like():
    """Equal energy in every octave, as photographs have it on average (Field 1987)."""
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(256), np.fft.fftfreq(256)))
    frequency[0, 0] = 1
    return np.fft.ifft2(np.fft.fft2(NOISE[0]) / frequency).real[None]


@pytest.mark.parametrize("image, wanted, within", [
    (NOISE, 2, 0.1), (photograph_like(), 0, 0.7), (gaussian_filter(NOISE, (0, 8, 8)), -4, 0.2),
    (np.repeat(np.repeat(NOISE, 2, 1), 2, 2), -20, 0), (imresize(
        photograph_like()[0][..., None], scale=2)[..., 0][None], -4.5, 0.6)])
def test_known_images(image, wanted, within):
    assert fine_detail(image) == pytest.approx(wanted, abs=within)
    assert fine_detail(image * 1e30 - 5) == pytest.approx(fine_detail(image), abs=1e-3)


def test_without_detail_and_without_numbers():
    assert np.isnan(fine_detail(np.full((3, 20, 20), 7.0)))
    assert np.isnan(fine_detail(np.ones((1, 3, 3))))
    assert np.isnan(fine_detail(np.full((1, 20, 20), np.nan)))
    holed = NOISE.copy()
    holed[:, 10:50, 20:60] = np.nan
    assert fine_detail(holed) == pytest.approx(2, abs=0.1)


def test_what_is_usual():
    blurred = [gaussian_filter(NOISE, (0, 8, 8))] * 20
    low, high = usual_detail([*[NOISE] * 20, *blurred])
    assert low == pytest.approx(-4, abs=0.2) and high == pytest.approx(2, abs=0.1)
    assert usual_detail([np.ones((1, 8, 8))]) is None
