"""What the contract of exchanges does on every rank, in one process or under a real mpirun."""
from collections.abc import Callable, Sequence
from hashlib import sha256
from itertools import pairwise
from threading import Lock

import torch
from torch import nn

from swinmpi.config import SamplerConfig, load_config
from swinmpi.config.sections import DiffusionConfig
from swinmpi.families.loading import make_family
from swinmpi.images.lr_rows import LrRows
from swinmpi.parallel.comm import Group
from swinmpi.parallel.device import Computing
from swinmpi.sampling.process import make_process
from swinmpi.sampling.superresolve import EXCHANGES, SuperResolver
from tests.support.bands import Bands
from tests.support.everywhere import EverywhereExchange
from tests.support.training import ALIGNED, LATENT, SRDIFF, THESIS, VANILLA, VIT, WAVELET

EXCHANGES_UNDER_TEST = EXCHANGES | {"everywhere": EverywhereExchange}
FAMILIES = {"aligned": lambda: make_family(load_config(overrides=ALIGNED).model),
            "aligned, vit": lambda: make_family(load_config(
                overrides=[*ALIGNED, *VIT, "model.vit_tokens=16"]).model),
            "latent": lambda: make_family(load_config(overrides=LATENT).model),
            "wavelet": lambda: make_family(load_config(overrides=WAVELET).model),
            "thesis": lambda: make_family(load_config(overrides=THESIS).model),
            "thesis, vit": lambda: make_family(load_config(overrides=[*THESIS, *VIT]).model),
            "srdiff": lambda: make_family(load_config(overrides=SRDIFF).model),
            "srdiff, windows": lambda: make_family(
                load_config(overrides=[*SRDIFF, "model.window_px=16"]).model),
            "vanilla": lambda: make_family(load_config(overrides=VANILLA).model), "bands": Bands}
SAMPLERS = {
    "ddim": {"steps": 5},
    "ddpm, random": {"method": "ddpm", "steps": 3, "shift": {"pattern": "random"}},
    "dpmpp_2m, wrap": {"method": "dpmpp_2m", "steps": 5, "shift": {"border": "wrap"}},
    "heun": {"method": "heun", "steps": 4},
    "straight, heun": {"path": "straight", "method": "heun", "steps": 3},
    "ddim, overlap": {"steps": 2, "overlap": 4, "shift": {"max_px": 8}},
    "none": {"steps": 2, "shift": {"pattern": "none"}},
    "ddpm, random, coherent": {"method": "ddpm", "steps": 3, "coherence": 4,
                               "shift": {"pattern": "random"}},
}
ONE_AT_A_TIME = Lock()
HEIGHT, WIDTH, NUM_IMAGES, SEEDS = 27, 19, 2, (0, 3)


def make_resolver(family: str, sampler: str, exchange: str, group: Group,
                  consistency: float = 0.0) -> SuperResolver:
    """The same weights for everybody, none of them zero."""
    # Ranks may be threads, and torch's generator is the process's.
    with ONE_AT_A_TIME, torch.random.fork_rng():
        torch.manual_seed(0)
        made = FAMILIES[family]()
        for parameter in made.model.parameters():
            if not parameter.any():
                nn.init.normal_(parameter, std=0.1)
    made.model.eval()
    settings = {"path": "curved"} | SAMPLERS[sampler]
    diffusion = DiffusionConfig(steps=50, path=settings.pop("path"))
    process = make_process(SamplerConfig(**settings), diffusion, made.config.window_px)
    return SuperResolver(made, process, Computing("cpu", micro_batch=2),
                         EXCHANGES_UNDER_TEST[exchange], group, consistency)


def lr_images() -> torch.Tensor:
    return (torch.rand(NUM_IMAGES, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1)) * 2
            - 1)


def rows_for(resolver: SuperResolver, images: torch.Tensor) -> list[LrRows]:
    """What this rank is given: whole images, or its own rows of them."""
    if not resolver.reads_parts(HEIGHT, WIDTH):
        return [LrRows.whole(image) for image in images]
    needed = resolver.lr_rows(HEIGHT, WIDTH, len(images))
    return [LrRows(image[:, rows.start:rows.stop].clone(), rows.start, HEIGHT)
            for image, rows in zip(images, needed, strict=True)]


def sample(group: Group, family: str, sampler: str, exchange: str, images: Sequence[int] = (0, 1),
           watch: Callable = lambda *_: None, stopping: Callable = lambda: False,
           consistency: float = 0.0) -> dict:
    """The parts of finished images of this rank: (slot, rows, cols) -> bytes
    of samples and base."""
    resolver = make_resolver(family, sampler, exchange, group, consistency)
    lr = rows_for(resolver, lr_images()[list(images)])
    parts = {}
    for part in resolver(lr, [10 + i for i in images], SEEDS, stopping, watch):
        rows, cols = (slice(line.start - seen.start, line.stop - seen.start)
                      for line, seen in zip((part.rows, part.cols), part.seen, strict=True))
        tensors = torch.cat([part.samples, part.base[None]])[:, :, rows, cols]
        parts[part.slot, part.rows, part.cols] = tensors.clone()
    return parts


def joined(of_ranks: Sequence[dict]) -> torch.Tensor:
    """(images, K + 1, C, H, W) out of the parts of all ranks, each of which is there once."""
    size, num_images = ((HEIGHT * 2, WIDTH * 2),
                        1 + max(slot for parts in of_ranks for slot, *_ in parts))
    whole = torch.full((num_images, len(SEEDS) + 1, 3, *size), torch.nan)
    for parts in of_ranks:
        for (slot, rows, cols), tensors in parts.items():
            place = whole[slot, :, :, rows.start:rows.stop, cols.start:cols.stop]
            assert place.isnan().all(), "a pixel that two ranks finish"
            place.copy_(tensors)
    assert not whole.isnan().any(), "a pixel that nobody finishes"
    return whole


def digest(images: torch.Tensor) -> str:
    return sha256(images.contiguous().numpy().tobytes()).hexdigest()


def received_in_steps(group: Group, sampler: str,
                      exchange: str) -> tuple[list[int], list[list[int]]]:
    """(bytes this rank received in each evaluation but the first, pixels by the exchange's word for
    all ranks) for one image of the family `bands`."""
    resolver, counted = make_resolver("bands", sampler, exchange, group), []
    watch = lambda number, output: counted.append(group.stats.received)  # noqa: E731
    for _ in resolver(rows_for(resolver, lr_images()[:1]), [10], [0], watch=watch):
        pass
    grid, process = resolver.exchange_for(HEIGHT, WIDTH).work.grid, resolver.process
    shifts = [process.shift_at(0, 10, number) for number in range(process.num_evaluations)]
    pixels = EXCHANGES_UNDER_TEST[exchange].received_pixels(grid, group.size, shifts,
                                                            group.weights)
    return [after - before for before, after in pairwise(counted)], pixels
