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
from swinmpi.models.diffuser import Diffuser, autocast
from swinmpi.parallel.exchange import RootExchange
from swinmpi.pipelines.condition import AlignedCondition, ThesisCondition, encode_aligned
from swinmpi.pipelines.denoise import Denoiser, Seconds, sampling_grid
from swinmpi.pipelines.objective import RegressionObjective
from swinmpi.windows.grid import WindowGrid

MAX_UNIT = 1.5


@dataclass(frozen=True)
class Result:
    """On the root, around -1..1: samples (K, N, C, H, W), one per seed, and the images they add detail to (N, C, H, W),
    the encoder's regression for `aligned`, bicubic for `thesis`."""

    samples: Tensor
    base: Tensor


class SuperResolver:
    """A model and everything needed to sample with it; the same arguments on every rank of the exchange's group."""

    def __init__(self, config: Config, model: Diffuser, exchange: RootExchange, micro_batch: int, device: torch.device):
        self.config, self.model, self.exchange = config, model, exchange
        self.micro_batch, self.device, self.seconds = micro_batch, device, Seconds()
        schedule = make_schedule(config.diffusion.schedule, config.diffusion.steps)
        self.sampler = make_sampler(config.sampler, config.diffusion, schedule)

    @torch.inference_mode()
    def __call__(self, lr: Sequence[Tensor], image_indices: Sequence[int], seeds: Sequence[int]) -> Result | None:
        """lr: images (C, h, w) of one size, -1..1 by their value range, float32 on the CPU. Collective; None off the root.

        Values far outside -1..1 (hot pixels) are limited where the network looks, not in the image it adds to.
        """
        scale = self.config.model.scale
        size = tuple(side * scale for side in lr[0].shape[-2:])
        grid = sampling_grid(self.config, *size)
        seen = [image.clamp(-MAX_UNIT, MAX_UNIT).to(self.device) for image in lr]
        denoiser = Denoiser(self.config, self.model, grid, self.sampler, self.exchange, self.micro_batch, self.device,
                            self.seconds)
        conditions = self.conditions(seen, grid)
        keep = self.config.parallel.encoder_cache
        samples = [denoiser.sample(image_indices, lambda: conditions if keep else self.conditions(seen, grid), seed)
                   for seed in seeds]
        if not self.exchange.group.is_root:
            return None
        base = self.base(lr, size, conditions)
        gain = 1.0 if self.synthesises else self.config.model.residual_gain
        return Result(base + torch.stack(samples) / gain, base)

    @property
    def synthesises(self) -> bool:
        """Whether x_0 is the image itself, made from noise alone; the LR images then only give number and size."""
        return self.config.model.family == "thesis" and self.config.model.condition_on == "x_t"

    def base(self, lr: Sequence[Tensor], size: tuple[int, int], conditions: Sequence) -> Tensor:
        model = self.config.model
        if self.synthesises:
            return torch.zeros(len(lr), model.channels, *size)
        base = imresize_tensor(torch.stack(list(lr)), size=size)
        if model.family == "aligned":
            base = base + torch.stack([condition.residual for condition in conditions]).cpu()
        return base

    def conditions(self, lr: Sequence[Tensor], grid: WindowGrid) -> list[AlignedCondition] | list[ThesisCondition]:
        """One condition per image, ready to hand out windows. Collective."""
        started, exchanged = time.perf_counter(), self.exchange.group.stats.seconds
        if self.config.model.family == "thesis":
            made = [ThesisCondition(self.config, self.model, image, grid, self.micro_batch) for image in lr]
        else:
            encoded = encode_aligned(self.model, lr, self.exchange.group, self.config.parallel.precision)
            made = [AlignedCondition(*parts, self.config.model.channels, grid) for parts in encoded]
        exchanged = self.exchange.group.stats.seconds - exchanged
        self.seconds.encoder += time.perf_counter() - started - exchanged
        return made


class RegressionResolver:
    """A super-resolver that was trained alone (`train.target: encoder`): one pass, nothing to sample, root only."""

    def __init__(self, config: Config, objective: RegressionObjective, exchange: RootExchange, device: torch.device):
        self.config, self.objective, self.exchange, self.device = config, objective, exchange, device
        self.seconds = Seconds()

    @torch.inference_mode()
    def __call__(self, lr: Sequence[Tensor], image_indices: Sequence[int], seeds: Sequence[int]) -> Result | None:
        """As SuperResolver; all samples are the regression."""
        if not self.exchange.group.is_root:
            return None
        started = time.perf_counter()
        with autocast(self.device, self.config.parallel.precision):
            seen = [image[None].clamp(-MAX_UNIT, MAX_UNIT).to(self.device) for image in lr]
            images = [self.objective.residual(image).float().cpu() for image in seen]
        self.seconds.encoder += time.perf_counter() - started
        residual = torch.cat(images)
        base = imresize_tensor(torch.stack(list(lr)), size=tuple(residual.shape[-2:])) + residual
        return Result(base.expand(len(seeds), *base.shape), base)
