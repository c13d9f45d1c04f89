"""Smooth gradients through the shipped model: no step at the borders of its windows."""
import numpy as np
import pytest

from swinmpi.cli.sample import main
from swinmpi.demo import DEMO_MODEL, SHIPPED, shipped
from tests.support.sampling import arguments, sr_of, write_stack

HEIGHT, WIDTH, WINDOW_PX = 60, 84, 48


def gradients() -> np.ndarray:
    """(3, HEIGHT, WIDTH, 3) float32 in grey levels: a ramp, a faint ramp, a sky."""
    y, x = np.meshgrid(np.arange(HEIGHT) / HEIGHT, np.arange(WIDTH) / WIDTH, indexing="ij")
    sky = 200 - 60 * np.hypot(y - 0.15, x - 0.7)
    images = [60 + 120 * x, 100 + 4 * y, sky]
    return np.stack([np.stack([image - 20, image - 8, image], axis=-1)
                     for image in images]).astype(np.float32)


def step_at_borders(image: np.ndarray) -> float:
    """The highest step across a window border over the gradients beside it, of means along the
    border, in grey levels. Borders of windows that are shifted by a quarter are looked at too."""
    steps, quarter = [], WINDOW_PX // 4
    for axis in (0, 1):
        gradient = np.diff(image.astype(np.float64).mean(axis=1 - axis), axis=0)
        at = np.concatenate([np.arange(first, len(gradient), WINDOW_PX) - 1
                             for first in (WINDOW_PX, quarter, 3 * quarter)])
        steps.append(np.abs(gradient[at] - (gradient[at - 1] + gradient[at + 1]) / 2).max())
    return max(steps)


def test_the_measure_finds_a_step():
    image = np.repeat(np.repeat(gradients()[0], 2, axis=0), 2, axis=1)
    image[:, WINDOW_PX:] += 1
    smooth = np.broadcast_to(np.linspace(0, 50, 2 * WIDTH)[None, :, None], image.shape)
    assert step_at_borders(smooth) < 1e-6 and step_at_borders(image) > 0.5


# Grey levels, docs/trust.md.
@pytest.mark.slow
@pytest.mark.parametrize("preset,dtype,limit", [
    ("regression", "float32", 0.1), ("regression", "uint16", 0.1), ("balanced", "float32", 0.5),
    ("detailed", "float32", 0.5), ("faithful", "float32", 0.5), ("fast", "float32", 0.5)])
def test_how_smooth_smooth_gradients_stay(tmp_path, preset, dtype, limit):
    gain = 1 if dtype == "float32" else 256
    images = np.round(gradients() * gain) if gain > 1 else gradients()
    stack, output = write_stack(tmp_path / "lr.h5", images.astype(dtype)), tmp_path / "out.h5"
    checkpoint = shipped(SHIPPED[DEMO_MODEL].file_of(preset))
    assert main(arguments(stack, output, checkpoint, f"--preset={preset}",
                          f"output.value_range=[0, {255 * gain}]")) == 0
    assert max(step_at_borders(image / gain) for image in sr_of(output)) < limit
