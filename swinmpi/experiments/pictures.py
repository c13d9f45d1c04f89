"""Figures that explain, drawn from a test photograph (thesis 2.1, 2.2, 2.5, 2.7 and 3.1)."""
import io
import json
from collections.abc import Mapping

import numpy as np
from PIL import Image

from swinmpi.errors import ConfigError
from swinmpi.experiments.arms import Job, data_of
from swinmpi.experiments.plan import ArmRun, ExperimentPlan
from swinmpi.experiments.statistics import about
from swinmpi.images.contact_sheet import to_uint8
from swinmpi.images.metrics import psnr, ssim
from swinmpi.reports.thesis_pictures import (
    DISTORTIONS,
    distorted,
    distortions_picture,
    masks_picture,
    patches_picture,
    shifts_picture,
)
from swinmpi.storage.files import write_atomically
from swinmpi.storage.stack import Stack
from swinmpi.windows.grid import WindowGrid
from swinmpi.windows.shift import max_shift_of

LEVEL_DB = 22.0
"""PSNR of every distortion of figure 3.1."""


def picture_arm(run: ArmRun, job: Job) -> None:
    """Draw one figure; result.json and picture.png. Collective, root does it."""
    job.world.on_root(lambda: draw_figure(run, job.plan))


def draw_figure(run: ArmRun, plan: ExperimentPlan) -> None:
    """One process; ConfigError for a figure that is not known, or cannot be drawn of this image."""
    if run.arm.name not in FIGURES:
        raise ConfigError(f"arm {run.arm.name}: expected one of {', '.join(FIGURES)}")
    _, test = data_of(run, plan, cores=1)
    with Stack.open(f"{test}::/hr") as stack:
        image = to_uint8(np.moveaxis(stack.read(0), 0, -1), 0, np.iinfo(stack.dtype).max)
    image = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
    try:
        picture, versions = FIGURES[run.arm.name](image, run)
    except ValueError as error:
        raise ConfigError(f"{test}: {error}; give other photographs with --data") from None
    run.output.mkdir(parents=True, exist_ok=True)
    png, path = io.BytesIO(), run.output / "picture.png"
    picture.save(png, "PNG", optimize=True)
    write_atomically(path, png.getvalue())
    result = {"arm": run.arm.name, "seed": run.seed, "versions": versions,
              "picture": str(path.relative_to(plan.request.output))}
    write_atomically(run.result, (json.dumps(result, indent=1) + "\n").encode())


def windows_of(image: np.ndarray, run: ArmRun) -> WindowGrid:
    """Over the image, as the thesis rolls them."""
    window_px, shift = run.config.model.window_px, run.config.sampler.shift
    return WindowGrid(*image.shape[:2], window_px, max_shift_of(shift, window_px), "wrap")


def masks(image: np.ndarray, run: ArmRun) -> tuple[Image.Image, dict]:
    """Of the upper left window and one further in, shifted."""
    grid = windows_of(image, run)
    shift = (grid.max_shift_px,) * 2
    return masks_picture(image, grid, [0, grid.num_positions // 2], shift,
                         getattr(run.config.model, "mask_width", 1.5)), {}


def distortions(image: np.ndarray, run: ArmRun) -> tuple[Image.Image, dict]:
    """With the figures of every one."""
    made = {name: distorted(image, distort, LEVEL_DB) for name, distort in DISTORTIONS.items()}
    return distortions_picture(image, LEVEL_DB), {
        name: {"psnr": psnr(one, image, 255.0), "ssim": ssim(one, image, 255.0)}
        for name, one in made.items()}


def pictures_report(plan: ExperimentPlan, results: Mapping) -> dict:
    """Of figures that were drawn."""
    return {**about(plan), "arms": [
        {"name": name, "picture": seeds[0]["picture"], "versions": seeds[0]["versions"]}
        for name, seeds in results.items()]}


FIGURES = {
    "figure 2.1": lambda image, run: (patches_picture(image, windows_of(image, run)), {}),
    "figure 2.2": masks,
    "figures 2.5 and 2.7": lambda image, run: (shifts_picture(image, windows_of(image, run)), {}),
    "figure 3.1": distortions,
}
