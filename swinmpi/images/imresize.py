"""MATLAB's imresize: how an HR image becomes its LR image, and how an LR image is enlarged
for comparison."""
import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

CACHED_PIXELS = 1 << 15


def imresize(image: np.ndarray, scale: float | None = None, size: Sequence[int] | None = None,
             kernel: str = "bicubic") -> np.ndarray:
    """Resize (H, W) or (H, W, C) as MATLAB's `imresize(image, scale)` or `imresize(image, size)`
    does; dtype is kept.

    Computed in float64. Integers are rounded (halves up) and clipped to their type after
    each axis, as in MATLAB. `kernel`: "bicubic" (Keys, a = -0.5) or "bilinear"; both widened
    to antialias when shrinking.
    """
    if image.ndim not in (2, 3):
        raise ValueError(f"imresize: expected (H, W) or (H, W, C), got shape {image.shape}")
    x = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float64))
    if np.issubdtype(image.dtype, np.integer):
        limits = np.iinfo(image.dtype)
        resized = resize_axes(x, (0, 1), scale, size, kernel,
                              finish=lambda y: (y + 0.5).floor().clamp(limits.min, limits.max))
    else:
        resized = resize_axes(x, (0, 1), scale, size, kernel)
    return resized.numpy().astype(image.dtype)


def imresize_tensor(x: Tensor, scale: float | None = None, size: Sequence[int] | None = None,
                    kernel: str = "bicubic") -> Tensor:
    """MATLAB's imresize of the last two axes of a float tensor (N, C, H, W), any value range,
    in its own precision.

    Elementwise sums in a fixed order: the result of an image does not depend on the batch it is in.
    """
    if not x.is_floating_point():
        raise ValueError(f"imresize_tensor: expected a float tensor, got {x.dtype}; "
                         "use imresize for integer images")
    return resize_axes(x, (x.ndim - 2, x.ndim - 1), scale, size, kernel)


def imresize_part(part: Tensor, origin: Sequence[int], old: Sequence[int], new: Sequence[int],
                  wanted: Sequence[range], axes: Sequence[int] = (-2, -1),
                  joins: Sequence[bool] = (False, False)) -> Tensor:
    """The rows and columns `wanted` of a bicubic imresize of an image from size `old` to size
    `new`, both (height, width), by a part of the image that starts at `origin` and holds all they
    depend on (`part_needed`): the same bits.

    joins: whether rows, and columns, come round to the first after the last instead of being
    mirrored.
    """
    by_factor = sorted(zip((n / o for n, o in zip(new, old, strict=True)), axes, origin, old, new,
                           wanted, joins, strict=True), key=lambda axis: axis[0])
    for factor, axis, start, before, after, chosen, joined in by_factor:
        weights, indices = contributions(before, after, factor, "bicubic", joined)
        place = indices[:, chosen.start:chosen.stop] - start
        if place.numel() and not 0 <= place.min() <= place.max() < part.shape[axis]:
            raise ValueError("imresize_part: expected "
                             f"{part_needed(before, after, chosen, joined)} of the image, "
                             f"got {range(start, start + part.shape[axis])}")
        part = weighted_sum(part, axis % part.ndim, weights[:, chosen.start:chosen.stop], place)
    return part


def part_needed(old: int, new: int, wanted: range, joins: bool = False) -> range:
    """The input rows on which the rows `wanted` of a bicubic imresize from `old`
    to `new` rows depend, and those between them."""
    indices = contributions(old, new, new / old, "bicubic", joins)[1][:, wanted.start:wanted.stop]
    return range(int(indices.min()), int(indices.max()) + 1)


def resize_axes(x: Tensor, axes: Sequence[int], scale: float | None, size: Sequence[int] | None,
                kernel: str, finish: Callable[[Tensor], Tensor] = lambda y: y) -> Tensor:
    """Resize one axis after the other, the one that shrinks most first (ties: in the given
    order); `finish` each."""
    if (scale is None) == (size is None):
        raise ValueError(f"imresize: expected either scale or size, got scale={scale}, size={size}")
    if kernel not in KERNELS:
        raise ValueError(f"imresize: expected kernel {' or '.join(KERNELS)}, got {kernel!r}")
    old = [x.shape[axis] for axis in axes]
    new = ([math.ceil(scale * length) for length in old] if size is None
           else [int(length) for length in size])
    if min(new + old) < 1:
        raise ValueError(f"imresize: expected sizes of at least 1 px, got {old} -> {new}")
    factors = [n / o if scale is None else scale for n, o in zip(new, old, strict=True)]
    for _, axis, length, factor in sorted(zip(factors, axes, new, factors, strict=True)):
        x = finish(resize_axis(x, axis, length, factor, kernel))
    return x


def resize_axis(x: Tensor, axis: int, length: int, factor: float, kernel: str) -> Tensor:
    """Each of `length` output samples is a weighted sum of samples of x along
    `axis`, tap by tap."""
    return weighted_sum(x, axis, *contributions(x.shape[axis], length, factor, kernel))


def weighted_sum(x: Tensor, axis: int, weights: Tensor, indices: Tensor) -> Tensor:
    """Output i along `axis` is the sum over taps of weights[tap, i] * x[indices[tap,
    i]], tap by tap."""
    weights, indices = weights.to(x.device, x.dtype), indices.to(x.device)
    if x.device.type != "cpu" or x.requires_grad or not x.numel():
        return summed(x, axis, weights, indices)
    # A few rows at a time, because what is not in the cache is many times as slow.
    size = [indices.shape[1] if dim == axis else length for dim, length in enumerate(x.shape)]
    result, split = x.new_empty(size), axis if axis < x.ndim - 1 else max(0, axis - 1)
    step = max(1, CACHED_PIXELS * size[split] // max(1, result.numel()))
    for first in range(0, size[split], step):
        chosen = slice(first, first + step)
        part = result.narrow(split, first, min(step, size[split] - first))
        part.copy_(summed(x, axis, weights[:, chosen], indices[:, chosen]) if split == axis else
                   summed(x.narrow(split, first, part.shape[split]), axis, weights, indices))
    return result


def summed(x: Tensor, axis: int, weights: Tensor, indices: Tensor) -> Tensor:
    """`weighted_sum` all at once."""
    if axis == x.ndim - 1 > 1:  # torch has a way of its own, many times as fast, for two axes
        flat = summed(x.reshape(-1, x.shape[-1]), 1, weights, indices)
        return flat.view(*x.shape[:-1], flat.shape[1])
    column = [-1 if dim == axis else 1 for dim in range(x.ndim)]
    result = None
    for weight, index in zip(weights, indices, strict=True):
        term = x.index_select(axis, index).mul_(weight.view(column))
        result = term if result is None else result.add_(term)
    return result


@lru_cache(maxsize=64)
def contributions(old: int, new: int, factor: float, kernel: str,
                  joins: bool = False) -> tuple[Tensor, Tensor]:
    """Weights (taps, new) float64, summing to 1 over taps, and indices (taps, new)
    int64 into 0..old-1.

    Output sample i lies at (i + 1/2) / factor - 1/2 of the input. Outside, the input is mirrored
    with its edge sample repeated, or, where it `joins`, comes round. When shrinking, the kernel is
    widened by 1 / factor.
    """
    evaluate, width = KERNELS[kernel]
    stretch = min(factor, 1.0)
    centre = (torch.arange(new, dtype=torch.float64) + 0.5) / factor - 0.5
    first = (centre - width / stretch / 2).floor()
    position = first + torch.arange(math.ceil(width / stretch) + 2, dtype=torch.float64).view(-1, 1)
    weights = evaluate((centre - position) * stretch)
    weights = weights / weights.sum(0)
    indices = position.long() % (2 * old)
    indices = indices % old if joins else torch.minimum(indices, 2 * old - 1 - indices)
    used = (weights != 0).any(1)
    return weights[used], indices[used]


def cubic(x: Tensor) -> Tensor:
    """Keys' cubic convolution, a = -0.5 (Keys 1981, eq. 15); zero from |x| = 2."""
    a = x.abs()
    near = (1.5 * a - 2.5) * a * a + 1
    far = ((-0.5 * a + 2.5) * a - 4) * a + 2
    return torch.where(a <= 1, near, torch.where(a < 2, far, 0.0))


def triangle(x: Tensor) -> Tensor:
    """Linear interpolation; zero from |x| = 1."""
    return (1 - x.abs()).clamp(min=0)


KERNELS: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {"bicubic": (cubic, 4.0),
                                                                "bilinear": (triangle, 2.0)}
