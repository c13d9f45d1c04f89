"""What training minimises (thesis algorithm 2.1), for both families: batch in, losses out, one module for DDP."""
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from swinmpi.config import Config
from swinmpi.diffusion.process import q_sample, target
from swinmpi.diffusion.schedule import make_schedule
from swinmpi.images.imresize import imresize_tensor
from swinmpi.models.diffuser import Diffuser, thesis_condition
from swinmpi.models.rrdb import RRDBSuperResolver
from swinmpi.windows.frames import cut_at
from swinmpi.windows.grid import WindowGrid, live_positions, window_origin
from swinmpi.windows.masks import border_distance_at, gaussian_masks
from swinmpi.windows.shift import circular_shift, default_max_shift

BORDER_REACH_PX = 16


@dataclass(frozen=True)
class Window:
    """A training window: where it is cut, and its place in the frame for the thesis's mask (None when drawn freely)."""

    origin: tuple[int, int]
    shift: tuple[int, int] | None = None
    position: int | None = None


@dataclass
class Batch:
    """lr (B, C, h, w), hr and eps (B, C, H, W), images in -1..1; windows per image; t (sum of windows,) int64."""

    lr: Tensor
    hr: Tensor
    eps: Tensor
    windows: list[list[Window]]
    t: Tensor


def training_grid(config: Config) -> WindowGrid:
    """The grid of a training crop."""
    shift = config.sampler.shift
    max_shift_px = default_max_shift(config.model.window_px) if shift.max_px is None else shift.max_px
    return WindowGrid(config.train.crop_px, config.train.crop_px, config.model.window_px, max_shift_px, shift.border)


def draw_windows(config: Config, grid: WindowGrid, rng: np.random.Generator) -> list[Window]:
    """`image`: every live window of one frame; `iid`: some of them (thesis 3.2.5), for `aligned` at free origins."""
    if config.train.batch == "iid" and config.model.family == "aligned":
        low, high = -grid.max_shift_px, grid.height_px - grid.window_px + grid.max_shift_px
        origins = rng.integers(low, high, size=(config.train.windows_per_image, 2), endpoint=True)
        return [Window((int(y), int(x))) for y, x in origins]
    if config.sampler.shift.pattern == "random":
        shift = tuple(int(px) for px in rng.integers(0, grid.max_shift_px, size=2, endpoint=True))
    else:
        shift = circular_shift(int(rng.integers(4)), grid.max_shift_px)
    shift = (0, 0) if config.sampler.shift.pattern == "none" else shift
    positions = live_positions(grid, shift)
    if config.train.batch == "iid":
        positions = rng.choice(positions, size=min(config.train.windows_per_image, len(positions)), replace=False).tolist()
    return [Window(window_origin(grid, shift, k), shift, k) for k in positions]


def make_objective(config: Config) -> nn.Module:
    """The module whose forward is the loss; its `.model` is what is saved."""
    if config.train.target == "encoder":
        return RegressionObjective(config)
    return AlignedObjective(config) if config.model.family == "aligned" else ThesisObjective(config)


class RegressionObjective(nn.Module):
    """Trains the encoder alone, as a regression super-resolver: L1(HR, bicubic + residual)."""

    def __init__(self, config: Config):
        super().__init__()
        aligned = config.model.family == "aligned"
        self.model = Diffuser(config.model).encoder if aligned else RRDBSuperResolver(config.model)
        self.image_channels = config.model.channels if aligned else 0
        if aligned:
            # No regression answers for the global vector, and DDP waits for every gradient it expects.
            self.model.to_global.requires_grad_(False)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        loss = functional.l1_loss(self.regress(batch.lr), batch.hr)
        return {"loss": loss, "regression": loss.detach()}

    def regress(self, lr: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C, H, W)."""
        residual = self.residual(lr).float()
        return imresize_tensor(lr, size=tuple(residual.shape[-2:])) + residual

    def residual(self, lr: Tensor) -> Tensor:
        """What to add to the bicubic image."""
        if self.image_channels:
            return self.model.upsample(self.model.trunk(lr))[:, -self.image_channels:]
        return self.model(lr)


class AlignedObjective(nn.Module):
    """L1 of the prediction on windows of the residual to the regression, plus the weighted L1 of the regression."""

    def __init__(self, config: Config):
        super().__init__()
        self.config, self.model = config, Diffuser(config.model)
        self.schedule = make_schedule(config.diffusion.schedule, config.diffusion.steps)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        config, channels = self.config, self.config.model.channels
        features, global_vector = self.model.encoder(batch.lr)
        residual = features[:, -channels:].float()
        regression = upsampled(batch) + residual
        # The regression answers to its own loss only: the U-Net sees it, but does not bend it.
        features = torch.cat([features[:, :-channels], residual.detach()], dim=1)
        x_0 = (batch.hr - regression.detach()) * config.model.residual_gain
        counts = torch.tensor([len(windows) for windows in batch.windows], device=x_0.device)
        place = config.model.window_px, config.sampler.shift.border
        x_0, eps, features = (cut(image, batch.windows, *place) for image in (x_0, batch.eps, features))
        output = self.model.unet(q_sample(x_0, batch.t, eps, self.schedule), batch.t, features, self.borders(batch),
                                 global_vector.repeat_interleave(counts, dim=0))
        wanted = target(config.diffusion.prediction, x_0, eps, batch.t, self.schedule)
        diffusion = distance(config.train.loss)(output.float(), wanted)
        regression = functional.l1_loss(regression, batch.hr)
        return {"loss": diffusion + config.train.regression_weight * regression,
                "diffusion": diffusion.detach(), "regression": regression.detach()}

    def borders(self, batch: Batch) -> Tensor:
        """How near every window's pixels are to the border of the crop, (sum of windows, 1, w, w)."""
        size, window_px, border = batch.hr.shape[-2:], self.config.model.window_px, self.config.sampler.shift.border
        return torch.stack([border_distance_at(*window.origin, window_px, *size, BORDER_REACH_PX, border)
                            for windows in batch.windows for window in windows]).to(batch.hr.device)


class ThesisObjective(nn.Module):
    """Algorithm 2.1 as published: L1(eps) on windows, the encoder seeing the whole LR image and the window's mask."""

    def __init__(self, config: Config):
        super().__init__()
        self.config, self.model = config, Diffuser(config.model)
        self.schedule = make_schedule(config.diffusion.schedule, config.diffusion.steps)
        self.grid = training_grid(config)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        config = self.config
        x_0 = self.x_0(batch)
        counts = [len(windows) for windows in batch.windows]
        t_image = torch.stack([t[0] for t in batch.t.split(counts)])
        x_t = q_sample(x_0, t_image, batch.eps, self.schedule)
        place = config.model.window_px, config.sampler.shift.border
        wanted = cut(target(config.diffusion.prediction, x_0, batch.eps, t_image, self.schedule), batch.windows, *place)
        t = t_image.repeat_interleave(torch.tensor(counts, device=t_image.device))
        output = self.model.unet(cut(x_t, batch.windows, *place), t, self.features(batch, x_t))
        loss = distance(config.train.loss)(output.float(), wanted)
        return {"loss": loss, "diffusion": loss.detach()}

    def x_0(self, batch: Batch) -> Tensor:
        """What is diffused: the residual to bicubic; without LR (synthesis) the image itself."""
        model = self.config.model
        if model.condition_on == "x_t":
            return batch.hr * model.residual_gain
        return ((batch.hr - upsampled(batch)) * model.residual_gain).clamp(-1, 1)

    def features(self, batch: Batch, x_t: Tensor) -> Tensor | None:
        """The encoder's answer to (LR image, mask, x_t as configured) of every window; None without an encoder."""
        if self.model.encoder is None:
            return None
        model, side = self.config.model, self.config.model.window_px
        lr, x_t = imresize_tensor(batch.lr, size=(side, side)), imresize_tensor(x_t, size=(side, side))
        masks = torch.cat([gaussian_masks(self.grid, windows[0].shift, [window.position for window in windows],
                                          model.mask_width, side, side) for windows in batch.windows]).to(lr.device)
        counts = torch.tensor([len(windows) for windows in batch.windows], device=lr.device)
        lr, x_t = (image.repeat_interleave(counts, dim=0) for image in (lr, x_t))
        return self.model.encoder(thesis_condition(model, lr, masks, x_t))


def upsampled(batch: Batch) -> Tensor:
    """Bicubic LR on the HR grid."""
    return imresize_tensor(batch.lr, size=tuple(batch.hr.shape[-2:]))


def cut(images: Tensor, windows: list[list[Window]], window_px: int, border: str) -> Tensor:
    """(B, C, H, W) -> (sum of windows, C, w, w)."""
    return torch.stack([cut_at(image, *window.origin, window_px, border)
                        for image, chosen in zip(images, windows, strict=True) for window in chosen])


def distance(name: str):
    return {"l1": functional.l1_loss, "smooth_l1": functional.smooth_l1_loss}[name]
