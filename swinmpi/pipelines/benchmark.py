"""What sampling costs here: several settings of the same program in one run, repeat by repeat in turn."""
import os
import platform
import resource
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor, nn

from swinmpi import __version__
from swinmpi.config import Config
from swinmpi.diffusion.samplers import Sampler
from swinmpi.errors import ConfigError
from swinmpi.images.degrade import imresize_tensor
from swinmpi.models.diffuser import Diffuser
from swinmpi.parallel.comm import Group, World
from swinmpi.parallel.exchange import RootExchange
from swinmpi.parallel.launch import choose_device, choose_threads, library_version
from swinmpi.pipelines.denoise import Seconds, sampling_grid
from swinmpi.pipelines.model import load_model
from swinmpi.pipelines.progress import Progress
from swinmpi.pipelines.report import format_table
from swinmpi.pipelines.sample import Layout, plan_layout
from swinmpi.pipelines.superresolve import SuperResolver

WEIGHTS_SEED, IMAGES_SEED = 0, 1
SMOOTH_PX = 8

THESIS = {
    "model": {"family": "thesis", "scale": 2, "window_px": 32},
    "diffusion": {"schedule": "thesis64", "steps": 100, "prediction": "eps"},
    "sampler": {"method": "ddpm", "steps": 100, "shift": {"pattern": "circular", "border": "wrap"}},
}
"""The published setting (thesis ch. 3.1): at 64 px, 4 windows and 100 steps."""

FAST = {"encoder_cache": True, "fused_attention": True, "channels_last": True}
PLAIN = dict.fromkeys(FAST, False)


@dataclass(frozen=True)
class BenchmarkRequest:
    """What to measure: `thesis`, fast against plain with random weights; `sample`, a checkpoint's micro-batches and
    precisions (none: the configured ones)."""

    what: str
    num_images: int
    size_px: int
    repeats: int
    checkpoint: Path | None = None
    micro_batches: tuple[int, ...] = ()
    precisions: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImageSize:
    """As much of a stack as `plan_layout` looks at."""

    height: int
    width: int


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


def benchmark(request: BenchmarkRequest, config: Config, world: World) -> dict:
    """Measure; the report on rank 0, {} elsewhere. Collective. Seconds are rank 0's."""
    device = torch.device(choose_device(config.parallel.device, world.node.rank))
    threads = choose_threads(config.parallel.threads, world.node)
    torch.set_num_threads(threads)
    layout = layout_of(request, config, world.size, device)
    exchange = RootExchange(world.split(list(layout.groups)))
    make = thesis_contenders if request.what == "thesis" else sample_contenders
    contenders = make(request, config, exchange, layout.micro_batch, device)
    measure(contenders, test_images(request, config), layout.images_per_step, request.repeats)
    memory_mib = world.allgather_arrays(np.array([peak_memory_mib()]), [1] * world.size).tolist()
    if not world.is_root:
        return {}
    report = {"what": request.what, "swinmpi": __version__, "command": " ".join(sys.argv),
              "machine": machine_facts(world, threads, device), "num_images": request.num_images, "size_px": request.size_px,
              "images_per_step": layout.images_per_step, "configuration": config.model_dump(),
              "settings": [summary(one, contenders[0], request.num_images) for one in contenders],
              "peak_memory_mib_of_rank": memory_mib}
    return report | (speed_up(*contenders) if request.what == "thesis" else {})


def check(request: BenchmarkRequest, config: Config) -> None:
    """ConfigError for what cannot be measured, before any compute. On one process."""
    for name, least, value in (("--images", 1, request.num_images), ("--repeats", 1, request.repeats),
                               ("--size", config.model.scale, request.size_px),
                               *(("--micro-batches", 1, size) for size in request.micro_batches)):
        if value < least:
            raise ConfigError(f"{name}: expected at least {least}, got {value}")
    if request.size_px % config.model.scale:
        raise ConfigError(f"--size: expected a multiple of the scale {config.model.scale}, got {request.size_px}")
    if request.what == "thesis" and config.model.family != "thesis":
        raise ConfigError(f"model.family: expected thesis, which is what `thesis` measures, got {config.model.family}")
    if request.what == "sample" and load_model(request.checkpoint, config).target != "diffuser":
        raise ConfigError(f"{request.checkpoint}: expected a diffuser, got an encoder trained alone; it takes no steps")
    if config.parallel.ranks_per_image != "all":
        raise ConfigError("parallel.ranks_per_image: expected all, one image on every rank is what is measured; got "
                          f"{config.parallel.ranks_per_image}")
    if config.sampler.steps > config.diffusion.steps:
        raise ConfigError(f"--steps: expected at most diffusion.steps = {config.diffusion.steps}, got {config.sampler.steps}")


def describe_plan(request: BenchmarkRequest, config: Config) -> str:
    """What a run on one rank would measure, in one line."""
    grid = sampling_grid(config, request.size_px, request.size_px)
    settings = 2 if request.what == "thesis" else len(request.precisions or "-") * len(request.micro_batches or "-")
    return (f"{request.what}: {settings} settings x {request.repeats} repeats x {request.num_images} images of "
            f"{request.size_px} px, {grid.num_positions} windows of {grid.window_px} px, {config.sampler.steps} steps "
            f"({config.sampler.method})")


def describe(report: Mapping) -> str:
    """The machine, a table with a line for every setting, and what follows from it."""
    machine = report["machine"]
    lines = [f"{machine['cpu']}, {machine['cores']} cores, load {machine['load']:.1f}; {machine['ranks']} ranks x "
             f"{machine['threads']} threads on {machine['device']}; torch {machine['torch']}; {machine['mpi'] or 'no MPI'}",
             f"{report['num_images']} images of {report['size_px']} px, {report['images_per_step']} at a time, "
             f"{report['configuration']['sampler']['steps']} steps; seconds per image over "
             f"{len(report['settings'][0]['repeats'])} repeats in turn", "", table(report["settings"])]
    if "plain_over_fast" in report:
        ratio, difference = report["plain_over_fast"], report["largest_difference"]
        lines += ["", f"plain / fast: {ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f}); largest difference: "
                  f"images {difference['images']:.1e}, network {difference['first_step']:.1e} at the first step (same x_t), "
                  f"{difference['any_step']:.1e} at any"]
    memory = ", ".join(f"{mib:.0f}" for mib in report["peak_memory_mib_of_rank"])
    return "\n".join([*lines, f"peak memory by rank, MiB: {memory}"])


def layout_of(request: BenchmarkRequest, config: Config, num_ranks: int, device: torch.device) -> Layout:
    """What swinmpi-sample would do with such a stack."""
    side = request.size_px // config.model.scale
    return plan_layout(config, ImageSize(side, side), request.num_images, num_ranks, device)


def thesis_contenders(request: BenchmarkRequest, config: Config, exchange: RootExchange, micro_batch: int,
                      device: torch.device) -> list[Contender]:
    """The same weights, fast and plain; both keep what the network answers."""
    made = []
    for name, switches in (("fast", FAST), ("plain", PLAIN)):
        chosen = with_parallel(config, switches)
        model = random_model(chosen).prepare(device, chosen.parallel.channels_last, chosen.parallel.fused_attention)
        made.append(Contender(name, switches | {"micro_batch": micro_batch},
                              watched(chosen, model, exchange, micro_batch, device, keeps_outputs=True)))
    return made


def sample_contenders(request: BenchmarkRequest, config: Config, exchange: RootExchange, micro_batch: int,
                      device: torch.device) -> list[Contender]:
    """Every precision with every micro-batch, on one copy of the weights."""
    model = load_model(request.checkpoint, config).model.model
    model = model.prepare(device, config.parallel.channels_last, config.parallel.fused_attention)
    made = []
    for precision in request.precisions or (config.parallel.precision,):
        for size in request.micro_batches or (micro_batch,):
            chosen = with_parallel(config, {"precision": precision, "micro_batch": size})
            made.append(Contender(f"{precision}, micro-batch {size}", {"precision": precision, "micro_batch": size},
                                  watched(chosen, model, exchange, size, device)))
    return made


def watched(config: Config, model: Diffuser, exchange: RootExchange, micro_batch: int, device: torch.device,
            keeps_outputs: bool = False) -> SuperResolver:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the published schedule ends early is part of what is reproduced
        resolver = SuperResolver(config, model, exchange, micro_batch, device)
    resolver.sampler = WatchedSampler(**vars(resolver.sampler), keeps_outputs=keeps_outputs)
    return resolver


def random_model(config: Config) -> Diffuser:
    """Seeded weights, none of them zero: an encoder that starts blind to the mask would hide windows mixed up."""
    torch.manual_seed(WEIGHTS_SEED)
    model = Diffuser(config.model)
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return model


def test_images(request: BenchmarkRequest, config: Config) -> list[Tensor]:
    """Smooth random LR images (C, h, w) in -1..1, the same on every rank."""
    side = request.size_px // config.model.scale
    coarse = max(1, side // SMOOTH_PX)
    draw = torch.rand(request.num_images, config.model.channels, coarse, coarse,
                      generator=torch.Generator().manual_seed(IMAGES_SEED))
    return list(imresize_tensor(draw * 2 - 1, size=(side, side)).clamp(-1, 1))


def measure(contenders: Sequence[Contender], images: Sequence[Tensor], images_per_step: int, repeats: int) -> None:
    """Fill in the repeats: all contenders warm up by one step, then take turns, so that what else the machine does
    meets all of them. Collective."""
    root = contenders[0].resolver.exchange.group.is_root
    for one in contenders:
        warm_up(one.resolver, images[:images_per_step])
    with Progress(repeats * len(contenders), "passes", enabled=root) as progress:
        for _ in range(repeats):
            for one in contenders:
                one.repeats.append(timed(one, images, images_per_step))
                progress.advance(note=one.name)


def warm_up(resolver: SuperResolver, images: Sequence[Tensor]) -> None:
    short = resolver.config.model_copy(update={"sampler": resolver.config.sampler.model_copy(update={"steps": 1})})
    watched(short, resolver.model, resolver.exchange, resolver.micro_batch, resolver.device)(images, range(len(images)), [0])


def timed(one: Contender, images: Sequence[Tensor], images_per_step: int) -> dict:
    """One pass over the images: what this rank spent, in seconds, and milliseconds of every step but the first of a
    sample (it would count what comes before). Collective."""
    resolver, group, samples, step_ms = one.resolver, one.resolver.exchange.group, [], []
    resolver.seconds, seed = Seconds(), resolver.config.sampler.seed
    resolver.sampler.outputs.clear()
    group.barrier()
    exchanged, started, cpu_started = group.stats.seconds, time.perf_counter(), time.process_time()
    for first in range(0, len(images), images_per_step):
        part = images[first:first + images_per_step]
        resolver.sampler.ends.clear()
        result = resolver(part, range(first, first + len(part)), [seed])
        step_ms += (np.diff(resolver.sampler.ends) * 1000).tolist()
        samples += [] if result is None else [result.samples[0]]
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    one.samples = torch.cat(samples) if samples else None
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "network": resolver.seconds.network,
            "encoder": resolver.seconds.encoder, "exchange": group.stats.seconds - exchanged, "step_ms": step_ms}


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


def speed_up(fast: Contender, plain: Contender) -> dict:
    """plain / fast, each repeat against its neighbour; and how far the answers lie apart. Each setting follows its own
    x_t, so only the first step compares networks alone; later ones contain what has come of the difference."""
    ratios = [slow["seconds"] / quick["seconds"] for slow, quick in zip(plain.repeats, fast.repeats, strict=True)]
    steps = [largest_difference(a, b)
             for a, b in zip(fast.resolver.sampler.outputs, plain.resolver.sampler.outputs, strict=True)]
    return {"plain_over_fast": spread(ratios),
            "largest_difference": {"images": largest_difference(fast.samples, plain.samples), "first_step": steps[0],
                                   "any_step": max(steps), "steps": steps}}


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


def machine_facts(world: Group, threads: int, device: torch.device) -> dict:
    """What the figures depend on beside the program; `load` is the machine's over the last minute."""
    return {"cpu": cpu_model(), "cores": world.node.cores, "load": os.getloadavg()[0], "ranks": world.size, "threads": threads,
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "torch": torch.__version__, "python": platform.python_version(), "system": platform.platform(),
            "mpi": library_version()}


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def peak_memory_mib() -> float:
    """Largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def largest_difference(a: Tensor, b: Tensor) -> float:
    return (a - b).abs().max().item()


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": median(values), "min": min(values), "max": max(values)}


def with_parallel(config: Config, values: Mapping[str, object]) -> Config:
    return config.model_copy(update={"parallel": config.parallel.model_copy(update=dict(values))})
