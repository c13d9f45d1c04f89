"""Micro-batches of several sizes: the same bits on any number of ranks, by either exchange."""
from dataclasses import replace

import pytest
import torch

from swinmpi.parallel.comm import Group
from swinmpi.sampling import superresolve
from swinmpi.sampling.distribution import calls_of
from tests.support import exchanging
from tests.support.simulated import on_ranks


@pytest.fixture(autouse=True)
def square_images(monkeypatch):
    """Of 5 x 5 windows, and one thread, as bits are promised for one thread a rank."""
    monkeypatch.setattr(exchanging, "HEIGHT", 35)
    monkeypatch.setattr(exchanging, "WIDTH", 35)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def sampled(num_ranks: int, family: str, exchange: str) -> torch.Tensor:
    def on_rank(group: Group) -> dict:
        resolver = exchanging.make_resolver(family, "ddim", exchange, group)
        resolver.computing = replace(resolver.computing, micro_batch="auto")
        lr = exchanging.rows_for(resolver, exchanging.lr_images())
        return {(part.slot, part.rows, part.cols): torch.cat(
            [part.samples, part.base[None]])[
                :, :, part.rows.start - part.seen[0].start:part.rows.stop - part.seen[0].start,
                part.cols.start - part.seen[1].start:part.cols.stop - part.seen[1].start].clone()
            for part in resolver(lr, [10, 11], exchanging.SEEDS)}

    return exchanging.joined(on_ranks(num_ranks, on_rank))


@pytest.mark.parametrize("family", ["aligned", "thesis"])
@pytest.mark.parametrize("exchange", list(superresolve.EXCHANGES))
@pytest.mark.parametrize("num_ranks", [2, 3, 7])
def test_the_same_bits_on_any_number_of_ranks(family, exchange, num_ranks):
    assert torch.equal(sampled(num_ranks, family, exchange), sampled(1, family, "root"))


def test_the_images_have_calls_of_two_sizes():
    resolver = exchanging.make_resolver("aligned", "ddim", "root", Group())
    grid = resolver.exchange_for(35, 35).work.grid
    assert calls_of("auto", resolver.family.config, grid, "cpu").told == "4+2"
