"""Plots by matplotlib, where it is installed: training curves of one run or several, and how a run
scales over cores."""
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from swinmpi.errors import SwinmpiError
from swinmpi.images.contact_sheet import HAIRLINE

COLOURS = ["#2f6fde", "#e0712b", "#2f9e63", "#8a5cc7", "#7a7f8a"]
LINE_STYLES = ["-", "--", ":", "-."]  # one after the other, when all colours are taken
MARKERS = "os^D"  # likewise, of lines that are one point
MOST_INSIDE = 6  # names in a legend that do not yet hide what is drawn
SMOOTHED_PARTS = 40

SpeedUps = Mapping[str, Sequence[tuple[int, float, float, float]]]
Shares = Mapping[str, Mapping[str, float]]


def plot_curves(records: Sequence[Mapping], path: Path | str) -> None:
    """PNG of a training log: `*loss*` over `update` (log scale), beside it `*psnr*` in dB.

    records: one mapping per line of the log, with the key `update`; a record need not have every
    key. Raises SwinmpiError when matplotlib is not installed.
    """
    Figure = figure_class(path, "curves")
    panels = [(word, names) for word in ("loss", "psnr") if (names := keys_with(records, word))]
    figure = Figure(figsize=(6 * max(1, len(panels)), 4), layout="constrained")
    for number, (word, names) in enumerate(panels, start=1):
        axes = figure.add_subplot(1, len(panels), number)
        labels = {name: name.replace(word, "").strip("_") or word for name in names}
        draw_curves(axes, records, labels)
        axes.set_ylabel("PSNR in dB" if word == "psnr" else "loss")
        axes.set_yscale("linear" if word == "psnr" else "log")
    figure.savefig(path, dpi=120)


def plot_overlaid(runs: Mapping[str, Sequence[Mapping]], path: Path | str,
                  names: Sequence[str] = ("loss", "loss_validation"), over: str = "update") -> None:
    """PNG: what the logs of several runs say under `names`, a panel each, a line for each run.

    runs: records as of `plot_curves`, by label; over: the key along which they are drawn, `update`
    or `seconds`. Noisy lines are means over a fortieth of a run. Raises SwinmpiError when
    matplotlib is not installed, ValueError where no run has any of the names.
    """
    panels = [name for name in names if any(points_of(records, name, over)
                                            for records in runs.values())]
    if not panels:
        raise ValueError(f"{path}: expected logs with {' or '.join(names)} over {over}, got none")
    figure = figure_class(path, "curves")(figsize=(6 * len(panels), 4), layout="constrained")
    for place, name in enumerate(panels, start=1):
        axes = figure.add_subplot(1, len(panels), place)
        for number, (label, records) in enumerate(runs.items()):
            if points := points_of(records, name, over):
                draw_curve(axes, smoothed(points), label, number)
        finish_curves(axes, over)
        axes.set_ylabel(name.replace("_", " "))
        axes.set_yscale("log" if "loss" in name else "linear")
    figure.savefig(path, dpi=120)


def plot_scaling(speed_ups: SpeedUps, shares: Shares, path: Path | str) -> None:
    """PNG: speed-up over cores, beside it what is not network in a step.

    speed_ups: by the name of a line, points (cores, median, lowest, highest); shares: by the name
    of a setting, parts of a step (0..1) by the name of a phase. Raises SwinmpiError when matplotlib
    is not installed.
    """
    figure = figure_class(path, "scaling")(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    draw_speed_ups(left, speed_ups)
    draw_shares(right, shares)
    for axes in (left, right):
        axes.grid(color=HAIRLINE, linewidth=0.6, axis="y")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    figure.savefig(path, dpi=120)


def figure_class(path: Path | str, what: str):
    """matplotlib's Figure, which needs no display; SwinmpiError when it is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise SwinmpiError(f"{path}: drawing {what} needs matplotlib; "
                           "pip install 'swinmpi[plot]'") from None
    return Figure


def keys_with(records: Sequence[Mapping], word: str) -> list[str]:
    """Keys that hold numbers and contain `word`, in the order they first appear."""
    return list(dict.fromkeys(key for record in records for key, value in record.items()
                              if word in key.lower() and isinstance(value, int | float)))


def draw_curves(axes, records: Sequence[Mapping], labels: Mapping[str, str]) -> None:
    """One line per key of `labels` over the updates."""
    for number, (name, label) in enumerate(labels.items()):
        draw_curve(axes, points_of(records, name), label.replace("_", " "), number)
    finish_curves(axes, "update")


def points_of(records: Sequence[Mapping], name: str, over: str = "update") -> list[tuple]:
    return [(record[over], record[name]) for record in records if name in record and over in record]


def smoothed(points: Sequence[tuple]) -> list[tuple]:
    """Running means over a fortieth of the points, as many before as after; fewer at the ends."""
    reach = len(points) // (2 * SMOOTHED_PARTS)
    values = np.array([value for _, value in points])
    return [(at, values[max(0, k - reach):k + reach + 1].mean())
            for k, (at, _) in enumerate(points)]


def draw_curve(axes, points: Sequence[tuple], label: str, number: int) -> None:
    """The line with this number among those of a panel."""
    turn = number // len(COLOURS) % len(LINE_STYLES)
    marker = MARKERS[turn] if len(points) == 1 else "." if len(points) < 40 else None
    axes.plot(*zip(*points, strict=True), label=label, color=colour(number),
              linestyle=LINE_STYLES[turn] if len(points) > 1 else "none",
              linewidth=1.6, marker=marker)


def finish_curves(axes, over: str) -> None:
    axes.set_xlabel(over)
    axes.grid(color=HAIRLINE, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    many = len(axes.get_lines()) > MOST_INSIDE
    axes.legend(frameon=False, **(dict(loc="center left", bbox_to_anchor=(1, 0.5)) if many else {}))


def draw_speed_ups(axes, speed_ups: SpeedUps) -> None:
    """One line with error bars each, and the ideal one."""
    most = max(point[0] for points in speed_ups.values() for point in points)
    axes.plot([1, most], [1, most], color=HAIRLINE, linewidth=1.6, label="ideal")
    for number, (name, points) in enumerate(speed_ups.items()):
        cores, middle, low, high = np.array(points).T
        axes.errorbar(cores, middle, np.abs([middle - low, high - middle]), label=name,
                      color=colour(number), linewidth=1.6, marker="o", capsize=3)
    axes.set(xlabel="cores", ylabel="speed-up (median, range)",
             xticks=range(1, most + 1, max(1, most // 8)))


def draw_shares(axes, shares: Shares) -> None:
    """One bar per setting, its phases on top of each other."""
    below = np.zeros(len(shares))
    for number, phase in enumerate(next(iter(shares.values()))):
        height = np.array([100 * parts[phase] for parts in shares.values()])
        axes.bar(range(len(shares)), height, bottom=below, width=0.6, label=phase,
                 color=colour(number))
        below += height
    labels = [name.replace(", ", "\n").replace(" x ", "\nx ") for name in shares]
    axes.set_xticks(range(len(shares)), labels)
    axes.set_ylabel("not network, % of a step")


def colour(number: int) -> str:
    """Of the line or bar with this number; they repeat."""
    return COLOURS[number % len(COLOURS)]
