"""Masks and border distances say where a window lies on the image, and follow the shift."""
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from swinmpi.windows.frames import from_frame, patchify
from swinmpi.windows.grid import (
    WindowGrid,
    frame_cols,
    frame_rows,
    true_cols,
    true_rows,
    window_origin,
)
from swinmpi.windows.masks import border_distance_at, gaussian_masks
from tests.support.windows import unpatchify

property_test = settings(max_examples=60, deadline=None)


@st.composite
def frames(draw):
    """A grid and a shift that it has room for."""
    size = st.integers(1, 40)
    max_shift_px = draw(st.integers(0, 14))
    border = draw(st.sampled_from(["reflect", "wrap"]))
    grid = WindowGrid(draw(size), draw(size), draw(st.integers(1, 12)), max_shift_px, border)
    return grid, (draw(st.integers(0, max_shift_px)), draw(st.integers(0, max_shift_px)))


def mask_by_definition(grid, shift, position, width_ratio):
    """The HR mask drawn in two dimensions: (height_px, width_px) in -1..1."""
    centre_y = position // grid.cols * grid.window_px + (grid.window_px - 1) / 2
    centre_x = position % grid.cols * grid.window_px + (grid.window_px - 1) / 2
    y, x = (torch.arange(grid.frame_height_px)[:, None] - centre_y,
            torch.arange(grid.frame_width_px) - centre_x)
    mask = torch.exp(-(y.double() ** 2 + x**2) / (2 * (width_ratio * grid.window_px / 2) ** 2))
    return from_frame(mask / mask.max() * 2 - 1, grid, shift)


@given(frames(), st.data(), st.sampled_from([0.5, 1.5, 3.0]))
@property_test
def test_mask_is_the_drawn_one_at_full_size(case, data, width_ratio):
    grid, shift = case
    position = data.draw(st.integers(0, grid.num_positions - 1))
    mask = gaussian_masks(grid, shift, [position], width_ratio, grid.height_px, grid.width_px)
    assert mask.shape == (1, 1, grid.height_px, grid.width_px) and mask.dtype == torch.float32
    torch.testing.assert_close(mask[0, 0].double(),
                               mask_by_definition(grid, shift, position, width_ratio),
                               atol=1e-6, rtol=0)


@pytest.mark.parametrize("border", ["reflect", "wrap"])
def test_mask_is_average_pooled_to_lr_size(border):
    grid = WindowGrid(36, 24, 12, 3, border)
    masks = gaussian_masks(grid, (3, 2), range(grid.num_positions), 1.5, 12, 12)
    for position in range(grid.num_positions):
        drawn = mask_by_definition(grid, (3, 2), position, 1.5)
        pooled = torch.nn.functional.avg_pool2d(drawn[None], (3, 2))[0]
        torch.testing.assert_close(masks[position, 0].double(), pooled, atol=1e-6, rtol=0)


@given(st.integers(1, 50), st.integers(1, 50))
@settings(max_examples=30, deadline=None)
def test_mask_keeps_its_mean_at_any_lr_size(lr_height, lr_width):
    grid = WindowGrid(37, 23, 8, 2)
    mask = gaussian_masks(grid, (1, 2), [4], 1.5, lr_height, lr_width)
    assert mask.mean().item() == pytest.approx(
        mask_by_definition(grid, (1, 2), 4, 1.5).mean().item(), abs=1e-6)


@given(st.integers(0, 15), st.integers(0, 7), st.integers(0, 7))
@property_test
def test_wrapped_mask_rolls_against_the_shift(position, dy, dx):
    grid = WindowGrid(32, 32, 8, 8, "wrap")
    resting, moved = (gaussian_masks(grid, shift, [position], 1.5, 32, 32)
                      for shift in [(0, 0), (dy, dx)])
    assert moved.equal(torch.roll(resting, (-dy, -dx), (-2, -1)))


@given(frames())
@property_test
def test_mask_peaks_on_the_image_pixels_its_window_shows(case):
    grid, shift = case
    rows = frame_rows(grid, shift[0]).view(grid.rows, -1)
    cols = frame_cols(grid, shift[1]).view(grid.cols, -1)
    is_true = true_rows(grid, shift[0])[:, None] & true_cols(grid, shift[1])
    wholly_inside = patchify(is_true[None, None], grid.window_px)[0].flatten(1).all(1)
    for position in wholly_inside.nonzero().flatten().tolist():
        mask = gaussian_masks(grid, shift, [position], 1.5, grid.height_px, grid.width_px)[0, 0]
        seen = mask[rows[position // grid.cols][:, None], cols[position % grid.cols]]
        assert seen.max() == mask.max() == 1


@given(frames(), st.integers(1, 20))
@property_test
def test_border_distance_counts_steps_to_the_outside(case, reach_px):
    grid, shift = case
    y = torch.arange(grid.height_px)[:, None].expand(grid.height_px, grid.width_px)
    x = torch.arange(grid.width_px).expand(grid.height_px, grid.width_px)
    steps = torch.stack([y + 1, x + 1, grid.height_px - y, grid.width_px - x]).amin(0)
    origins = [window_origin(grid, shift, position) for position in range(grid.num_positions)]
    distances = torch.stack([
        border_distance_at(top, left, grid.window_px, grid.height_px, grid.width_px, reach_px,
                           grid.border) for top, left in origins])
    assert distances.dtype == torch.float32
    frame = unpatchify(distances[None], grid.rows, grid.cols)[0, 0]
    assert from_frame(frame, grid, shift).equal((steps / reach_px).clamp(max=1))
    assert (frame > 0).sum() == grid.height_px * grid.width_px


def test_no_positions_make_empty_masks():
    grid = WindowGrid(8, 8, 4, 1)
    assert gaussian_masks(grid, (1, 1), [], 1.5, 4, 4).shape == (0, 1, 4, 4)
