"""A start from a shipped model is worth it: a few updates on a small grey stack against as many
from nothing, on photographs that neither saw."""
import h5py
import numpy as np
import pytest

from swinmpi.cli.train import main
from swinmpi.demo import DEMO_STACK, shipped
from swinmpi.images.imresize import imresize
from swinmpi.storage.pair_writing import PairWriter
from swinmpi.storage.pairs import TRAIN, VALIDATE
from tests.support.training import as_arguments, log_of

pytestmark = pytest.mark.slow

LUMA = np.array([0.299, 0.587, 0.114])
TRAINED_ON = (0, 1, 2, 5)  # of the demo stack: astronaut and cat; others are coffee, rocket, sky
SHORT = ["train.updates=40", "train.batch_images=2", "train.crop_px=48",
         "train.windows_per_image=2", "train.annealing_share=0.5", "train.warmup_updates=5",
         "train.validate_every=40", "train.validate_images=4", "train.checkpoint_every=40"]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    path = tmp_path_factory.mktemp("pairs") / "grey.h5"
    with h5py.File(shipped(DEMO_STACK)) as file, PairWriter(path, {"scale": 2.0}) as made:
        for number, hr in enumerate(file["entry/reference/hr"][()]):
            grey = np.rint(hr @ LUMA).astype(np.uint8)[:128, :128, None]
            made.append(grey, imresize(grey, size=(64, 64)),
                        TRAIN if number in TRAINED_ON else VALIDATE, f"image {number}")
    return path


def figures(pairs, folder, *overrides):
    words = [*SHORT, f"train.data={pairs}", f"train.output={folder}", *overrides]
    assert main(as_arguments(words)) == 0
    return log_of(folder)[-1]


def test_as_many_updates_are_worth_more_after_a_shipped_model(pairs, tmp_path):
    tuned = figures(pairs, tmp_path / "tuned", "train.init=photos_x2", "train.learning_rate=1e-4")
    anew = figures(pairs, tmp_path / "anew")
    assert tuned["psnr_bicubic"] == anew["psnr_bicubic"]
    for name, gain in (("regression", 1.5), ("sample", 0.0)):
        made, bicubic = tuned[f"psnr_{name}"], tuned["psnr_bicubic"]
        assert made > bicubic + gain and made > anew[f"psnr_{name}"] + 2
