"""Rank arithmetic for all ranks at once, in one process."""
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swinmpi.parallel.root import plan_step
from swinmpi.parallel.shares import (
    auto_ranks_per_image,
    block_range,
    dealt,
    group_of,
    images_of_group,
    share_in_turn,
    split_groups,
)

few = st.integers(0, 60)
ranks = st.integers(1, 20)


@given(few, ranks)
def test_blocks_cover_every_item_once_in_order_and_evenly(num_items, num_ranks):
    blocks = [block_range(num_items, num_ranks, rank) for rank in range(num_ranks)]
    assert [item for block in blocks for item in block] == list(range(num_items))
    assert max(map(len, blocks)) - min(map(len, blocks)) <= 1


@given(ranks, ranks)
def test_groups_hold_every_rank_once_and_enough_of_them(num_ranks, ranks_per_image):
    groups = split_groups(num_ranks, ranks_per_image)
    assert [rank for group in groups for rank in group] == list(range(num_ranks))
    assert [group_of(groups, rank) for group in groups for rank in group] == sorted(
        index for index, group in enumerate(groups) for _ in group)
    sizes = [len(group) for group in groups]
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= min(ranks_per_image, num_ranks)


def test_known_groups():
    assert split_groups(7, 2) == [range(0, 3), range(3, 5), range(5, 7)]
    assert split_groups(4, 9) == [range(0, 4)]
    with pytest.raises(ValueError, match="at least 1"):
        split_groups(4, 0)


@given(st.lists(few, unique=True), ranks)
def test_every_image_belongs_to_one_group(image_indices, num_groups):
    shares = [images_of_group(image_indices, num_groups, group) for group in range(num_groups)]
    assert sorted(index for share in shares for index in share) == sorted(image_indices)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("num_images, num_ranks, expected",
                         [(40, 8, 1), (8, 8, 1), (3, 8, 2), (1, 5, 5), (0, 5, 5)])
def test_automatic_ranks_per_image(num_images, num_ranks, expected):
    ranks_per_image, reason = auto_ranks_per_image(num_images, num_ranks)
    assert ranks_per_image == expected
    assert str(num_images) in reason and str(num_ranks) in reason


@given(st.integers(1, 12), ranks, st.data())
def test_a_plan_shares_every_live_window_once_whatever_the_number_of_ranks(
        num_positions, num_ranks, data):
    positions = st.lists(st.integers(0, num_positions - 1), unique=True)
    live = data.draw(st.lists(positions, min_size=1, max_size=4))
    plan = plan_step(range(num_positions), num_ranks, live)
    assert plan.items == plan_step(range(num_positions), 1, live).items
    assert sorted(plan.items) == sorted(
        (slot, position) for slot, owned in enumerate(live) for position in owned)
    assert [item for rank in range(num_ranks) for item in plan.own(rank)] == list(plan.items)
    for rank in range(num_ranks):
        owned = block_range(num_positions, num_ranks, rank)
        assert all(position in owned for _, position in plan.own(rank))


@given(st.integers(0, 30), st.integers(1, 9), st.integers(1, 3))
def test_ranks_that_take_turns_get_equally_many_windows(more, num_ranks, rounds):
    num_positions = num_ranks + more
    live = [range(num_positions)] * (num_ranks * rounds)
    plan = plan_step(range(num_positions), num_ranks, live, in_turn=True)
    assert set(plan.counts) == {num_positions * rounds}
    assert sorted(plan.items) == [(slot, position) for slot, owned in enumerate(live)
                                  for position in owned]
    for rank in range(num_ranks):
        for slot, position in plan.own(rank):
            assert position in share_in_turn(num_positions, num_ranks, rank, slot)
        assert [slot for slot, _ in plan.own(rank)] == sorted(slot for slot, _ in plan.own(rank))


def test_an_odd_window_goes_to_another_rank_in_every_image():
    plan = plan_step(range(9), 2, [range(9)] * 8, in_turn=True)
    assert plan.counts == (36, 36)
    assert plan_step(range(9), 2, [range(9)] * 8).counts == (40, 32)
    assert plan_step(range(2), 3, [range(2)] * 2, in_turn=True).counts == (2, 2, 0)


weights = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=9).map(tuple)


@given(few, weights)
def test_weighted_shares_are_in_proportion_and_hold_every_item_once(num_items, weights):
    count, total = len(weights), sum(weights)
    for turn in range(count):
        shares = [share_in_turn(num_items, count, rank, turn, weights) for rank in range(count)]
        assert sorted(item for share in shares for item in share) == list(range(num_items))
    for rank, weight in enumerate(weights):
        exact = num_items * weight / total
        assert exact - 1 - 1e-9 < dealt(num_items, weights)[rank] < exact + 1 + 1e-9
        over_turns = sum(dealt(num_items, weights, turn)[rank] for turn in range(count))
        assert abs(over_turns - count * exact) < 1 + 1e-9, "what rounding takes comes back"


@pytest.mark.parametrize(("num_items", "weights", "counts"), [
    (9, (3, 1, 1), (5, 2, 2)), (4, (1e-9, 1), (0, 4)), (5, (1e308, 1e308, 1e-320), (3, 2, 0)),
    (7, (2, 2, 3), (2, 2, 3)), (0, (1, 2), (0, 0))])
def test_known_weighted_shares(num_items, weights, counts):
    """By largest remainders."""
    assert dealt(num_items, weights) == counts


def test_equal_weights_are_none():
    assert [share_in_turn(9, 2, rank, 1, (5.0, 5.0)) for rank in (0, 1)] == [
        share_in_turn(9, 2, rank, 1) for rank in (0, 1)]


@given(st.integers(1, 30), weights, st.integers(1, 5))
def test_a_weighted_plan_and_the_owners_agree(num_positions, weights, slots):
    live = [range(num_positions)] * slots
    plan = plan_step(range(num_positions), len(weights), live, in_turn=True, weights=weights)
    assert sorted(plan.items) == [(slot, k) for slot in range(slots) for k in range(num_positions)]
    for rank in range(len(weights)):
        for slot, k in plan.own(rank):
            assert k in share_in_turn(num_positions, len(weights), rank, slot, weights)


def test_a_plan_refuses_positions_outside_the_grid():
    with pytest.raises(ValueError, match="0..3"):
        plan_step(range(4), 2, [[0, 4]])
