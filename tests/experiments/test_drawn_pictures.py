"""The explaining figures: what an arm asks for, and images of which they cannot be drawn."""
import json

import numpy as np
import pytest
from PIL import Image

from swinmpi.errors import ConfigError
from swinmpi.experiments.definition import load_experiment
from swinmpi.experiments.pictures import FIGURES, LEVEL_DB, draw_figure
from swinmpi.experiments.plan import Request, plan
from tests.support.sampling import smooth_stack


def photographs(folder, images):
    """A folder of pictures."""
    folder.mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number}.png")
    return folder


def planned(tmp_path, images):
    data = photographs(tmp_path / "data", images)
    request = Request("pictures", tmp_path / "run", "smoke", (str(data),), given={
        "data": {"flat_reject": 0.0}})
    return plan(request, load_experiment("pictures"), 1)


def test_every_arm_is_a_figure_that_can_be_drawn():
    assert [arm.name for arm in load_experiment("pictures").arms] == list(FIGURES)


@pytest.mark.parametrize("channels", [1, 3])
def test_figures_are_drawn_of_a_test_photograph(tmp_path, channels):
    rng = np.random.default_rng(0)
    noisy = [(smooth_stack(1, 160, 160, channels, "uint8", seed)[0] // 2
              + rng.integers(0, 60, (160, 160, channels)).squeeze()).astype(np.uint8)
             for seed in range(4)]
    made = planned(tmp_path, noisy)
    for run in made.runs:
        draw_figure(run, made)
        told = json.loads(run.result.read_text())
        with Image.open(tmp_path / "run" / told["picture"]) as picture:
            assert min(picture.size) > 100
    levels = [one["psnr"] for one in told["versions"].values()]
    assert np.allclose(levels, LEVEL_DB, atol=0.2)


def test_a_flat_photograph_cannot_show_distortions(tmp_path):
    made = planned(tmp_path, [np.full((160, 160, 3), 255, np.uint8)] * 4)
    with pytest.raises(ConfigError, match="give other photographs with --data"):
        draw_figure(made.runs[-1], made)
    assert not made.runs[-1].result.exists()
