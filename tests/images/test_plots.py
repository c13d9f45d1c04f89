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
