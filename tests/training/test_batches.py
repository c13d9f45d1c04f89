"""Batches: the same images on any number of ranks, every image once an epoch, LR under HR,
made ahead or not."""
import numpy as np
import pytest
import torch

from swinmpi.families.loading import make_family
from swinmpi.images.imresize import imresize_tensor
from swinmpi.storage.pairs import PairReader
from swinmpi.training.batches import BatchSource, Prefetched
from tests.support.training import ALIGNED, THESIS, tiny, write_pairs


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    path = write_pairs(tmp_path_factory.mktemp("pairs") / "pairs.h5", size_px=48, num_train=10)
    with PairReader(path) as reader:
        yield reader


def source(pairs, *overrides, rank=0, size=1, model=ALIGNED):
    config = tiny(pairs.path, "run", *overrides, model=model)
    return BatchSource(config, make_family(config.model), pairs, rank, size)


def joined(batches):
    """One batch of several."""
    windows = [chosen for batch in batches for chosen in batch.windows]
    return [torch.cat([getattr(batch, name) for batch in batches])
            for name in ("lr", "hr", "eps", "t")], windows


def assert_same(mine, others):
    assert (all(torch.equal(a, b) for a, b in zip(mine[0], others[0], strict=True))
            and mine[1] == others[1])


@pytest.mark.parametrize("model", [ALIGNED, THESIS], ids=["aligned", "thesis"])
@pytest.mark.parametrize(("size", "accumulate"), [(2, 1), (4, 1), (1, 4), (2, 2)])
def test_ranks_and_micro_steps_share_one_batch(pairs, model, size, accumulate):
    whole = joined([source(pairs, model=model).batch(5, 0)])
    parts = [source(pairs, f"train.accumulate={accumulate}", rank=rank, size=size, model=model)
             .batch(5, micro_step) for micro_step in range(accumulate) for rank in range(size)]
    assert_same(joined(parts), whole)


def test_an_update_and_the_seed_decide(pairs):
    once = joined([source(pairs).batch(3, 0)])
    assert_same(joined([source(pairs).batch(3, 0)]), once)
    for other in (source(pairs).batch(4, 0), source(pairs, "train.seed=1").batch(3, 0)):
        assert not torch.equal(other.eps, once[0][2]) and not torch.equal(other.hr, once[0][1])


def test_every_image_once_an_epoch_in_a_new_order(pairs):
    made = source(pairs)
    epochs = [[made.image_index(10 * epoch + place) for place in range(10)] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_lr_lies_under_hr_in_every_orientation(pairs):
    made, corners = source(pairs), set()
    for number in range(40):
        batch = made.images([number])
        lr, hr = batch.lr[0].numpy(), batch.hr[0].numpy()
        assert lr.shape == (3, 16, 16) and hr.shape == (3, 32, 32)
        assert lr.dtype == hr.dtype == np.float32 and -1 <= hr.min() < hr.max() <= 1
        shrunk = imresize_tensor(torch.from_numpy(hr[None]), scale=0.5)[0].numpy()
        # Away from the crop's edge, where the stored LR saw more of the image;
        # both are rounded to 8 bits.
        errors = [np.abs(other - lr)[:, 3:-3, 3:-3].mean()
                  for other in (shrunk, shrunk[:, ::-1], np.roll(shrunk, 1, 2))]
        assert errors[0] < 1.5 / 255 < 10 / 255 < min(errors[1:])
        corners.add(hr[0, 0, 0].item())
    assert len(corners) > 30


def test_times_belong_to_windows_or_to_images(pairs):
    batch = source(pairs, "train.windows_per_image=3").batch(0, 0)
    assert batch.t.shape == (12,) and len(set(batch.t.tolist())) > 6
    batch = source(pairs, "train.batch=image", model=THESIS).batch(0, 0)
    assert [len(windows) for windows in batch.windows] == [4] * 4
    assert all(len(set(times.tolist())) == 1 for times in batch.t.split(4))
    assert 0 <= batch.t.min() and batch.t.max() < 50


@pytest.mark.parametrize("accumulate", [1, 2])
def test_batches_made_ahead_are_the_same(pairs, accumulate):
    plain = source(pairs, f"train.accumulate={accumulate}")
    with Prefetched(plain) as ahead:
        # Out of turn at the start, as after a resume, and again later.
        for update, micro_step in [(7, 0), *[(u, m) for u in (7, 8, 9) for m in range(accumulate)],
                                   (2, 0)]:
            assert_same(joined([ahead.batch(update, micro_step)]),
                        joined([plain.batch(update, micro_step)]))
