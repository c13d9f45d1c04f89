"""What an evaluation writes: JSON, CSV, a picture and plots, into a folder where nothing of it is
overwritten unasked."""
import csv
import io
import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import swinmpi
from swinmpi.errors import OutputError, SwinmpiError
from swinmpi.evaluation.ensemble import Trust
from swinmpi.evaluation.report import Evaluation, caption, plain, trust_summaries
from swinmpi.evaluation.statistics import RESAMPLES, SEED, Summary, plain_number
from swinmpi.images.contact_sheet import closeup_sheet
from swinmpi.images.evaluation_plots import Panels, plot_evaluation
from swinmpi.reports.revision import git_revision
from swinmpi.storage.files import (
    check_by_trying,
    existing_folder,
    is_too_long,
    is_writable,
    write_atomically,
)

REPORT, TABLE, PICTURE, PLOTS = "evaluate.json", "evaluate.csv", "evaluate.png", "plots.png"
WRITTEN = (TABLE, PICTURE, PLOTS, REPORT)

Rows = Sequence[Sequence[np.ndarray]]  # the tiles of a contact sheet


def write_all(folder: Path, evaluation: Evaluation, rows: Rows) -> Evaluation:
    """All files, the JSON last; the evaluation, with a remark where plots could not be made.
    OutputError."""
    write_atomically(folder / TABLE, as_csv(evaluation))
    write_atomically(folder / PICTURE, as_png(evaluation, rows))
    try:
        write_atomically(folder / PLOTS, as_plots(evaluation, folder / PLOTS))
    except SwinmpiError as error:
        if isinstance(error, OutputError):
            raise
        evaluation = replace(evaluation, remarks=[*evaluation.remarks, str(error)])
    write_atomically(folder / REPORT, as_json(evaluation))
    return evaluation


def as_json(evaluation: Evaluation) -> bytes:
    """Settings, means with their errors, differences, figures by image, ensembles, and what made
    the stacks and this; null where there is none, "inf" where infinite."""
    images = [{"image": index, "nan_pixels": evaluation.nan_pixels[index], **plain(versions)}
              for index, versions in evaluation.images.items()]
    report = {**evaluation.settings, "mean": plain(evaluation.mean),
              **errors_of(evaluation.summaries),
              "bootstrap": {"resamples": RESAMPLES, "seed": SEED, "over": "images"},
              "differences": [{"of": one, "minus": other, **summaries_of(figures)}
                              for (one, other), figures in evaluation.differences.items()],
              "images": images,
              "ensembles": {version: trust_of(trust)
                            for version, trust in evaluation.trust.items()},
              "spectra": {version: [plain_number(value) for value in power]
                          for version, power in evaluation.spectra.items()},
              "made_by": dict(evaluation.made_by), "evaluated_by": evaluated_by(),
              "remarks": list(evaluation.remarks)}
    return (json.dumps(jsonable(report), indent=1, allow_nan=False) + "\n").encode()


def errors_of(summaries: Mapping[str, Mapping[str, Summary]]) -> dict:
    """Standard errors and intervals of means, by version and figure."""
    return {"standard_error": {version: {name: plain_number(one.standard_error)
                                         for name, one in figures.items()}
                               for version, figures in summaries.items()},
            "interval_95": {version: {name: interval(one) for name, one in figures.items()}
                            for version, figures in summaries.items()}}


def summaries_of(figures: Mapping[str, Summary]) -> dict:
    """Everything of a row of figures, by figure."""
    return {name: {"mean": plain_number(one.mean),
                   "standard_error": plain_number(one.standard_error),
                   "interval_95": interval(one), "images": one.images}
            for name, one in figures.items()}


def interval(summary: Summary) -> list | None:
    return None if math.isnan(summary.low) else [summary.low, summary.high]


def trust_of(trust: Trust) -> dict:
    """What was found of an ensemble."""
    stated, found = trust.curve
    return {"samples": trust.ensemble.count, "samples_kept": bool(trust.ensemble.members),
            "calibrated": trust.ensemble.calibrated,
            "figures": summaries_of(trust_summaries(trust)),
            "ranks": trust.mean_ranks, "reliability": {"stated": stated, "found": found},
            "images": [{"image": index, **{name: plain_number(value)
                                           for name, value in values.items()}}
                       for index, values in trust.images.items()]}


def evaluated_by() -> dict:
    """This program and what computed the figures."""
    from importlib.metadata import version
    return {"swinmpi": swinmpi.__version__, "git_revision": git_revision(),
            "command": " ".join(sys.argv),
            **{name: version(name) for name in ("numpy", "torch", "scikit-image", "h5py")}}


def jsonable(value: Any) -> Any:
    """As JSON has it, whatever a file of others says: no NaN, no bytes."""
    if isinstance(value, Mapping):
        return {str(key): jsonable(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(one) for one in value]
    if isinstance(value, float):
        return plain_number(value)
    return value if isinstance(value, str | int | bool | None) else str(value)


def as_csv(evaluation: Evaluation) -> bytes:
    """A line for every image and version, figures in full; empty where there is none."""
    trusted = list({figure.name: None for trust in evaluation.trust.values()
                    for figure in trust.figures})
    names = [figure.name for figure in evaluation.listed if figure.compared]
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["image", "version", *names, *trusted, "nan_pixels"])
    for index, versions in evaluation.images.items():
        for version, values in versions.items():
            trust = evaluation.trust.get(version)
            values = {**values, **(trust.images[index] if trust else {})}
            lines.writerow([index, version, *(number(values.get(name, math.nan))
                                              for name in [*names, *trusted]),
                            evaluation.nan_pixels[index]])
    return text.getvalue().encode()


def number(value: float) -> str:
    return "" if math.isnan(value) else repr(float(value))


def as_png(evaluation: Evaluation, rows: Rows) -> bytes:
    """The first images, one a row of tiles: whole, LR, versions with their figures, HR."""
    listed = list(evaluation.images.items())[:len(rows)]
    captions = [[caption(values, evaluation.figures) for values in versions.values()]
                for _, versions in listed]
    labels = [*map(evaluation.title, evaluation.versions)]
    if evaluation.shows_trust:
        labels.append("trusted: not magenta")
    if evaluation.settings.get("reference"):
        labels.append("HR")
    lr_label = "LR" if evaluation.settings.get("lr") or labels[-1] == "HR" else "shrunk SR"
    sheet = closeup_sheet(rows, labels, [f"image {index}" for index, _ in listed], captions,
                          lr_label)
    png = io.BytesIO()
    sheet.save(png, "PNG", optimize=True)
    return png.getvalue()


def as_plots(evaluation: Evaluation, path: Path) -> bytes:
    """Differences with their intervals, spectra, and of ensembles reliability and ranks, one PNG.

    path: named in the SwinmpiError where matplotlib is not installed.
    """
    titles = {figure.name: figure.title for figure in evaluation.listed if figure.compared}
    differences = {
        title: {" - ".join(map(evaluation.title, pair)): (one.mean, one.low, one.high)
                for pair, figures in evaluation.differences.items()
                if math.isfinite((one := figures[name]).mean)}
        for name, title in titles.items()}
    trust = {evaluation.title(version): one for version, one in evaluation.trust.items()}
    panels = Panels({title: points for title, points in differences.items() if points},
                    {evaluation.title(version): power
                     for version, power in evaluation.spectra.items()},
                    {name: one.curve for name, one in trust.items() if one.curves},
                    {name: one.mean_ranks for name, one in trust.items() if one.ranks})
    return plot_evaluation(panels, path)


def check_folder(folder: Path, overwrite: bool = True) -> None:
    """OutputError where `make_folder` would raise it, as far as can be told, or where a file of an
    evaluation is there and not `overwrite`; makes nothing."""
    above = existing_folder(folder / REPORT)
    if not os.path.isdir(above) or not is_writable(above):
        raise OutputError(f"{folder}: cannot make this folder ({above} is no folder, or not "
                          "writable); choose another --output")
    if is_too_long(folder.absolute() / PICTURE):
        raise OutputError(f"{folder}: cannot write here (its name, or that of a folder on the way, "
                          "is too long); choose a shorter --output")
    check_by_trying(folder.absolute() / PICTURE)
    for name in WRITTEN:
        if os.path.isdir(folder / name):
            raise OutputError(f"{folder / name}: a folder lies where a file must; move it away, or "
                              "choose another --output")
        if not overwrite and os.path.lexists(folder / name):
            raise OutputError(f"{folder / name}: exists already; choose another --output, or "
                              "replace it with --overwrite")


def make_folder(folder: Path) -> None:
    """OutputError when the folder cannot be made or written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot make this folder ({error.strerror}); "
                          "choose another --output") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{folder}: this folder is not writable; choose another --output")
