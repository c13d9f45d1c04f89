"""What a model family is: what it diffuses, what its network is told, in training and in sampling.

A new family is one file here, its networks in models/, its section in config/, and one line in
families/loading.py. Nobody else asks which family a model is of.
"""
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from swinmpi.diffusion.path import Path
from swinmpi.diffusion.process import q_sample, target
from swinmpi.images.imresize import imresize_tensor
from swinmpi.images.lr_rows import LrRows, with_noise
from swinmpi.parallel.calls import Calls
from swinmpi.parallel.ownership import Ownership
from swinmpi.parallel.pieces import PieceExchange
from swinmpi.windows.frames import cut_at
from swinmpi.windows.grid import WindowGrid, live_positions, window_origin
from swinmpi.windows.moves import Rect
from swinmpi.windows.places import cut_at_places
from swinmpi.windows.shift import circular_shift, crop_shift

Shift = tuple[int, int]


@dataclass(frozen=True)
class Window:
    """A training window: where it is cut, and its place in the frame (None when drawn freely).
    shift: how far the frame is moved, below 0 where the shift crops."""

    origin: tuple[int, int]
    shift: Shift | None = None
    position: int | None = None


@dataclass
class Batch:
    """lr (B, C, h, w), hr and eps (B, C, H, W), images in -1..1; windows per image; t (windows of
    all images,) int64. eps is like x_0, which may have other channels than hr. places: of all
    windows, see `places_of`, on the device of the images; made from `windows` when absent. noise:
    (B,), the level that lr has, as a share of the value range, where the network is told."""

    lr: Tensor
    hr: Tensor
    eps: Tensor
    windows: list[list[Window]]
    t: Tensor
    places: Tensor | None = None
    noise: Tensor | None = None

    @property
    def seen(self) -> Tensor:
        """LR images as an encoder sees them, (B, C, h, w), with the noise level as one more channel
        where it is told."""
        return self.lr if self.noise is None else with_noise(self.lr, self.noise)

    def __post_init__(self):
        if self.places is None:
            self.places = places_of(self.windows).to(self.hr.device)


@dataclass(frozen=True)
class Drawing:
    """How windows of a training crop are drawn. grid: over x_0 of the crop; pattern: of the shift;
    together: all windows of a frame, else `per_image` of them (thesis 3.2.5); edge: of the shift;
    shift: the shift itself, where it is not to be drawn."""

    grid: WindowGrid
    pattern: str
    together: bool
    per_image: int
    edge: str = "roll"
    shift: Shift | None = None


@dataclass(frozen=True, eq=False)
class Objective:
    """What a prediction is trained towards. distance: (output, wanted) -> mean distance; edge: of
    the shift, see `moved`; difficulty_alone: whether only the head is trained that expects how far
    the regression is from the truth."""

    path: Path
    prediction: str
    distance: Callable[[Tensor, Tensor], Tensor]
    regression_weight: float
    grid: WindowGrid
    edge: str = "roll"
    difficulty_alone: bool = False

    def on_windows(self, network: Callable[..., Tensor], x_0: Tensor, eps: Tensor, t: Tensor,
                   told: Sequence[Tensor]) -> Tensor:
        """How far a network, as `Family.predict`, is from what is wanted of windows: x_0 and eps
        (n, C, w, w), t (n,)."""
        output = network(q_sample(x_0, t, eps, self.path), t, *told)
        return self.distance(output.float(), target(self.prediction, x_0, eps, t, self.path))


@dataclass(frozen=True, eq=False)
class Encoding:
    """Where and how the conditions of images are made on this rank, together with its group.

    ownership: of the windows over x_t; micro_batch: how many of them go to a network together,
    where `calls` does not say it of each; shifts_return: whether a shift comes again in later
    steps, so that what depends on it is worth keeping; in_turn: whether image slots are turns;
    difficulty: by what tiles are told to be hard (families/difficulty.py), None where nobody asks;
    anywhere: whether this rank may be asked about windows that it does not own.
    """

    ownership: Ownership
    pieces: PieceExchange
    device: torch.device
    precision: str
    micro_batch: int
    shifts_return: bool
    calls: Calls | None = None
    in_turn: bool = False
    difficulty: str | None = None
    anywhere: bool = False

    def ownership_of(self, slot: int) -> Ownership:
        """Of the windows of an image."""
        if self.anywhere:
            return self.ownership.of_all
        return self.ownership.turned(slot) if self.in_turn else self.ownership

    def parts(self, positions: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
        """Window positions in the calls that they belong in, see `Calls.parts`."""
        uniform = Calls((self.micro_batch,) * self.ownership.grid.num_positions)
        return (self.calls or uniform).parts(positions, lambda position: position)


class Condition(Protocol):
    """What the network is told about the windows of one image besides x_t and t. One that was asked
    for its `difficulty` (Encoding) has it as well, see families/difficulty.py."""

    def prepare(self, shift: Shift, positions: Sequence[int], x_t: Callable[[], Tensor]) -> None:
        """Get ready for own window positions at a shift; x_t() is the whole state (C, H, W), for
        families that need it."""

    def inputs(self, shift: Shift, positions: Sequence[int]) -> tuple[Tensor, ...]:
        """The further arguments of `Family.predict` for windows, (len(positions), ...) each, on
        the device; a position may come again, where a call is filled up."""

    def residual(self, rect: Rect) -> Tensor | None:
        """What to add to the bicubic image over a rectangle on this rank, (C, h, w); None:
        nothing."""


class Family(Protocol):
    """A kind of model. `config` has at least scale, channels and window_px."""

    config: object
    model: nn.Module
    """What a checkpoint holds."""
    takes_steps: bool
    """False: an encoder alone, whose regression is the result."""
    needs_whole_lr: bool
    """Whether every rank needs all rows of an LR image."""
    x_channels: int
    x_px_per_lr_px: int
    """Channels of x_t, and how many of its pixels lie along one LR pixel."""
    num_parts: int
    """In how many parts a window may be predicted, equal groups of its channels, see `predict`."""
    reach_px: int
    """How far, in px of x_t, `image` looks beyond the rectangle that it makes."""
    joins_edges: bool
    """Whether, under border wrap, the whole of it sees opposite edges as neighbours, if an image is
    whole windows; else only its windows do."""
    time_per_window: bool
    """Whether windows of one training image have times of their own."""

    def x_0(self, hr: Tensor, base: Tensor) -> Tensor:
        """What is diffused, of images (..., C, H, W) in -1..1."""

    def image(self, x_0: Tensor, base: Tensor, out: Tensor | None = None) -> Tensor:
        """The inverse of `x_0`: an image around -1..1 over the rectangle of `base`,
        in `out` if given."""

    @property
    def starts_from_lr(self) -> bool:
        """Whether the base is an enlarged LR image; else it is zero, and LR only gives the size."""

    def draw(self, drawing: Drawing, rng: np.random.Generator) -> list[Window]:
        """The windows of one training crop."""

    def losses(self, batch: Batch, objective: Objective) -> dict[str, Tensor]:
        """`loss`, to be minimised, and its parts, detached."""

    def lr_rows(self, height: int, width: int, num_images: int,
                ownership: Ownership) -> list[range]:
        """The rows that this rank must be given of each LR image to make the conditions."""

    def conditions(self, images: Sequence[LrRows], encoding: Encoding,
                   residuals: Sequence[Tensor] | None) -> list[Condition]:
        """One condition per image. Collective in the group.

        residuals: where root wants the residual of whole images, a (C, H, W) for each, to be filled
        on root, anything on the others.
        """

    def predict(self, x_t: Tensor, t: Tensor, *told: Tensor) -> Tensor:
        """The network on windows: x_t (n, x_channels, w, w), t (n,), what `inputs` gave. Where
        `num_parts` is not 1, also on some of their parts: x_t (n, x_channels / num_parts, w, w) and
        last, after what `inputs` gave, which parts they are, int64 (n,); with the same bits, calls
        being of the same size."""


def frame_windows(drawing: Drawing, rng: np.random.Generator) -> list[Window]:
    """Windows of one frame: all live ones, or some of them."""
    grid = drawing.grid
    shift = drawn_shift(drawing, rng) if drawing.shift is None else drawing.shift
    cut_at_shift = shift
    if drawing.edge != "roll":
        shift, cut_at_shift = (-shift[0], -shift[1]), (0, 0)
    positions = live_positions(grid, cut_at_shift)
    if not drawing.together:
        size = min(drawing.per_image, len(positions))
        positions = rng.choice(positions, size=size, replace=False).tolist()
    return [Window(window_origin(grid, cut_at_shift, k), shift, k) for k in positions]


def drawn_shift(drawing: Drawing, rng: np.random.Generator) -> Shift:
    """The shift of one training image."""
    most = drawing.grid.max_shift_px
    if drawing.pattern == "random":
        dy, dx = rng.integers(0, most, size=2, endpoint=True)
        return int(dy), int(dx)
    shift = circular_shift(int(rng.integers(4)), most)
    return (0, 0) if drawing.pattern == "none" else shift


def moved(images: Tensor, windows: list[list[Window]], edge: str) -> Tensor:
    """Images (B, C, H, W) as their windows are cut from: themselves where the shift rolls, else
    cropped by the shift of their windows and padded or resized (thesis ch. 2.2, fig. 2.5)."""
    if edge == "roll":
        return images
    shifts = [(-chosen[0].shift[0], -chosen[0].shift[1]) for chosen in windows]
    return torch.stack([crop_shift(image, shift, edge.removeprefix("crop_"))
                        for image, shift in zip(images, shifts, strict=True)])


def cut(images: Tensor, windows: list[list[Window]], window_px: int, border: str) -> Tensor:
    """(B, C, H, W) -> (windows of all images, C, w, w)."""
    return torch.stack([cut_at(image, *window.origin, window_px, border) for image,
                        chosen in zip(images, windows, strict=True) for window in chosen])


def cut_windows(images: Tensor, batch: Batch, grid: WindowGrid) -> Tensor:
    """(B, C, H, W) -> (windows of all images, C, w, w). On a GPU in one gather; on a CPU one by
    one, because the way back of a gather adds up pixel by pixel, and in another order."""
    if images.is_cuda:
        return cut_at_places(images, batch.places[:, 0], batch.places[:, 1:], grid.window_px,
                             grid.border)
    return cut(images, batch.windows, grid.window_px, grid.border)


def places_of(windows: Sequence[Sequence[Window]]) -> Tensor:
    """(image, y, x) of the windows of all images, int64 (windows, 3)."""
    places = [(number, *window.origin) for number, chosen in enumerate(windows)
              for window in chosen]
    return torch.tensor(places, dtype=torch.int64).view(-1, 3)


def counts_of(batch: Batch) -> Tensor:
    """Windows of every image, int64 (B,)."""
    return torch.tensor([len(windows) for windows in batch.windows], device=batch.hr.device)


def for_windows(of_images: Tensor, batch: Batch) -> Tensor:
    """What every image has (B, ...), for each of its windows: (windows of all images, ...)."""
    return of_images.repeat_interleave(counts_of(batch), dim=0,
                                       output_size=sum(map(len, batch.windows)))


def upsampled(batch: Batch) -> Tensor:
    """Bicubic LR on the HR grid."""
    return imresize_tensor(batch.lr, size=tuple(batch.hr.shape[-2:]))


DISTANCES = {"l1": functional.l1_loss, "smooth_l1": functional.smooth_l1_loss,
             "l2": functional.mse_loss}
