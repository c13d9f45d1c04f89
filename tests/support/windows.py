"""One window at a time, for tests of what works on many."""
import torch
from torch import Tensor

from swinmpi.diffusion.noise import draw_window


def unpatchify(windows: Tensor, rows: int, cols: int) -> Tensor:
    """(N, rows*cols, C, w, w) -> (N, C, rows*w, cols*w): the inverse of `patchify`."""
    num_images, _, channels, window, _ = windows.shape
    tiles = windows.reshape(num_images, rows, cols, channels, window, window).permute(
        0, 3, 1, 4, 2, 5)
    return tiles.reshape(num_images, channels, rows * window, cols * window)


def window_noise(seed: int, stack_index: int, step: int, position: int,
                 shape: tuple[int, ...], coherence: float | None = None) -> Tensor:
    """The noise of one window, float32 of the given shape, on the CPU."""
    drawn = torch.empty(shape)
    draw_window(seed, stack_index, step, position, drawn.numpy(), coherence)
    return drawn
