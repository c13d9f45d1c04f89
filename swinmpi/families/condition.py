"""What the U-Net is told about each window besides x_t and t, made once per image and handed out window by window."""
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from swinmpi.config import Config
from swinmpi.families.objective import BORDER_REACH_PX
from swinmpi.images.imresize import imresize_tensor
from swinmpi.models.diffuser import Diffuser, autocast, thesis_condition
from swinmpi.windows.canvas import Canvas
from swinmpi.windows.grid import WindowGrid, window_span
from swinmpi.windows.masks import border_distance_over, gaussian_masks
from swinmpi.windows.moves import Area, Block

Shift = tuple[int, int]


class AlignedCondition:
    """Of one image, over this rank's blocks of windows: features, regression residual and border channel, (F + C + 1, h, w)
    canvases in this order; and the global vector, known when the whole image is encoded."""

    def __init__(self, grid: WindowGrid, blocks: Sequence[Block], num_features: int, device: torch.device):
        """Features are zero until they are put in."""
        self.grid, self.blocks, self.global_vector = grid, blocks, torch.empty(0)
        self.canvases = [Canvas.over(block.canvas(grid), num_features + 1, device) for block in blocks]
        self.features = [Canvas(canvas.values[:-1], canvas.top, canvas.left) for canvas in self.canvases]
        for block, canvas in zip(blocks, self.canvases, strict=True):
            area = block.canvas(grid)
            canvas.values[-1:] = border_distance_over(area.rows, area.cols, grid, BORDER_REACH_PX)
        self.home = {row * grid.cols + col: canvas for block, canvas in zip(blocks, self.canvases, strict=True)
                     for row in block.rows for col in block.cols}

    def prepare(self, shift: Shift, positions: Sequence[int], x_t: Callable[[], Tensor]) -> None:
        """Nothing to do: features depend neither on the shift nor on x_t."""

    def inputs(self, shift: Shift, position: int) -> tuple[Tensor, ...]:
        """(features and residual (F + C, w, w), border channel (1, w, w), global vector (G,)) of one window."""
        seen = self.home[position].view(*window_span(self.grid, shift, position))
        return seen[:-1], seen[-1:], self.global_vector

    def residual(self, block: int, area: Area, num_channels: int) -> Tensor:
        """(C, h, w) of an area inside a block, on the CPU."""
        return self.features[block].view(area.rows, area.cols)[-num_channels:].cpu()


class ThesisCondition:
    """The encoder's answer to (LR image, mask of the window), made once per distinct shift and window and kept."""

    def __init__(self, config: Config, model: Diffuser, lr: Tensor, grid: WindowGrid, micro_batch: int):
        self.config, self.model, self.grid, self.micro_batch = config, model, grid, micro_batch
        side = config.model.window_px
        self.lr = imresize_tensor(lr[None], size=(side, side)) if lr.shape[-2:] != (side, side) else lr[None]
        self.kept: dict[tuple[Shift, int], Tensor] = {}

    def prepare(self, shift: Shift, positions: Sequence[int], x_t: Callable[[], Tensor]) -> None:
        """Encode the windows not known yet, in padded micro-batches; with x_t in the condition nothing can be kept."""
        model, side = self.config.model, self.config.model.window_px
        if self.model.encoder is None:
            return
        small = None
        if self.config.sampler.shift.pattern == "random":  # hardly a shift comes twice
            self.kept = {key: features for key, features in self.kept.items() if key[0] == shift}
        if model.condition_on != "lr":
            self.kept.clear()
            small = imresize_tensor(x_t()[None].to(self.lr), size=(side, side)).expand(self.micro_batch, -1, -1, -1)
        missing = [position for position in positions if (shift, position) not in self.kept]
        for first in range(0, len(missing), self.micro_batch):
            part = missing[first:first + self.micro_batch]
            padded = [*part, *[part[-1]] * (self.micro_batch - len(part))]
            masks = gaussian_masks(self.grid, shift, padded, model.mask_width, side, side).to(self.lr)
            condition = thesis_condition(model, self.lr.expand(self.micro_batch, -1, -1, -1), masks, small)
            with autocast(self.lr.device, self.config.parallel.precision):
                encoded = self.model.encoder(condition)
            self.kept |= {(shift, position): features.float() for position, features in zip(part, encoded, strict=False)}

    def inputs(self, shift: Shift, position: int) -> tuple[Tensor, ...]:
        """(features (unet_channels[0], w, w),) of one window; nothing without an encoder."""
        return (self.kept[shift, position],) if self.model.encoder is not None else ()
