"""One contract for all exchanges, and for one that only tests know (support/everywhere.py): all
ranks simulated in one process, then under a real mpirun."""
import json
from functools import cache
from pathlib import Path

import pytest
import torch

from swinmpi.images.imresize import imresize_tensor
from swinmpi.parallel.comm import Group
from swinmpi.sampling.process import Abandoned
from tests.support.exchanging import (
    EXCHANGES_UNDER_TEST,
    FAMILIES,
    HEIGHT,
    NUM_IMAGES,
    SAMPLERS,
    WIDTH,
    digest,
    joined,
    lr_images,
    make_resolver,
    received_in_steps,
    sample,
)
from tests.support.simulated import on_ranks

PROGRAM = Path(__file__).parents[1] / "programs" / "mpi" / "exchanging.py"
every_exchange = pytest.mark.parametrize("exchange", list(EXCHANGES_UNDER_TEST))


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Bits are promised for one thread a rank, and simulated ranks have no more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@cache
def reference(family, sampler):
    """By the reference exchange on one rank, an image at a time."""
    return torch.cat([joined([sample(Group(), family, sampler, "root", [i])]) for i in (0, 1)])


@every_exchange
@pytest.mark.parametrize("sampler", list(SAMPLERS))
@pytest.mark.parametrize("num_ranks", [1, 2, 3, 5, 9])
def test_the_same_bits_for_any_number_of_ranks(num_ranks, sampler, exchange):
    made = joined(on_ranks(num_ranks, lambda group: sample(group, "bands", sampler, exchange)))
    assert torch.equal(made, reference("bands", sampler))


@every_exchange
@pytest.mark.parametrize("family, sampler", [("bands", "ddpm, random"), ("aligned", "ddim")])
@pytest.mark.parametrize("weights", [(1, 3), (1e-9, 1), (2, 1, 1e-9), (1, 2, 9, 2, 1)])
def test_the_same_bits_for_any_shares(weights, family, sampler, exchange):
    """Also where root, or another rank, owns nothing."""
    def made(group):
        group.weights = weights
        return sample(group, family, sampler, exchange)

    assert torch.equal(joined(on_ranks(len(weights), made)), reference(family, sampler))


@every_exchange
@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "bands"])
@pytest.mark.parametrize("num_ranks", [1, 2, 3])
def test_the_same_bits_for_every_family(num_ranks, family, exchange):
    made = joined(on_ranks(num_ranks, lambda group: sample(group, family, "ddim", exchange)))
    assert torch.equal(made, reference(family, "ddim"))


@every_exchange
@pytest.mark.parametrize("family", ["aligned", "bands"])
@pytest.mark.parametrize("num_ranks", [1, 3])
def test_samples_agree_with_the_lr_image_and_have_the_same_bits(num_ranks, family, exchange):
    made = joined(on_ranks(num_ranks, lambda group: sample(group, family, "ddim", exchange,
                                                           consistency=1.0)))
    one, = [joined([sample(Group(), family, "ddim", "root", consistency=1.0)])]
    assert torch.equal(made, one)
    shrunk = imresize_tensor(made[:, :-1].flatten(0, 1).double(), size=(HEIGHT, WIDTH))
    missed = shrunk.unflatten(0, (NUM_IMAGES, -1)) - lr_images()[:, None]
    assert float(missed.abs().max()) < 3e-6
    assert torch.equal(made[:, -1], reference(family, "ddim")[:, -1]), "the base stays what it was"


def test_the_references_differ():
    """Else the comparisons above would compare nothing."""
    made = [reference("bands", sampler) for sampler in SAMPLERS] + [reference("aligned", "ddim")]
    assert len({digest(images[:, 0]) for images in made}) == len(made)
    samples = made[0][:, :2].flatten(0, 1)
    assert len({digest(image) for image in samples}) == 4, "images and seeds"


@every_exchange
@pytest.mark.parametrize("num_ranks", [1, 3])
def test_every_evaluation_is_watched_on_every_rank(num_ranks, exchange):
    def watched(group):
        seen = []
        sample(group, "bands", "heun", exchange, watch=lambda number, output: seen.append(number))
        return seen

    numbers = list(range(make_resolver("bands", "heun", exchange, Group()).process.num_evaluations))
    assert on_ranks(num_ranks, watched) == [numbers * 2] * num_ranks, "for both seeds"


@every_exchange
@pytest.mark.parametrize("num_ranks", [1, 3])
def test_all_ranks_stop_together(num_ranks, exchange):
    def stopped(group):
        asked = []

        def stopping():
            asked.append(group.rank == group.size - 1 and len(asked) == 3)
            return group.any(asked[-1])

        with pytest.raises(Abandoned):
            sample(group, "bands", "ddim", exchange, stopping=stopping)
        return len(asked)

    assert on_ranks(num_ranks, stopped) == [4] * num_ranks


@every_exchange
@pytest.mark.parametrize("sampler, num_ranks, weights", [
    ("ddim", 2, None), ("ddim", 5, None), ("heun", 2, None), ("heun", 5, None),
    ("ddim", 3, (1, 4, 2))])
def test_what_travels_is_what_the_exchange_says(num_ranks, sampler, weights, exchange):
    """Heun keeps a second tensor, which has to follow x_t where x_t travels in parts."""
    def received(group):
        group.weights = weights
        return received_in_steps(group, sampler, exchange)

    ranks = on_ranks(num_ranks, received)
    kept = make_resolver("bands", sampler, exchange, Group()).process.sampler.num_kept
    channels = 12 * (1 + kept if EXCHANGES_UNDER_TEST[exchange].in_parts else 1)
    counted = [list(of_step) for of_step in zip(*(counts for counts, _ in ranks), strict=True)]
    assert counted == [[4 * channels * pixels for pixels in of_step] for of_step in ranks[0][1]]


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 5])
def test_the_same_bits_under_a_real_mpirun(mpirun, tmp_path, num_ranks):
    finished = mpirun(num_ranks, PROGRAM, tmp_path / "digests.json", timeout_s=600)
    assert (finished.code, finished.err) == (0, ""), finished.err
    digests = json.loads((tmp_path / "digests.json").read_text())
    assert len(digests) == len(EXCHANGES_UNDER_TEST) * (len(SAMPLERS) + len(FAMILIES))
    assert [name for name, made in digests.items()
            if made != digest(reference(*name.split("; ")[:2]))] == []
