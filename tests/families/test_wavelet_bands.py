"""The family `wavelet`: bands by themselves, each by its own deviation, on different ranks."""
import numpy as np
import pytest
import torch

from swinmpi.config import load_config
from swinmpi.diffusion.schedule import make_schedule
from swinmpi.families.family import DISTANCES, Batch, Drawing, Objective
from swinmpi.families.loading import make_family
from swinmpi.families.wavelet import POWERS, X_0_STD
from swinmpi.images.haar import BANDS, haar
from swinmpi.images.imresize import imresize_tensor
from swinmpi.models.deviations import note_measured
from swinmpi.parallel.ownership import Ownership
from swinmpi.sampling.root import step_plan
from swinmpi.windows.grid import WindowGrid
from tests.support.training import WAVELET

GRID = WindowGrid(16, 16, 8, 2)


def wavelet(*overrides):
    """With weights none of which is zero."""
    torch.manual_seed(0)
    made = make_family(load_config(overrides=[*WAVELET, *overrides]).model)
    for parameter in made.model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return made


def photograph_like(num_images):
    """Random images (n, 3, 32, 32) with less energy the finer it is, and LR."""
    rng = np.random.default_rng(3)
    hr = sum(imresize_tensor(torch.from_numpy(rng.normal(0, 0.05 * 32 / side, (
        num_images, 3, side, side)).astype(np.float32)), size=(32, 32)) for side in (8, 16, 22))
    return hr, imresize_tensor(hr, size=(16, 16))


def batch_for(family, num_images=4):
    rng = np.random.default_rng(0)
    hr, lr = photograph_like(num_images)
    windows = [family.draw(Drawing(GRID, "circular", False, 2), rng) for _ in range(num_images)]
    eps = torch.from_numpy(rng.normal(size=(num_images, 12, 16, 16)).astype(np.float32))
    return Batch(lr, hr, eps, windows, torch.arange(2 * num_images) * 5)


OBJECTIVE = Objective(make_schedule("cosine", 50), "v", DISTANCES["l1"], 20.0, GRID)


@torch.no_grad()
def test_a_window_at_once_has_the_bits_of_its_bands_one_by_one():
    family = wavelet()
    x_t, t = torch.randn(3, 12, 8, 8), torch.tensor([4, 4, 4])
    told = torch.randn(3, 4 + 12, 8, 8), torch.rand(3, 1, 8, 8), torch.randn(3, 8)
    whole = family.predict(x_t, t, *told)
    # Another order of bands and windows in the calls, which are as large.
    for bands in ([2, 0, 3], [1, 3, 0]):
        one = torch.stack([x_t[n, 3 * band:3 * band + 3] for n, band in enumerate(bands)])
        made = family.predict(one, t, *told, torch.tensor(bands))
        for n, band in enumerate(bands):
            assert torch.equal(made[n], whole[n, 3 * band:3 * band + 3])


def test_the_network_is_told_which_band_it_is_and_sees_no_other():
    family = wavelet()
    x_t, t = torch.randn(1, 12, 8, 8, requires_grad=True), torch.tensor([4])
    told = torch.randn(1, 16, 8, 8), torch.rand(1, 1, 8, 8), torch.randn(1, 8)
    family.predict(x_t, t, *told)[:, 9:].sum().backward()
    seen = x_t.grad.abs().amax(dim=(0, 2, 3)) > 0
    assert seen.tolist() == [False] * 9 + [True] * 3
    same = torch.randn(1, 3, 8, 8).repeat(1, 4, 1, 1)
    answers = family.predict(same, t, *told).chunk(4, dim=1)
    assert all(not torch.equal(answers[0], other) for other in answers[1:])


@pytest.mark.parametrize("scaling", ["own", "common", "none"])
def test_own_scaling_lifts_the_diagonal_band_out_of_the_noise(scaling):
    """Figure 4.3: as they are, or with one divisor, noise has the diagonal band for longest."""
    family = wavelet(f"model.band_scaling={scaling}")
    batch = batch_for(family, num_images=16)
    base = imresize_tensor(batch.lr, size=(32, 32))
    note_measured(family.model, {name: float(value) for name, value in family.measured(
        batch.hr, base).items()}, 0)
    bands = family.x_0(batch.hr, base).chunk(len(BANDS), dim=1)
    stds = [float(band.square().mean().sqrt()) for band in bands]
    if scaling == "own":
        assert stds == pytest.approx([X_0_STD] * 4, rel=1e-4)
    elif scaling == "none":
        assert torch.equal(torch.cat(bands, dim=1), haar(batch.hr - base))
        assert torch.allclose(family.image(torch.cat(bands, dim=1), base), batch.hr, atol=1e-6)
    else:
        assert float(np.sqrt(np.mean(np.square(stds)))) == pytest.approx(X_0_STD, rel=1e-4)
        assert max(stds) > 1.5 * min(stds), "else the figures above say nothing"


def test_the_loss_has_pixels_beside_bands_and_powers_beside_both():
    family, alone = wavelet(), wavelet("model.pixel_weight=0")
    alone.model.load_state_dict(family.model.state_dict())
    batch = batch_for(family)
    parts, without = family.losses(batch, OBJECTIVE), alone.losses(batch, OBJECTIVE)
    assert parts["pixels"] > 0 and parts["pixels"] == without["pixels"]
    torch.testing.assert_close(parts["loss"], without["loss"] + parts["pixels"])
    torch.testing.assert_close(parts["diffusion"], without["diffusion"])
    assert all(parts[name] > 0 for name in POWERS)


@pytest.mark.parametrize("num_ranks", [2, 3, 4, 5])
def test_bands_of_one_window_lie_on_different_ranks(num_ranks):
    grid = WindowGrid(8, 8, 8, 0)
    plan = step_plan(grid, num_ranks, ((0, 0),), None, num_parts=4)
    assert sorted(plan.items) == [(band, 0) for band in range(4)]
    assert sorted(plan.counts, reverse=True) == sorted(
        ([4 // num_ranks + (r < 4 % num_ranks) for r in range(num_ranks)]), reverse=True)


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 5, 9])
def test_every_rank_has_the_features_of_the_windows_whose_parts_it_predicts(num_ranks):
    grid, shifts = WindowGrid(19, 27, 8, 2), ((0, 0), (2, 2), (2, 0))
    plan = step_plan(grid, num_ranks, shifts, None, num_parts=4)
    assert len(set(plan.items)) == len(plan.items)
    assert max(plan.counts) - min(plan.counts) <= 4 * len(shifts)
    for rank in range(num_ranks):
        owned = Ownership(grid, num_ranks, rank, num_parts=4)
        for slot, position in plan.own(rank):
            assert position in owned.turned(slot // 4).positions
