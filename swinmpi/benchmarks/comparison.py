"""Settings of one program measured against each other: they take turns, every repeat is kept, their answers are compared."""
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

import numpy as np
import torch
from torch import Tensor

from swinmpi.config import Config
from swinmpi.diffusion.samplers import Sampler
from swinmpi.families.lr_rows import LrStrip
from swinmpi.models.diffuser import Diffuser
from swinmpi.parallel.comm import Group
from swinmpi.reports.progress import Progress
from swinmpi.reports.tables import format_table
from swinmpi.sampling.superresolve import SuperResolver


@dataclass(frozen=True, eq=False)
class WatchedSampler(Sampler):
    """On the root it notes when each step ended and, if `keeps_outputs`, what the network had answered."""

    keeps_outputs: bool = False
    ends: list[float] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)

    def step(self, step: int, x_t: Tensor, output: Tensor, *rest) -> tuple[Tensor, Tensor | None]:
        made = super().step(step, x_t, output, *rest)
        self.ends.append(time.perf_counter())
        if self.keeps_outputs:
            self.outputs.append(output)
        return made


@dataclass
class Contender:
    """One setting under measurement: how it is made up, what samples with it, and what came out."""

    name: str
    settings: Mapping[str, object]
    resolver: SuperResolver
    samples: Tensor | None = None
    repeats: list[dict] = field(default_factory=list)


def watched(config: Config, model: Diffuser, group: Group, micro_batch: int, device: torch.device,
            keeps_outputs: bool = False) -> SuperResolver:
    """What swinmpi-sample samples with, and a WatchedSampler in it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the published schedule ends early is part of what is reproduced
        resolver = SuperResolver(config, model, group, micro_batch, device)
    resolver.sampler = WatchedSampler(**vars(resolver.sampler), keeps_outputs=keeps_outputs)
    return resolver


def measure(contenders: Sequence[Contender], images: Sequence[Tensor], images_per_step: int, repeats: int) -> None:
    """Fill in the repeats: all contenders warm up by one step, then take turns, so that what else the machine does
    meets all of them. Collective."""
    root = contenders[0].resolver.group.is_root
    for one in contenders:
        warm_up(one.resolver, images[:images_per_step])
    with Progress(repeats * len(contenders), "passes", enabled=root) as progress:
        for _ in range(repeats):
            for one in contenders:
                one.repeats.append(timed(one, images, images_per_step))
                progress.advance(note=one.name)


def warm_up(resolver: SuperResolver, images: Sequence[Tensor]) -> None:
    short = resolver.config.model_copy(update={"sampler": resolver.config.sampler.model_copy(update={"steps": 1})})
    resolve(watched(short, resolver.model, resolver.group, resolver.predictor.micro_batch, resolver.device), images, 0)


def resolve(resolver: SuperResolver, images: Sequence[Tensor], first: int) -> list[Tensor]:
    """The samples (C, H, W) of images that follow each other in the stack; none off the root. Collective."""
    indices = range(first, first + len(images))
    return [shown.samples[0] for shown in resolver([LrStrip.whole(image) for image in images], indices,
                                                   [resolver.config.sampler.seed])]


def timed(one: Contender, images: Sequence[Tensor], images_per_step: int) -> dict:
    """One pass over the images: what this rank spent, in seconds, and milliseconds of every step but the first of a
    sample (it would count what comes before). Collective."""
    resolver, group, samples, step_ms = one.resolver, one.resolver.group, [], []
    resolver.sampler.outputs.clear()
    group.barrier()
    before, exchanged = replace(resolver.seconds), group.stats.seconds
    started, cpu_started = time.perf_counter(), time.process_time()
    for first in range(0, len(images), images_per_step):
        resolver.sampler.ends.clear()
        samples += resolve(resolver, images[first:first + images_per_step], first)
        step_ms += (np.diff(resolver.sampler.ends) * 1000).tolist()
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    one.samples = torch.stack(samples) if samples else None
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "network": resolver.seconds.network - before.network,
            "encoder": resolver.seconds.encoder - before.encoder, "exchange": group.stats.seconds - exchanged,
            "step_ms": step_ms}


def summary(one: Contender, first: Contender, num_images: int) -> dict:
    """Medians of one setting; shares are of all repeats together; `largest_difference` is to the first setting."""
    total = sum(repeat["seconds"] for repeat in one.repeats)
    shares = {name: sum(repeat[name] for repeat in one.repeats) / total for name in ("network", "encoder", "exchange")}
    steps = [ms for repeat in one.repeats for ms in repeat["step_ms"]]
    seconds = spread([repeat["seconds"] / num_images for repeat in one.repeats])
    return {"name": one.name, **one.settings, "seconds_per_image": seconds, "images_per_second": 1 / seconds["median"],
            "cpu_seconds_per_image": median(repeat["cpu_seconds"] for repeat in one.repeats) / num_images,
            "step_ms": median(steps) if steps else None, "share": shares | {"other": max(0.0, 1 - sum(shares.values()))},
            "largest_difference": largest_difference(one.samples, first.samples), "repeats": one.repeats}


def table(settings: Sequence[Mapping]) -> str:
    header = ["setting", "s/image", "min", "max", "CPU s", "images/s", "ms/step", "U-Net", "encoder", "exchange", "other",
              "differs"]
    rows = []
    for one in settings:
        seconds, step_ms = one["seconds_per_image"], one["step_ms"]
        rows.append([one["name"], *(f"{seconds[key]:.3g}" for key in ("median", "min", "max")),
                     f"{one['cpu_seconds_per_image']:.3g}", f"{one['images_per_second']:.3g}",
                     "-" if step_ms is None else f"{step_ms:.1f}", *(f"{100 * share:.1f} %" for share in one["share"].values()),
                     f"{one['largest_difference']:.1e}"])
    return format_table(header, rows)


def largest_difference(a: Tensor, b: Tensor) -> float:
    return (a - b).abs().max().item()


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": median(values), "min": min(values), "max": max(values)}
