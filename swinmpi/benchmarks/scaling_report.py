"""What the figures of `scaling` say: ratios within each repeat, shares of a step; its picture."""
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median

import numpy as np

from swinmpi.benchmarks.comparison import spread
from swinmpi.benchmarks.scaling import FIGURES, PHASES, Measured, SettingRun
from swinmpi.benchmarks.scaling_tables import PHASE_TITLES
from swinmpi.images.plots import plot_scaling
from swinmpi.sampling.traffic import traffic
from swinmpi.windows.grid import Border

MIB = 2**20
COMPUTED = ((2048, 256, 8, "reflect"), (2048, 256, 8, "wrap"))
"""Side of the image, of the window in pixels, ranks, border: what is worked out, not run."""


def scaling_report(measured: Measured, num_steps: int) -> dict:
    """Everything as JSON: `image`, all ranks on one image; `stack`, images over groups; `rates` of
    the bare machine."""
    on_image = [run for run in measured.runs if run.setting.kind == "image"]
    on_stack = [run for run in measured.runs if run.setting.kind == "stack"]
    return {"image": [image_summary(run, on_image[0], measured, num_steps) for run in on_image],
            "stack": [stack_summary(run, on_stack[-1]) for run in on_stack],
            "rates": [rate_summary(shape, repeats) for shape, repeats in measured.rates.items()],
            "computed": [computed(*case) for case in COMPUTED],
            "flop_per_call": measured.flop_per_call}


def image_summary(run: SettingRun, first: SettingRun, measured: Measured, num_steps: int) -> dict:
    """One setting on one image. speed_up: against `first`, repeat by repeat; possible: what the
    shares of windows, in whole micro-batches, allow; by rank: means over the repeats."""
    setting, ranks = run.setting, run.setting.num_ranks
    cores = setting.threads * ranks / (first.setting.threads * first.setting.num_ranks)
    speed_up = ratios(first, run, wall)
    of_rank = {name: np.mean([figure(repeat, name)[:ranks] for repeat in run.repeats], axis=0)
               for name in FIGURES}
    shares = shares_of_step(of_rank)
    calls = figure(first.once, "calls").max() / figure(run.once, "calls").max()
    rates = measured.flop_per_call * (of_rank["calls"] / of_rank["network"])
    return {**described(run), "seconds": spread([wall(repeat) for repeat in run.repeats]),
            "speed_up": speed_up, "speed_up_by_cpu": ratios(first, run, busy),
            "possible": cores / ranks * calls, "efficiency": speed_up["median"] / cores,
            "cores_used": median(cores_used(repeat, slice(ranks)) for repeat in run.repeats),
            "cores_used_asleep": median(cores_used(repeat, slice(ranks, None))
                                        for repeat in run.repeats),
            "step_ms": median(stepping_ms(repeat, ranks, num_steps) for repeat in run.repeats),
            "share_of_rank": {phase: values.tolist() for phase, values in shares.items()},
            "not_network": 1 - shares["network"][0],
            "received_mib_per_step_of_rank": received_mib(run, num_steps).tolist(),
            "gflops": rates.sum() / 1e9, "peak_memory_mib_of_rank": peaks(run)}


def stack_summary(run: SettingRun, last: SettingRun) -> dict:
    """One way to lay many images over the ranks; ratio: to all ranks on every image, repeat by
    repeat."""
    setting = run.setting
    rates = [setting.num_images / wall(repeat) for repeat in run.repeats]
    return {**described(run), "num_images": setting.num_images,
            "images_per_step": setting.images_per_step, "images_per_second": spread(rates),
            "ratio": ratios(last, run, wall), "ratio_by_cpu": ratios(last, run, busy),
            "peak_memory_mib_of_rank": peaks(run)}


def rate_summary(shape: tuple[int, int], repeats: Sequence[np.ndarray]) -> dict:
    """GFLOP/s of all ranks together."""
    sums = np.array([repeat.sum(axis=0) for repeat in repeats])
    return {"ranks": shape[0], "threads": shape[1], "convolution": spread(sums[:, 0].tolist()),
            "matrix": spread(sums[:, 1].tolist())}


def computed(size_px: int, window_px: int, num_ranks: int, border: Border) -> dict:
    """What travels where nothing was run; RGB, circular shift of a quarter window."""
    by_exchange = traffic(size_px, window_px, num_ranks, border=border)
    received = {name: {"most": one.most / MIB, "mean": one.mean / MIB}
                for name, one in by_exchange.items()}
    return {"size_px": size_px, "window_px": window_px, "ranks": num_ranks, "border": border,
            "received_mib_per_step": received}


def described(run: SettingRun) -> dict:
    """The setting, and all figures of its repeats."""
    setting = run.setting
    repeats = [{name: figure(repeat, name).tolist() for name in FIGURES} for repeat in run.repeats]
    return {"name": setting.name, "ranks": setting.num_ranks, "threads": setting.threads,
            "exchange": setting.exchange, "repeats": repeats}


def figure(repeat: np.ndarray, name: str) -> np.ndarray:
    """One figure of every world rank, (ranks,)."""
    return repeat[:, FIGURES.index(name)]


def ratios(base: SettingRun, run: SettingRun,
           how: Callable[[np.ndarray, SettingRun], float]) -> dict[str, float]:
    """`how(repeat, run)` of the base over that of another setting, within each repeat."""
    return spread([how(before, base) / how(repeat, run)
                   for before, repeat in zip(base.repeats, run.repeats, strict=True)])


def wall(repeat: np.ndarray, run: SettingRun | None = None) -> float:
    """Seconds until the last rank was done; a sleeping rank waits as long."""
    return float(figure(repeat, "seconds").max())


def busy(repeat: np.ndarray, run: SettingRun) -> float:
    """CPU seconds of one core of the busiest rank: what `wall` would be on a machine with nothing
    else to do, as long as a rank that waits for others polls."""
    cpu_seconds = figure(repeat, "cpu_seconds")[:run.setting.num_ranks]
    return float(cpu_seconds.max() / run.setting.threads)


def cores_used(repeat: np.ndarray, ranks: slice) -> float:
    """By some of the ranks, all together."""
    return float(figure(repeat, "cpu_seconds")[ranks].sum() / wall(repeat))


def stepping_ms(repeat: np.ndarray, ranks: int, num_steps: int) -> float:
    """Milliseconds of a step: all but what comes before the first, over the steps, of the slowest
    rank."""
    stepping = figure(repeat, "seconds") - figure(repeat, "conditions")
    return float(stepping[:ranks].max()) / num_steps * 1000


def shares_of_step(of_rank: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """By phase and rank, of the time after the first step began; they add up to 1."""
    stepping = of_rank["seconds"] - of_rank["conditions"]
    shares = {phase: of_rank[phase] / stepping for phase in PHASES}
    return shares | {"other": 1 - sum(shares.values())}


def received_mib(run: SettingRun, num_steps: int) -> np.ndarray:
    """In a step, by rank: without what comes once, which a sample in one step receives as well."""
    received = figure(run.repeats[0], "received") - figure(run.once, "received")
    return received[:run.setting.num_ranks] / (num_steps - 1) / MIB


def peaks(run: SettingRun) -> list[float]:
    """MiB of every rank at work, the most of the repeats."""
    peak = np.max([figure(repeat, "peak_mib") for repeat in run.repeats], axis=0)
    return peak[:run.setting.num_ranks].tolist()


def draw_scaling(report: Mapping, path: Path) -> None:
    """PNG of the first two tables. SwinmpiError when matplotlib is not installed."""
    first = report["image"][0]
    lines: dict[str, list] = {}
    for one in report["image"]:
        if one is first or one["ranks"] > 1:
            lines.setdefault(f"ranks, {one['exchange']}", []).append(point(one, first))
        else:
            lines["threads"] = [point(first, first), point(one, first)]
    shares = {one["name"]: {title: max(0.0, one["share_of_rank"][phase][0])
                            for phase, title in PHASE_TITLES.items() if phase != "network"}
              for one in report["image"]}
    plot_scaling(lines, shares, path)


def point(one: Mapping, first: Mapping) -> tuple[int, float, float, float]:
    """Cores against the first setting's, and the speed-up."""
    cores = one["ranks"] * one["threads"] // (first["ranks"] * first["threads"])
    return cores, *(one["speed_up"][key] for key in ("median", "min", "max"))
