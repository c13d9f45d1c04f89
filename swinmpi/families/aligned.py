"""The family `aligned`: every window is told the features that lie under it.

An encoder runs over the LR image once; it also regresses the HR image. What is diffused is the
residual to that regression, amplified. A window's network is told the crop of the features under
it, how near the image's border is, and a vector that describes the whole image.
"""
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from swinmpi.config import AlignedModel
from swinmpi.families.difficulty import Difficulty, laplace
from swinmpi.families.encoding import encode_in_blocks, rows_encoded
from swinmpi.families.family import (
    Batch,
    Drawing,
    Encoding,
    Objective,
    Shift,
    Window,
    cut_windows,
    for_windows,
    frame_windows,
    upsampled,
)
from swinmpi.images.lr_rows import LrRows
from swinmpi.models.aligned_encoder import AlignedEncoder
from swinmpi.models.aligned_unet import AlignedUNet
from swinmpi.models.diffuser import Diffuser
from swinmpi.parallel.ownership import Ownership
from swinmpi.windows.canvas import Canvas
from swinmpi.windows.grid import WindowGrid
from swinmpi.windows.masks import border_distance_over
from swinmpi.windows.moves import Rect
from swinmpi.windows.places import border_distances
from swinmpi.windows.tiles import Tiled

BORDER_REACH_PX = 16


class Aligned:
    """See families/family.py."""

    takes_steps = True
    needs_whole_lr = False
    reach_px = 0
    joins_edges = True
    time_per_window = True
    starts_from_lr = True
    num_parts = 1

    def __init__(self, config: AlignedModel):
        self.config = config
        self.model = Diffuser(AlignedEncoder(config), AlignedUNet(config))
        self.x_channels = config.x_channels
        self.x_px_per_lr_px = config.scale // config.hr_px_per_x_px

    def x_0(self, hr: Tensor, base: Tensor) -> Tensor:
        """base: the regression."""
        return (hr - base) * self.config.residual_gain

    def image(self, x_0: Tensor, base: Tensor, out: Tensor | None = None) -> Tensor:
        return torch.div(x_0, self.config.residual_gain, out=out).add_(base)

    def unfolded(self, residual: Tensor) -> Tensor:
        """The regression's residual as windows are told it, on the HR grid."""
        return residual

    def draw(self, drawing: Drawing, rng: np.random.Generator) -> list[Window]:
        """Anywhere on the crop and as far beyond it as a shift moves windows, or a whole frame."""
        if drawing.together:
            return frame_windows(drawing, rng)
        grid = drawing.grid
        low, high = -grid.max_shift_px, grid.height_px - grid.window_px + grid.max_shift_px
        origins = rng.integers(low, high, size=(drawing.per_image, 2), endpoint=True)
        return [Window((int(y), int(x))) for y, x in origins]

    def losses(self, batch: Batch, objective: Objective) -> dict[str, Tensor]:
        """Distance of the prediction on windows, plus the weighted L1 of the regression, plus what
        the head did not expect of that, where there is one to be trained."""
        channels, grid = self.config.residual_channels, objective.grid
        features, global_vector = self.model.encoder(batch.seen)
        residual = features[:, -channels:].float()
        regression = upsampled(batch) + self.unfolded(residual)
        unexpected = self.unexpected(features.detach(), batch.hr - regression.detach())
        if objective.difficulty_alone:
            return {"loss": unexpected, "difficulty": unexpected.detach()}
        # The regression answers to its own loss only: the U-Net sees it, but does not bend it.
        features = torch.cat([features[:, :-channels], residual.detach()], dim=1)
        x_0 = self.x_0(batch.hr, regression.detach())
        measured = self.measured(batch.hr, regression.detach())
        x_0, eps, features = (cut_windows(image, batch, grid)
                              for image in (x_0, batch.eps, features))
        borders = border_distances(batch.places[:, 1:], grid, BORDER_REACH_PX)
        diffusion = objective.on_windows(self.predict, x_0, eps, batch.t, (
            features, borders, for_windows(global_vector, batch)))
        regression = functional.l1_loss(regression, batch.hr)
        losses = {"loss": diffusion + objective.regression_weight * regression,
                  "diffusion": diffusion.detach(), "regression": regression.detach(), **measured}
        if unexpected is None:
            return losses
        return losses | {"loss": losses["loss"] + unexpected, "difficulty": unexpected.detach()}

    def measured(self, hr: Tensor, regression: Tensor) -> dict[str, Tensor]:
        """What else is to be logged of a batch, and measured (models/deviations.py)."""
        return {}

    def unexpected(self, features: Tensor, missed: Tensor) -> Tensor | None:
        """How little the head expects the errors of the regression, `missed` (B, C, H, W); None
        where there is no head, or none to be trained. It answers to this alone, and bends nothing
        else."""
        head = self.model.encoder.difficulty
        if head is None or not any(part.requires_grad for part in head.parameters()):
            return None
        return laplace(self.model.encoder.log_difficulty(features).float(), missed)

    def lr_rows(self, height: int, width: int, num_images: int,
                ownership: Ownership) -> list[range]:
        return rows_encoded(self.model.encoder, (height, width), num_images, ownership)

    @property
    def make_condition(self) -> Callable[..., "AlignedCondition"]:
        """An AlignedCondition of its arguments, without features yet."""
        return AlignedCondition

    def conditions(self, images: Sequence[LrRows], encoding: Encoding,
                   residuals: Sequence[Tensor] | None) -> list["AlignedCondition"]:
        num_features = self.model.encoder.num_features
        made = [self.make_condition(encoding.ownership_of(slot), num_features,
                                    self.config.residual_channels, encoding.device,
                                    encoding.ownership.grid.joins)
                for slot in range(len(images))]
        if self.config.told_noise:
            images = [image.with_noise() for image in images]
        encoded = encode_in_blocks(self.model.encoder, images, [one.features for one in made],
                                   encoding, residuals)
        for slot, condition in enumerate(made):
            condition.global_vector = encoded[slot].global_vector
            condition.difficulty = encoded[slot].difficulty
            condition.whole_residual = residuals[slot] if residuals is not None else None
        return made

    def predict(self, x_t: Tensor, t: Tensor, *told: Tensor) -> Tensor:
        """told: features and residual (n, F + C, w, w), border channel (n, 1, w, w),
        vectors (n, G)."""
        return self.model.unet(x_t, t, *told)


class AlignedCondition:
    """Features, regression residual and border channel of one image, (F + C + 1, h, w) canvases in
    this order over this rank's blocks of windows, and the global vector."""

    def __init__(self, ownership: Ownership, num_features: int, channels: int,
                 device: torch.device, joins: tuple[bool, bool] = (False, False)):
        """num_features: F + C. Features are zero until they are put in. joins: whether rows, and
        columns, come round, so that no border is there."""
        grid, blocks = ownership.grid, ownership.own
        self.channels, self.global_vector = channels, torch.empty(0)
        self.whole_residual: Tensor | None = None
        self.difficulty: Difficulty | None = None
        self.canvases = [Canvas.over(block.canvas(grid), num_features + 1, device)
                         for block in blocks]
        self.features = [Canvas(canvas.values[:-1], canvas.top, canvas.left)
                         for canvas in self.canvases]
        for block, canvas in zip(blocks, self.canvases, strict=True):
            rect = block.canvas(grid)
            canvas.values[-1:] = border_channel(rect.rows, rect.cols, grid, joins)
        self.tiled = Tiled(grid, blocks, self.canvases)

    def prepare(self, shift: Shift, positions: Sequence[int], x_t: Callable[[], Tensor]) -> None:
        """Nothing to do: features depend neither on the shift nor on x_t."""

    def inputs(self, shift: Shift, positions: Sequence[int]) -> tuple[Tensor, ...]:
        """(features and residual (n, F + C, w, w), border channel (n, 1, w, w), global vectors
        (n, G))."""
        seen = self.tiled.cut(shift, positions)
        return seen[:, :-1], seen[:, -1:], self.global_vector.expand(len(positions), -1)

    def residual(self, rect: Rect) -> Tensor:
        """Of the whole image where root has it, else of a rectangle inside one of the blocks."""
        if self.whole_residual is not None:
            return self.whole_residual[:, rect.rows.start:rect.rows.stop,
                                       rect.cols.start:rect.cols.stop]
        canvas = next(canvas for canvas in self.features if canvas.holds(rect))
        return canvas.view(rect.rows, rect.cols)[-self.channels:]


def border_channel(rows: range, cols: range, grid: WindowGrid,
                   joins: tuple[bool, bool] = (False, False)) -> Tensor:
    """How near pixels are to the border of the image, (1, len(rows), len(cols)) in 0..1; joins: as
    of AlignedCondition."""
    return border_distance_over(rows, cols, grid, BORDER_REACH_PX, joins)
