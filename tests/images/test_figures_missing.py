"""Figures of images in which pixels have no number."""
import numpy as np

from swinmpi.images import metrics
from swinmpi.images.figures import ImagePart, seams_of_part


def part_of(sr: np.ndarray, sample: np.ndarray) -> ImagePart:
    """A whole image of 32 x 32 px, of windows of 8."""
    whole = range(32), range(32)
    return ImagePart(sr, np.zeros((16, 16, 1)), sample, np.zeros_like(sample), whole, whole,
                     (16, 16), 2, 8)


def test_seams_are_of_pixels_that_have_a_number():
    sample = np.random.default_rng(0).normal(size=(32, 32, 1)).astype(np.float32)
    assert np.isnan(metrics.seam_of_sums(seams_of_part(part_of(sample * np.nan, sample))))
    sr, noisy = sample.copy(), sample.copy()
    sr[4:13, 4:13] = np.nan
    noisy[5:12, 5:12] += 100
    assert np.array_equal(seams_of_part(part_of(sr, sample)), seams_of_part(part_of(sr, noisy)))
    assert not np.array_equal(seams_of_part(part_of(sample, sample)),
                              seams_of_part(part_of(sr, sample)))
