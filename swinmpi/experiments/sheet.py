"""The contact sheet of an experiment: the same test images by every arm."""
import io
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from swinmpi.evaluation.report import caption
from swinmpi.experiments.arms import per_image
from swinmpi.experiments.edges import FIGURES_AND_EDGE
from swinmpi.experiments.plan import ExperimentPlan
from swinmpi.images.contact_sheet import closeup_row, contact_sheet, to_uint8
from swinmpi.images.imresize import imresize
from swinmpi.storage.files import write_atomically
from swinmpi.storage.stack import Stack

MOST_ROWS, MOST_COLUMNS = 4, 10


def draw_sheet(plan: ExperimentPlan, report: Mapping, results: Mapping, path: Path) -> bool:
    """PNG: whole image, LR, bicubic, the arms (first seed), HR. Of many arms some are left out,
    evenly. One process."""
    runs = {run.arm.name: run for run in reversed(plan.runs)}
    names = [arm.name for arm in plan.experiment.arms]
    if len(names) > MOST_COLUMNS:
        names = [names[at] for at in np.linspace(0, len(names) - 1, MOST_COLUMNS).astype(int)]
    test = {name: results[name][0]["test"] for name in names}
    names = [name for name in names if test[name] == test[names[0]]]
    with ExitStack() as opened:
        def stack(address: str) -> Stack:
            return opened.enter_context(Stack.open(address))

        data = plan.request.output / "data" / test[names[0]]
        lr, hr = (stack(f"{data}::/{name}") for name in ("lr", "hr"))
        sr = [stack(str(runs[name].output / "sr.h5")) for name in names]
        limits, rows, captions = hr.range(), [], []
        for index in range(min(MOST_ROWS, hr.num_images)):
            small, *versions = (picture(one, index) for one in (lr, *sr, hr))
            bicubic = imresize(small, size=versions[-1].shape[:2])
            images = [to_uint8(image, limits.low, limits.high)
                      for image in (small, bicubic, *versions)]
            rows.append(closeup_row(images[0], images[1:]))
            captions.append(["", "", figures(results[names[0]][0], "bicubic", index),
                             *(figures(results[name][0], "sr", index) for name in names), ""])
    png = io.BytesIO()
    contact_sheet(rows, ["", "LR", "bicubic", *names, "HR"], captions).save(
        png, "PNG", optimize=True)
    write_atomically(path, png.getvalue())
    return True


def picture(stack: Stack, index: int) -> np.ndarray:
    """(H, W, C) of raw values."""
    return np.moveaxis(stack.read(index), 0, -1)


def figures(result: Mapping, version: str, index: int) -> str:
    """The lines under an image."""
    values = {name: float(per_image(result, version, name)[index])
              for name in result["figures"][version]}
    return caption(values, FIGURES_AND_EDGE)
