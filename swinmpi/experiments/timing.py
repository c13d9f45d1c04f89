"""Seconds for one sample on 1, 2, 4 ... ranks, and how busy the cores and the GPU are meanwhile
(thesis tables 3.4 and 3.6, figure 3.6)."""
import json
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from swinmpi.benchmarks.program import random_family, smooth_images
from swinmpi.benchmarks.scaling import FIGURES, ScalingRun, SettingRun
from swinmpi.benchmarks.scaling_settings import on_one_image, rank_counts
from swinmpi.experiments.arms import Job
from swinmpi.experiments.plan import ArmRun, ExperimentPlan, checkpoint_of
from swinmpi.experiments.statistics import about, summary
from swinmpi.families.loading import load_family
from swinmpi.images.plots import plot_overlaid
from swinmpi.parallel.device import planned_device
from swinmpi.reports.machine import machine_facts
from swinmpi.sampling.distribution import calls_of
from swinmpi.sampling.process import sampling_grid
from swinmpi.storage.files import write_atomically

TICK_S, BINS = 0.02, 40


class Usage:
    """`with Usage(device) as usage:` how many cores this process uses over time, and how much of
    its GPU where that can be asked for."""

    def __init__(self, device: str):
        self.device, self.ended = device, threading.Event()

    def __enter__(self) -> "Usage":
        self.ticks, self.gpu = [self.now()], []
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *error) -> None:
        self.ended.set()
        self.thread.join()
        self.ticks.append(self.now())

    def watch(self) -> None:
        while not self.ended.wait(TICK_S):
            self.ticks.append(self.now())
            self.gpu.append(gpu_used(self.device))

    def now(self) -> tuple[float, float]:
        return time.perf_counter(), time.process_time()

    def binned(self) -> np.ndarray:
        """float64 (2, BINS): cores used, share of the GPU (NaN where unknown), in equal parts of
        the time."""
        at, spent = np.array(self.ticks).T
        edges = np.linspace(at[0], at[-1], BINS + 1)
        cores = np.diff(np.interp(edges, at, spent)) / np.diff(edges)
        gpu = np.full(BINS, np.nan)
        if self.gpu and np.isfinite(self.gpu).any():
            gpu = np.interp(edges[:-1], at[1:1 + len(self.gpu)], self.gpu)
        return np.stack([cores, gpu])


def gpu_used(device: str) -> float:
    """0..1; NaN on the CPU, and where the GPU's library of figures is not installed."""
    if device == "cpu":
        return float("nan")
    try:
        return torch.cuda.utilization(device) / 100
    except Exception:  # noqa: BLE001 - whatever a driver without this library raises
        return float("nan")


def time_arm(run: ArmRun, job: Job) -> None:
    """Time samples of one image on more and more ranks; result.json. Collective."""
    world, config = job.world, run.sampled
    side, model = config.train.crop_px, config.model
    grid = sampling_grid(config.sampler.shift, model.window_px, *[side // model.hr_px_per_x_px] * 2)
    kind = planned_device(config.parallel.device)
    config = config.replaced(parallel={"device": kind})
    family = (random_family(model) if run.arm.checkpoint is None
              else load_family(checkpoint_of(run.arm), model, takes_steps=True))
    scaling = ScalingRun(config, family, smooth_images(model, side, 1),
                         str(job.worker.device), world)
    timed = []
    with torch.inference_mode():
        # More ranks than windows have nothing to share.
        for ranks in (n for n in rank_counts(world.size) if n <= grid.num_positions):
            setting = scaling.place(on_one_image(ranks, torch.get_num_threads(),
                                                 config.parallel.exchange))
            timed.append({"ranks": ranks, **timed_setting(scaling, setting, job)})
    facts = machine_facts(world, torch.get_num_threads(), str(job.worker.device))
    result = {"arm": run.arm.name, "seed": run.seed, "size_px": side,
              "windows": grid.num_positions, "micro_batch": calls_of(
                  config.parallel.micro_batch, model, grid, kind).told,
              "steps": config.sampler.steps, "machine": facts, "ranks": timed,
              "configuration": config.model_dump()}

    def keep() -> None:
        run.output.mkdir(parents=True, exist_ok=True)
        write_atomically(run.result, (json.dumps(result, indent=1) + "\n").encode())

    world.on_root(keep)


def timed_setting(scaling: ScalingRun, setting: SettingRun, job: Job) -> dict:
    """Repeats of one sample. Collective; on every rank the same."""
    steps, world, ranks = scaling.config.sampler.steps, job.world, setting.setting.num_ranks
    scaling.measure(setting, min(2, steps))
    repeats, usages = [], []
    for _ in range(job.plan.budget.repeats):
        with Usage(str(job.worker.device)) as usage:
            repeats.append(scaling.measure(setting, steps))
        own = usage.binned()[None]
        usages.append(world.allgather_arrays(own, [1] * world.size)[:ranks])
    cpu, wall = (FIGURES.index(name) for name in ("cpu_seconds", "seconds"))
    cores = np.mean([usage[:, 0].sum(0) for usage in usages], axis=0)
    gpu = np.mean([usage[:, 1].mean(0) for usage in usages], axis=0)
    return {"seconds": [float(one[:, wall].max()) for one in repeats],
            "cpu_seconds": [float(one[:ranks, cpu].max()) for one in repeats],
            "cores_over_time": cores.tolist(),
            "gpu_over_time": gpu.tolist() if np.isfinite(gpu).all() else None}


def time_report(plan: ExperimentPlan, results: Mapping) -> dict:
    """Of arms that were timed."""
    machine = next(iter(results.values()))[0]["machine"]
    arms = [{"name": arm.name, "published": dict(arm.published),
             **{key: results[arm.name][0][key]
                for key in ("size_px", "windows", "steps", "micro_batch")},
             "ranks": timed_rows(results[arm.name][0]["ranks"])} for arm in plan.experiment.arms]
    remarks = [f"started on {machine['ranks']} ranks: more were not measured, and an image of "
               "one window has nothing to share"]
    if machine["device"] != "cpu" and arms[0]["ranks"][0]["gpu_used"] is None:
        remarks.append("the use of the GPU is unavailable: pip install nvidia-ml-py")
    return {**about(plan), "machine": machine, "arms": arms, "remarks": remarks}


def timed_rows(timed: list[Mapping]) -> list[dict]:
    """Of one arm: every number of ranks against the first."""
    first = timed[0]
    return [{"ranks": one["ranks"], "seconds": summary(np.array(one["seconds"])),
             "cpu_seconds": summary(np.array(one["cpu_seconds"])),
             "speed_up": ratio(first, one, "seconds"),
             "speed_up_by_cpu": ratio(first, one, "cpu_seconds"),
             "cores_used": float(np.mean(one["cores_over_time"])),
             "gpu_used": one["gpu_over_time"] and float(np.mean(one["gpu_over_time"])),
             "cores_over_time": one["cores_over_time"], "gpu_over_time": one["gpu_over_time"],
             "repeats": {name: one[name] for name in ("seconds", "cpu_seconds")}}
            for one in timed]


def ratio(first: Mapping, one: Mapping, name: str) -> float | None:
    """Median over median; None where the clock is too coarse to tell."""
    below = float(np.median(one[name]))
    return float(np.median(first[name])) / below if below else None


def draw_usage(plan: ExperimentPlan, report: Mapping, results: Mapping, path: Path) -> bool:
    """Cores, or the GPU, used while one sample is made (figure 3.6)."""
    lines, on_gpu = {}, report["machine"]["device"] != "cpu"
    used = "GPU used" if on_gpu else "cores used"
    for arm in report["arms"]:
        for one in arm["ranks"]:
            values = one["gpu_over_time"] if on_gpu else one["cores_over_time"]
            seconds = one["seconds"]["mean"]
            if values is not None:
                lines[f"{arm['name']}, {one['ranks']} ranks"] = [
                    {"seconds": seconds * (at + 0.5) / BINS, used: value}
                    for at, value in enumerate(values)]
    if lines:
        plot_overlaid(lines, path, (used,), "seconds")
    return bool(lines)
