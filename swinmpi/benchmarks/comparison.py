"""Settings of one program compared: they take turns, every repeat is kept, so are their answers."""
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

import numpy as np
import torch
from torch import Tensor

from swinmpi.benchmarks.bare import Calls, noted, seconds_alone
from swinmpi.benchmarks.program import quiet_resolver, whole
from swinmpi.config import Config
from swinmpi.reports.progress import Progress
from swinmpi.reports.tables import format_table
from swinmpi.sampling.superresolve import SuperResolver

PHASES = ("network", "encoder", "exchange")


@dataclass
class StepWatch:
    """Called after every evaluation of the network: notes the time and, with `keeps_outputs`, what
    the network answered (on root; None elsewhere)."""

    keeps_outputs: bool = False
    ends: list[float] = field(default_factory=list)
    outputs: list[Tensor | None] = field(default_factory=list)

    def __call__(self, number: int, output: Tensor | None) -> None:
        self.ends.append(time.perf_counter())
        if self.keeps_outputs:
            self.outputs.append(output)


@dataclass
class Candidate:
    """One setting under measurement: what it is, what samples with it, and what came out.

    values: what sets it apart, for the report; watch: of its samples; calls: of its network.
    """

    name: str
    values: Mapping[str, object]
    config: Config
    resolver: SuperResolver
    watch: StepWatch = field(default_factory=StepWatch)
    calls: Calls = field(default_factory=Calls)
    samples: Tensor | None = None
    repeats: list[dict] = field(default_factory=list)


def measure(candidates: Sequence[Candidate], images: Sequence[Tensor], images_per_step: int,
            repeats: int) -> None:
    """Fill in the repeats: all warm up by one step, then take turns, so that whatever else the
    machine does meets all of them. Collective."""
    is_root = candidates[0].resolver.group.is_root
    for candidate in candidates:
        warm_up(candidate, images[:images_per_step])
    with Progress(repeats * len(candidates), "passes", enabled=is_root) as progress:
        for _ in range(repeats):
            for candidate in candidates:
                candidate.repeats.append(timed(candidate, images, images_per_step))
                progress.advance(note=candidate.name)


def warm_up(candidate: Candidate, images: Sequence[Tensor]) -> None:
    """A sample in one step. Collective."""
    short, resolver = candidate.config.replaced(sampler={"steps": 1}), candidate.resolver
    once = quiet_resolver(short, resolver.family, resolver.computing.device, resolver.group)
    once.predictor = resolver.predictor  # what is compiled or recorded stays
    resolve(Candidate(candidate.name, {}, short, once), images, 0)


def resolve(candidate: Candidate, images: Sequence[Tensor], first: int) -> list[Tensor]:
    """The samples (C, H, W), on root, of images that follow each other in the stack. Collective."""
    indices, seeds = range(first, first + len(images)), [candidate.config.sampler.seed]
    parts = candidate.resolver(whole(images), indices, seeds, watch=candidate.watch)
    return [part.samples[0] for part in parts]


def timed(candidate: Candidate, images: Sequence[Tensor], images_per_step: int) -> dict:
    """One pass over the images: seconds of this rank, and milliseconds of every evaluation but the
    first of a sample, which would count what comes before it. Collective."""
    group, watch, samples, step_ms = candidate.resolver.group, candidate.watch, [], []
    watch.outputs.clear()
    predictor, calls = candidate.resolver.predictor, candidate.calls
    group.barrier()
    before = group.stopwatch.read()
    started, cpu_started = time.perf_counter(), time.process_time()
    with noted(predictor, calls):
        for first in range(0, len(images), images_per_step):
            watch.ends.clear()
            samples += resolve(candidate, images[first:first + images_per_step], first)
            step_ms += (np.diff(watch.ends) * 1000).tolist()
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    spent = group.stopwatch.since(before)
    candidate.samples = torch.stack(samples) if samples else None
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "windows": calls.num_windows,
            "bare_seconds": seconds_alone(predictor, calls),
            **{phase: spent.get(phase, 0.0) for phase in PHASES}, "step_ms": step_ms}


def summary(one: Candidate, first: Candidate, num_images: int) -> dict:
    """Medians of one setting; shares are of all repeats together; `largest_difference` is to the
    first setting."""
    total = sum(repeat["seconds"] for repeat in one.repeats)
    shares = {phase: sum(repeat[phase] for repeat in one.repeats) / total for phase in PHASES}
    steps = [ms for repeat in one.repeats for ms in repeat["step_ms"]]
    seconds = spread([repeat["seconds"] / num_images for repeat in one.repeats])
    cpu_seconds = median(repeat["cpu_seconds"] for repeat in one.repeats)
    return {"name": one.name, **one.values, "seconds_per_image": seconds,
            "images_per_second": 1 / seconds["median"],
            "cpu_seconds_per_image": cpu_seconds / num_images,
            "step_ms": median(steps) if steps else None,
            "over_bare_network": over_bare(one.repeats),
            "bare_windows_per_second": bare_rate(one.repeats),
            "share": shares | {"other": max(0.0, 1 - sum(shares.values()))},
            "largest_difference": largest_difference(one.samples, first.samples),
            "repeats": one.repeats}


def table(settings: Sequence[Mapping]) -> str:
    """A line for each summary."""
    header = ["setting", "s/image", "min", "max", "/ U-Net", "CPU s", "images/s", "ms/step",
              "U-Net", "encoder", "exchange", "other", "differs"]
    rows = []
    for one in settings:
        seconds, step_ms = one["seconds_per_image"], one["step_ms"]
        bare = one["over_bare_network"]
        rows.append([one["name"], *(f"{seconds[key]:.3g}" for key in ("median", "min", "max")),
                     "-" if bare is None else f"{bare['median']:.2f}",
                     f"{one['cpu_seconds_per_image']:.3g}", f"{one['images_per_second']:.3g}",
                     "-" if step_ms is None else f"{step_ms:.1f}",
                     *(f"{100 * share:.1f} %" for share in one["share"].values()),
                     f"{one['largest_difference']:.1e}"])
    return format_table(header, rows)


def over_bare(repeats: Sequence[Mapping]) -> dict[str, float] | None:
    """Time of a run over the time of the U-Net alone on the same windows, of this rank; None where
    it has none."""
    ratios = [repeat["seconds"] / repeat["bare_seconds"] for repeat in repeats if repeat["windows"]]
    return spread(ratios) if ratios else None


def bare_rate(repeats: Sequence[Mapping]) -> float | None:
    """Windows per second of the U-Net alone on this rank."""
    rates = [repeat["windows"] / repeat["bare_seconds"] for repeat in repeats if repeat["windows"]]
    return median(rates) if rates else None


def largest_difference(a: Tensor, b: Tensor) -> float:
    return (a - b).abs().max().item()


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": median(values), "min": min(values), "max": max(values)}
