"""Thesis 3.2.5: windows of one image, or independent and identically distributed ones."""
import numpy as np
import pytest

from swinmpi.experiments.definition import load_experiment, resolved
from swinmpi.storage.pairs import PairReader
from swinmpi.training.batches import BatchSource
from swinmpi.training.objective import make_training_module
from tests.support.training import write_pairs


@pytest.fixture(scope="module")
def batches(tmp_path_factory):
    """(the first batch of every arm, its configuration), at budget short, by the arm's name."""
    experiment = load_experiment("iid_batch")
    pairs = write_pairs(tmp_path_factory.mktemp("pairs") / "pairs.h5", size_px=64, num_train=40)
    made = {}
    with PairReader(pairs) as reader:
        for arm in experiment.arms:
            config = resolved(experiment, arm, "short", {})
            source = BatchSource(config, make_training_module(config).family, reader, 0, 1)
            made[arm.name] = source.batch(0, 0), config
    return made


def test_an_update_has_as_many_windows(batches):
    counts = {name: [len(windows) for windows in batch.windows]
              for name, (batch, _) in batches.items()}
    assert sum(counts["iid"]) == sum(counts["image"]) == 16
    assert set(counts["image"]) == {4}, "all windows of an image"
    assert set(counts["iid"]) == {1}, "every window has an image of its own"


def test_every_independent_window_has_a_time_and_a_place_of_its_own(batches):
    """Times of four windows of an image are one; those of 16 images are 16 drawn of 100."""
    image, iid = (batches[name][0] for name in ("image", "iid"))
    assert len(np.unique(image.t)) <= 4 and (image.t.reshape(4, 4) == image.t[::4, None]).all()
    assert len(np.unique(iid.t)) > 10
    assert len({window.position for windows in iid.windows for window in windows}) == 4
    assert len({window.shift for windows in iid.windows for window in windows}) == 4
    images = iid.hr.flatten(1)
    assert len({image.numpy().tobytes() for image in images}) == 16


def test_the_learning_rate_falls_alike(batches):
    """An epoch of four times as many images an update counts a quarter."""
    rates = {config.train.annealing_epochs / config.train.batch_images
             for _, config in batches.values()}
    assert len(rates) == 1
