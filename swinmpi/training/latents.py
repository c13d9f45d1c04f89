"""Latents brought to unit deviation before a diffuser is trained on them."""
import torch
from torch import Tensor

from swinmpi.config import Config
from swinmpi.families.latent import Latent
from swinmpi.models.ema import Ema
from swinmpi.parallel.worker import Worker
from swinmpi.storage.pairs import PairReader
from swinmpi.training.batches import BatchSource

NUM_CROPS, AT_ONCE = 1024, 16


def scale_latents(family: Latent, ema: Ema, config: Config, worker: Worker,
                  pairs: PairReader) -> None:
    """Measure the root mean square of every latent on the first NUM_CROPS crops of the training,
    and keep it with the weights. Measured by one rank, so that it does not depend on how many
    there are. Collective."""
    deviation = torch.tensor(worker.on_root(
        lambda: measured(family, BatchSource(config, family, pairs, 0, 1), worker.device).tolist()))
    family.code.autoencoder.deviation.copy_(deviation)
    ema.load(family.model.state_dict())


@torch.no_grad()
def measured(family: Latent, source: BatchSource, device: torch.device) -> Tensor:
    """Root mean square of latents by channel, (L,); of one that is always 0, 1."""
    total, count = torch.zeros(family.x_channels, dtype=torch.float64), 0
    for first in range(0, NUM_CROPS, AT_ONCE):
        batch = source.images(range(first, first + AT_ONCE))
        latents = family.x_0(batch.hr.to(device), family.regression(batch.lr.to(device)))
        total += latents.double().square().sum(dim=(0, 2, 3)).cpu()
        count += latents[:, 0].numel()
    deviation = (total / count).sqrt().float()
    return torch.where(deviation > 0, deviation, 1.0)
