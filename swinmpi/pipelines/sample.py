"""A stack in, its super-resolved stack out, on all ranks of an MPI job; resumable image by image."""
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from swinmpi.config import Config, dump_yaml
from swinmpi.errors import ConfigError, SomeImagesFailed, StackError, Stopped, SwinmpiError
from swinmpi.images.metrics import lr_psnr, seam_score
from swinmpi.parallel.comm import Group, World
from swinmpi.parallel.exchange import FinishedImage, ImageRelay, RootExchange
from swinmpi.parallel.launch import StopFlag, choose_device, choose_threads, library_version
from swinmpi.parallel.ownership import auto_ranks_per_image, block_range, group_of, images_of_group, split_groups
from swinmpi.pipelines.denoise import sampling_grid
from swinmpi.pipelines.model import LoadedModel, load_model
from swinmpi.pipelines.progress import Progress
from swinmpi.pipelines.report import format_table
from swinmpi.pipelines.superresolve import SuperResolver
from swinmpi.storage.checkpoint import file_sha256
from swinmpi.storage.output import OutputPlan, StackOutput
from swinmpi.storage.stack import Stack
from swinmpi.storage.values import ValueRange, mask_invalid, restore_invalid

WINDOWS_PER_RANK = 16
MAX_IMAGES_PER_STEP = 8


@dataclass(frozen=True)
class SampleRequest:
    """What to read and write; `model` carries the resolved configuration."""

    stack: str
    output: Path
    checkpoint: Path
    ensemble: int = 1
    overwrite: bool = False
    allow_external: bool = False


@dataclass(frozen=True)
class Layout:
    """How this run lies over the ranks: pure arithmetic, the same value on every rank."""

    groups: tuple[range, ...]
    reason: str
    images_per_step: int
    micro_batch: int


def sample(request: SampleRequest, config: Config, world: World) -> dict:
    """Super-resolve the stack into `request.output`; returns the report on rank 0, {} elsewhere. Collective.

    Raises Stopped when a signal asked for an end (finished images are kept), SomeImagesFailed naming the images that
    could not be read (the others are written).
    """
    device = torch.device(choose_device(config.parallel.device, world.node.rank))
    threads = choose_threads(config.parallel.threads, world.node)
    torch.set_num_threads(threads)
    world.on_root(lambda: check_request(request, config))
    loaded = load_model(request.checkpoint, config)
    with Stack.open(request.stack, request.allow_external) as stack, Run(request, config, world, stack) as run:
        layout = plan_layout(config, stack, len(run.remaining), world.size, device)
        run.announce(layout, threads, device)
        groups = list(layout.groups)
        exchange = RootExchange(world.split(groups))
        resolver = loaded.resolver(config, exchange, layout.micro_batch, device)
        mine = images_of_group(run.remaining, len(groups), group_of(groups, world.rank))
        run.process(resolver, mine, layout)
        return run.finish(resolver, loaded, layout)


def plan_layout(config: Config, stack: Stack, num_images: int, num_ranks: int, device: torch.device) -> Layout:
    """Groups of ranks, images per step and micro-batch of this run."""
    asked = config.parallel.ranks_per_image
    if asked == "all":
        asked, reason = num_ranks, "all ranks on every image"
    elif asked == "auto":
        asked, reason = auto_ranks_per_image(num_images, num_ranks)
    else:
        asked, reason = min(asked, num_ranks), f"{asked} ranks per image, as asked"
    groups = split_groups(num_ranks, asked)
    scale = config.model.scale
    grid = sampling_grid(config, stack.height * scale, stack.width * scale)
    images_per_step = config.parallel.images_per_step
    if images_per_step == "auto":
        wanted = math.ceil(WINDOWS_PER_RANK * len(groups[0]) / grid.num_positions)
        images_per_step = max(1, min(MAX_IMAGES_PER_STEP, wanted, math.ceil(num_images / len(groups))))
    micro_batch = config.parallel.micro_batch
    if micro_batch == "auto":
        micro_batch = 4 if device.type == "cpu" else 64
    return Layout(tuple(groups), reason, images_per_step, micro_batch)


def check_request(request: SampleRequest, config: Config) -> None:
    """Everything that can be wrong before any compute, on one process; the errors say which."""
    load_model(request.checkpoint, config)
    with Stack.open(request.stack, request.allow_external) as stack:
        if stack.channels == 3 and config.model.channels == 1:
            raise StackError(f"{request.stack}: expected one channel, as the checkpoint's model has, got 3")
    if config.sampler.steps > config.diffusion.steps:
        raise ConfigError(f"sampler.steps: expected at most diffusion.steps = {config.diffusion.steps}, got {config.sampler.steps}")


def describe_plan(request: SampleRequest, config: Config) -> str:
    """What a run on one rank would do; bytes are those of the uncompressed output."""
    with Stack.open(request.stack, request.allow_external) as stack:
        layout = plan_layout(config, stack, stack.num_images, 1, torch.device("cpu"))
        scale, model = config.model.scale, config.model
        height, width = stack.height * scale, stack.width * scale
        grid = sampling_grid(config, height, width)
        num_bytes = stack.num_images * stack.channels * height * width * stack.dtype.itemsize
        return "\n".join([
            f"input       {stack.address}: {stack.num_images} images of {stack.height} x {stack.width} px, {stack.layout}, {stack.dtype}",
            f"output      {request.output}: {height} x {width} px, {num_bytes / 2**20:.1f} MiB before compression",
            f"checkpoint  {request.checkpoint}: {model.family}, scale {scale}",
            f"sampler     {config.sampler.method}, {config.sampler.steps} steps, noise_scale {config.sampler.noise_scale:g}, "
            f"seed {config.sampler.seed}",
            f"windows     {grid.num_positions} of {grid.window_px} px per image ({grid.rows} x {grid.cols}): one rank has them "
            f"all, 4 ranks {' '.join(str(len(block_range(grid.num_positions, 4, rank))) for rank in range(4))}",
            f"step        {layout.images_per_step} images at a time, micro-batches of {layout.micro_batch} windows"])


class Run:
    """The open state of one run: output and value range on rank 0, images on their way, what failed, what it took."""

    def __init__(self, request: SampleRequest, config: Config, world: World, stack: Stack):
        self.request, self.config, self.world, self.stack = request, config, world, stack
        self.started, self.storage_seconds = time.perf_counter(), 0.0
        self.output: StackOutput | None = None
        self.relay, self.failed = ImageRelay(world), {}
        limits = world.on_root(self.open_output)
        self.value_range = ValueRange(*limits["range"])
        self.remaining: list[int] = limits["remaining"]
        self.progress = Progress(stack.num_images, "images", stack.num_images - len(self.remaining), world.is_root)

    def open_output(self) -> dict:
        """On rank 0: the writer, and what the others need to know."""
        request, config, stack = self.request, self.config, self.stack
        given = config.output.value_range
        value_range = ValueRange(*given) if given else stack.range()
        plan = OutputPlan(config.model.scale, request.ensemble > 1, config.output.regression, config.output.compression)
        self.output = StackOutput.open(request.output, stack, plan, fingerprint(request, config, stack, value_range),
                                       request.overwrite)
        return {"range": [value_range.low, value_range.high], "remaining": self.output.remaining()}

    def announce(self, layout: Layout, threads: int, device: torch.device) -> None:
        if not self.world.is_root:
            return
        stack, scale = self.stack, self.config.model.scale
        grid = sampling_grid(self.config, stack.height * scale, stack.width * scale)
        done = stack.num_images - len(self.remaining)
        print(f"{stack.num_images} images of {stack.height} x {stack.width} px to {stack.height * scale} x {stack.width * scale}"
              f"{f', {done} of them done before' if done else ''}; {grid.num_positions} windows, "
              f"{self.config.sampler.steps} steps ({self.config.sampler.method}); {self.world.size} ranks x {threads} threads on "
              f"{device.type}, {layout.reason}, {layout.images_per_step} images per step", flush=True)
        idle = len(layout.groups[0]) - grid.num_positions
        if idle > 0:
            print(f"{idle} ranks of a group stay idle: more ranks than windows", flush=True)

    def process(self, resolver: SuperResolver, mine: list[int], layout: Layout) -> None:
        """All groups in step, a few images at a time; every round ends where ranks agree whether to stop. Collective."""
        width = layout.images_per_step
        most = math.ceil(len(self.remaining) / len(layout.groups))
        with StopFlag() as stop:
            for first in range(0, most, width):
                self.resolve(resolver, mine[first:first + width])
                self.store()
                if stop.agreed(self.world) and first + width < most:
                    self.drain()
                    raise Stopped(f"stopped by a signal with {self.world.on_root(lambda: len(self.output.remaining()))} images "
                                  f"to go; start again to go on from {self.request.output}.partial")
        self.drain()

    def resolve(self, resolver: SuperResolver, image_indices: list[int]) -> None:
        """Super-resolve some images on this rank's group; its root sends them off. Collective in the group."""
        if not image_indices:
            return
        group = resolver.exchange.group
        good, unit, raw = self.read(group, image_indices)
        if not good:
            return
        seeds = [self.config.sampler.seed + k for k in range(self.request.ensemble)]
        result = resolver([torch.from_numpy(image) for image in unit], good, seeds)
        if result is None:
            return
        for slot, image_index in enumerate(good):
            pixels, figures = self.compose(result.samples[:, slot].numpy(), result.base[slot].numpy(), raw[slot])
            self.relay.send(FinishedImage(image_index, pixels, figures))

    def read(self, group: Group, image_indices: list[int]) -> tuple[list[int], np.ndarray, list[np.ndarray]]:
        """(readable image indices, their unit values (N, C, h, w) on every rank, raw values on the root). Collective."""
        channels, raw = self.config.model.channels, []
        good: list[int] = []
        if group.is_root:
            with self.storage():
                for image_index in image_indices:
                    try:
                        raw.append(self.stack.read(image_index))
                        good.append(image_index)
                    except StackError as error:
                        self.relay.send(FinishedImage(image_index, np.empty(0, np.float32), {"failed": str(error)}))
        good = group.bcast_object(good)
        unit = np.empty((len(good), channels, self.stack.height, self.stack.width), np.float32)
        for slot, image in enumerate(raw):
            filled, _ = mask_invalid(image, self.value_range.low)
            unit[slot] = self.value_range.to_unit(filled)
        return good, group.bcast_array(unit), raw

    def compose(self, samples: np.ndarray, base: np.ndarray, raw: np.ndarray) -> tuple[np.ndarray, dict]:
        """(images of the output plan stacked, (k, C, H, W) float32 raw values; figures) of one image."""
        if not np.isfinite(samples).all():
            raise SwinmpiError("the network's answer is not finite; the checkpoint may be damaged, or try parallel.precision=fp32")
        if len(raw) == 1:
            samples, base = samples.mean(axis=1, keepdims=True), base.mean(axis=0, keepdims=True)
        scale, dtype, span = self.config.model.scale, self.stack.dtype, self.value_range.high - self.value_range.low
        images = [self.value_range.from_unit(samples[0], dtype)]
        if self.config.output.regression:
            images.append(self.value_range.from_unit(base, dtype))
        if self.request.ensemble > 1:
            images += [self.value_range.from_unit(samples.mean(axis=0), np.dtype("float32")), samples.std(axis=0) * span / 2]
        images = [restore_invalid(image.astype(np.float32), raw, scale) for image in images]
        first, low = (np.moveaxis(image, 0, -1) for image in (images[0], raw))
        figures = {"lr_psnr": lr_psnr(first, low, span),
                   "seam_score": seam_score(np.moveaxis(samples[0], 0, -1), np.moveaxis(base, 0, -1), self.config.model.window_px)}
        return np.stack(images), figures

    def store(self) -> None:
        """On rank 0: write what has arrived."""
        if self.world.is_root:
            for image in self.relay.arrived():
                self.write(image)

    def drain(self) -> None:
        """Wait for every image on its way. Collective."""
        for image in self.relay.finish():
            self.write(image)

    def write(self, image: FinishedImage) -> None:
        if "failed" in image.notes:
            self.failed[image.image_index] = image.notes["failed"]
            print(f"swinmpi: {image.notes['failed']}", file=sys.stderr, flush=True)
        else:
            names = ["sr"] + ["regression"] * self.config.output.regression + ["sr_mean", "sr_std"] * (self.request.ensemble > 1)
            arrays = {name: pixels.astype(np.float32 if name.startswith("sr_") else self.stack.dtype)
                      for name, pixels in zip(names, image.pixels, strict=True)}
            with self.storage():
                self.output.write(image.image_index, arrays, image.notes)
        self.progress.advance()

    def finish(self, resolver: SuperResolver, loaded: LoadedModel, layout: Layout) -> dict:
        """Pack the output on rank 0, report; raises SomeImagesFailed on all ranks where images failed. Collective."""
        report = {}
        if self.world.is_root:
            with self.storage():
                self.output.finish(provenance(self, resolver, loaded, layout), self.failed)
            report = make_report(self, resolver)
        failed = self.world.bcast_object(sorted(self.failed))
        if failed:
            raise SomeImagesFailed(f"{self.request.output}: written, but images {', '.join(map(str, failed))} could not be read")
        return report

    @contextmanager
    def storage(self) -> Iterator[None]:
        """Count the time inside as I/O."""
        started = time.perf_counter()
        yield
        self.storage_seconds += time.perf_counter() - started

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *_) -> None:
        self.progress.__exit__()
        if self.output is not None:
            self.output.close()


def make_report(run: Run, resolver) -> dict:
    """Seconds of rank 0 by what they went into; `other` is composition, noise and waiting that is counted nowhere else."""
    total = time.perf_counter() - run.started
    parts = {"U-Net": resolver.seconds.network, "encoder": resolver.seconds.encoder,
             "exchange": resolver.exchange.group.stats.seconds, "I/O": run.storage_seconds}
    num_images = len(run.remaining) - len(run.failed)
    shares = {name: seconds / total for name, seconds in parts.items()}
    return {"images": num_images, "seconds": total, "images_per_second": num_images / total,
            "share": shares | {"other": max(0.0, 1 - sum(shares.values()))}}


def describe(report: Mapping) -> str:
    """The table at the end of a run."""
    header = ["images", "seconds", "images/s", *report["share"]]
    row = [f"{report['images']}", f"{report['seconds']:.1f}", f"{report['images_per_second']:.3g}",
           *(f"{100 * share:.1f} %" for share in report["share"].values())]
    return format_table(header, [row])


def fingerprint(request: SampleRequest, config: Config, stack: Stack, value_range: ValueRange) -> dict:
    """All that decides the pixels; a partial output made with another one cannot be continued."""
    deciding = {"precision", "micro_batch", "channels_last", "fused_attention"}
    return {"input": stack.identity(), "checkpoint": file_sha256(request.checkpoint), "ensemble": request.ensemble,
            "value_range": [value_range.low, value_range.high],
            **config.model_dump(include={"model", "diffusion", "sampler"}), **config.parallel.model_dump(include=deciding)}


def provenance(run: Run, resolver, loaded: LoadedModel, layout: Layout) -> dict:
    """What the finished file tells about its making."""
    failed = [f"{index}: {reason}" for index, reason in sorted(run.failed.items())]
    return {"git_revision": git_revision(), "command": " ".join(sys.argv), "input": str(run.stack.address),
            "checkpoint": str(run.request.checkpoint), "checkpoint_sha256": loaded.sha256,
            "configuration": dump_yaml(run.config), "seed": run.config.sampler.seed,
            "value_range": [run.value_range.low, run.value_range.high], "ranks": run.world.size,
            "ranks_per_image": len(layout.groups[0]), "micro_batch": layout.micro_batch, "mpi_library": library_version(),
            "job_id": os.environ.get("SLURM_JOB_ID"), "seconds": time.perf_counter() - run.started,
            "failed_images": failed or None}


def git_revision() -> str | None:
    """Of the checkout this package runs from; None for an installed package."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    answer = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return answer.stdout.strip() or None
