"""One contract for all families of model, and for one that only this test knows
(support/bands.py)."""
import numpy as np
import pytest
import torch
from torch import nn

from swinmpi.config import SamplerConfig, load_config
from swinmpi.config.sections import DiffusionConfig
from swinmpi.diffusion.schedule import make_schedule
from swinmpi.families.family import DISTANCES, Batch, Drawing, Encoding, Objective
from swinmpi.families.loading import make_family
from swinmpi.images.imresize import imresize_tensor
from swinmpi.images.lr_rows import LrRows
from swinmpi.parallel.comm import Group
from swinmpi.parallel.device import Computing
from swinmpi.parallel.ownership import Ownership
from swinmpi.parallel.pieces import PieceExchange
from swinmpi.sampling.process import make_process
from swinmpi.sampling.superresolve import EXCHANGES, SuperResolver
from swinmpi.training.objective import TrainingModule, draw_times
from swinmpi.windows.grid import WindowGrid
from tests.support.bands import Bands
from tests.support.training import ALIGNED, LATENT, SRDIFF, THESIS, VANILLA, VIT, WAVELET

SIDE, LR_SIDE, STEPS = 32, 16, 50


def shipped(settings, takes_steps=True):
    return lambda: make_family(load_config(overrides=settings).model, takes_steps)


FAMILIES = {
    "aligned": shipped(ALIGNED),
    "aligned, grey": shipped([*ALIGNED, "model.channels=1"]),
    "aligned, vit": shipped([*ALIGNED, *VIT]),
    "latent": shipped(LATENT),
    "latent, grey": shipped([*LATENT, "model.channels=1"]),
    "wavelet": shipped(WAVELET),
    "wavelet, grey": shipped([*WAVELET, "model.channels=1", "model.band_scaling=common"]),
    "thesis, rrdb": shipped(THESIS),
    "thesis, conv": shipped([*THESIS, "model.encoder=conv"]),
    "thesis, none": shipped([*THESIS, "model.encoder=none"]),
    "thesis, vit": shipped([*THESIS, *VIT]),
    "thesis, lr+x_t": shipped([*THESIS, "model.condition_on=lr+x_t"]),
    "thesis, synthesis": shipped([*THESIS, "model.condition_on=x_t"]),
    "srdiff": shipped(SRDIFF),
    "srdiff, windows": shipped([*SRDIFF, "model.window_px=16"]),
    "vanilla": shipped(VANILLA),
    "vanilla, residual": shipped([*VANILLA, "model.residual_gain=2"]),
    "vanilla, synthesis": shipped([*VANILLA, "model.conditional=false"]),
    "encoder alone": shipped(ALIGNED, takes_steps=False),
    "encoder alone, vit": shipped([*ALIGNED, *VIT], takes_steps=False),
    "autoencoder alone": shipped(LATENT, takes_steps=False),
    "wavelet's encoder alone": shipped(WAVELET, takes_steps=False),
    "rrdb alone": shipped(THESIS, takes_steps=False),
    "srdiff's rrdb alone": shipped(SRDIFF, takes_steps=False),
    "bands": Bands,
}


@pytest.fixture(params=list(FAMILIES))
def family(request):
    torch.manual_seed(0)
    made = FAMILIES[request.param]()
    with torch.no_grad():
        for parameter in made.model.parameters():
            if not parameter.any():
                nn.init.normal_(parameter, std=0.05)
    return made


def x_grid(family, border="reflect"):
    side = SIDE * family.x_px_per_lr_px // family.config.scale
    window_px = family.config.window_px
    return (WindowGrid(side, side, side, border=border) if window_px is None
            else WindowGrid(side, side, window_px, window_px // 4, border))


def make_batch(family, seed=0, num_images=2):
    """A batch of smooth images, all windows of a frame of each."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(
        rng.uniform(-1, 1, (num_images, family.config.channels, 8, 8)).astype(np.float32))
    hr = imresize_tensor(coarse, size=(SIDE, SIDE))
    lr = imresize_tensor(hr, size=(LR_SIDE, LR_SIDE))
    grid = x_grid(family)
    windows = [family.draw(Drawing(grid, "circular", True, 4), rng) for _ in range(num_images)]
    times = [draw_times(family, len(chosen), STEPS, rng) for chosen in windows]
    eps = rng.standard_normal(
        (num_images, family.x_channels, grid.height_px, grid.width_px), dtype=np.float32)
    return Batch(lr, hr, torch.from_numpy(eps), windows, torch.from_numpy(np.concatenate(times)))


def objective_for(family):
    return Objective(make_schedule("cosine", STEPS), "v", DISTANCES["l1"], 20.0, x_grid(family))


def encoding_for(family):
    return Encoding(Ownership(x_grid(family), 1, 0), PieceExchange(Group()), torch.device("cpu"),
                    "fp32", 4, True)


def test_what_is_diffused_gives_the_image_back(family):
    hr = 0.2 * torch.rand(2, family.config.channels, SIDE, SIDE) - 0.1
    base = hr + 0.05 * torch.rand_like(hr) if family.starts_from_lr else torch.zeros_like(hr)
    x_0 = family.x_0(hr, base)
    side = SIDE * family.x_px_per_lr_px // family.config.scale
    assert x_0.shape == (2, family.x_channels, side, side)
    if getattr(family.config, "diffuses_code", False):
        assert torch.equal(family.image(torch.zeros_like(x_0), base), base), "nothing adds nothing"
        assert x_0.any() and not torch.equal(family.image(x_0, base), base)
    elif family.starts_from_lr:
        torch.testing.assert_close(family.image(x_0, base), hr, rtol=0, atol=1e-6)
    if family.starts_from_lr:
        out = torch.empty_like(hr)
        assert family.image(x_0, base, out=out) is out and torch.equal(out, family.image(x_0, base))


def test_a_loss_is_finite_reaches_the_weights_and_falls(family):
    module, batch = TrainingModule(family, objective_for(family)), make_batch(family)
    trained = [parameter for parameter in module.model.parameters() if parameter.requires_grad]
    optimizer, losses = torch.optim.Adam(trained, lr=1e-3), []
    for _ in range(8):
        parts = module(batch)
        assert all(value.isfinite() for value in parts.values())
        assert all(not value.requires_grad for name, value in parts.items() if name != "loss")
        optimizer.zero_grad()
        parts["loss"].backward()
        optimizer.step()
        losses.append(parts["loss"].item())
    assert min(losses[1:]) < losses[0]
    assert [p for p in trained if p.grad is None] == [], (
        "DDP waits for every gradient that it expects")


@torch.no_grad()
def test_a_window_is_told_in_training_what_it_is_told_in_sampling(family, monkeypatch):
    if not family.takes_steps:
        pytest.skip("nothing is told to windows by an encoder alone")
    batch, told = make_batch(family), []
    predict = family.predict

    def noted(x_t, t, *more):
        told.append((x_t, more))
        return predict(x_t, t, *more)

    monkeypatch.setattr(family, "predict", noted)
    family.losses(batch, objective_for(family))
    (x_t, in_training), = told
    assert x_t.shape[1:] == (family.x_channels, *[x_grid(family).window_px] * 2)
    if getattr(family.config, "sees_whole_x_t", False):
        return  # x_t of the batch is not ours to know; tests/families/test_objective.py compares it
    encoding = encoding_for(family)
    conditions = family.conditions([LrRows.whole(lr) for lr in batch.lr], encoding, None)
    in_sampling = []
    for condition, windows in zip(conditions, batch.windows, strict=True):
        condition.prepare(windows[0].shift, [window.position for window in windows], lambda: None)
        in_sampling.append(condition.inputs(windows[0].shift,
                                            [window.position for window in windows]))
    assert len(in_training) == len(in_sampling[0])
    for place, whole in enumerate(in_training):
        torch.testing.assert_close(torch.cat([one[place] for one in in_sampling]), whole, rtol=0,
                                   atol=1e-5)


def resolver_for(family, exchange):
    sampler = SamplerConfig(method="ddim", steps=2, eta=0.5)
    process = make_process(sampler, DiffusionConfig(steps=STEPS), family.config.window_px)
    return SuperResolver(family, process, Computing("cpu"), EXCHANGES[exchange], Group())


@pytest.mark.parametrize("exchange", list(EXCHANGES))
def test_it_samples_whole_images_of_any_size(family, exchange):
    if (exchange != "root"
            and (not family.takes_steps or getattr(family.config, "sees_whole_x_t", False))):
        pytest.skip("refused before a run starts: these look at whole images, "
                    "or are for root alone")
    family.model.eval()
    lr = torch.rand(family.config.channels, 22, 18) - 0.5
    resolver = resolver_for(family, exchange)
    assert all(0 <= rows.start < rows.stop <= 22 for rows in resolver.lr_rows(22, 18, 1))
    size = (22 * family.config.scale, 18 * family.config.scale)
    image, times_covered = torch.full((2, family.config.channels, *size),
                                      torch.nan), torch.zeros(size)
    for part in resolver([LrRows.whole(lr)], [5], [0, 1]):
        rows, cols = (slice(line.start, line.stop) for line in (part.rows, part.cols))
        inner_rows, inner_cols = (slice(line.start - seen.start, line.stop - seen.start) for line,
                                  seen in zip((part.rows, part.cols), part.seen, strict=True))
        image[:, :, rows, cols] = part.samples[:, :, inner_rows, inner_cols]
        times_covered[rows, cols] += 1
    assert (times_covered == 1).all() and image.isfinite().all()
    assert torch.equal(image[0], image[1]) != family.takes_steps, "another seed is another sample"
