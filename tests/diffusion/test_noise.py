"""Noise and shifts are functions of their keys: any key matters, the order of drawing does not."""
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from swinmpi.diffusion.noise import X_T_STEP, random_shift
from tests.support.windows import window_noise

SHAPE = (3, 8, 8)
PINNED_FIRST = [0.0599110, 0.0155596, -1.1644385, -0.1326471]
PINNED_OTHER = [1.0897719, -1.9375864, 1.4615147, 0.3520317]
PINNED_SHIFTS = [(3, 4), (6, 3), (5, 6)]
KEYS = {"seed": 7, "stack_index": 3, "step": 2, "position": 5}


def test_values_are_pinned():
    """A run resumed with another version of numpy draws the same, or this test says otherwise."""
    first = window_noise(0, 0, X_T_STEP, 0, (4,))
    other = window_noise(1, 2, 3, 4, (4,))
    torch.testing.assert_close(first, torch.tensor(PINNED_FIRST), rtol=0, atol=1e-6)
    torch.testing.assert_close(other, torch.tensor(PINNED_OTHER), rtol=0, atol=1e-6)
    assert [random_shift(0, 0, step, 8) for step in range(3)] == PINNED_SHIFTS


def test_it_is_float32_of_the_shape_asked_for_and_repeats():
    noise = window_noise(**KEYS, shape=SHAPE)
    assert noise.dtype == torch.float32 and noise.shape == SHAPE and noise.is_contiguous()
    assert torch.equal(noise, window_noise(**KEYS, shape=SHAPE))


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("other", [0, 1, 8, 2 ** 40])
def test_every_key_gives_unrelated_numbers(key, other):
    one, two = (window_noise(**keys, shape=(4000,)).double()
                for keys in (KEYS, KEYS | {key: other}))
    assert abs(torch.corrcoef(torch.stack([one, two]))[0, 1]) < 0.08


def test_keys_do_not_trade_places():
    """Four words, not a sum or a hash of them."""
    words = [(0, 0, 0, 1), (0, 0, 1, 0), (0, 1, 0, 0), (1, 0, 0, 0), (0, 0, X_T_STEP, 0),
             (0, 0, 0, 0)]
    assert len({window_noise(*keys, shape=(1,)).item() for keys in words}) == 6


def test_neighbouring_windows_share_no_block():
    draws = torch.cat([window_noise(0, 0, 0, position, (3, 48, 48)).flatten()
                       for position in range(4)])
    blocks = draws[:len(draws) // 8 * 8].view(-1, 8)
    assert len(torch.unique(blocks, dim=0)) == len(blocks)


@settings(max_examples=20, deadline=None)
@given(st.permutations(list(product(range(2), (-1, 0), range(3)))))  # image, step, position
def test_order_does_not_matter(order):
    drawn = {keys: window_noise(1, *keys, shape=(2, 3)) for keys in order}
    for keys in sorted(drawn):
        assert torch.equal(drawn[keys], window_noise(1, *keys, shape=(2, 3)))


def test_global_generators_are_left_alone():
    state = torch.get_rng_state(), repr(np.random.get_state())
    window_noise(**KEYS, shape=SHAPE)
    random_shift(0, 0, 0, 100)
    assert torch.equal(torch.get_rng_state(), state[0]) and repr(np.random.get_state()) == state[1]


def test_it_is_standard_normal():
    noise = torch.cat([window_noise(0, image, 0, position, (1, 100, 100)).flatten()
                       for image in range(2) for position in range(5)]).double()
    assert abs(noise.mean()) < 0.015 and abs(noise.std() - 1) < 0.01
    assert abs((noise ** 4).mean() - 3) < 0.1


def test_shifts_are_uniform_up_to_both_ends():
    shifts = torch.tensor([random_shift(0, image, step, 3)
                           for image in range(20) for step in range(100)])
    for axis in shifts.T:
        counts = torch.bincount(axis)
        assert len(counts) == 4 and counts.min() > 420 and counts.max() < 580
    assert abs(torch.corrcoef(shifts.T.double())[0, 1]) < 0.08


def test_shifts_depend_on_seed_image_and_step_and_may_be_none():
    words = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    assert len({random_shift(*keys, 2 ** 30) for keys in words}) == 4
    assert random_shift(5, 5, 5, 0) == (0, 0)


@pytest.mark.parametrize("keys, message", [
    ((-1, 0, 0, 0), "seed"), ((2 ** 64, 0, 0, 0), "seed"), ((0, -1, 0, 0), "image index"),
    ((0, 0, -2, 0), "step"), ((0, 0, 0, -1), "window position")])
def test_keys_outside_64_bits_are_refused(keys, message):
    with pytest.raises(ValueError, match=f"{message}.*expected 0..2\\^64 - 1"):
        window_noise(*keys, shape=SHAPE)


@pytest.mark.parametrize("coherence", [1, 4, 2.5])
def test_coherent_noise_is_normal_and_falls_off_between_images(coherence):
    noise = torch.stack([window_noise(3, image, X_T_STEP, 0, (40000,), coherence)
                         for image in range(12)]).double()
    assert noise.mean(1).abs().max() < 0.02 and (noise.var(1) - 1).abs().max() < 0.03
    together = torch.corrcoef(noise)
    at = torch.arange(12) / coherence
    share = (at[None] - at[:, None]).abs()
    assert together[share >= 2].abs().max() < 0.03, "other anchors"
    inside = at.floor()[None] == at.floor()[:, None]
    expected = torch.cos(share * torch.pi / 2)[inside]
    torch.testing.assert_close(together[inside], expected.double(), rtol=0, atol=0.02)


def test_coherent_noise_is_a_function_of_its_key():
    alone = window_noise(0, 7, 2, 1, (9,), 5.0)
    for image in range(20):
        window_noise(0, image, 2, 1, (9,), 5.0)
    assert torch.equal(alone, window_noise(0, 7, 2, 1, (9,), 5.0))
    others = [(1, 7, 2, 1), (0, 8, 2, 1), (0, 7, 3, 1), (0, 7, 2, 0)]
    assert not any(torch.equal(alone, window_noise(*keys, (9,), 5.0)) for keys in others)
    assert not torch.equal(window_noise(0, 0, 0, 0, (9,), 5.0), window_noise(0, 0, 0, 0, (9,)))
