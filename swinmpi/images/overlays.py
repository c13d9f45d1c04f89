"""Lines of several runs in one plot, by matplotlib where it is installed."""
from collections.abc import Mapping, Sequence
from pathlib import Path

from swinmpi.images.contact_sheet import HAIRLINE
from swinmpi.images.plots import COLOURS, figure_class

STYLES = ("-", "--", ":")

Line = Sequence[tuple[float, float]]


def plot_overlay(lines: Mapping[str, Line], path: Path | str, labels: tuple[str, str],
                 scales: tuple[str, str] = ("linear", "linear"), marks: bool = False) -> None:
    """PNG of lines by their names over common axes. labels: of x and y; scales: linear or log;
    marks: every point as a dot. SwinmpiError when matplotlib is not installed."""
    figure = figure_class(path, "lines")(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for number, (name, points) in enumerate(lines.items()):
        if points:
            style = STYLES[number // len(COLOURS) % len(STYLES)]
            axes.plot(*zip(*points, strict=True), label=name, linewidth=1.4, linestyle=style,
                      color=COLOURS[number % len(COLOURS)], marker="o" if marks else None)
    axes.set(xlabel=labels[0], ylabel=labels[1], xscale=scales[0], yscale=scales[1])
    axes.grid(color=HAIRLINE, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small")
    figure.savefig(path, dpi=120)
