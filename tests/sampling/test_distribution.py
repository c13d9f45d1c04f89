"""How a run is distributed over the ranks, for all ranks at once."""
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swinmpi.config import ParallelConfig
from swinmpi.config.model_sections import AlignedModel, ThesisModel
from swinmpi.errors import ConfigError
from swinmpi.parallel.calls import calls_in
from swinmpi.parallel.ownership import Ownership
from swinmpi.sampling.distribution import (
    MAX_IMAGES_PER_STEP,
    calls_of,
    describe_idle,
    distribute,
    in_words,
)
from swinmpi.sampling.rehearsal.speeds import weights_of
from swinmpi.windows.grid import WindowGrid

SETTLED = {"device": "cpu"}
MODELS = [AlignedModel(), ThesisModel()]


@given(st.integers(1, 300), st.integers(1, 40), st.integers(1, 40),
       st.sampled_from(["all", "auto", 1, 2, 7]), st.sampled_from(["auto", 1, 3]), st.booleans())
def test_every_rank_is_in_one_group(positions, images, ranks, per_image, per_step, takes_steps):
    parallel = ParallelConfig(ranks_per_image=per_image, images_per_step=per_step, **SETTLED)
    made = distribute(parallel, positions, images, ranks, takes_steps)
    assert [rank for group in made.groups for rank in group] == list(range(ranks))
    assert made.num_ranks == ranks
    if per_step == "auto":
        assert 1 <= made.images_per_step <= MAX_IMAGES_PER_STEP
    if not takes_steps:
        assert len(made.groups) == ranks
    idle = describe_idle(made, images)
    assert (idle is None) == (made.idle_ranks(images) == 0) and describe_idle(made, 0) is None


def grid_of(rows: int, cols: int = 1) -> WindowGrid:
    return WindowGrid(32 * rows, 32 * cols, 32, 0, "wrap")


def computed(calls, positions) -> int:
    """Windows computed for these, the padding included."""
    return sum(size for size, _ in calls.parts(positions, lambda position: position))


@pytest.mark.parametrize(("model", "device", "windows", "told"), [
    (AlignedModel(), "cpu", 1, 1), (AlignedModel(), "cpu", 36, 4), (AlignedModel(), "cpu", 121, 8),
    (AlignedModel(), "cpu", 25, "4+2"), (ThesisModel(), "cpu", 4, 1), (ThesisModel(), "cpu", 16, 1),
    (ThesisModel(), "cpu", 64, 4), (ThesisModel(), "cpu", 256, 8), (ThesisModel(), "cuda", 1, 1),
    (ThesisModel(), "cuda", 4, 4), (ThesisModel(), "cuda", 16, 16),
    (AlignedModel(), "cuda", 36, 36), (AlignedModel(), "cuda", 100, "64+32+8"),
    (AlignedModel(), "cuda", 484, 121), (AlignedModel(), "cuda", 1936, 484),
    (AlignedModel(), "cuda", 9216, 512)])
def test_micro_batches_follow_from_the_windows_of_an_image(model, device, windows, told):
    assert calls_of("auto", model, grid_of(windows), device).told == told
    assert calls_of(3, model, grid_of(windows), device).told == 3


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
@given(st.integers(1, 40), st.integers(1, 20))
def test_one_rank_computes_hardly_a_window_in_vain(model, device, rows, cols):
    grid = grid_of(rows, cols)
    calls = calls_of("auto", model, grid, device)
    assert len(calls.sizes) == grid.num_positions
    assert computed(calls, range(grid.num_positions)) <= grid.num_positions * (1 + 1 / 16)


@given(st.integers(1, 6), st.integers(1, 5), st.data())
def test_few_costly_windows_are_shared_by_as_many_ranks(rows, cols, data):
    grid = grid_of(rows, cols)
    ranks = data.draw(st.integers(1, grid.num_positions))
    calls = calls_of("auto", ThesisModel(), grid, "cpu")
    most = max(computed(calls, Ownership(grid, ranks, rank).positions) for rank in range(ranks))
    assert most == -(-grid.num_positions // ranks)


def test_parts_hold_every_item_once_in_calls_of_its_size():
    calls = calls_in(grid_of(7, 7), 4)
    items = [(slot, position) for position in range(49) for slot in range(3)]
    parts = list(calls.parts(items, lambda item: item[1]))
    assert sorted(item for _, part in parts for item in part) == sorted(items)
    assert all(len(part) <= size == calls.sizes[item[1]] for size, part in parts for item in part)


@pytest.mark.parametrize(("ranks", "images", "line"), [
    (5, 2, "1 of 5 ranks stay idle: an image has 4 windows for the 5 ranks of a group"),
    (4, 2, None)])
def test_idle_ranks_are_named(ranks, images, line):
    assert describe_idle(distribute(ParallelConfig(**SETTLED), 4, images, ranks), images) == line


@pytest.mark.parametrize(("windows", "ranks", "shares", "words"), [
    (9, 4, "equal", "3 2 2 2"), (100, 32, "measured", "3 to 4 each"), (9, 3, [3, 1, 1], "5 2 2"),
    (9, 3, [1e-9, 1.0, 2.0], "0 3 6"), (100, 17, [9.0, *[1.0] * 16], "4 to 36 each")])
def test_windows_of_ranks_in_words(windows, ranks, shares, words):
    made = distribute(ParallelConfig(shares=shares, **SETTLED), windows, 1, ranks)
    assert in_words(made.parts_in(0)) == words
    assert made.idle_ranks(1) == made.parts_in(0).count(0)
    assert made.equal_ranks == (ranks if isinstance(shares, str) else sum(shares) / max(shares))


def test_groups_take_the_weights_of_their_ranks():
    made = distribute(ParallelConfig(shares=[1, 2, 3, 3], ranks_per_image=2, **SETTLED), 9, 2, 4)
    assert [made.parts_in(group) for group in (0, 1)] == [[3, 6], [5, 4]]
    with pytest.raises(ConfigError, match="a number for each of 3 ranks, got 4; give as many"):
        distribute(ParallelConfig(shares=[1, 2, 3, 3], **SETTLED), 9, 2, 3)


def test_speeds_that_hardly_differ_count_as_equal():
    assert weights_of((96.0, 100.0, 99.0)) == (1.0, 1.0, 1.0)
    assert weights_of((50.0, 100.0, 99.0)) == (0.5, 1.0, 1.0)
