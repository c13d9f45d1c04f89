"""imresize against MATLAB's documented algorithm, written out sample by sample, and against
values found by hand."""
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from swinmpi.images.imresize import (
    CACHED_PIXELS,
    contributions,
    imresize,
    imresize_tensor,
    summed,
    weighted_sum,
)

NEAR, FAR = 0.8671875, 0.2265625  # Keys' kernel, a = -0.5, at 1/4 and 3/4 px
NEAR_TAIL, FAR_TAIL = -0.0703125, -0.0234375  # at 5/4 and 7/4 px


def keys_kernel(x):
    x = abs(x)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def triangle_kernel(x):
    return max(0.0, 1 - abs(x))


def slow_line(line, length, scale, kernel, width):
    """One row or column, counted from 1 as in MATLAB; the mirror is the list 1..n,
    n..1, repeated."""
    n, shrink = len(line), min(scale, 1.0)
    mirror = [*range(n), *reversed(range(n))]
    out = []
    for i in range(1, length + 1):
        u = i / scale + 0.5 * (1 - 1 / scale)
        left = math.floor(u - width / shrink / 2)
        taps = range(left, left + math.ceil(width / shrink) + 2)
        weights = [shrink * kernel(shrink * (u - tap)) for tap in taps]
        samples = [line[mirror[(tap - 1) % (2 * n)]] for tap in taps]
        out.append(sum(w * s for w, s in zip(weights, samples, strict=True)) / sum(weights))
    return out


def slow_imresize(image, scales, sizes, kernel):
    """(H, W, C), the axis of the smaller scale first; integers are rounded (halves up) and clipped
    after each axis."""
    function, width = {"bicubic": (keys_kernel, 4), "bilinear": (triangle_kernel, 2)}[kernel]
    result = image.astype(np.float64)
    for axis in sorted((0, 1), key=lambda axis: scales[axis]):
        result = np.apply_along_axis(slow_line, axis, result, sizes[axis], scales[axis], function,
                                     width)
        if image.dtype.kind == "u":
            result = np.clip(np.floor(result + 0.5), 0, np.iinfo(image.dtype).max)
    return result.astype(image.dtype)


def random_image(shape, dtype, seed=0):
    """Noise between the extremes: overshoots everywhere, so wrong rounding or clipping shows."""
    draws = np.random.default_rng(seed).random(shape)
    return (draws.astype(dtype) if np.dtype(dtype).kind == "f"
            else (draws > 0.5).astype(dtype) * np.iinfo(dtype).max)


@pytest.mark.parametrize("kernel", ["bicubic", "bilinear"])
@pytest.mark.parametrize("scale", [1 / 4, 1 / 3, 0.5, 0.7, 1.0, 1.5, 2, 3])
def test_float_equals_the_algorithm(kernel, scale):
    image = random_image((13, 10, 2), np.float64)
    sizes = [math.ceil(scale * n) for n in image.shape[:2]]
    resized = imresize(image, scale=scale, kernel=kernel)
    assert resized.shape == (*sizes, 2) and resized.dtype == np.float64
    np.testing.assert_allclose(resized, slow_imresize(image, (scale, scale), sizes, kernel), rtol=0,
                               atol=1e-12)
    tensor = imresize_tensor(torch.from_numpy(image.transpose(2, 0, 1))[None].float(), scale=scale,
                             kernel=kernel)
    np.testing.assert_allclose(tensor[0].permute(1, 2, 0), resized, rtol=0, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 14), st.integers(1, 5),
       st.sampled_from(["bicubic", "bilinear"]), st.sampled_from([np.uint8, np.uint16]),
       st.integers(0, 99))
def test_integers_of_any_size_equal_the_algorithm(old, new, other, kernel, dtype, seed):
    image = random_image((other, old, 1), dtype, seed)
    expected = slow_imresize(image, (1, new / old), (other, new), kernel)
    resized = imresize(image, size=(other, new), kernel=kernel)
    assert resized.dtype == dtype and resized.shape == (other, new, 1)
    # sums on .5 fall to either side
    assert np.abs(resized.astype(int) - expected.astype(int)).max() <= 1


@pytest.mark.parametrize("sizes", [(12, 12), (12, 6), (6, 12), (48, 12), (12, 48)])
def test_uint8_noise_is_rounded_after_each_axis_in_order(sizes):
    """Scales of powers of two have exact weights, so even sums on .5 must agree."""
    image = random_image((24, 24, 1), np.uint8)
    expected = slow_imresize(image, [size / 24 for size in sizes], sizes, "bicubic")
    np.testing.assert_array_equal(imresize(image, size=sizes), expected)
    once = np.clip(np.floor(imresize(image.astype(float), size=sizes) + 0.5), 0, 255)
    assert np.abs(once - expected).max() > 1  # so the rounding in between matters


def test_impulse_shows_the_kernel():
    line = np.zeros((1, 17))
    line[0, 8] = 1
    weights = [FAR_TAIL, NEAR_TAIL, FAR, NEAR, NEAR, FAR, NEAR_TAIL, FAR_TAIL]
    np.testing.assert_allclose(imresize(line, size=(1, 34))[0, 13:21], weights, atol=1e-15)
    # widened to 8 taps, every second one for this sample
    weights = np.array([FAR_TAIL, FAR, NEAR, NEAR_TAIL]) / 2
    np.testing.assert_allclose(imresize(line[:, :16], size=(1, 8))[0, 2:6], weights, atol=1e-15)


def test_edges_are_mirrored_with_the_edge_pixel_repeated():
    first = imresize(np.array([[100.0, 0, 0, 0]]), size=(1, 8))[0, :3]
    weights = np.array([NEAR + FAR, NEAR + NEAR_TAIL, FAR + FAR_TAIL])
    np.testing.assert_allclose(first, 100 * weights, atol=1e-12)
    linear = imresize(np.array([[0.0, 4]]), size=(1, 4), kernel="bilinear")
    np.testing.assert_allclose(linear, [[0, 1, 3, 4]], atol=1e-12)


def test_small_uint8_image_by_hand():
    """A line (a, b) gives a + (b - a) * w with w = -.09375, .203125, .796875, 1.09375
    (mirrored taps added up).

    Columns first: (0, 255) -> 0, 52, 203, 255 rounded and clipped; then (52, 203) -> 37.84,
    82.67, 172.33, 217.16.
    Were the other axis first, the result would be the transpose.
    """
    assert NEAR_TAIL + FAR_TAIL == -0.09375 and FAR + FAR_TAIL == 0.203125
    enlarged = imresize(np.array([[0, 255], [255, 0]], np.uint8), scale=2)
    assert enlarged.tolist() == [[0, 52, 203, 255], [38, 83, 172, 217], [217, 172, 83, 38],
                                 [255, 203, 52, 0]]


def test_equals_torch_away_from_and_at_the_border():
    """torch renormalises at borders; with the mirror as padding there is no border
    to renormalise at."""
    image = torch.rand(2, 3, 32, 40, dtype=torch.float64)
    pad = 16
    rows, cols = (np.pad(np.arange(n), pad, mode="symmetric") for n in image.shape[-2:])
    padded = image[:, :, rows][..., cols]
    expected = F.interpolate(padded, scale_factor=0.25, mode="bicubic",
                             antialias=True)[..., 4:-4, 4:-4]
    torch.testing.assert_close(imresize_tensor(image, scale=0.25), expected, rtol=0, atol=1e-12)


def test_constant_images_stay_constant():
    for scale in (0.3, 0.5, 1.7, 4):
        np.testing.assert_allclose(imresize(np.full((7, 5), 0.25, np.float32), scale=scale), 0.25,
                                   atol=1e-7)
        assert (imresize(np.full((7, 5, 3), 201, np.uint8), scale=scale) == 201).all()


def test_output_size_is_the_ceiling():
    assert imresize(np.zeros((5, 7)), scale=0.5).shape == (3, 4)
    assert imresize(np.zeros((5, 7)), scale=1 / 3).shape == (2, 3)


def test_an_image_does_not_depend_on_its_batch():
    batch = torch.rand(3, 3, 20, 20)
    assert torch.equal(imresize_tensor(batch, scale=2)[1:2], imresize_tensor(batch[1:2], scale=2))


@pytest.mark.parametrize("arguments", [{}, {"scale": 2, "size": (4, 4)},
                                       {"scale": 2, "kernel": "box"}, {"size": (0, 4)}])
def test_wrong_use_is_refused(arguments):
    with pytest.raises(ValueError, match="imresize: expected"):
        imresize(np.zeros((4, 4)), **arguments)
    with pytest.raises(ValueError, match="float tensor"):
        imresize_tensor(torch.zeros(1, 1, 4, 4, dtype=torch.uint8), scale=2)


@pytest.mark.parametrize("shape,axis", [((3, 150, 140), 1), ((3, 150, 140), 2), ((150, 140, 3), 0),
                                        ((150, 140, 3), 1), ((70_000,), 0), ((1, 40_001), 1)])
@pytest.mark.parametrize("factor", [2.0, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_at_a_time_have_the_bits_of_all_at_once(shape, axis, factor, dtype):
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=dtype)
    weights, indices = contributions(shape[axis], int(shape[axis] * factor), factor, "bicubic")
    expected = summed(x, axis, weights.to(dtype), indices)
    made = weighted_sum(x, axis, weights, indices)
    assert x.numel() > CACHED_PIXELS and torch.equal(made, expected)
    turned = x.transpose(0, -1).contiguous().transpose(0, -1)
    assert torch.equal(weighted_sum(turned, axis, weights, indices), expected)


def test_what_learns_through_a_resize_has_its_gradient():
    x = torch.rand(1, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: imresize_tensor(x, 0.5), x)
