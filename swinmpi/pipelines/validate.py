"""Figures on the validation split while training: bicubic, regression and a sample with the EMA weights."""
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from swinmpi.config import Config
from swinmpi.images.degrade import imresize_tensor
from swinmpi.images.metrics import psnr, ssim
from swinmpi.models.diffuser import Diffuser
from swinmpi.parallel.comm import Group
from swinmpi.parallel.exchange import RootExchange
from swinmpi.pipelines.batches import to_unit
from swinmpi.pipelines.objective import make_objective
from swinmpi.pipelines.superresolve import SuperResolver
from swinmpi.pipelines.worker import Worker
from swinmpi.storage.pairs import PairReader

MICRO_BATCH = 4


def validate(config: Config, worker: Worker, ema: Mapping[str, Tensor], pairs: PairReader) -> dict[str, float]:
    """Mean PSNR and SSIM of `bicubic`, `regression` and `sample`, images shared over the ranks. Collective.

    Equal on all ranks; empty when there is no validation split.
    """
    chosen = pairs.validate_indices
    chosen = chosen[np.linspace(0, len(chosen) - 1, min(config.train.validate_images, len(chosen))).astype(int)]
    answer = make_answer(config, worker.device, ema)
    rows = [figures(*(to_unit(image, pairs.value_max) for image in pairs.read_pair(i)), int(i), answer)
            for i in np.array_split(chosen, worker.size)[worker.rank]]
    rows = worker.gather(rows)
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]} if rows else {}


def make_answer(config: Config, device: torch.device, ema: Mapping[str, Tensor]):
    """(lr (C, h, w), image index) -> images (C, H, W) by name."""
    if config.train.target == "encoder":
        objective = make_objective(config).to(device).eval()
        objective.model.load_state_dict(dict(ema))
        return lambda lr, _: {"regression": objective.regress(lr[None].to(device))[0].cpu()}
    model = Diffuser(config.model)
    model.load_state_dict(dict(ema))
    model.prepare(device, config.parallel.channels_last, config.parallel.fused_attention)
    resolver = SuperResolver(config, model, RootExchange(Group()), MICRO_BATCH, device)

    def sample(lr: Tensor, image_index: int) -> dict[str, Tensor]:
        result = resolver([lr], [image_index], [config.sampler.seed])
        named = {"sample": result.samples[0, 0]}
        return named | ({"regression": result.base[0]} if config.model.family == "aligned" else {})

    return sample


@torch.inference_mode()
def figures(hr: np.ndarray, lr: np.ndarray, image_index: int, answer) -> dict[str, float]:
    """psnr_* and ssim_* of one image, all in -1..1."""
    lr = torch.from_numpy(lr)
    images = {"bicubic": imresize_tensor(lr[None], size=hr.shape[-2:])[0]} | answer(lr, image_index)
    truth, row = np.moveaxis(hr, 0, -1), {}
    for name, image in images.items():
        image = np.moveaxis(image.clamp(-1, 1).numpy(), 0, -1)
        row |= {f"psnr_{name}": psnr(image, truth, 2.0), f"ssim_{name}": ssim(image, truth, 2.0)}
    return row
