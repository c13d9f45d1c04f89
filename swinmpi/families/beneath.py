"""Families whose windows are told what lies beneath them: the windows of an image as large as the
SR image, made once. With one window over the whole image that is this image itself."""
from collections.abc import Callable, Sequence

from torch import Tensor
from torch.nn import functional

from swinmpi.families.family import Batch, Encoding, Family, Objective, Shift, cut_windows
from swinmpi.windows.canvas import Canvas
from swinmpi.windows.grid import WindowGrid, source_index, whole_image_px
from swinmpi.windows.moves import Block, Rect
from swinmpi.windows.tiles import Tiled


def distance_on_windows(family: Family, batch: Batch, objective: Objective, x_0: Tensor,
                        told: Sequence[Tensor]) -> Tensor:
    """How far predictions are from what is wanted, on the windows of x_0 (B, C, H, W) and of
    `told`, each (B, F, H, W)."""
    grid = objective.grid
    x_0, eps, *told = (cut_windows(image, batch, grid) for image in (x_0, batch.eps, *told))
    return objective.on_windows(family.predict, x_0, eps, batch.t, told)


def predict_beneath(network: Callable[..., Tensor], x_t: Tensor, t: Tensor,
                    *told: Tensor) -> Tensor:
    """The network on x_t (n, C, w, w) where it is told something, (n, F, h, w') at the upper left,
    and zero elsewhere: an oblong image does not fill its square window."""
    if not told:
        return network(x_t, t)
    height, width = told[0].shape[-2:]
    output = network(x_t[..., :height, :width], t, *told)
    return functional.pad(output, (0, x_t.shape[-1] - width, 0, x_t.shape[-2] - height))


class Beneath:
    """A condition: what lies beneath the windows of one image, (F, H, W) on the SR grid."""

    def __init__(self, whole: Tensor | None, encoding: Encoding):
        """whole: None where nothing is told, or to a rank without windows."""
        self.grid = encoding.ownership.grid
        alone = whole is not None and self.grid.num_positions == 1
        self.whole = covered(whole, self.grid) if alone else None
        self.tiled = None if whole is None or alone else surrounded(whole, self.grid)

    def prepare(self, shift: Shift, positions: Sequence[int], x_t: Callable[[], Tensor]) -> None:
        """Nothing to do: it depends neither on the shift nor on x_t."""

    def inputs(self, shift: Shift, positions: Sequence[int]) -> tuple[Tensor, ...]:
        """(what lies beneath, (n, F, w, w), of the only window no more than is needed,) or
        nothing."""
        if self.tiled is not None:
            return (self.tiled.cut(shift, positions),)
        return () if self.whole is None else (self.whole.expand(len(positions), -1, -1, -1),)

    def residual(self, rect: Rect) -> None:
        """Nothing is added to the base."""


def covered(whole: Tensor, grid: WindowGrid) -> Tensor:
    """(F, H, W) with its border grown to sides that a network can halve."""
    rows, cols = (source_index(0, whole_image_px(size), size, grid.window_px, grid.border,
                               whole.device) for size in whole.shape[-2:])
    return whole[:, rows[:, None], cols].contiguous()


def surrounded(whole: Tensor, grid: WindowGrid) -> Tiled:
    """(F, H, W) with all around it that windows show at any shift."""
    block = Block(range(grid.rows), range(grid.cols))
    rect = block.canvas(grid)
    rows, cols = (source_index(line.start, len(line), size, grid.window_px, grid.border,
                               whole.device)
                  for line, size in zip((rect.rows, rect.cols), whole.shape[-2:], strict=True))
    canvas = Canvas(whole[:, rows[:, None], cols], rect.rows.start, rect.cols.start)
    return Tiled(grid, [block], [canvas])


def has_windows(encoding: Encoding, slot: int) -> bool:
    """Whether this rank will be asked about any window of an image."""
    return bool(encoding.ownership_of(slot).positions)
