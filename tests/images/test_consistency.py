"""The operator of imresize against its matrix, and the projection on what was measured."""
import numpy as np
import pytest
import torch

from swinmpi.images.consistency import (
    REACH_LR_PX,
    adjoint,
    adjoint_part,
    lr_needed,
    matrix,
    projected_part,
    pseudo_inverse,
    pseudo_inverse_part,
)
from swinmpi.images.imresize import imresize_tensor

SIZES = [(low, scale) for scale in (2, 3, 4) for low in (1, 2, 5, 40, 128, 129, 300)]


def noise(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def whole(*size):
    return [range(length) for length in size]


def dense(table, low, high):
    weights, indices = table(low, high)
    return torch.zeros(high, low, dtype=torch.float64).scatter_add_(
        1, indices.clamp(0, low - 1).T, weights.T)


@pytest.mark.parametrize("low,scale", SIZES)
def test_tables_are_the_adjoint_and_the_pseudo_inverse_of_the_matrix(low, scale):
    shrinking = matrix(low, low * scale)
    line = noise(1, 1, low * scale, 3)
    torch.testing.assert_close(torch.einsum("lh,nchw->nclw", shrinking, line),
                               imresize_tensor(line, size=(low, 3)), rtol=0, atol=1e-12)
    torch.testing.assert_close(dense(adjoint, low, low * scale), shrinking.T, rtol=0, atol=1e-12)
    torch.testing.assert_close(dense(pseudo_inverse, low, low * scale),
                               torch.linalg.pinv(shrinking), rtol=0, atol=1e-6)


@pytest.mark.parametrize("height,width,scale", [(20, 33, 2), (7, 150, 3), (40, 9, 4)])
def test_the_operators_are_those_of_images(height, width, scale):
    low, high = (height, width), (height * scale, width * scale)
    x, y = noise(2, *high), noise(2, *low, seed=1)
    shrunk = imresize_tensor(x[None], size=low)[0]
    back = adjoint_part(y, (0, 0), low, high, whole(*high))
    assert float((shrunk * y).sum()) == pytest.approx(float((x * back).sum()), abs=1e-9)
    smallest = pseudo_inverse_part(y, (0, 0), low, high, whole(*high))
    torch.testing.assert_close(imresize_tensor(smallest[None], size=low)[0], y, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype,misfit", [(torch.float64, 1e-5), (torch.float32, 1e-5)])
def test_a_projected_image_shrinks_to_what_was_measured_and_is_changed_least(dtype, misfit):
    low, high = (60, 45), (120, 90)
    x, y = noise(3, *high).to(dtype), noise(3, *low, seed=1)
    made = projected_part(x, (0, 0), y, high, low, whole(*high))
    shrunk = imresize_tensor(made.double()[None], size=low)[0]
    assert float((shrunk - y).abs().max()) < misfit
    # What was changed lies in the range of A^T: any other consistent image is farther away.
    other = noise(3, *high, seed=2)
    other = projected_part(other, (0, 0), y, high, low, whole(*high))
    assert float((made.double() - x).norm()) < float((other - x).norm())
    assert made.dtype == dtype


def test_a_weight_takes_part_of_the_way():
    low, high = (30, 30), (60, 60)
    x, y = noise(1, *high), noise(1, *low, seed=1)
    before = imresize_tensor(x[None], size=low)[0]
    made = projected_part(x, (0, 0), y, high, low, whole(*high), weight=0.25)
    torch.testing.assert_close(imresize_tensor(made[None], size=low)[0],
                               before + 0.25 * (y - before), rtol=0, atol=1e-5)


def test_where_nothing_was_measured_the_estimate_is_believed_and_the_rest_is_exact():
    low, high = (40, 40), (80, 80)
    x, y = noise(1, *high), noise(1, *low, seed=1)
    y[0, 10:14, 20:22] = torch.nan
    made = projected_part(x, (0, 0), y, high, low, whole(*high))
    before, after = (imresize_tensor(image[None], size=low)[0] for image in (x, made))
    hole = y.isnan()
    torch.testing.assert_close(after[hole], before[hole], rtol=0, atol=1e-5)
    torch.testing.assert_close(after[~hole], y[~hole], rtol=0, atol=1e-5)


@pytest.mark.parametrize("rows,cols", [(range(0, 16), range(120, 400)), (range(90, 101), range(7)),
                                       (range(333, 400), range(0, 400))])
def test_a_part_has_the_bits_of_the_whole(rows, cols):
    scale, low, high = 2, (200, 200), (400, 400)
    x, y = noise(1, *high).float(), noise(1, *low, seed=1)
    made = projected_part(x, (0, 0), y, high, low, whole(*high))
    wanted, reach = [rows, cols], (REACH_LR_PX + 3) * scale
    held = [range(max(0, line.start - reach), min(400, line.stop + reach)) for line in wanted]
    lr_held = [lr_needed(line, 200, scale) for line in wanted]

    def part(image, lines):
        return image[:, lines[0].start:lines[0].stop, lines[1].start:lines[1].stop]

    again = projected_part(part(x, held), [line.start for line in held], part(y, lr_held),
                           high, low, wanted)
    assert torch.equal(again, part(made, wanted))


def test_too_small_a_part_is_refused():
    with pytest.raises(ValueError, match="expected the LR pixels within 13"):
        pseudo_inverse_part(noise(1, 20, 20), (0, 0), (40, 40), (80, 80), whole(80, 80))
