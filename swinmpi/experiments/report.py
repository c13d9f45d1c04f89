"""The report of an experiment: JSON, a Markdown page, and pictures."""
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from swinmpi.errors import SwinmpiError
from swinmpi.evaluation.report import mean_of
from swinmpi.experiments.markdown import as_markdown
from swinmpi.experiments.pictures import pictures_report
from swinmpi.experiments.plan import ExperimentPlan
from swinmpi.experiments.sheet import draw_sheet
from swinmpi.experiments.statistics import Results, loss_of, quality_report
from swinmpi.experiments.timing import draw_usage, time_report
from swinmpi.images.overlays import plot_overlay
from swinmpi.storage.files import write_atomically

SMOOTHED = 25
"""A curve of losses is the mean over this part of it."""


def write_report(plan: ExperimentPlan) -> list[Path]:
    """report.json, report.md and pictures, of results that are all there. One process."""
    results: dict[str, list] = {}
    for run in plan.runs:
        results.setdefault(run.arm.name, []).append(json.loads(run.result.read_text()))
    folder = plan.request.output
    report = REPORTS[plan.experiment.kind](plan, results)
    written = [folder / "report.json", folder / "report.md"]
    write_atomically(written[0], (json.dumps(report, indent=1, allow_nan=False) + "\n").encode())
    write_atomically(written[1], as_markdown(report).encode())
    return written + draw(plan, report, results)


def draw(plan: ExperimentPlan, report: Mapping, results: Results) -> list[Path]:
    """The pictures of a report; without matplotlib those that need it are left out, and a line says
    so. One process."""
    folder, drawn = plan.request.output, []
    for name, action in PICTURES[plan.experiment.kind]:
        try:
            if action(plan, report, results, folder / name):
                drawn.append(folder / name)
        except SwinmpiError as error:
            print(f"swinmpi: {error}", flush=True)
    return drawn


def draw_losses(plan: ExperimentPlan, report: Mapping, results: Results, path: Path) -> bool:
    """Training losses of the first seed over the updates, smoothed; False where nothing was
    trained."""
    lines, seen = {}, []
    for name, seeds in results.items():
        log = seeds[0].get("training", {}).get("log", [])
        if log and log not in seen:
            seen.append(log)
            lines[name] = smoothed([(one["update"], loss_of(one)) for one in log])
    if lines:
        plot_overlay(lines, path, ("update", "training loss"), ("linear", "log"))
    return bool(lines)


def smoothed(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Means over the points around each."""
    reach = len(points) // SMOOTHED
    return [(x, mean_of([y for _, y in points[max(0, at - reach):at + reach + 1]]))
            for at, (x, _) in enumerate(points)]


def draw_dial(plan: ExperimentPlan, report: Mapping, results: Results, path: Path) -> bool:
    """Detail over PSNR, a dot for each arm with its name: the curve between fidelity and detail."""
    points = {arm["name"]: [(arm["figures"]["psnr"]["mean"], arm["figures"]["detail"]["mean"])]
              for arm in report["arms"]}
    points = {name: at for name, at in points.items()
              if all(isinstance(value, float) for value in at[0])}
    if points:
        plot_overlay(points, path, ("PSNR in dB", "detail (1: as much as the truth)"), marks=True)
    return bool(points)


REPORTS = {"quality": quality_report, "time": time_report, "pictures": pictures_report}
PICTURES = {"time": (("usage.png", draw_usage),), "pictures": (),
            "quality": (("losses.png", draw_losses), ("fidelity_detail.png", draw_dial),
                        ("contact_sheet.png", draw_sheet))}
