"""The thesis's explaining pictures show what they say, of an image that is no multiple of its
windows as well."""
import numpy as np
import pytest

from swinmpi.images.imresize import imresize
from swinmpi.images.metrics import psnr, ssim
from swinmpi.reports import thesis_pictures as pictures
from swinmpi.windows.grid import WindowGrid
from swinmpi.windows.masks import gaussian_masks

GRIDS = {"whole windows": WindowGrid(64, 64, 16, 4, "wrap"), "part": WindowGrid(50, 70, 16, 4)}
every_grid = pytest.mark.parametrize("grid", GRIDS.values(), ids=list(GRIDS))


def image_for(grid):
    coarse = np.random.default_rng(0).integers(40, 200, (9, 9, 3)).astype(np.uint8)
    return imresize(coarse, size=(grid.height_px, grid.width_px))


@every_grid
def test_windows_apart_are_the_image(grid):
    image = image_for(grid)
    sheet = np.asarray(pictures.patches_picture(image, grid))
    assert sheet.ndim == 3 and sheet.shape[1] > 2 * grid.width_px
    shown = {tuple(pixel) for pixel in sheet.reshape(-1, 3)}
    if grid.frame_height_px == grid.height_px:
        assert {tuple(pixel) for pixel in image.reshape(-1, 3)} <= shown


@every_grid
@pytest.mark.parametrize("shift", [(0, 0), (0, 4), (4, 4)])
def test_the_marked_window_is_where_the_mask_is_brightest(grid, shift):
    image = image_for(grid)
    for position in (0, 5, grid.num_positions - 1):
        drawn = pictures.outlined(image, grid, shift, position)
        marked = (drawn == pictures.MARKED).all(axis=2)
        mask = gaussian_masks(grid, shift, [position], 1.5, grid.height_px, grid.width_px)[0, 0]
        assert marked.any() and mask.numpy()[marked].mean() > mask.mean()
    assert pictures.masks_picture(image, grid, [0, 5], shift).height > 2 * 100


@every_grid
def test_shifted_windows_have_other_borders(grid):
    image = image_for(grid)
    unshifted, shifted = (pictures.outlined(image, grid, shift) for shift in ((0, 0), (4, 4)))
    assert (unshifted[16] == 255).all() and not (shifted[16] == 255).all()
    assert (shifted[12] == 255).all(), "a frame of shift 4 begins 4 px before the image"
    assert pictures.shifts_picture(image, grid).width > 4 * grid.width_px


def test_all_distortions_have_one_psnr_but_not_one_ssim():
    image = image_for(GRIDS["whole windows"])
    made = {name: pictures.distorted(image, distort, 24.0)
            for name, distort in pictures.DISTORTIONS.items()}
    assert [psnr(one, image, 255) for one in made.values()] == pytest.approx([24] * 5, abs=0.3)
    similar = {name: ssim(one, image, 255) for name, one in made.items()}
    assert similar["brighter"] > similar["noise"] + 0.2
    assert pictures.distortions_picture(image).width > 5 * 64
    with pytest.raises(ValueError, match="without detail"):
        pictures.distortions_picture(np.full((32, 32, 3), 90, np.uint8))
