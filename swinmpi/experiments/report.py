"""The report of an experiment: JSON, a Markdown page, and pictures."""
import io
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from swinmpi.errors import SwinmpiError
from swinmpi.evaluation.beside import sheet_of_stacks
from swinmpi.experiments.band_figures import diagonal_bands
from swinmpi.experiments.markdown import as_markdown
from swinmpi.experiments.pictures import pictures_report
from swinmpi.experiments.plan import ExperimentPlan
from swinmpi.experiments.statistics import Results, loss_of, quality_report
from swinmpi.experiments.timing import draw_usage, time_report
from swinmpi.images.contact_sheet import as_png
from swinmpi.images.plots import plot_overlaid
from swinmpi.storage.files import write_atomically
from swinmpi.storage.stack import Stack

MOST_COLUMNS, MOST_ROWS = 10, 6


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
    trained. Arms that share a training share a line."""
    lines: dict[str, list] = {}
    for name, seeds in results.items():
        log = [{"update": one["update"], "training_loss": loss_of(one)}
               for one in seeds[0].get("training", {}).get("log", [])]
        if log and log not in lines.values():
            lines[name] = log
    if lines:
        plot_overlaid(lines, path, ("training_loss",))
    return bool(lines)


def draw_dial(plan: ExperimentPlan, report: Mapping, results: Results, path: Path) -> bool:
    """Detail over PSNR, a dot for each arm: the curve between fidelity and detail."""
    points = {arm["name"]: [{"PSNR in dB": arm["figures"]["psnr"]["mean"],
                             "detail": arm["figures"]["detail"]["mean"]}]
              for arm in report["arms"]}
    points = {name: at for name, at in points.items()
              if all(isinstance(value, float) for value in at[0].values())}
    if points:
        plot_overlaid(points, path, ("detail",), "PSNR in dB")
    return bool(points)


def draw_sheet(plan: ExperimentPlan, report: Mapping, results: Results, path: Path) -> bool:
    """The first test images by every arm (first seed). Of many arms some are left out, evenly."""
    stacks, test = stacks_of(plan), common_test(plan, results)
    names = list(stacks)
    if test is None:
        return False
    if len(names) > MOST_COLUMNS:
        names = [names[at] for at in np.linspace(0, len(names) - 1, MOST_COLUMNS).astype(int)]
    png = io.BytesIO()
    sheet_of_stacks({name: stacks[name] for name in names}, f"{test}::/hr",
                    f"{test}::/lr").save(png, "PNG", optimize=True)
    write_atomically(path, png.getvalue())
    return True


def draw_bands(plan: ExperimentPlan, report: Mapping, results: Results, path: Path) -> bool:
    """The diagonal Haar band of the first test images by every arm (first seed), where bands are
    compared."""
    test, versions = common_test(plan, results), {}
    if not plan.experiment.bands or test is None:
        return False
    for name, address in {**stacks_of(plan), "HR": f"{test}::/hr"}.items():
        with Stack.open(address) as stack:
            versions[name] = [np.moveaxis(stack.read(index), 0, -1)
                              for index in range(min(MOST_ROWS, stack.num_images))]
    write_atomically(path, as_png(diagonal_bands(versions)))
    return True


def common_test(plan: ExperimentPlan, results: Results) -> Path | None:
    """The file of the test images; None where arms have different ones."""
    tests = {seeds[0]["test"] for seeds in results.values()}
    return plan.request.output / "data" / tests.pop() if len(tests) == 1 else None


def stacks_of(plan: ExperimentPlan) -> dict[str, str]:
    """What every arm made with the first seed, by its name."""
    first = {run.arm.name: run for run in reversed(plan.runs)}
    return {arm.name: str(first[arm.name].output / "sr.h5") for arm in plan.experiment.arms}


REPORTS = {"quality": quality_report, "time": time_report, "pictures": pictures_report}
PICTURES = {"time": (("usage.png", draw_usage),), "pictures": (),
            "quality": (("losses.png", draw_losses), ("fidelity_detail.png", draw_dial),
                        ("contact_sheet.png", draw_sheet), ("bands.png", draw_bands))}
