"""Whole numbers that keep the sum over every LR pixel."""
import numpy as np
import pytest

from swinmpi.images.rounding import ranks, rounded_in_blocks


def block_sums(image, scale):
    channels, height, width = image.shape
    return image.reshape(channels, height // scale, scale, width // scale, scale).sum(axis=(2, 4))


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_blocks_keep_their_sum_and_values_their_neighbours(scale):
    values = np.random.default_rng(scale).uniform(10, 240, (3, 5 * scale, 7 * scale))
    whole = rounded_in_blocks(values, (0, 255), scale)
    assert np.abs(whole - values).max() < 1
    assert np.abs(block_sums(whole, scale) - block_sums(values, scale)).max() <= 0.5 + 1e-9
    np.testing.assert_array_equal(whole, np.rint(whole))


def test_what_is_clipped_the_others_of_the_block_take_over():
    values = np.array([[[260.0, 250.0], [251.0, 252.0]]])
    whole = rounded_in_blocks(values, (0, 255), 2)
    assert whole.sum() == 1013 and whole.max() <= 255 and whole[0, 0, 0] == 255
    values = np.array([[[-7.0, 3.0], [9.0, 1.0]]])
    assert rounded_in_blocks(values, (0, 255), 2).sum() == 6


@pytest.mark.parametrize("value", [-20.0, 300.0])
def test_a_block_without_room_is_at_the_limit(value):
    expected = np.clip(value, 0, 255)
    assert (rounded_in_blocks(np.full((1, 4, 4), value), (0, 255), 2) == expected).all()


def test_whole_numbers_stay():
    values = np.random.default_rng(0).integers(0, 256, (1, 6, 6)).astype(np.float64)
    np.testing.assert_array_equal(rounded_in_blocks(values, (0, 255), 3), values)


def test_a_block_does_not_depend_on_its_neighbours():
    values = np.random.default_rng(1).uniform(-20, 280, (2, 16, 12))
    whole = rounded_in_blocks(values, (0, 255), 4)
    np.testing.assert_array_equal(rounded_in_blocks(values[:, 4:12, 4:], (0, 255), 4),
                                  whole[:, 4:12, 4:])


@pytest.mark.parametrize("size", [1, 4, 9, 64])
def test_places_are_those_of_a_stable_sort(size):
    values = np.random.default_rng(size).integers(0, 5, (size, 50)) / 5
    order = np.argsort(-values, axis=0, kind="stable")
    np.testing.assert_array_equal(ranks(values), np.argsort(order, axis=0))
