"""Windows at any places of many images in one gather: what is cut one by one, forwards and
backwards."""
import numpy as np
import pytest
import torch

from swinmpi.windows.frames import cut_at
from swinmpi.windows.grid import WindowGrid
from swinmpi.windows.masks import border_distance_at
from swinmpi.windows.places import border_distances, cut_at_places

SIZES = [(30, 44, 12), (16, 16, 16), (7, 50, 13), (1, 9, 4)]
every_size = pytest.mark.parametrize(("height", "width", "window_px"), SIZES)
both = pytest.mark.parametrize("border", ["reflect", "wrap"])


def places(height, width, window_px, count=40):
    """Image numbers and origins, many of them beyond the edges."""
    rng = np.random.default_rng(0)
    origins = np.stack([rng.integers(-window_px, size + window_px // 2, count)
                        for size in (height, width)], 1)
    return torch.from_numpy(rng.integers(0, 3, count)), torch.from_numpy(origins)


@every_size
@both
@pytest.mark.parametrize("channels", [1, 3])
def test_one_gather_is_cutting_one_by_one(height, width, window_px, border, channels):
    images = torch.randn(3, channels, height, width, dtype=torch.float64)
    numbers, origins = places(height, width, window_px)
    weights = torch.randn(len(numbers), channels, window_px, window_px, dtype=torch.float64)
    made = []
    for layout in (torch.contiguous_format, torch.channels_last):
        mine, others = (images.clone(memory_format=layout).requires_grad_() for _ in range(2))
        cut = cut_at_places(mine, numbers, origins, window_px, border)
        wanted = torch.stack([cut_at(others[number], y, x, window_px, border) for number, (y, x)
                              in zip(numbers.tolist(), origins.tolist(), strict=True)])
        assert torch.equal(cut, wanted)
        for one in (cut, wanted):
            (one * weights).sum().backward()
        torch.testing.assert_close(mine.grad, others.grad)
        made.append(mine.grad)
    torch.testing.assert_close(*made)


@every_size
@both
def test_border_distances_of_many_windows(height, width, window_px, border):
    _, origins = places(height, width, window_px)
    grid = WindowGrid(height, width, window_px, border=border)
    wanted = torch.stack([border_distance_at(y, x, window_px, height, width, 5, border)
                          for y, x in origins.tolist()])
    made = border_distances(origins, grid, 5)
    assert torch.equal(made, wanted) and made.dtype == torch.float32


def test_no_window_at_all():
    none = torch.empty(0, 2, dtype=torch.int64)
    assert cut_at_places(torch.ones(1, 3, 8, 8), none[:, 0], none, 4, "wrap").shape == (0, 3, 4, 4)
    assert border_distances(none, WindowGrid(8, 8, 4), 5).shape == (0, 1, 4, 4)
