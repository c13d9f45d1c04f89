"""What the figures of `swinmpi-benchmark scaling` say: ratios within each repeat, shares of a step, tables."""
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import numpy as np

from swinmpi.benchmarks.comparison import spread
from swinmpi.benchmarks.scaling import FIGURES, PHASES, Entrant, Measured
from swinmpi.images.plots import plot_scaling
from swinmpi.reports.tables import format_table
from swinmpi.sampling.traffic import traffic
from swinmpi.windows.grid import Border

MIB = 2**20
COMPUTED = ((2048, 256, 8, "reflect"), (2048, 256, 8, "wrap"))
"""Side of the image, of the window in pixels, ranks, border: what is worked out, not run."""

PHASE_TITLES = {"network": "U-Net", "exchange": "exchange", "noise": "noise", "step": "reverse step", "windows": "windows",
                "other": "other"}


def scaling_report(measured: Measured, num_steps: int) -> dict:
    """Everything as JSON: `image`, all ranks on one image; `stack`, images over groups; `rates` of the bare machine."""
    on_image = [one for one in measured.entrants if one.setting.kind == "image"]
    on_stack = [one for one in measured.entrants if one.setting.kind == "stack"]
    return {"image": [image_summary(one, on_image[0], measured, num_steps) for one in on_image],
            "stack": [stack_summary(one, on_stack[-1]) for one in on_stack],
            "rates": [rate_summary(shape, repeats) for shape, repeats in measured.rates.items()],
            "computed": [computed(*case) for case in COMPUTED],
            "flop_per_call": measured.flop_per_call}


def image_summary(one: Entrant, first: Entrant, measured: Measured, num_steps: int) -> dict:
    """One setting on one image. speed_up: against `first`, repeat by repeat; possible: what the shares of windows, in
    whole micro-batches, allow; by rank: means over the repeats."""
    setting, ranks = one.setting, one.setting.num_ranks
    pairs = list(zip(first.repeats, one.repeats, strict=True))
    cores = setting.threads * ranks / (first.setting.threads * first.setting.num_ranks)
    speed_up = spread([wall(base) / wall(repeat) for base, repeat in pairs])
    of_rank = {name: np.mean([figure(repeat, name)[:ranks] for repeat in one.repeats], axis=0) for name in FIGURES}
    stepping = of_rank["seconds"] - of_rank["conditions"]
    shares = {phase: of_rank[phase] / stepping for phase in PHASES}
    shares["other"] = 1 - sum(shares.values())
    received = (figure(one.repeats[0], "received") - figure(one.once, "received"))[:ranks] / (num_steps - 1) / MIB
    asleep = [sleeping_share(repeat, ranks) for repeat in one.repeats]
    return {**described(one), "seconds": spread([wall(repeat) for repeat in one.repeats]), "speed_up": speed_up,
            "speed_up_by_cpu": spread([busy(base, first) / busy(repeat, one) for base, repeat in pairs]),
            "possible": cores / ranks * figure(first.once, "calls").max() / figure(one.once, "calls").max(),
            "efficiency": speed_up["median"] / cores,
            "cores_used": median((figure(repeat, "cpu_seconds")[:ranks].sum() / wall(repeat)) for repeat in one.repeats),
            "cores_used_asleep": median(asleep),
            "step_ms": median(stepping_ms(repeat, ranks, num_steps) for repeat in one.repeats),
            "share_of_rank": {phase: values.tolist() for phase, values in shares.items()},
            "not_network": 1 - shares["network"][0], "received_mib_per_step_of_rank": received.tolist(),
            "gflops": measured.flop_per_call * (of_rank["calls"] / of_rank["network"]).sum() / 1e9,
            "peak_memory_mib_of_rank": np.max([figure(repeat, "peak_mib")[:ranks] for repeat in one.repeats], axis=0).tolist()}


def stack_summary(one: Entrant, last: Entrant) -> dict:
    """One way to lay many images over the ranks; ratio: to all ranks on every image, repeat by repeat."""
    ranks = one.setting.num_ranks
    rates = [one.setting.num_images / wall(repeat) for repeat in one.repeats]
    ratios = [wall(other) / wall(repeat) for repeat, other in zip(one.repeats, last.repeats, strict=True)]
    return {**described(one), "num_images": one.setting.num_images, "images_per_step": one.setting.images_per_step,
            "images_per_second": spread(rates), "ratio": spread(ratios),
            "ratio_by_cpu": spread([busy(other, last) / busy(repeat, one)
                                    for repeat, other in zip(one.repeats, last.repeats, strict=True)]),
            "peak_memory_mib_of_rank": np.max([figure(repeat, "peak_mib")[:ranks] for repeat in one.repeats], axis=0).tolist()}


def rate_summary(shape: tuple[int, int], repeats: Sequence[np.ndarray]) -> dict:
    """GFLOP/s of all ranks together."""
    sums = np.array([repeat.sum(axis=0) for repeat in repeats])
    return {"ranks": shape[0], "threads": shape[1], "convolution": spread(sums[:, 0].tolist()),
            "matrix": spread(sums[:, 1].tolist())}


def computed(size_px: int, window_px: int, num_ranks: int, border: Border) -> dict:
    """What travels where nothing was run; RGB, circular shift of a quarter window."""
    both = traffic(size_px, window_px, num_ranks, border=border)
    return {"size_px": size_px, "window_px": window_px, "ranks": num_ranks, "border": border,
            "received_mib_per_step": {name: {"most": one.most / MIB, "mean": one.mean / MIB} for name, one in both.items()}}


def described(one: Entrant) -> dict:
    repeats = [{name: figure(repeat, name).tolist() for name in FIGURES} for repeat in one.repeats]
    return {"name": one.setting.name, "ranks": one.setting.num_ranks, "threads": one.setting.threads,
            "exchange": one.setting.exchange, "repeats": repeats}


def draw_scaling(report: Mapping, path: Path) -> None:
    """PNG of the first two tables. SwinmpiError when matplotlib is not installed."""
    first = report["image"][0]
    lines: dict[str, list] = {}
    for one in report["image"]:
        if one is first or one["ranks"] > 1:
            lines.setdefault(f"ranks, {one['exchange']}", []).append(point(one, first))
        else:
            lines["threads"] = [point(first, first), point(one, first)]
    shares = {one["name"]: {PHASE_TITLES[phase]: max(0.0, one["share_of_rank"][phase][0])
                            for phase in PHASE_TITLES if phase != "network"} for one in report["image"]}
    plot_scaling(lines, shares, path)


def point(one: Mapping, first: Mapping) -> tuple[int, float, float, float]:
    """Cores against the first setting's, and the speed-up."""
    cores = one["ranks"] * one["threads"] // (first["ranks"] * first["threads"])
    return cores, *(one["speed_up"][key] for key in ("median", "min", "max"))


def figure(repeat: np.ndarray, name: str) -> np.ndarray:
    """One figure of every world rank, (ranks,)."""
    return repeat[:, FIGURES.index(name)]


def wall(repeat: np.ndarray) -> float:
    """Seconds until the last rank was done; a sleeping rank waits as long."""
    return float(figure(repeat, "seconds").max())


def busy(repeat: np.ndarray, one: Entrant) -> float:
    """CPU seconds of one core of the busiest rank: what `wall` would be on a machine with nothing else to do, as long
    as a rank that waits for others polls."""
    return float(figure(repeat, "cpu_seconds")[:one.setting.num_ranks].max() / one.setting.threads)


def sleeping_share(repeat: np.ndarray, ranks: int) -> float:
    """Cores used by the ranks that sleep, all together."""
    return float(figure(repeat, "cpu_seconds")[ranks:].sum() / wall(repeat))


def stepping_ms(repeat: np.ndarray, ranks: int, num_steps: int) -> float:
    """Milliseconds of a step: all but the encoder, over the steps, of the slowest rank."""
    return float((figure(repeat, "seconds") - figure(repeat, "conditions"))[:ranks].max()) / num_steps * 1000


def describe_scaling(report: Mapping) -> str:
    """The tables, each under a line that says what it shows."""
    parts = [("one image; speed-up against the first line, within each repeat", image_table(report)),
             ("where the time of a step goes on rank 0 (all but the encoder)", share_table(report)),
             ("what travels: payload received in a step, counted", exchange_table(report)),
             ("the same, worked out from the plans for sizes not run here", computed_table(report)),
             ("many images: how they are laid over the ranks", stack_table(report)),
             ("GFLOP/s of all ranks together: the bare machine, and the U-Net in the runs above", rate_table(report)),
             ("peak memory by rank, MiB", memory_table(report))]
    return "\n\n".join(f"{title}\n{table}" for title, table in parts)


def image_table(report: Mapping) -> str:
    rows = [[one["name"], *(f"{one['seconds'][key]:.3g}" for key in ("median", "min", "max")), f"{one['step_ms']:.1f}",
             *(f"{one['speed_up'][key]:.2f}" for key in ("median", "min", "max")), f"{one['speed_up_by_cpu']['median']:.2f}",
             f"{one['possible']:.2f}", f"{100 * one['efficiency']:.0f} %", f"{one['cores_used']:.2f}",
             f"{one['cores_used_asleep']:.2f}"] for one in report["image"]]
    return format_table(["setting", "s/image", "min", "max", "ms/step", "speed-up", "min", "max", "by CPU", "possible",
                         "efficiency", "cores used", "asleep"], rows)


def share_table(report: Mapping) -> str:
    rows = [[one["name"], *(f"{100 * one['share_of_rank'][phase][0]:.2f} %" for phase in PHASE_TITLES),
             f"{100 * one['not_network']:.2f} %"] for one in report["image"]]
    return format_table(["setting", *PHASE_TITLES.values(), "not network"], rows)


def exchange_table(report: Mapping) -> str:
    rows = [[one["name"], one["exchange"], f"{max(one['received_mib_per_step_of_rank']):.3f}",
             f"{np.mean(one['received_mib_per_step_of_rank']):.3f}", f"{one['step_ms']:.1f}"]
            for one in report["image"] if one["ranks"] > 1]
    return format_table(["setting", "exchange", "MiB, most", "MiB, mean", "ms/step"], rows, text_columns=2)


def computed_table(report: Mapping) -> str:
    rows = []
    for case in report["computed"]:
        root, torus = (case["received_mib_per_step"][name] for name in ("root", "torus"))
        rows.append([f"{case['size_px']} px, window {case['window_px']}, {case['ranks']} ranks, {case['border']}",
                     *(f"{one[which]:.2f}" for which in ("most", "mean") for one in (root, torus)),
                     *(f"{root[which] / torus[which]:.0f}" for which in ("most", "mean"))])
    return format_table(["image", "root, most", "torus, most", "root, mean", "torus, mean", "ratio, most", "ratio, mean"], rows)


def stack_table(report: Mapping) -> str:
    rows = [[one["name"], str(one["num_images"]), str(one["images_per_step"]),
             *(f"{one['images_per_second'][key]:.3g}" for key in ("median", "min", "max")), f"{one['ratio']['median']:.2f}",
             f"{one['ratio_by_cpu']['median']:.2f}"] for one in report["stack"]]
    return format_table(["setting", "images", "per step", "images/s", "min", "max", "ratio", "by CPU"], rows)


def rate_table(report: Mapping) -> str:
    rates = {(rate["ranks"], rate["threads"]): rate for rate in report["rates"]}
    rows = []
    for one in report["image"]:
        rate = rates[one["ranks"], one["threads"]]
        convolution, matrix = (rate[name]["median"] for name in ("convolution", "matrix"))
        rows.append([one["name"], f"{convolution:.1f}", f"{matrix:.1f}", f"{one['gflops']:.1f}",
                     f"{100 * one['gflops'] / convolution:.0f} %"])
    return format_table(["setting", "3x3 convolutions", "matrix product", "U-Net", "of convolutions"], rows)


def memory_table(report: Mapping) -> str:
    rows = [[one["name"], " ".join(f"{mib:.0f}" for mib in one["peak_memory_mib_of_rank"])]
            for one in (*report["image"], *report["stack"])]
    return format_table(["setting", "ranks 0, 1, ..."], rows)
