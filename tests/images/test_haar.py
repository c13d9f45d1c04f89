"""The Haar transform against its matrix, its energy and its inverse."""
import torch

from swinmpi.images.haar import BANDS, haar, inverse_haar


def draw(*shape):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_it_is_the_product_of_two_orthonormal_matrices():
    """Along each axis: sums of neighbours, then differences, over sqrt(2)."""
    image = draw(6, 8)
    low, high = (torch.tensor([1.0, sign], dtype=torch.float64) / 2**0.5 for sign in (1, -1))
    for band, (down, across) in zip(haar(image[None]),
                                    [(low, low), (low, high), (high, low), (high, high)],
                                    strict=True):
        rows, cols = (torch.kron(torch.eye(side // 2, dtype=torch.float64), kernel[None])
                      for side, kernel in zip(image.shape, (down, across), strict=True))
        torch.testing.assert_close(band, rows @ image @ cols.T)


def test_it_keeps_energy_and_comes_back():
    images = draw(2, 3, 10, 6)
    bands = haar(images)
    assert bands.shape == (2, 12, 5, 3)
    torch.testing.assert_close(bands.square().sum(), images.square().sum())
    torch.testing.assert_close(inverse_haar(bands), images)


def test_a_band_after_the_other_each_with_all_channels():
    checks = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(2, 2)
    stripes = torch.tensor([1.0, -1.0]).repeat(4, 2)
    bands = haar(torch.stack([checks, stripes])).unflatten(0, (len(BANDS), 2))
    found = bands.abs().amax(dim=(2, 3))
    assert BANDS == ("LL", "LH", "HL", "HH")
    assert found.tolist() == [[0, 0], [0, 2], [0, 0], [2, 0]]


def test_a_part_of_an_image_has_the_bits_of_the_whole():
    bands = draw(4, 9, 7).float()
    part = inverse_haar(bands[:, 2:5, 1:6])
    assert torch.equal(part, inverse_haar(bands)[:, 4:10, 2:12])
