"""Windows cover the image exactly, whatever its size, the shift and the border."""
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from swinmpi.windows.frames import cut_at, from_frame, patchify, to_frame
from swinmpi.windows.grid import (
    WindowGrid,
    frame_cols,
    frame_rows,
    live_positions,
    true_cols,
    true_rows,
    window_origin,
)
from swinmpi.windows.shift import circular_shift, crop_shift, default_max_shift, uncrop_shift
from tests.support.windows import unpatchify

SIZES = st.one_of(st.integers(1, 5), st.integers(1, 40))
property_test = settings(max_examples=60, deadline=None)


@st.composite
def frames(draw, borders=("reflect", "wrap")):
    """A grid and a shift that it has room for."""
    max_shift_px = draw(st.integers(0, 14))
    border = draw(st.sampled_from(borders))
    grid = WindowGrid(draw(SIZES), draw(SIZES), draw(st.integers(1, 12)), max_shift_px, border)
    return grid, (draw(st.integers(0, max_shift_px)), draw(st.integers(0, max_shift_px)))


def numbered(*shape: int) -> torch.Tensor:
    """Every pixel a different number, so that a misplaced one shows."""
    return torch.arange(np.prod(shape), dtype=torch.float32).reshape(shape)


def cut_windows(image, grid, shift, positions):
    """(len(positions), C, w, w): those windows of the frame, each cut out of the image itself."""
    origins = [window_origin(grid, shift, position) for position in positions]
    windows = [cut_at(image, y, x, grid.window_px, grid.border) for y, x in origins]
    return torch.stack(windows) if windows else image.new_empty(
        0, len(image), grid.window_px, grid.window_px)


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 5), st.integers(1, 5),
       st.integers(1, 6))
@property_test
def test_patchify_and_back(num_images, channels, rows, cols, window):
    x = numbered(num_images, channels, rows * window, cols * window)
    windows = patchify(x, window)
    assert windows.shape == (num_images, rows * cols, channels, window, window)
    assert unpatchify(windows, rows, cols).equal(x)
    for position in range(rows * cols):
        y, left = position // cols * window, position % cols * window
        assert windows[:, position].equal(x[..., y:y + window, left:left + window])


@given(frames())
@property_test
def test_frame_and_back(case):
    grid, shift = case
    image = numbered(2, 3, grid.height_px, grid.width_px)
    frame = to_frame(image, grid, shift)
    assert frame.shape == (2, 3, grid.frame_height_px, grid.frame_width_px)
    assert frame.equal(image[..., frame_rows(grid, shift[0])[:, None], frame_cols(grid, shift[1])])
    assert from_frame(frame, grid, shift).equal(image)


@given(frames())
@property_test
def test_every_pixel_is_true_exactly_once(case):
    grid, shift = case
    image = numbered(1, grid.height_px, grid.width_px)
    live = live_positions(grid, shift)
    is_true = (true_rows(grid, shift[0])[:, None] & true_cols(grid, shift[1]))[None, None]
    true_windows = patchify(is_true, grid.window_px)[0]
    windows = cut_windows(image, grid, shift, live)
    assert windows[true_windows[live]].sort().values.equal(image.flatten())
    assert live == [k for k in range(grid.num_positions) if true_windows[k].any()]


@given(frames(), st.data())
@property_test
def test_cut_windows_are_those_of_the_frame(case, data):
    grid, shift = case
    image = numbered(2, grid.height_px, grid.width_px)
    positions = data.draw(st.lists(st.integers(0, grid.num_positions - 1), max_size=6))
    frame = to_frame(image, grid, shift)[None]
    assert cut_windows(image, grid, shift, positions).equal(
        patchify(frame, grid.window_px)[0, positions])


@given(SIZES, SIZES, st.integers(1, 9), st.integers(-60, 60), st.integers(-60, 60))
@property_test
def test_cut_at_any_origin(height, width, window, y, x):
    image = numbered(1, height, width)
    far = np.pad(image[0].numpy(), 70, mode="reflect")
    assert np.array_equal(cut_at(image, y, x, window)[0], far[y + 70:, x + 70:][:window, :window])
    whole = np.pad(image[0].numpy(), ((0, -height % window), (0, -width % window)), mode="reflect")
    rolled = np.roll(whole, (-y, -x), (0, 1))[:window, :window]
    assert np.array_equal(cut_at(image, y, x, window, "wrap")[0], rolled)


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 8), st.integers(0, 8),
       st.integers(0, 8))
@property_test
def test_wrap_is_roll_then_patchify_on_whole_windows(rows, cols, window, dy, dx):
    grid = WindowGrid(rows * window, cols * window, window, 8, "wrap")
    image = numbered(3, grid.height_px, grid.width_px)
    rolled = torch.roll(image, (dy, dx), (-2, -1))
    assert to_frame(image, grid, (dy, dx)).equal(rolled)
    positions = range(grid.num_positions)
    assert cut_windows(image, grid, (dy, dx), positions).equal(patchify(rolled[None], window)[0])


@given(frames(borders=["reflect"]))
@property_test
def test_reflect_never_joins_opposite_edges(case):
    grid, shift = case
    for index in (frame_rows(grid, shift[0]), frame_cols(grid, shift[1])):
        assert (index.diff().abs() <= 1).all()


@given(frames(borders=["reflect"]))
@property_test
def test_reflect_moves_the_image_and_mirrors_around_it(case):
    grid, (dy, dx) = case
    image = numbered(grid.height_px, grid.width_px)
    below, right = (grid.frame_height_px - grid.height_px - dy,
                    grid.frame_width_px - grid.width_px - dx)
    expected = np.pad(image.numpy(), ((dy, below), (dx, right)), mode="reflect")
    assert np.array_equal(to_frame(image, grid, (dy, dx)), expected)


def test_reflect_frame_by_hand():
    grid = WindowGrid(3, 4, 2, 1)
    assert (grid.rows, grid.cols, grid.num_positions) == (2, 3, 6)
    assert frame_rows(grid, 1).tolist() == [1, 0, 1, 2]
    assert frame_cols(grid, 0).tolist() == [0, 1, 2, 3, 2, 1]
    assert true_rows(grid, 1).tolist() == [False, True, True, True]
    assert live_positions(grid, (1, 0)) == [0, 1, 3, 4]


def test_wrap_frame_by_hand():
    grid = WindowGrid(3, 4, 2, 1, "wrap")
    assert (grid.rows, grid.cols) == (2, 2)
    assert frame_rows(grid, 1).tolist() == [1, 0, 1, 2]
    assert frame_cols(grid, 1).tolist() == [3, 0, 1, 2]
    assert true_rows(grid, 1).tolist() == [False, True, True, True]


def test_an_inner_window_is_cut_without_a_copy():
    image = numbered(1, 9, 9)
    assert cut_at(image, 2, 3, 4).data_ptr() == image[:, 2:, 3:].data_ptr()


def test_indices_first_made_in_inference_mode_serve_training():
    image = torch.rand(1, 7, 7, requires_grad=True)
    with torch.inference_mode():
        cut_at(image, -3, 5, 6)
    cut_at(image, -3, 5, 6).sum().backward()
    assert image.grad.sum() == 36


def test_gradient_of_windows_counts_each_pixel_as_often_as_it_is_seen():
    grid = WindowGrid(5, 3, 2, 1)
    image = torch.rand(2, 5, 3, requires_grad=True)
    cut_windows(image, grid, (1, 0), range(grid.num_positions)).sum().backward()
    rows, cols = (frame_rows(grid, 1).bincount(minlength=5),
                  frame_cols(grid, 0).bincount(minlength=3))
    assert image.grad.equal(torch.outer(rows, cols).expand(2, 5, 3).float())


@pytest.mark.parametrize("call", [
    lambda: WindowGrid(0, 4, 2),
    lambda: WindowGrid(4, 4, 2, -1),
    lambda: WindowGrid(4, 4, 2, 0, "mirror"),
    lambda: to_frame(numbered(4, 4), WindowGrid(4, 4, 2, 1), (2, 0)),
    lambda: from_frame(numbered(6, 6), WindowGrid(4, 4, 2, 1), (0, -1)),
    lambda: cut_at(numbered(1, 4, 4), 3, 3, 2, "mirror"),
    lambda: patchify(numbered(1, 1, 4, 5), 2),
    lambda: crop_shift(numbered(4, 4), (4, 0)),
    lambda: crop_shift(numbered(4, 4), (1, 0), "roll"),
])
def test_impossible_values_are_refused(call):
    with pytest.raises(ValueError, match="expected .* got "):
        call()


def test_a_position_outside_the_grid_is_refused():
    for position in (-1, 4):
        with pytest.raises(IndexError, match="expected a window position in 0..3, got"):
            window_origin(WindowGrid(4, 4, 2), (0, 0), position)


def test_circular_pattern():
    assert [circular_shift(step, 8) for step in range(5)] == [(0, 0), (0, 8), (8, 8), (8, 0),
                                                              (0, 0)]
    assert default_max_shift(32) == 8


@given(SIZES, SIZES, st.data())
@property_test
def test_crop_and_pad(height, width, data):
    dy, dx = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    image = numbered(2, height, width) + 1
    cropped = crop_shift(image, (dy, dx), "pad")
    assert cropped[..., :height - dy, :width - dx].equal(image[..., dy:, dx:])
    kept = torch.zeros_like(image)
    kept[..., dy:, dx:] = image[..., dy:, dx:]
    assert cropped.sum() == kept.sum()
    assert uncrop_shift(cropped, (dy, dx), "pad").equal(kept)


@given(SIZES, SIZES, st.data())
@property_test
def test_crop_and_resize(height, width, data):
    shift = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    image = torch.rand(2, height, width)
    stretched = crop_shift(image, shift, "resize")
    oracle = torch.nn.functional.interpolate(image[None, :, shift[0]:, shift[1]:], (height, width),
                                             mode="bilinear")
    torch.testing.assert_close(stretched, oracle[0], atol=2e-5, rtol=0)
    kept = torch.zeros_like(image)
    kept[..., shift[0]:, shift[1]:] = 1
    torch.testing.assert_close(uncrop_shift(torch.ones_like(image), shift, "resize"), kept)


@pytest.mark.parametrize("edge", ["pad", "resize"])
def test_cropping_leaves_edges_behind(edge):
    """Figure 2.6: predictions per pixel after one round of the circular pattern."""
    counts = sum(uncrop_shift(torch.ones(8, 8), circular_shift(step, 2), edge) for step in range(4))
    expected = torch.full((8, 8), 4.0)
    expected[:2] = expected[:, :2] = 2
    expected[:2, :2] = 1
    torch.testing.assert_close(counts, expected)
