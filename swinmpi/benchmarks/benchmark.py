"""What sampling costs here: several settings of the same program in one run, repeat by repeat in
turn."""
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch

from swinmpi import __version__
from swinmpi.benchmarks.candidates import sample_candidates, speed_up, thesis_candidates
from swinmpi.benchmarks.comparison import measure, summary, table
from swinmpi.benchmarks.gpu_check import GpuCheck, check_gpu, check_tables
from swinmpi.benchmarks.program import smooth_images
from swinmpi.benchmarks.scaling import ScalingRun, measure_scaling
from swinmpi.benchmarks.scaling_report import scaling_report
from swinmpi.benchmarks.scaling_settings import Available, plan_settings
from swinmpi.benchmarks.scaling_tables import scaling_tables
from swinmpi.config import Config, ParallelConfig
from swinmpi.errors import ConfigError
from swinmpi.families.loading import load_family
from swinmpi.parallel.comm import World
from swinmpi.parallel.device import planned_device, settled, start_computing
from swinmpi.parallel.inquiry import settle_staging
from swinmpi.reports.machine import machine_facts
from swinmpi.reports.memory import keep_freed_memory, peak_memory_mib
from swinmpi.sampling.distribution import calls_of, distribute
from swinmpi.sampling.plan import describe_steps
from swinmpi.sampling.process import sampling_grid
from swinmpi.sampling.settings import takes_steps
from swinmpi.storage.header import read_header
from swinmpi.windows.grid import WindowGrid

THESIS = {
    "model": {"family": "thesis", "scale": 2, "window_px": 32},
    "diffusion": {"schedule": "thesis64", "steps": 100, "prediction": "eps"},
    "sampler": {"method": "ddpm", "steps": 100,
                "shift": {"pattern": "circular", "border": "wrap"}},
}
"""The published setting (thesis ch. 3.1): at 64 px, 4 windows and 100 steps."""

DEFAULT_EXCHANGE = ParallelConfig().exchange


@dataclass(frozen=True)
class BenchmarkRequest:
    """What to measure: `thesis`, fast against plain with random weights; `sample`, a checkpoint's
    micro-batches and precisions (none: the configured ones); `scaling`, a checkpoint on more and
    more ranks, `num_images` for each rank; `gpu-check`, all that a GPU is asked. ConfigError for
    what is never possible."""

    what: str
    num_images: int
    size_px: int
    repeats: int
    checkpoint: Path | None = None
    micro_batches: tuple[int, ...] = ()
    precisions: tuple[str, ...] = ()

    def __post_init__(self):
        counts = [("--images", self.num_images), ("--repeats", self.repeats),
                  ("--size", self.size_px),
                  *(("--micro-batches", size) for size in self.micro_batches)]
        for name, value in counts:
            if value < 1:
                raise ConfigError(f"{name}: expected at least 1, got {value}")
        if self.what != "sample" and (self.micro_batches or self.precisions):
            raise ConfigError("--micro-batches, --precisions: expected with `sample` only; others "
                              "take parallel.micro_batch and parallel.precision")

    @property
    def num_settings(self) -> int:
        """How many settings are compared, but for `scaling`, where the ranks decide."""
        if self.what == "thesis":
            return 2
        return max(1, len(self.precisions)) * max(1, len(self.micro_batches))


@dataclass(frozen=True)
class BenchmarkPlan:
    """A benchmark as it will be, the same value on every rank; made by `plan`.

    config: with device (`cpu` or `cuda`) and precision settled; grid: windows of one SR
    image.
    """

    request: BenchmarkRequest
    config: Config
    grid: WindowGrid


def plan(request: BenchmarkRequest, config: Config) -> BenchmarkPlan:
    """ConfigError or CheckpointError for what cannot be measured, before any compute. On one
    process; the ranks may be any."""
    check(request, config)
    side = request.size_px // config.model.hr_px_per_x_px
    grid = sampling_grid(config.sampler.shift, config.model.window_px, side, side)
    made = config.replaced(parallel=settled(config.parallel))
    only_gpu = sorted({"fp16", "tf32"}.intersection(request.precisions))
    if made.parallel.device == "cpu" and only_gpu:
        raise ConfigError("--precisions: expected fp32 or bf16 on a CPU, got "
                          f"{' and '.join(only_gpu)}")
    return BenchmarkPlan(request, made, grid)


def describe(plan: BenchmarkPlan) -> str:
    """What `run` would measure, in one line."""
    request, steps = plan.request, describe_steps(plan.config, plan.grid)
    if request.what == "gpu-check":
        return (f"gpu-check on {plan.config.parallel.device}: every precision, {request.repeats} "
                f"repeats x {request.num_images} images of {request.size_px} px, {steps}; then "
                "1, 2 and 4 ranks, and a training")
    if request.what == "scaling":
        return (f"scaling: 1 image, then {request.num_images} for each rank, of "
                f"{request.size_px} px, {request.repeats} repeats, {steps}")
    return (f"{request.what}: {request.num_settings} settings x {request.repeats} repeats x "
            f"{request.num_images} images of {request.size_px} px, {steps}")


def run(plan: BenchmarkPlan, world: World) -> dict:
    """Measure; the report on rank 0, {} elsewhere. Collective."""
    request, parallel = plan.request, plan.config.parallel
    device = start_computing(parallel.device, parallel.threads, world.node, world)
    settle_staging(world, parallel.staging, device)
    keep_freed_memory()
    measured = RUNS.get(request.what, run_comparison)(plan, world, device)
    if not world.is_root:
        return {}
    return {"what": request.what, "swinmpi": __version__, "command": " ".join(sys.argv),
            "machine": machine_facts(world, torch.get_num_threads(), device),
            "num_images": request.num_images, "size_px": request.size_px,
            "configuration": plan.config.model_dump()} | measured


def run_scaling(plan: BenchmarkPlan, world: World, device: str) -> dict:
    """One image on more and more ranks and threads, many images, and what the machine itself can
    compute. Collective."""
    request, config = plan.request, plan.config
    available = Available(world.size, torch.get_num_threads(), world.node.cores)
    settings = plan_settings(config.parallel, available, plan.grid.num_positions,
                             request.num_images)
    family = load_family(request.checkpoint, config.model, takes_steps=True)
    images = smooth_images(config.model, request.size_px,
                           max(setting.num_images for setting in settings))
    scaling = ScalingRun(config, family, images, device, world)
    measured = measure_scaling(scaling, settings, request.repeats)
    return {"micro_batch": calls_of(config.parallel.micro_batch, config.model, plan.grid,
                                    config.parallel.device).told,
            "work": describe_steps(config, plan.grid),
            **scaling_report(measured, config.sampler.steps)}


def run_gpu_check(plan: BenchmarkPlan, world: World, device: str) -> dict:
    """On one process."""
    request = plan.request
    return check_gpu(GpuCheck(plan.config, request.checkpoint, device, request.size_px,
                              request.num_images, request.repeats))


def run_comparison(plan: BenchmarkPlan, world: World, device: str) -> dict:
    """Several settings on all ranks. Collective. Seconds are rank 0's."""
    request, config = plan.request, plan.config
    distribution = distribute(config.parallel, plan.grid.num_positions, request.num_images,
                              world.size)
    group = world.split(distribution.groups)
    if request.what == "thesis":
        candidates = thesis_candidates(config, device, group)
    else:
        candidates = sample_candidates(config, request.checkpoint, device, group,
                                       request.precisions, request.micro_batches)
    images = smooth_images(config.model, request.size_px, request.num_images)
    measure(candidates, images, distribution.images_per_step, request.repeats)
    spent = median(repeat["cpu_seconds"] for repeat in candidates[0].repeats)
    of_ranks = world.allgather_arrays(
        np.array([[peak_memory_mib(), spent / request.num_images]]), [1] * world.size)
    report = {"images_per_step": distribution.images_per_step,
              "cpu_seconds_per_image_of_rank": of_ranks[:, 1].tolist(),
              "peak_memory_mib_of_rank": of_ranks[:, 0].tolist()}
    if world.is_root:
        report["settings"] = [summary(one, candidates[0], request.num_images)
                              for one in candidates]
        report |= speed_up(*candidates) if request.what == "thesis" else {}
    return report


RUNS = {"scaling": run_scaling, "gpu-check": run_gpu_check}


def as_text(report: Mapping) -> str:
    """The machine, a table with a line for every setting, and what follows from it."""
    machine = report["machine"]
    first = (f"{machine['cpu']}, {machine['cores']} cores, load {machine['load']:.1f}; "
             f"{machine['ranks']} ranks x {machine['threads']} threads on {machine['device']}; "
             f"torch {machine['torch']}; {machine['mpi']}")
    if report["what"] == "scaling":
        repeats = len(report["image"][0]["repeats"])
        return (f"{first}\nimage of {report['size_px']} px, {report['work']}, micro-batches of "
                f"{report['micro_batch']}, {repeats} repeats in turn\n\n{scaling_tables(report)}")
    if report["what"] == "gpu-check":
        return f"{first}\n\n{check_tables(report)}"
    lines = [first, f"{report['num_images']} images of {report['size_px']} px, "
             f"{report['images_per_step']} at a time, "
             f"{report['configuration']['sampler']['steps']} steps; seconds per image over "
             f"{len(report['settings'][0]['repeats'])} repeats in turn", "",
             table(report["settings"]),
             "/ U-Net: time of a run over that of the U-Net alone on the same windows, of rank 0"]
    if machine["device"] != "cpu":
        lines.append("U-Net, encoder, exchange, other: the host's time, which waits for the GPU "
                     "where it reads results")
    if "plain_over_fast" in report:
        lines += speed_up_lines(report)
    memory = ", ".join(f"{mib:.0f}" for mib in report["peak_memory_mib_of_rank"])
    spent = ", ".join(f"{seconds:.3g}" for seconds in report["cpu_seconds_per_image_of_rank"])
    return "\n".join([*lines, f"CPU seconds per image of the first setting by rank: {spent}",
                      f"peak memory by rank, MiB: {memory}"])


def speed_up_lines(report: Mapping) -> list[str]:
    """What `candidates.speed_up` found, in words."""
    ratio, difference = report["plain_over_fast"]["seconds"], report["largest_difference"]
    by_cpu = report["plain_over_fast"]["cpu_seconds"]["median"]
    return ["", f"plain / fast: {ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f}), "
            f"by CPU time {by_cpu:.2f}",
            f"largest difference: images {difference['images']:.1e}, network's answer "
            f"{difference['first_step']:.1e} at the first step (same x_t), "
            f"{difference['any_step']:.1e} at any"]


def check(request: BenchmarkRequest, config: Config) -> None:
    """ConfigError or CheckpointError where request and settings do not fit each other."""
    scale, thesis, parallel = config.model.scale, THESIS["model"]["family"], config.parallel
    if request.size_px % scale:
        raise ConfigError(f"--size: expected a multiple of the scale {scale}, "
                          f"got {request.size_px}")
    if request.what == "thesis" and config.model.family != thesis:
        raise ConfigError(f"model.family: expected {thesis}, which is what `thesis` measures, "
                          f"got {config.model.family}")
    if request.what == "gpu-check" and (parallel.device == "auto"
                                        and planned_device("auto") == "cpu"):
        raise ConfigError("parallel.device: expected a GPU for `gpu-check`, found none; set "
                          "parallel.device=cpu to ask the CPU the same, smaller")
    if not config.sampler.diffuses:
        raise ConfigError("sampler.method: expected a reverse process, whose steps are measured, "
                          "got regression; use another preset or method")
    if config.sampler.adaptive is not None:
        raise ConfigError("sampler.adaptive: expected none, since steps of all windows are what is "
                          f"measured, got {config.sampler.adaptive:g}; remove it")
    if request.what != "thesis":
        check_checkpoint(request.checkpoint, config)
    if parallel.ranks_per_image != "all":
        raise ConfigError("parallel.ranks_per_image: expected all, one image on every rank is "
                          f"what is measured; got {parallel.ranks_per_image}")
    if parallel.shares != "equal":
        raise ConfigError("parallel.shares: expected equal, as ranks that are alike are measured; "
                          f"got {parallel.shares}")
    if request.what != "scaling" and parallel.exchange != DEFAULT_EXCHANGE:
        raise ConfigError(f"parallel.exchange: expected {DEFAULT_EXCHANGE}, `scaling` compares "
                          f"exchanges; got {parallel.exchange}")
    if request.what == "scaling" and config.sampler.steps < 2:
        raise ConfigError("--steps: expected at least 2, of which the first is counted apart, "
                          f"got {config.sampler.steps}")
    if config.sampler.steps > config.diffusion.steps:
        raise ConfigError(f"--steps: expected at most diffusion.steps = {config.diffusion.steps}, "
                          f"got {config.sampler.steps}")


def check_checkpoint(checkpoint: Path, config: Config) -> None:
    """ConfigError for an encoder alone, CheckpointError where the weights do not fit."""
    if not takes_steps(read_header(checkpoint)):
        raise ConfigError(f"{checkpoint}: expected a diffuser, got an encoder trained alone; it "
                          "takes no steps")
    load_family(checkpoint, config.model, takes_steps=True)
