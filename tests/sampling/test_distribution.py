"""How a run is distributed over the ranks, for all ranks at once."""
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swinmpi.config import ParallelConfig
from swinmpi.sampling.distribution import (
    MAX_IMAGES_PER_STEP,
    describe_idle,
    distribute,
    settled_micro_batch,
    windows_of_ranks,
)

SETTLED = {"device": "cpu", "micro_batch": 4}


@given(st.integers(1, 300), st.integers(1, 40), st.integers(1, 40),
       st.sampled_from(["all", "auto", 1, 2, 7]), st.sampled_from(["auto", 1, 3]), st.booleans())
def test_every_rank_is_in_one_group(positions, images, ranks, per_image, per_step, takes_steps):
    parallel = ParallelConfig(ranks_per_image=per_image, images_per_step=per_step, **SETTLED)
    made = distribute(parallel, positions, images, ranks, takes_steps)
    assert [rank for group in made.groups for rank in group] == list(range(ranks))
    assert made.num_ranks == ranks and made.micro_batch == 4
    if per_step == "auto":
        assert 1 <= made.images_per_step <= MAX_IMAGES_PER_STEP
    if not takes_steps:
        assert len(made.groups) == ranks
    idle = describe_idle(made, images)
    assert (idle is None) == (made.idle_ranks(images) == 0) and describe_idle(made, 0) is None


def test_the_micro_batch_is_a_function_of_image_and_device_only():
    """So that the number of ranks cannot be seen in the last bits."""
    auto = ParallelConfig()
    assert [settled_micro_batch(auto, positions, "cpu") for positions in (1, 63, 64, 500)] == [
        4, 4, 8, 8]
    assert settled_micro_batch(auto, 4, "cuda") == settled_micro_batch(auto, 500, "cuda") == 64
    assert settled_micro_batch(ParallelConfig(micro_batch=3), 500, "cpu") == 3


@pytest.mark.parametrize(("ranks", "images", "line"), [
    (5, 2, "1 of 5 ranks stay idle: an image has 4 windows for the 5 ranks of a group"),
    (4, 2, None)])
def test_idle_ranks_are_named(ranks, images, line):
    assert describe_idle(distribute(ParallelConfig(**SETTLED), 4, images, ranks), images) == line


def test_windows_of_ranks_in_words():
    assert windows_of_ranks(9, 4) == "3 2 2 2" and windows_of_ranks(100, 32) == "3 to 4 each"
