"""Batches: the same images on any number of ranks, every image once an epoch, LR under HR,
made ahead or not."""
import numpy as np
import pytest
import torch

from swinmpi.families.loading import make_family
from swinmpi.images.imresize import imresize_tensor
from swinmpi.storage.pair_writing import PairWriter
from swinmpi.storage.pairs import TRAIN, VALIDATE, PairReader
from swinmpi.training.batches import BatchSource, Prefetched, keyed_rng, oriented
from swinmpi.training.crops import FromFile, Held, bytes_held
from swinmpi.training.objective import drawn_there
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


@pytest.mark.parametrize("overrides", [[], ["train.batch=image"], ["train.augment=false"]])
@pytest.mark.parametrize("deep", [False, True], ids=["8 bit", "16 bit"])
@pytest.mark.parametrize("channels", [1, 3])
def test_pairs_held_on_the_device_give_the_batches_of_the_file(tmp_path, deep, channels, overrides):
    rng, kind = np.random.default_rng(0), np.uint16 if deep else np.uint8
    with PairWriter(tmp_path / "pairs.h5", {"scale": 2.0}) as writer:
        for number in range(9):
            hr = rng.integers(0, np.iinfo(kind).max, (48, 48, channels), kind, endpoint=True)
            writer.append(hr, hr[::2, 1::2].copy(), VALIDATE if number % 3 == 1 else TRAIN, "x")
    with PairReader(tmp_path / "pairs.h5") as reader:
        plain = source(reader, f"model.channels={channels}", *overrides)
        plain.crops = FromFile(reader, torch.device("cpu"))
        held = source(reader, f"model.channels={channels}", *overrides)
        held.crops = Held(reader, torch.device("cpu"))
        for update in range(4):
            assert_same(joined([held.batch(update, 0)]), joined([plain.batch(update, 0)]))
        assert bytes_held(reader) == 6 * (48**2 + 24**2) * channels * (1 + deep)
        assert held.batch(0, 0).hr.max() > 0.98 and held.batch(0, 0).hr.min() < -0.98


def test_orientations_are_those_of_numpy():
    images = torch.arange(8 * 5 * 5 * 3).view(8, 5, 5, 3)
    for turn, (image, turned) in enumerate(zip(images, oriented(images, range(8)), strict=True)):
        wanted = np.rot90(image.numpy(), turn % 4)
        np.testing.assert_array_equal(turned, wanted[:, ::-1] if turn > 3 else wanted)


def test_noise_of_a_device_belongs_to_the_image():
    def rngs(*numbers):
        return [keyed_rng(0, number, 1) for number in numbers]

    device = torch.device("cpu")
    whole = drawn_there((3, 40, 40), rngs(4, 5, 6), device)
    assert torch.equal(whole[1:], drawn_there((3, 40, 40), rngs(5, 6), device))
    assert abs(whole.mean()) < 0.05 and abs(whole.std() - 1) < 0.05
    assert not torch.equal(whole[0], whole[1])


def test_several_threads_make_batches_ahead(pairs):
    plain = source(pairs)
    with Prefetched(plain, 3) as ahead:
        for update in (5, 6, 7, 8, 2, 3):
            assert_same(joined([ahead.batch(update, 0)]), joined([plain.batch(update, 0)]))
            assert len(ahead.ordered) == 3
