"""What sampling costs here: several settings of the same program in one run, repeat by repeat in turn."""
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from swinmpi import __version__
from swinmpi.benchmarks.comparison import Contender, largest_difference, measure, spread, summary, table, watched
from swinmpi.benchmarks.machine import machine_facts
from swinmpi.benchmarks.scaling import Course, measure_scaling, plan_settings
from swinmpi.benchmarks.scaling_report import describe_scaling, scaling_report
from swinmpi.config import Config
from swinmpi.errors import ConfigError
from swinmpi.families.model import load_model
from swinmpi.images.imresize import imresize_tensor
from swinmpi.models.diffuser import Diffuser
from swinmpi.parallel.comm import Group, World
from swinmpi.parallel.launch import choose_device, choose_threads
from swinmpi.reports.memory import keep_freed_memory, peak_memory_mib
from swinmpi.sampling.distribution import Layout, describe_work, plan_layout

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
    precisions (none: the configured ones); `scaling`, a checkpoint on more and more ranks, `num_images` for each rank."""

    what: str
    num_images: int
    size_px: int
    repeats: int
    checkpoint: Path | None = None
    micro_batches: tuple[int, ...] = ()
    precisions: tuple[str, ...] = ()


@dataclass(frozen=True)
class SquareImage:
    """LR pixels."""

    height: int
    width: int


def benchmark(request: BenchmarkRequest, config: Config, world: World) -> dict:
    """Measure; the report on rank 0, {} elsewhere. Collective."""
    device = torch.device(choose_device(config.parallel.device, world.node.rank))
    threads = choose_threads(config.parallel.threads, world.node)
    torch.set_num_threads(threads)
    keep_freed_memory()
    measured = (scaling if request.what == "scaling" else contest)(request, config, world, threads, device)
    if not world.is_root:
        return {}
    return {"what": request.what, "swinmpi": __version__, "command": " ".join(sys.argv),
            "machine": machine_facts(world, threads, device), "num_images": request.num_images, "size_px": request.size_px,
            "configuration": config.model_dump()} | measured


def scaling(request: BenchmarkRequest, config: Config, world: World, threads: int, device: torch.device) -> dict:
    """One image on more and more ranks and threads, many images, and what the machine itself can do. Collective."""
    size = lr_size(request, config)
    settings = plan_settings(config, size, world, threads, request.num_images, device)
    model = load_model(request.checkpoint, config).model.model
    model = model.prepare(device, config.parallel.channels_last, config.parallel.fused_attention)
    images = smooth_images(config, request.size_px, max(setting.num_images for setting in settings))
    micro_batch = layout_of(request, config, world.size, device).micro_batch
    measured = measure_scaling(Course(config, model, images, micro_batch, device, world), settings, request.repeats)
    return {"micro_batch": micro_batch, "work": describe_work(config, size)} | scaling_report(measured, config.sampler.steps)


def contest(request: BenchmarkRequest, config: Config, world: World, threads: int, device: torch.device) -> dict:
    """Several settings on all ranks. Collective. Seconds are rank 0's."""
    layout = layout_of(request, config, world.size, device)
    group = world.split(layout.groups)
    make = thesis_contenders if request.what == "thesis" else sample_contenders
    contenders = make(request, config, group, layout.micro_batch, device)
    measure(contenders, smooth_images(config, request.size_px, request.num_images), layout.images_per_step, request.repeats)
    memory_mib = world.allgather_arrays(np.array([peak_memory_mib()]), [1] * world.size).tolist()
    report = {"images_per_step": layout.images_per_step, "peak_memory_mib_of_rank": memory_mib}
    if world.is_root:
        report["settings"] = [summary(one, contenders[0], request.num_images) for one in contenders]
        report |= speed_up(*contenders) if request.what == "thesis" else {}
    return report


def check(request: BenchmarkRequest, config: Config) -> None:
    """ConfigError for what cannot be measured, before any compute. On one process."""
    for name, value in (("--images", request.num_images), ("--repeats", request.repeats), ("--size", request.size_px),
                        *(("--micro-batches", size) for size in request.micro_batches)):
        if value < 1:
            raise ConfigError(f"{name}: expected at least 1, got {value}")
    if request.size_px % config.model.scale:
        raise ConfigError(f"--size: expected a multiple of the scale {config.model.scale}, got {request.size_px}")
    if request.what == "thesis" and config.model.family != "thesis":
        raise ConfigError(f"model.family: expected thesis, which is what `thesis` measures, got {config.model.family}")
    if request.what != "sample" and (request.micro_batches or request.precisions):
        raise ConfigError("--micro-batches, --precisions: expected with `sample` only; others take parallel.micro_batch "
                          "and parallel.precision")
    if request.what == "scaling" and config.sampler.steps < 2:
        raise ConfigError(f"--steps: expected at least 2, of which the first is counted apart, got {config.sampler.steps}")
    if request.what != "thesis" and load_model(request.checkpoint, config).target != "diffuser":
        raise ConfigError(f"{request.checkpoint}: expected a diffuser, got an encoder trained alone; it takes no steps")
    if config.parallel.ranks_per_image != "all":
        raise ConfigError("parallel.ranks_per_image: expected all, one image on every rank is what is measured; got "
                          f"{config.parallel.ranks_per_image}")
    if request.what != "scaling" and config.parallel.exchange != "root":
        raise ConfigError(f"parallel.exchange: expected root, `scaling` compares exchanges; got {config.parallel.exchange}")
    if config.sampler.steps > config.diffusion.steps:
        raise ConfigError(f"--steps: expected at most diffusion.steps = {config.diffusion.steps}, got {config.sampler.steps}")


def describe_plan(request: BenchmarkRequest, config: Config) -> str:
    """What a run on one rank would measure, in one line."""
    if request.what == "scaling":
        return (f"scaling: 1 image, then {request.num_images} for each rank, of {request.size_px} px, {request.repeats} "
                f"repeats, {describe_work(config, lr_size(request, config))}")
    settings = 2 if request.what == "thesis" else len(request.precisions or "-") * len(request.micro_batches or "-")
    return (f"{request.what}: {settings} settings x {request.repeats} repeats x {request.num_images} images of "
            f"{request.size_px} px, {describe_work(config, lr_size(request, config))}")


def describe(report: Mapping) -> str:
    """The machine, a table with a line for every setting, and what follows from it."""
    machine = report["machine"]
    first = (f"{machine['cpu']}, {machine['cores']} cores, load {machine['load']:.1f}; {machine['ranks']} ranks x "
             f"{machine['threads']} threads on {machine['device']}; torch {machine['torch']}; {machine['mpi']}")
    if report["what"] == "scaling":
        second = (f"image of {report['size_px']} px, {report['work']}, micro-batches of {report['micro_batch']}, "
                  f"{len(report['image'][0]['repeats'])} repeats in turn")
        return f"{first}\n{second}\n\n{describe_scaling(report)}"
    lines = [first, f"{report['num_images']} images of {report['size_px']} px, {report['images_per_step']} at a time, "
             f"{report['configuration']['sampler']['steps']} steps; seconds per image over "
             f"{len(report['settings'][0]['repeats'])} repeats in turn", "", table(report["settings"])]
    if "plain_over_fast" in report:
        ratio, difference = report["plain_over_fast"]["seconds"], report["largest_difference"]
        lines += ["", f"plain / fast: {ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f}), by CPU time "
                  f"{report['plain_over_fast']['cpu_seconds']['median']:.2f}", f"largest difference: images "
                  f"{difference['images']:.1e}, network's answer {difference['first_step']:.1e} at the first step (same x_t), "
                  f"{difference['any_step']:.1e} at any"]
    memory = ", ".join(f"{mib:.0f}" for mib in report["peak_memory_mib_of_rank"])
    return "\n".join([*lines, f"peak memory by rank, MiB: {memory}"])


def layout_of(request: BenchmarkRequest, config: Config, num_ranks: int, device: torch.device) -> Layout:
    """What swinmpi-sample would do with such a stack."""
    return plan_layout(config, lr_size(request, config), request.num_images, num_ranks, device)


def lr_size(request: BenchmarkRequest, config: Config) -> SquareImage:
    side = request.size_px // config.model.scale
    return SquareImage(side, side)


def thesis_contenders(request: BenchmarkRequest, config: Config, group: Group, micro_batch: int,
                      device: torch.device) -> list[Contender]:
    """The same weights, fast and plain; both keep what the network answers."""
    made = []
    for name, switches in (("fast", FAST), ("plain", PLAIN)):
        chosen = with_parallel(config, switches)
        model = random_model(chosen).prepare(device, chosen.parallel.channels_last, chosen.parallel.fused_attention)
        made.append(Contender(name, switches | {"micro_batch": micro_batch},
                              watched(chosen, model, group, micro_batch, device, keeps_outputs=True)))
    return made


def sample_contenders(request: BenchmarkRequest, config: Config, group: Group, micro_batch: int,
                      device: torch.device) -> list[Contender]:
    """Every precision with every micro-batch, on one copy of the weights."""
    model = load_model(request.checkpoint, config).model.model
    model = model.prepare(device, config.parallel.channels_last, config.parallel.fused_attention)
    made = []
    for precision in request.precisions or (config.parallel.precision,):
        for size in request.micro_batches or (micro_batch,):
            chosen = with_parallel(config, {"precision": precision, "micro_batch": size})
            made.append(Contender(f"{precision}, micro-batch {size}", {"precision": precision, "micro_batch": size},
                                  watched(chosen, model, group, size, device)))
    return made


def random_model(config: Config) -> Diffuser:
    """Seeded weights, none of them zero: an encoder that starts blind to the mask would hide windows mixed up."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(WEIGHTS_SEED)
        model = Diffuser(config.model)
        for parameter in model.parameters():
            if not parameter.any():
                nn.init.normal_(parameter, std=0.1)
    return model


def with_parallel(config: Config, values: Mapping[str, object]) -> Config:
    return config.model_copy(update={"parallel": config.parallel.model_copy(update=dict(values))})


def smooth_images(config: Config, size_px: int, num_images: int) -> list[Tensor]:
    """Smooth random LR images (C, h, w) in -1..1, the same on every rank."""
    side = size_px // config.model.scale
    coarse = max(1, side // SMOOTH_PX)
    draw = torch.rand(num_images, config.model.channels, coarse, coarse,
                      generator=torch.Generator().manual_seed(IMAGES_SEED))
    return list(imresize_tensor(draw * 2 - 1, size=(side, side)).clamp(-1, 1))


def speed_up(fast: Contender, plain: Contender) -> dict:
    """plain / fast, each repeat against its neighbour; and how far the answers lie apart. Each setting follows its own
    x_t, so only the first step compares networks alone; later ones contain what has come of the difference."""
    pairs = list(zip(plain.repeats, fast.repeats, strict=True))
    ratios = {name: spread([slow[name] / quick[name] for slow, quick in pairs]) for name in ("seconds", "cpu_seconds")}
    steps = [largest_difference(a, b)
             for a, b in zip(fast.resolver.sampler.outputs, plain.resolver.sampler.outputs, strict=True)]
    return {"plain_over_fast": ratios,
            "largest_difference": {"images": largest_difference(fast.samples, plain.samples), "first_step": steps[0],
                                   "any_step": max(steps), "steps": steps}}
