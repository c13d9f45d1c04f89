"""One line where a stack is far blurrier or noisier than the trained images."""
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from swinmpi.images.detail import usual_detail
from swinmpi.sampling.ranges import how_unlike
from swinmpi.storage.stack import Stack
from tests.support.sampling import write_stack

RNG = np.random.default_rng(0)


def photographs(count, size=64):
    """Equal energy in every octave."""
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size)))
    frequency[0, 0] = 1
    noise = np.fft.fft2(RNG.normal(size=(count, size, size)))
    images = np.fft.ifft2(noise / frequency).real
    return images / images.std() * 40 + 128


@pytest.mark.parametrize("change, said", [
    (lambda images: images, None), (lambda images: images * 5 + 900, None),
    (lambda images: gaussian_filter(images, (0, 0.4, 0.4)), None),
    (lambda images: images + RNG.normal(0, 3, images.shape), None),
    (lambda images: gaussian_filter(images, (0, 3, 3)), "blurred, or were enlarged"),
    (lambda images: images + RNG.normal(0, 80, images.shape), "noisy, or coarser"),
    (lambda images: images * 0 + 5, None)])
def test_only_what_is_far_is_told(tmp_path, change, said):
    header = {"fine_detail": usual_detail(image[None] for image in photographs(40, 32))}
    images = change(photographs(3)).astype("f4")
    with Stack.open(str(write_stack(tmp_path / "in.h5", images))) as stack:
        told = how_unlike(stack, header)
        assert told is None if said is None else said in told and "\n" not in told
        assert how_unlike(stack, {}) is None, "an older checkpoint does not tell"
