"""The plots of an evaluation by matplotlib: differences with their intervals, spectra, and how far
ensembles may be believed."""
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from swinmpi.images.contact_sheet import GREY, HAIRLINE
from swinmpi.images.plots import colour, figure_class

PANEL_INCHES, ROW_INCHES, MOST_IN_A_ROW = 3.4, 3.2, 4

Interval = tuple[float, float, float]  # mean, low, high; NaN where there is no interval


@dataclass(frozen=True)
class Panels:
    """What is drawn. differences: by the title of a figure, then by pair. spectra: mean power in
    equal steps of 0..0.5 cycles per px, by version. reliability: (stated, found) errors; ranks:
    shares of pixels by how many samples lie below the truth; both by ensemble."""

    differences: Mapping[str, Mapping[str, Interval]]
    spectra: Mapping[str, Sequence[float]]
    reliability: Mapping[str, tuple[Sequence[float], Sequence[float]]]
    ranks: Mapping[str, Sequence[float]]


def plot_evaluation(panels: Panels, path: Path | str) -> bytes:
    """A PNG. Raises SwinmpiError, naming `path`, where matplotlib is not installed."""
    Figure = figure_class(path, "plots of an evaluation")
    drawn = [(draw_differences, title, points) for title, points in panels.differences.items()]
    drawn += [(draw, title, what) for draw, title, what in (
        (draw_spectra, "spectrum", panels.spectra),
        (draw_reliability, "reliability", panels.reliability),
        (draw_ranks, "ranks of the truth", panels.ranks)) if what]
    across = max(1, min(MOST_IN_A_ROW, len(drawn)))
    down = max(1, math.ceil(len(drawn) / across))
    figure = Figure(figsize=(PANEL_INCHES * across, ROW_INCHES * down), layout="constrained")
    for place, (draw, title, what) in enumerate(drawn, start=1):
        axes = figure.add_subplot(down, across, place)
        axes.set_title(title, fontsize=10)
        axes.grid(color=HAIRLINE, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        draw(axes, what)
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=120)
    return png.getvalue()


def draw_differences(axes, points: Mapping[str, Interval]) -> None:
    """A dot and its 95 % interval for each pair."""
    axes.axvline(0, color=GREY, linewidth=1)
    for number, (name, (mean, low, high)) in enumerate(points.items()):
        axes.text(0.02, 0.12 - number, name, transform=axes.get_yaxis_transform(), fontsize=8)
        reach = [[mean - low], [high - mean]]
        axes.errorbar([mean], [-number], xerr=None if np.isnan(reach).any() else reach, marker="o",
                      color=colour(number), capsize=3)
    axes.set_yticks([])
    axes.locator_params(axis="x", nbins=4)
    axes.set_ylim(0.5 - len(points), 0.5)
    axes.set_xlabel("difference, 95 % interval", fontsize=8)


def draw_spectra(axes, spectra: Mapping[str, Sequence[float]]) -> None:
    """A line for each version."""
    for number, (name, power) in enumerate(spectra.items()):
        frequencies = (np.arange(len(power)) + 0.5) / (2 * len(power))
        positive = np.where(np.asarray(power) > 0, power, np.nan)
        axes.plot(frequencies, positive, label=name, color=colour(number), linewidth=1.4)
    axes.set(yscale="log")
    axes.set_xlabel("cycles per px", fontsize=8)
    axes.set_ylabel("power", fontsize=8)
    axes.legend(frameon=False, fontsize=7)


def draw_reliability(axes, curves: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> None:
    """A line for each ensemble, a diagonal when right."""
    most = max(max(*stated, *found) for stated, found in curves.values()) or 1
    axes.plot([0, most], [0, most], color=GREY, linewidth=1, label="right")
    for number, (name, (stated, found)) in enumerate(curves.items()):
        axes.plot(stated, found, label=name, color=colour(number), marker=".", linewidth=1.4)
    axes.set_xlabel("spread of the samples", fontsize=8)
    axes.set_ylabel("error of their mean", fontsize=8)
    axes.legend(frameon=False, fontsize=7)


def draw_ranks(axes, ranks: Mapping[str, Sequence[float]]) -> None:
    """Shares by rank as times the flat share, which is right."""
    axes.axhline(1, color=GREY, linewidth=1)
    for number, (name, shares) in enumerate(ranks.items()):
        axes.plot(np.linspace(0, 1, len(shares)), np.asarray(shares) * len(shares), label=name,
                  color=colour(number), marker="o", linewidth=1.4)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("samples below the truth, share", fontsize=8)
    axes.set_ylabel("pixels, times the flat share", fontsize=8)
    axes.legend(frameon=False, fontsize=7)
