"""Figures on the validation split while training: the loss, and bicubic, regression and a sample
with the EMA weights."""
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from swinmpi.config import Config
from swinmpi.families.family import Batch, Family, Objective
from swinmpi.families.loading import make_family
from swinmpi.images.imresize import imresize_tensor
from swinmpi.images.lr_rows import LrRows
from swinmpi.images.metrics import psnr, ssim
from swinmpi.parallel.comm import Group
from swinmpi.parallel.worker import Worker
from swinmpi.sampling.superresolve import make_resolver
from swinmpi.storage.pairs import PairReader
from swinmpi.training.batches import (
    VALIDATE_STREAM,
    BatchSource,
    channels_last,
    keyed_rng,
    to_unit,
)
from swinmpi.training.crops import as_bits
from swinmpi.training.objective import TrainingModule
from swinmpi.training.setup import freeze_untrained

MICRO_BATCH, MAX_LOSS_IMAGES = 4, 512
Answer = Callable[[LrRows, Tensor, int], dict[str, Tensor]]
"""(LR image, hr (C, H, W), image index) -> images (C, H, W) by name."""


def validate(config: Config, worker: Worker, ema: Mapping[str, Tensor], pairs: PairReader,
             objective: Objective) -> dict[str, float]:
    """`loss_validation` over the split (a part of a large one), and mean PSNR and SSIM
    of `bicubic`, `regression`, `sample` and `autoencoder` (what latents keep) over some of its
    images, as far as the family has them. Images are shared over
    the ranks. Collective; equal on all ranks, empty when there is no validation split.
    """
    family = make_family(config.model, config.train.makes_diffuser)
    module = TrainingModule(family, objective).to(worker.device).eval()
    module.model.load_state_dict(dict(ema))
    freeze_untrained(module.model, config)  # what is not trained is not in the loss either
    source = BatchSource(config, module.family, pairs, worker.rank, worker.size)
    split = pairs.validate_indices
    losses = worker.gather([loss(module, source.validation_batch(int(i)), worker.device)
                            for i in share(spread(split, MAX_LOSS_IMAGES), worker)])
    chosen = spread(split, config.train.validate_images)
    answer = make_answer(config, module.family, worker.device)
    rows = worker.gather([figures(*validation_pair(source, int(i)), int(i), answer)
                          for i in share(chosen, worker)])
    if not rows:
        return {}
    return ({"loss_validation": float(np.mean(losses))}
            | {name: float(np.mean([row[name] for row in rows])) for name in rows[0]})


def validation_pair(source: BatchSource, image_index: int) -> tuple[Tensor, LrRows]:
    """HR (C, H, W) and LR image, whole; LR with noise of the same level every time, where the
    network is told."""
    pairs = source.pairs
    hr, lr = (to_unit(torch.from_numpy(as_bits(image)), pairs.value_max).contiguous()
              for image in pairs.read_pair(image_index))
    rng = keyed_rng(source.config.train.seed, image_index, VALIDATE_STREAM)
    (noisy,), told = source.degraded(hr[None], lr[None], [rng], [image_index])
    return hr, replace(LrRows.whole(noisy), noise=0.0 if told is None else float(told[0]))


def in_words(update: int, figures: Mapping[str, float]) -> str:
    """A line for people."""
    return (f"validation at update {update}: "
            + ", ".join(f"{name} {value:.4g}" for name, value in figures.items()))


def spread(image_indices: np.ndarray, at_most: int) -> np.ndarray:
    """That many of them, evenly."""
    return image_indices[
        np.linspace(0, len(image_indices) - 1, min(at_most, len(image_indices))).astype(int)]


def share(image_indices: np.ndarray, worker: Worker) -> np.ndarray:
    """This rank's part, in an order that does not depend on the number of ranks."""
    return np.array_split(image_indices, worker.size)[worker.rank]


@torch.inference_mode()
def loss(module: nn.Module, batch: Batch, device: torch.device) -> float:
    return module(channels_last(batch, device))["loss"].item()


def make_answer(config: Config, family: Family, device: torch.device) -> Answer:
    """What samples a validation image, or regresses it where the family takes no steps."""
    size = 1 if config.model.window_px is None else MICRO_BATCH
    # What is judged is the network, not what is made of its samples.
    alone = config.replaced(parallel={"micro_batch": size, "exchange": "root"},
                            output={"consistent": False})
    resolver = make_resolver(alone, family, str(device), Group())

    def answer(lr: LrRows, hr: Tensor, image_index: int) -> dict[str, Tensor]:
        part, = resolver([lr], [image_index], [config.sampler.seed])
        named = {"sample": part.samples[0]} if family.takes_steps else {}
        if config.model.diffuses_code:
            named["autoencoder"] = there_and_back(family, hr, part.base, device)
        return named | ({"regression": part.base} if config.model.regresses
                        or not family.takes_steps else {})

    return answer


def there_and_back(family: Family, hr: Tensor, base: Tensor, device: torch.device) -> Tensor:
    """What the code of an image (C, H, W) keeps of it: no sample can be nearer."""
    hr, base = hr[None].to(device), base[None].to(device)
    return family.image(family.x_0(hr, base), base)[0].cpu()


@torch.inference_mode()
def figures(hr: Tensor, lr: LrRows, image_index: int, answer: Answer) -> dict[str, float]:
    """psnr_* and ssim_* of one image, all in -1..1."""
    images = {"bicubic": imresize_tensor(lr.values[None], size=hr.shape[-2:])[0]}
    images |= answer(lr, hr, image_index)
    truth, row = np.moveaxis(hr.numpy(), 0, -1), {}
    for name, image in images.items():
        image = np.moveaxis(image.clamp(-1, 1).numpy(), 0, -1)
        row |= {f"psnr_{name}": psnr(image, truth, 2.0), f"ssim_{name}": ssim(image, truth, 2.0)}
    return row
