"""The explaining figures: windows put apart, and distortions of one PSNR."""
import numpy as np

from swinmpi.experiments.pictures import GAP_PX, LEVEL_DB, at_level, exploded
from swinmpi.images.metrics import psnr
from tests.support.sampling import smooth_stack


def test_windows_put_apart_are_those_of_the_image():
    image = smooth_stack(1, 64, 48, 3, "uint8")[0].astype(float)
    sheet = exploded(image, 16)
    step = 16 + GAP_PX
    assert sheet.shape == (4 * step - GAP_PX, 3 * step - GAP_PX, 3)
    for row in range(4):
        for col in range(3):
            tile = sheet[row * step:row * step + 16, col * step:col * step + 16]
            wanted = image[row * 16:row * 16 + 16, col * 16:col * 16 + 16]
            assert (tile == np.rint(wanted)).all()


def test_a_distortion_goes_as_far_as_the_level():
    image = smooth_stack(1, 32, 32, 3, "uint8")[0].astype(float)
    distorted = at_level(image, lambda much: image + 255 * much)
    assert abs(psnr(distorted, image, 255.0) - LEVEL_DB) < 0.01
    assert distorted.min() >= 0 and distorted.max() <= 255


def test_a_distortion_that_cannot_go_so_far_goes_to_its_end():
    image = np.full((16, 16, 3), 100.0)
    assert (at_level(image, lambda much: image + much) == 101).all()
