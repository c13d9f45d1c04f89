"""A report as a page: our figures with their standard errors, beside the thesis's."""
import math
from collections.abc import Mapping, Sequence

from swinmpi.experiments.band_figures import BAND_FIGURES
from swinmpi.experiments.edges import FIGURES_AND_EDGE

FIGURES = {figure.name: figure for figure in (*FIGURES_AND_EDGE, *BAND_FIGURES)
           if figure.compared or figure.gathered}
NOTHING = "-"


def as_markdown(report: Mapping) -> str:
    """The page of a report.json."""
    lines = [f"# {report['title']} (thesis {report['section']})", "",
             f"`{report['command']}`", ""]
    if report["budget"]["name"] == "smoke":
        lines += ["Budget smoke tries the program: these figures say nothing about the thesis.", ""]
    lines += PAGES[report["kind"]](report)
    if report["expects"]:
        lines += ["", f"The thesis: {report['expects']}"]
    return "\n".join(lines) + "\n"


def quality_page(report: Mapping) -> list[str]:
    """Of arms that were judged."""
    shown = [name for name in FIGURES if any(
        arm["figures"].get(name, {"mean": None})["mean"] is not None for arm in report["arms"])]
    theirs = [name for name in FIGURES if any(name in arm["published"] for arm in report["arms"])]
    head = ["arm", *(FIGURES[name].title for name in shown), f"PSNR - {report['reference']}",
            "parameters", "updates", "training s", "s/image",
            *(f"thesis {FIGURES[name].title}" for name in theirs)]
    rows = [[version, *(cell(figures[name], name) for name in shown),
             *([NOTHING] * (5 + len(theirs)))] for version, figures in report["baselines"].items()]
    for arm in report["arms"]:
        own = arm["name"] == report["reference"]
        rows.append([arm["name"], *(cell(arm["figures"][name], name) for name in shown),
                     NOTHING if own else signed(arm["difference"]["psnr"]),
                     *training_cells(arm["training"]), f"{arm['seconds_per_image'][0]:.3g}",
                     *(number(arm["published"].get(name), FIGURES[name].style)
                       for name in theirs)])
    budget, table = report["budget"], report["published"]["table"]
    lines = [f"{report['num_test_images']} test images, seeds "
             f"{', '.join(map(str, budget['seeds']))}; mean ± standard error over the images"
             + (f"; the thesis's numbers are its table {table}, {report['published']['setting']}"
                if table else ""), "", *markdown_table(head, rows)]
    return lines + ranking_lines(report["ranking"]) + [f"\n{one}" for one in report["remarks"]]


def training_cells(training: Mapping | None) -> list[str]:
    """Parameters in millions, updates, seconds."""
    if not training:
        return [NOTHING] * 3
    return [f"{training['parameters'] / 1e6:.3g} M", str(training["updates"]),
            f"{training['seconds']:.0f}"]


def ranking_lines(ranking: Sequence[Mapping]) -> list[str]:
    """Which of the thesis's orders by PSNR are found here."""
    if not ranking:
        return []
    rows = [[f"{one['better_in_thesis']} over {one['worse_in_thesis']}",
             f"{one['thesis_db']:+.2f}", f"{one['here_db']:+.2f}"
             + (f" ± {one['standard_error']:.2f}" if one["standard_error"] is not None else ""),
             one["verdict"]] for one in ranking]
    return ["", "Order by PSNR (undecided: within two standard errors):", "",
            *markdown_table(["in the thesis", "there, dB", "here, dB", "verdict"], rows)]


def time_page(report: Mapping) -> list[str]:
    """Of seconds for one sample."""
    head = ["arm", "ranks", "s/sample", "CPU s of the busiest rank", "speed-up", "by CPU time",
            "cores used", "GPU used", "thesis s/sample"]
    rows = [[arm["name"], str(one["ranks"]), plus_minus(one["seconds"], ".3g"),
             plus_minus(one["cpu_seconds"], ".3g"), number(one["speed_up"], ".2f"),
             number(one["speed_up_by_cpu"], ".2f"), number(one["cores_used"], ".2f"),
             number(one["gpu_used"], ".0%"),
             number(arm["published"].get(f"seconds_{one['ranks']}"), ".3f")]
            for arm in report["arms"] for one in arm["ranks"]]
    return [f"One image at a time, random weights; {report['machine']['cpu']}, "
            f"{report['machine']['device']}; mean ± standard error over "
            f"{report['budget']['repeats']} repeats", "", *markdown_table(head, rows),
            *(f"\n{one}" for one in report["remarks"])]


def pictures_page(report: Mapping) -> list[str]:
    """Of figures that are drawn."""
    lines = []
    for arm in report["arms"]:
        lines += [f"![{arm['name']}]({arm['picture']})", ""]
        if arm["versions"]:
            lines += markdown_table(
                ["version", "PSNR dB", "SSIM"],
                [[name, number(one["psnr"], ".2f"), number(one["ssim"], ".4f")]
                 for name, one in arm["versions"].items()])
    return lines


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Its lines."""
    rule = ["---", *("---:" for _ in head[1:])]
    return [f"| {' | '.join(cells)} |" for cells in (head, rule, *rows)]


def cell(figure: Mapping, name: str) -> str:
    """Mean and standard error."""
    if figure["mean"] is None:
        return "unavailable" if FIGURES[name].optional else NOTHING
    return plus_minus(figure, FIGURES[name].style)


def plus_minus(figure: Mapping, style: str) -> str:
    if figure["mean"] == "inf":
        return "inf"
    error = figure["standard_error"]
    return number(figure["mean"], style) + ("" if error is None else f" ± {error:{style}}")


def signed(figure: Mapping) -> str:
    """A difference in dB."""
    if not isinstance(figure["mean"], float) or not math.isfinite(figure["mean"]):
        return NOTHING
    error = figure["standard_error"]
    return f"{figure['mean']:+.2f}" + ("" if error is None else f" ± {error:.2f}")


def number(value: float | None, style: str) -> str:
    return NOTHING if value is None else format(value, style)


PAGES = {"quality": quality_page, "time": time_page, "pictures": pictures_page}
