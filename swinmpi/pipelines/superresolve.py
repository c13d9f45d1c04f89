"""LR images to SR images, on one process or on all ranks of a group: encoder, reverse process, composition."""
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from swinmpi.config import Config
from swinmpi.diffusion.samplers import make_sampler
from swinmpi.diffusion.schedule import make_schedule
from swinmpi.images.degrade import imresize_tensor
from swinmpi.models.diffuser import Diffuser
from swinmpi.pipelines.condition import AlignedCondition, ThesisCondition, encode_aligned
from swinmpi.pipelines.denoise import Denoiser, Seconds, sampling_grid
from swinmpi.pipelines.exchange import Exchange
from swinmpi.windows.grid import WindowGrid

MAX_UNIT = 1.5


@dataclass(frozen=True)
class Result:
    """Images (N, C, H, W) around -1..1, on the root: one sample of each, and the encoder's regression (bicubic for thesis)."""

    samples: Tensor
    regression: Tensor


class SuperResolver:
    """A model and everything needed to sample with it; the same arguments on every rank."""

    def __init__(self, config: Config, model: Diffuser, exchange: Exchange, micro_batch: int, device: torch.device):
        self.config, self.model, self.exchange = config, model, exchange
        self.micro_batch, self.device, self.seconds = micro_batch, device, Seconds()
        schedule = make_schedule(config.diffusion.schedule, config.diffusion.steps)
        self.sampler = make_sampler(config.sampler, config.diffusion, schedule)

    @torch.inference_mode()
    def __call__(self, lr: Sequence[Tensor], image_indices: Sequence[int], seed: int) -> Result | None:
        """lr: images (C, h, w) of one size, -1..1 by their value range, float32 on the CPU. Collective; None off the root.

        Values far outside -1..1 (hot pixels) are limited where the network looks, not in the image it adds to.
        """
        scale, model = self.config.model.scale, self.config.model
        size = tuple(side * scale for side in lr[0].shape[-2:])
        grid = sampling_grid(self.config, *size)
        seen = [image.clamp(-MAX_UNIT, MAX_UNIT) for image in lr]
        denoiser = Denoiser(self.config, self.model, grid, self.sampler, self.exchange, self.micro_batch, self.device,
                            self.seconds)
        conditions = self.conditions(seen, grid)
        x_0 = denoiser.sample(image_indices, conditions, seed)
        if x_0 is None:
            return None
        base = imresize_tensor(torch.stack(list(lr)), size=size)
        if model.family == "aligned":
            base = base + torch.stack([condition.residual for condition in conditions]).cpu()
        return Result(base + x_0 / model.residual_gain, base)

    def conditions(self, lr: Sequence[Tensor], grid: WindowGrid) -> list[AlignedCondition] | list[ThesisCondition]:
        """One condition per image, ready to hand out windows. Collective."""
        started = time.perf_counter()
        lr = [image.to(self.device) for image in lr]
        if self.config.model.family == "thesis":
            conditions = [ThesisCondition(self.config, self.model, image, grid) for image in lr]
        else:
            conditions = [AlignedCondition(*encoded, self.config.model.channels, grid)
                          for encoded in encode_aligned(self.model, lr, self.exchange)]
        self.seconds.encoder += time.perf_counter() - started
        return conditions
