"""How x_t travels between ranks: the contract of an exchange.

An exchange holds x_t of some images wherever it lives, predicts, advances and finishes; it is the
`State` of the reverse loop. A new exchange is one file, one line in EXCHANGES (superresolve.py) and
its name among the settings.
"""
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from swinmpi.diffusion.reverse import State
from swinmpi.families.family import Condition, Family
from swinmpi.images.figures import BORDER_LR_PX
from swinmpi.parallel.comm import Group
from swinmpi.parallel.ownership import Ownership
from swinmpi.parallel.pieces import PieceExchange
from swinmpi.parallel.shares import Weights
from swinmpi.sampling.effort.tally import Tally
from swinmpi.sampling.predictor import Predictor
from swinmpi.sampling.process import ReverseProcess, Shift
from swinmpi.windows.grid import WindowGrid
from swinmpi.windows.moves import Rect


@dataclass(frozen=True, eq=False)
class FinishedPart:
    """A rectangle of a finished image on the rank that made it, values around -1..1.

    slot: which of the images; rows, cols: the SR pixels it stands for; seen: rows and columns
    of the tensors, more by the border that what is still to be done with it looks at. samples
    (K, C, h, w), one per seed; base (C, h, w): what they add detail to. agrees: whether samples
    shrink to the LR image, so that their rounding should as well; `seen` is whole LR pixels then.
    before: (k, C', h, w), samples that were made earlier and come first, of the stack's channels.
    """

    slot: int
    rows: range
    cols: range
    seen: tuple[range, range]
    samples: Tensor
    base: Tensor
    agrees: bool = False
    before: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Work:
    """What an exchange has to do on this rank: images of one size, of one family and process.

    border_lr_px: what finished parts hold around their own pixels, see FinishedPart.seen. tally:
    where an exchange that spares windows counts them.
    """

    family: Family
    process: ReverseProcess
    ownership: Ownership
    pieces: PieceExchange
    predictor: Predictor
    border_lr_px: int = BORDER_LR_PX
    tally: Tally = field(default_factory=Tally)

    @property
    def grid(self) -> WindowGrid:
        """The windows over x_t."""
        return self.ownership.grid

    @property
    def group(self) -> Group:
        return self.pieces.group

    @property
    def device(self) -> torch.device:
        """Where x_t, the conditions and the network of this rank are."""
        return self.predictor.device

    @property
    def factor(self) -> int:
        """SR pixels along one pixel of x_t."""
        return self.family.config.scale // self.family.x_px_per_lr_px

    @property
    def joins(self) -> tuple[bool, bool]:
        """Whether rows, and columns, of an image come round for all that looks at them."""
        return self.grid.joins if self.family.joins_edges else (False, False)

    @cached_property
    def sr_grid(self) -> WindowGrid:
        """The windows over the SR image."""
        grid, factor = self.grid, self.factor
        return WindowGrid(grid.height_px * factor, grid.width_px * factor, grid.window_px * factor,
                          grid.max_shift_px * factor, grid.border)


class Exchange(State, Protocol):
    """x_t of some images of one size. The same calls on every rank of the group: all of them, and
    iterating over `shared`, are collective."""

    in_parts: bool
    """Whether finished images lie in parts on the ranks that made them, each of which then reads
    the LR rows that it needs; else all is read and finished on root."""
    in_turn: bool
    """Whether ranks own other windows in every image of a step (`Ownership.turned`), so that
    together they are as many for each."""
    shares_parts: bool
    """Whether parts of a window (`Family.num_parts`) may be predicted on different ranks."""
    work: Work
    rects: Sequence[Rect]
    """What of the finished images lies here, in px of x_t; disjoint, over all ranks the image."""
    conditions: list[Condition]
    """By image slot; set before the first prediction."""

    def __init__(self, work: Work):
        """For any number of images of one size, one after the other."""

    @staticmethod
    def received_pixels(grid: WindowGrid, num_ranks: int, shifts: Sequence[Shift],
                        weights: Weights | None = None) -> list[list[int]]:
        """Pixels of x_t that travel to each rank, by change from one of `shifts` to the next. Pure
        arithmetic."""

    def room_for_residuals(self, num_images: int) -> list[Tensor] | None:
        """See `Family.conditions`: where root wants whole residuals."""

    def start(self, stack_indices: Sequence[int], seed: int) -> None:
        """x_T of these images."""

    def finish(self) -> list[list[Tensor]]:
        """x_0 by image slot and place in `rects`, (C, h, w), with `Family.reach_px` more on
        every side; x_t is let go of."""

    def shared(self, slot: int, parts: Sequence[Tensor]) -> Iterator[FinishedPart]:
        """A finished image, given by the samples and, last, the base over each of `rects`,
        ((K + 1), C, h, w), on the SR grid: this rank's rectangles of it, with the borders
        that others hold."""


def scaled(rect: Rect, factor: int) -> Rect:
    """A rectangle of x_t on the SR grid."""
    return Rect(rect.rank, *(range(line.start * factor, line.stop * factor)
                             for line in (rect.rows, rect.cols)))
