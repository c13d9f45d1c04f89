"""Many windows at a time are the windows one by one, on every device."""
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from swinmpi.windows.canvas import Canvas
from swinmpi.windows.grid import WindowGrid, window_origin
from swinmpi.windows.moves import blocks_of
from swinmpi.windows.tiles import KEPT_INDICES, Tiled, by_block, of_slots, parted, places, tiles

CPU = torch.device("cpu")


@st.composite
def chosen(draw):
    """A grid, a shift, owned positions, and some of them in any order, which may come again."""
    most = draw(st.integers(0, 3))
    grid = WindowGrid(draw(st.integers(1, 25)), draw(st.integers(1, 25)), 5, most, "reflect")
    owned = draw(st.sets(st.integers(0, grid.num_positions - 1), min_size=1))
    some = draw(st.lists(st.sampled_from(sorted(owned)), min_size=1, max_size=8))
    return grid, (draw(st.integers(0, most)), draw(st.integers(0, most))), owned, some


def canvases_of(grid, owned):
    """Blocks of the owned windows, and canvases on which every pixel says where it is."""
    blocks = blocks_of(owned, grid)
    canvases = [Canvas.over(block.canvas(grid), 2) for block in blocks]
    for canvas in canvases:
        rows, cols = (torch.arange(size) for size in canvas.values.shape[1:])
        canvas.values[0], canvas.values[1] = rows[:, None] + canvas.top, cols + canvas.left
    return blocks, canvases


@given(chosen())
def test_windows_show_what_lies_at_their_coordinates(case):
    grid, shift, owned, some = case
    cut = Tiled(grid, *canvases_of(grid, owned)).cut(shift, some)
    assert cut.shape == (len(some), 2, 5, 5) and cut.is_contiguous()
    for window, position in zip(cut, some, strict=True):
        y, x = window_origin(grid, shift, position)
        assert torch.equal(window[0, :, 0], torch.arange(y, y + 5).float())
        assert torch.equal(window[1, 0], torch.arange(x, x + 5).float())


@given(chosen())
def test_what_is_put_is_what_is_cut(case):
    grid, shift, owned, some = case
    some = list(dict.fromkeys(some))
    tiled = Tiled(grid, *canvases_of(grid, owned))
    before, windows = tiled.cut(shift, sorted(owned)), torch.randn(len(some), 2, 5, 5)
    tiled.put(shift, some, windows)
    assert torch.equal(tiled.cut(shift, some), windows)
    untouched = [at for at, position in enumerate(sorted(owned)) if position not in some]
    assert torch.equal(tiled.cut(shift, sorted(owned))[untouched], before[untouched])


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 11)), min_size=1, max_size=12))
def test_the_index_of_a_gpu_and_the_runs_of_a_cpu_say_the_same(items):
    frames = torch.randn(3, 2, 3 * 4, 4 * 4)
    found, cut = places(tuple(items), 4, CPU), tiles(frames, 4)
    assert torch.equal(found.take(cut), cut[found.index])
    once = tuple(dict.fromkeys(items))
    by_runs, by_index = torch.zeros(2, 3, 2, 12, 16)
    windows, found = torch.randn(len(once) + 2, 2, 4, 4), places(once, 4, CPU)
    found.put(tiles(by_runs, 4), windows)
    tiles(by_index, 4)[found.index] = windows[:len(once)]
    assert torch.equal(by_runs, by_index)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=1, max_size=12))
def test_windows_of_many_images_keep_their_order(items):
    told, = of_slots(items, CPU, lambda slot, positions: (
        torch.tensor([[slot, position] for position in positions]),))
    assert told.tolist() == [list(item) for item in items]
    assert sorted(place for _, _, where in parted(tuple(items), CPU) for place in where.tolist()
                  ) == list(range(len(items)))


def test_indices_are_made_once_and_not_without_end():
    by_block.cache_clear()
    grid = WindowGrid(20, 20, 5)
    tiled = Tiled(grid, *canvases_of(grid, range(16)))
    for shift in ((0, 0), (0, 0)):
        tiled.cut(shift, [3, 4, 5])
    assert (by_block.cache_info().misses, by_block.cache_info().hits) == (1, 1)
    assert by_block.cache_info().maxsize == places.cache_info().maxsize == KEPT_INDICES


def test_a_window_of_others_is_refused():
    grid = WindowGrid(20, 20, 5)
    with pytest.raises(IndexError, match="expected a window position of .*, got 15"):
        Tiled(grid, *canvases_of(grid, range(4))).cut((0, 0), [2, 15])
