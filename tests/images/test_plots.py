"""Curves are drawn from a log; a missing matplotlib is one clear line."""
import subprocess
import sys

import pytest
from PIL import Image

from swinmpi.images import plots

RECORDS = [{"update": 50 * i, "loss": 1 / i, "learning_rate": 3e-4} for i in range(1, 20)] + [
    {"update": 500, "psnr_bicubic": 27.8, "psnr_sample": 28.9},
    {"update": 1000, "psnr_sample": 29.3}]


@pytest.mark.parametrize("records", [RECORDS, RECORDS[:3], []])
def test_curves_are_a_picture(records, tmp_path):
    pytest.importorskip("matplotlib")
    plots.plot_curves(records, tmp_path / "curves.png")
    assert Image.open(tmp_path / "curves.png").width > 400


def test_without_matplotlib_the_error_says_what_to_install(tmp_path):
    program = ("import sys; sys.modules['matplotlib'] = None\n"
               "from swinmpi.errors import SwinmpiError\n"
               "from swinmpi.images.plots import plot_curves\n"
               "try: plot_curves([], 'curves.png')\n"
               "except SwinmpiError as error: print(error)")
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                              cwd=tmp_path, timeout=60)
    assert finished.stdout.strip() == ("curves.png: drawing curves needs matplotlib; "
                                       "pip install 'swinmpi[plot]'")
    assert not list(tmp_path.iterdir())


def test_runs_are_overlaid(tmp_path):
    pytest.importorskip("matplotlib")
    runs = {f"step {number}": [{"update": k, "seconds": 2.0 * k, "loss": (1 + number) / k}
                               for k in range(1, 200)] + [{"update": 100, "psnr_sample": 30}]
            for number in range(7)}
    plots.plot_overlaid(runs, tmp_path / "updates.png")
    plots.plot_overlaid(runs, tmp_path / "seconds.png", ["loss", "psnr_sample"], over="seconds")
    updates, seconds = (Image.open(tmp_path / f"{name}.png") for name in ("updates", "seconds"))
    assert updates.size == seconds.size and updates.tobytes() != seconds.tobytes()
    with pytest.raises(ValueError, match="expected logs with ssim over update"):
        plots.plot_overlaid(runs, tmp_path / "none.png", ["ssim"])
    assert not (tmp_path / "none.png").exists()


def test_a_smoothed_line_keeps_its_places_and_its_mean():
    points = [(k, (-1.0) ** k) for k in range(400)]
    smooth = plots.smoothed(points)
    assert [at for at, _ in smooth] == list(range(400))
    assert max(abs(value) for _, value in smooth) < 0.3
    assert plots.smoothed(points[:20]) == points[:20]
