"""FID: the distance against closed forms and scipy's matrix root; Inception from a file."""
import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from swinmpi.errors import CheckpointError
from swinmpi.images import frechet
from swinmpi.images.metrics import frechet_distance
from tests.support.inception import write_inception


def features(num_images, num_features, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(rng.normal(size=num_features), 1, (num_images, num_features)) @ rng.normal(
        size=(num_features, num_features))


@pytest.mark.parametrize("sizes", [(40, 30), (5, 7), (40, 4)])
def test_the_distance_is_that_of_the_formula(sizes):
    """More images than features, fewer, and one of each."""
    a, b = (features(size, 8, seed) for seed, size in enumerate(sizes))
    spreads = [np.cov(values, rowvar=False) for values in (a, b)]
    wanted = (((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(spreads[0] + spreads[1])
              - 2 * np.trace(sqrtm(spreads[0] @ spreads[1]).real))
    assert frechet_distance(a, b) == pytest.approx(wanted, rel=1e-4)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a))


def test_closed_forms():
    a = features(20, 6)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a + 0.5, a) == pytest.approx(6 * 0.25)
    spread = np.trace(np.cov(a, rowvar=False))
    middle = a - a.mean(axis=0)
    assert frechet_distance(3 * middle, middle) == pytest.approx(4 * spread)
    assert np.isnan(frechet_distance(a[:1], a))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_inception(tmp_path_factory.mktemp("torch"))


def test_inception_from_its_file(weights, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(weights.parents[2]))
    assert frechet.default_inception() == weights
    made = frechet.load_inception(weights)
    image = np.random.default_rng(0).uniform(-1, 1, (40, 30, 3))
    assert made(image).shape == (2048,) and made(image).dtype == np.float64
    stored = np.rint(image * 127.5 + 127.5) / 127.5 - 1
    assert np.array_equal(made(image), made(stored)), "as 8 bit sees it"
    assert not np.array_equal(made(image), made(-image))
    assert np.array_equal(made(image[..., 0]), made(image[..., :1]))


def test_bad_weights_are_one_clear_line(weights, tmp_path):
    damaged, foreign = tmp_path / "damaged.pth", tmp_path / "foreign.pth"
    damaged.write_bytes(weights.read_bytes()[:1000])
    torch.save({"weight": torch.zeros(3)}, foreign)
    for path, complaint in [(damaged, "not a readable weights file"),
                            (foreign, "expected the weights of torch-fidelity's Inception"),
                            (tmp_path / "absent.pth", "found no file")]:
        with pytest.raises(CheckpointError, match=complaint) as caught:
            frechet.load_inception(path)
        assert "\n" not in str(caught.value) and frechet.WEIGHTS_URL in str(caught.value)
