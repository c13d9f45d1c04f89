"""What the first run makes of its result: figures beside bicubic's, a picture and a report."""
import json
from collections.abc import Mapping
from pathlib import Path

from swinmpi.evaluation.evaluate import Request, measure, plan
from swinmpi.evaluation.files import as_json, as_png
from swinmpi.evaluation.report import as_text
from swinmpi.images.figures import compared_figures
from swinmpi.storage.files import write_atomically

LR, HR = "/entry/data/lr", "/entry/reference/hr"
PICTURE, REPORT = "contact_sheet.png", "report.json"


def present(sr: Path, demo_stack: str, run: Mapping, picture: bool = True) -> str:
    """Compare the SR of the demo stack with its HR; returns the table. One process.

    A report, which also has the entries of `run`, and a picture, if it is wanted, are written
    beside `sr`. Eight images are too few for the figures of all together.
    """
    folder = sr.parent
    request = Request(str(sr), f"{demo_stack}::{HR}", folder, f"{demo_stack}::{LR}")
    evaluation, rows = measure(plan(request, compared_figures()))
    if picture:
        write_atomically(folder / PICTURE, as_png(evaluation, rows))
    report = json.loads(as_json(evaluation)) | {"run": dict(run)}
    write_atomically(folder / REPORT, (json.dumps(report, indent=1) + "\n").encode())
    return as_text(evaluation)
