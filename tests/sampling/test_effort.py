"""Easy tiles take the last steps alone: which windows are evaluated, and that neither ranks nor
exchange can be seen in what becomes of it."""
from functools import cache

import pytest
import torch

from swinmpi.config import SamplerConfig
from swinmpi.config.sections import DiffusionConfig
from swinmpi.diffusion.path import path_of
from swinmpi.diffusion.process import to_x_0
from swinmpi.diffusion.samplers import make_sampler
from swinmpi.families.difficulty import tile_means
from swinmpi.families.family import Encoding
from swinmpi.images.lr_rows import LrRows
from swinmpi.parallel.comm import Group
from swinmpi.parallel.ownership import Ownership
from swinmpi.parallel.pieces import PieceExchange
from swinmpi.parallel.root import deal_out
from swinmpi.sampling.effort.tiles import hard_tiles
from swinmpi.windows.grid import WindowGrid, live_positions
from swinmpi.windows.regions import positions_over
from tests.support import exchanging
from tests.support.exchanging import joined, make_resolver, sample
from tests.support.simulated import on_ranks

HALF = {"adaptive": 0.5, "adaptive_by": "detail"}
ADAPTIVE = {
    "ddim": {"steps": 4},
    "ddpm, wrap": {"method": "ddpm", "steps": 3, "shift": {"border": "wrap"}},
    "heun": {"method": "heun", "steps": 3, "adaptive_steps": 2},
    "straight": {"path": "straight", "method": "euler", "steps": 3},
    "overlap": {"steps": 3, "overlap": 2, "shift": {"max_px": 8}},
    "dpmpp_2m, random": {"method": "dpmpp_2m", "steps": 4, "shift": {"pattern": "random"}},
}


@pytest.fixture(autouse=True)
def samplers(monkeypatch):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for name, settings in ADAPTIVE.items():
        monkeypatch.setitem(exchanging.SAMPLERS, name, {**HALF, **settings})
        monkeypatch.setitem(exchanging.SAMPLERS, f"{name}, plain", {
            key: value for key, value in settings.items() if key != "adaptive_steps"})
        for share in (0.0, 1.0):
            monkeypatch.setitem(exchanging.SAMPLERS, f"{name}, {share}",
                                {**HALF, **settings, "adaptive": share})
    yield
    torch.set_num_threads(threads)


@cache
def alone(sampler):
    """On one rank, an image at a time."""
    return torch.cat([joined([sample(Group(), "aligned", sampler, "root", [i])]) for i in (0, 1)])


@pytest.mark.parametrize("exchange", ["root", "torus"])
@pytest.mark.parametrize("num_ranks, names", [
    (1, ["ddim"]), (2, [*ADAPTIVE, "ddim, 1.0"]), (3, ["heun"]), (5, ["ddpm, wrap"]),
    (13, ["ddim"])])
def test_the_same_bits_for_any_number_of_ranks(num_ranks, names, exchange):
    for name in names:
        made = joined(on_ranks(num_ranks, lambda group: sample(
            group, "aligned", name, exchange)))  # noqa: B023
        assert torch.equal(made, alone(name)), name


@pytest.mark.parametrize("name", ["ddim", "heun"])
def test_with_nothing_easy_it_is_the_plain_run(name):
    plain = alone(f"{name}, plain")
    assert torch.equal(alone(f"{name}, 0.0"), plain)
    assert not torch.equal(alone(name), plain)
    assert torch.equal(alone(name)[:, -1], plain[:, -1]), "the base"


@pytest.mark.parametrize("name", ["ddim", "straight"])
def test_with_all_easy_only_the_last_step_is_made(name):
    """From the regression under the noise that the path has there."""
    resolver = make_resolver("aligned", f"{name}, 1.0", "root", Group())
    exchange, seen = resolver.exchange_for(exchanging.HEIGHT, exchanging.WIDTH), []
    lr = [LrRows.whole(exchanging.lr_images()[0])]
    for _ in resolver(lr, [10], [0], watch=lambda number, output: seen.append(exchange.x_t)):
        pass
    sampler, tally = resolver.process.sampler, resolver.tally
    steps = len(sampler.evaluations)
    live = sum(len(live_positions(exchange.grid, resolver.process.shift_at(0, 10, number)))
               for number in range(steps))
    last = len(live_positions(exchange.grid, resolver.process.shift_at(0, 10, steps - 1)))
    assert (sampler.spared, tally.all, tally.made) == (steps - 1, live, last)
    exchange.start([10], 0)
    x_T, t = exchange.x_t, sampler.evaluations[-1].t
    noise = x_T / sampler.initial_std * sampler.path.amplitudes(t)[1]
    torch.testing.assert_close(seen[-2], noise, rtol=0, atol=2e-6)


@pytest.mark.parametrize("method, path", [("ddim", "curved"), ("ddpm", "curved"),
                                          ("dpmpp_2m", "curved"), ("heun", "curved"),
                                          ("euler", "straight"), ("heun", "straight")])
@pytest.mark.parametrize("prediction", ["v", "x_0", "eps"])
@pytest.mark.parametrize("last", [1, 2, 5])
def test_what_is_spared_ends_where_the_last_steps_begin(method, path, prediction, last):
    if (path, prediction) == ("straight", "eps"):
        return
    diffusion = DiffusionConfig(steps=100, path=path, prediction=prediction)
    sampler = make_sampler(SamplerConfig(method=method, steps=5, adaptive=0.5, adaptive_steps=last,
                                         overlap=2), diffusion, path_of(diffusion))
    alone = make_sampler(SamplerConfig(method=method, steps=5, overlap=2), diffusion,
                         path_of(diffusion))
    assert sampler.evaluations == alone.evaluations and alone.spared == 0
    late = sampler.evaluations[sampler.spared:]
    assert [late[0].t, len({one.t for one in late})] == [20 * last - 1, last]
    if last == 5:
        assert sampler.spared == 0
    x_t = torch.randn(1, 1, 4, 4)
    for number in range(sampler.spared):
        x_0 = to_x_0(prediction, x_t * sampler.base_factor(number), x_t,
                     sampler.evaluations[number].t, sampler.path)
        assert float(x_0.abs().max()) < 1e-3


@pytest.mark.parametrize("border", ["reflect", "wrap"])
@pytest.mark.parametrize("shift", [(0, 0), (3, 4), (4, 0)])
def test_a_window_is_over_a_tile_while_it_shows_a_pixel_of_it(border, shift):
    grid = WindowGrid(37, 22, 8, 4, border)
    rng = torch.Generator().manual_seed(3)
    for tile_px in (5, 16):
        tiles = -(-37 // tile_px), -(-22 // tile_px)
        marked = torch.rand(tiles, generator=rng) < 0.2
        high, wide = grid.rows * 8, grid.cols * 8
        found = set()
        for y, x in torch.cartesian_prod(torch.arange(37), torch.arange(22)).tolist():
            if marked[y // tile_px, x // tile_px]:
                found.add((y + shift[0]) % high // 8 * grid.cols + (x + shift[1]) % wide // 8)
        assert positions_over(marked, tile_px, grid, shift) == found
    whole = torch.ones(1, 1, dtype=torch.bool)
    assert positions_over(whole, 64, grid, shift) == set(live_positions(grid, shift))


def test_the_easiest_tiles_are_a_share_of_them():
    tiles = torch.tensor([[3.0, 1.0, 2.0], [1.0, 0.5, 9.0]])
    counts = [int(hard_tiles(tiles, share).sum()) for share in (0, 0.1, 0.5, 0.7, 1)]
    assert counts == [6, 5, 3, 2, 0]
    assert hard_tiles(tiles, 1 / 3).tolist() == [[True, False, True], [True, False, True]]


@pytest.mark.parametrize("num_ranks", [1, 3])
@pytest.mark.parametrize("by", ["detail", "head"])
def test_tiles_are_measured_in_blocks_as_in_the_whole_image(num_ranks, by):
    """An image of two blocks, by ranks that own other windows of it."""
    family = exchanging.FAMILIES["aligned"]()
    encoder = family.model.encoder
    torch.manual_seed(0)
    encoder.difficulty = torch.nn.Conv2d(encoder.num_features, 1, 1)
    lr = torch.rand(3, 150, 20, generator=torch.Generator().manual_seed(1)) * 2 - 1
    grid = WindowGrid(300, 40, 16, 4)

    @torch.no_grad()
    def measured(group):
        encoding = Encoding(Ownership(grid, group.size, group.rank), PieceExchange(group),
                            torch.device("cpu"), "fp32", 4, True, difficulty=by, anywhere=True)
        conditions = family.conditions([LrRows.whole(lr)], encoding, None)
        return (conditions[0].difficulty, conditions[0].inputs((2, 4), range(grid.num_positions)))

    with torch.no_grad():
        features = encoder.upsample(encoder.trunk(lr[None]))[0]
        pixels = (features[-3:].abs().mean(0) if by == "detail"
                  else encoder.log_difficulty(features[None])[0, 0].exp())
    of_ranks = on_ranks(num_ranks, measured)
    for difficulty, told in of_ranks:
        assert difficulty.tile_px == 32 and difficulty.tiles.shape == (10, 2)
        torch.testing.assert_close(difficulty.tiles, tile_means(pixels, 32), rtol=1e-4, atol=1e-5)
        assert torch.equal(difficulty.tiles, of_ranks[0][0].tiles)
        assert torch.equal(told[0], of_ranks[0][1][0]), "every rank has the features of all windows"


def test_windows_are_dealt_out_evenly():
    items = [(slot, position) for slot in range(2) for position in (3, 7, 8, 11)]
    plan = deal_out(items, 3)
    assert plan.counts == (3, 3, 2)
    assert [item for rank in range(3) for item in plan.own(rank)] == items
    assert deal_out([], 2).counts == (0, 0)
