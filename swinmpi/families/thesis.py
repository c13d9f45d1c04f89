"""The family `thesis`, as published: every window is told the whole LR image, and where it lies.

The condition is the LR image (the current x_t in synthesis mode) with a Gaussian mask around the
window; an encoder turns it into features that are added to the U-Net's first feature map (thesis
ch. 2.1). What is diffused is the residual to the bicubic image, or the image itself in synthesis.
"""
from collections.abc import Callable, Collection, Sequence

import numpy as np
import torch
from torch import Tensor

from swinmpi.config import ThesisModel
from swinmpi.diffusion.process import q_sample, target
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
    moved,
    upsampled,
)
from swinmpi.images.imresize import imresize_tensor
from swinmpi.images.lr_rows import LrRows
from swinmpi.models.diffuser import Diffuser, autocast
from swinmpi.models.thesis_encoders import make_encoder, thesis_condition
from swinmpi.models.thesis_unet import ThesisUNet
from swinmpi.models.vit import Overview
from swinmpi.parallel.ownership import Ownership
from swinmpi.windows.grid import WindowGrid, source_index, window_origin
from swinmpi.windows.masks import GaussianMask, masks_of
from swinmpi.windows.moves import Rect
from swinmpi.windows.tiles import index_of


class Thesis:
    """See families/family.py."""

    takes_steps = True
    num_parts = 1
    needs_whole_lr = True
    reach_px = 0
    joins_edges = False  # as published
    time_per_window = False

    def __init__(self, config: ThesisModel):
        self.config = config
        self.model = Diffuser(make_encoder(config), ThesisUNet(config))
        self.x_channels, self.x_px_per_lr_px = config.channels, config.scale

    @property
    def starts_from_lr(self) -> bool:
        """False in synthesis."""
        return self.config.condition_on != "x_t"

    def x_0(self, hr: Tensor, base: Tensor) -> Tensor:
        """base: the bicubic image; not looked at in synthesis."""
        if not self.starts_from_lr:
            return hr * self.config.residual_gain
        return ((hr - base) * self.config.residual_gain).clamp(-1, 1)

    def image(self, x_0: Tensor, base: Tensor, out: Tensor | None = None) -> Tensor:
        gain = self.config.residual_gain if self.starts_from_lr else 1.0
        return torch.div(x_0, gain, out=out).add_(base)

    def draw(self, drawing: Drawing, rng: np.random.Generator) -> list[Window]:
        return frame_windows(drawing, rng)

    def losses(self, batch: Batch, objective: Objective) -> dict[str, Tensor]:
        """Algorithm 2.1: one t for all windows of an image."""
        grid = objective.grid
        base = upsampled(batch) if self.starts_from_lr else batch.hr
        x_0 = self.x_0(batch.hr, base)
        t_image = torch.stack([t[0] for t in batch.t.split([*map(len, batch.windows)])])
        x_t = q_sample(x_0, t_image, batch.eps, objective.path)
        wanted = target(objective.prediction, x_0, batch.eps, t_image, objective.path)
        wanted, windows = (cut_windows(moved(image, batch.windows, objective.edge), batch, grid)
                           for image in (wanted, x_t))
        told = self.told(batch, x_t, grid)
        output = self.predict(windows, for_windows(t_image, batch), *told)
        loss = objective.distance(output.float(), wanted)
        return {"loss": loss, "diffusion": loss.detach()}

    def told(self, batch: Batch, x_t: Tensor, grid: WindowGrid) -> tuple[Tensor, ...]:
        """The encoder's answer to (LR image, mask, x_t as configured) of every training window."""
        if self.model.encoder is None:
            return ()
        overview = self.overview(batch.lr)
        lr, x_t = self.shrunk(batch.lr), self.shrunk(x_t)
        chosen = [(windows[0].shift, [window.position for window in windows])
                  for windows in batch.windows]
        masks = torch.cat([self.masks(grid, *windows) for windows in chosen]).to(lr.device)
        lr, x_t = (for_windows(image, batch) for image in (lr, x_t))
        features = self.model.encoder(thesis_condition(self.config, lr, masks, x_t))
        if overview is None:
            return (features,)
        return (features + torch.cat([self.beneath(overview.image(number), grid, *windows)
                                      for number, windows in enumerate(chosen)]),)

    def overview(self, lr: Tensor) -> Overview | None:
        """What `encoder: vit` sees of whole LR images, (n, C, h, w); None for other encoders."""
        transformer = getattr(self.model.encoder, "transformer", None)
        return None if transformer is None else transformer.of(lr)

    def beneath(self, overview: Overview, grid: WindowGrid, shift: Shift,
                positions: Sequence[int]) -> Tensor:
        """What it adds to the features of windows of one image: (len(positions),
        unet_channels[0], w, w)."""
        origins = zip(*(window_origin(grid, shift, position) for position in positions),
                      strict=True)
        rows, cols = (
            torch.stack([source_index(start, grid.window_px, size, grid.window_px, grid.border)
                         for start in starts])
            for starts, size in zip(origins, (grid.height_px, grid.width_px), strict=True))
        under = overview.at(*((line + 0.5) / self.config.scale - 0.5 for line in (rows, cols)))
        return under + overview.vector[:, :, None, None]

    def shrunk(self, images: Tensor) -> Tensor:
        """Images (n, C, h, w) at the size of a window, where features are added."""
        side = self.config.window_px
        return (imresize_tensor(images, size=(side, side)) if images.shape[-2:] != (side, side)
                else images)

    def masks(self, grid: WindowGrid, shift: Shift, positions: Sequence[int]) -> Tensor:
        """(len(positions), 1, w, w) in -1..1; as published around pixel w / 2, which is not in the
        middle."""
        config, side = self.config, self.config.window_px
        mask = GaussianMask(config.mask_width, side / 2 if config.as_published else (side - 1) / 2)
        return masks_of(mask, grid, shift, positions, (side, side))

    def lr_rows(self, height: int, width: int, num_images: int,
                ownership: Ownership) -> list[range]:
        return [range(height)] * num_images

    def conditions(self, images: Sequence[LrRows], encoding: Encoding,
                   residuals: Sequence[Tensor] | None) -> list["ThesisCondition"]:
        return [ThesisCondition(self, image.values.to(encoding.device), encoding,
                                encoding.ownership_of(slot).positions)
                for slot, image in enumerate(images)]

    def predict(self, x_t: Tensor, t: Tensor, *told: Tensor) -> Tensor:
        """told: features (n, unet_channels[0], w, w); nothing without an encoder."""
        return self.model.unet(x_t, t, *told)


class ThesisCondition:
    """The encoder's answer to the condition of every window, made once per shift and kept."""

    def __init__(self, family: Thesis, lr: Tensor, encoding: Encoding, own: Collection[int]):
        """own: the window positions of this rank."""
        self.family, self.encoding, self.grid = family, encoding, encoding.ownership.grid
        self.lr = family.shrunk(lr[None])
        with autocast(encoding.device, encoding.precision):
            self.overview = family.overview(lr[None]) if own else None
        self.row_of = {position: row for row, position in enumerate(sorted(own))}
        self.kept: dict[Shift, Tensor] = {}
        self.known: set[tuple[Shift, int]] = set()

    def prepare(self, shift: Shift, positions: Sequence[int], x_t: Callable[[], Tensor]) -> None:
        """Encode the windows not known yet, in padded micro-batches; with x_t in the condition
        nothing can be kept."""
        config = self.family.config
        if self.family.model.encoder is None:
            return
        if not self.encoding.shifts_return:
            self.forget(but=shift)
        small = None
        if config.sees_whole_x_t:
            self.forget()
            small = imresize_tensor(x_t()[None].to(self.lr), size=(config.window_px,) * 2)
        missing = [position for position in positions if (shift, position) not in self.known]
        for size, part in self.encoding.parts(missing):
            padded = [*part, *[part[-1]] * (size - len(part))]
            masks = self.family.masks(self.grid, shift, padded).to(self.lr)
            lr, state = (image if image is None else image.expand(size, -1, -1, -1)
                         for image in (self.lr, small))
            condition = thesis_condition(config, lr, masks, state)
            with autocast(self.lr.device, self.encoding.precision):
                encoded = self.family.model.encoder(condition)
                if self.overview is not None:
                    encoded = encoded + self.family.beneath(self.overview, self.grid, shift, padded)
            self.keep(shift, part, encoded[:len(part)].float())

    def keep(self, shift: Shift, positions: Sequence[int], features: Tensor) -> None:
        """Features (n, unet_channels[0], w, w) of own windows at a shift."""
        if shift not in self.kept:
            self.kept[shift] = features.new_zeros(len(self.row_of), *features.shape[1:])
        self.kept[shift][self.rows(positions)] = features
        self.known |= {(shift, position) for position in positions}

    def forget(self, but: Shift | None = None) -> None:
        """The features of all shifts, or of all but one."""
        self.kept = {shift: features for shift, features in self.kept.items() if shift == but}
        self.known = {key for key in self.known if key[0] == but}

    def rows(self, positions: Sequence[int]) -> Tensor:
        """Where features of windows are kept, int64 (n,)."""
        return index_of(tuple(self.row_of[position] for position in positions), self.lr.device)

    def inputs(self, shift: Shift, positions: Sequence[int]) -> tuple[Tensor, ...]:
        """(features (n, unet_channels[0], w, w),); nothing without an encoder."""
        if self.family.model.encoder is None:
            return ()
        return (self.kept[shift].index_select(0, self.rows(positions)),)

    def residual(self, rect: Rect) -> None:
        """Nothing is added to the bicubic image."""
