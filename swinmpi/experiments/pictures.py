"""Figures that explain, drawn from a photograph: windows and masks (thesis figures 2.1 and 2.2),
and what PSNR does not see (figure 3.1)."""
import io
import json
from collections.abc import Callable, Mapping

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from swinmpi.errors import ConfigError
from swinmpi.experiments.arms import Job, data_of
from swinmpi.experiments.plan import ArmRun, ExperimentPlan
from swinmpi.experiments.statistics import about
from swinmpi.images.contact_sheet import contact_sheet
from swinmpi.images.metrics import psnr, ssim
from swinmpi.randomness import generator
from swinmpi.storage.files import write_atomically
from swinmpi.storage.stack import Stack
from swinmpi.windows.frames import patchify
from swinmpi.windows.grid import WindowGrid
from swinmpi.windows.masks import gaussian_masks

GAP_PX = 4
LEVEL_DB = 22.0
"""PSNR of every distortion of figure 3.1."""
HALVINGS = 30


def picture_arm(run: ArmRun, job: Job) -> None:
    """Draw one figure; result.json and picture.png. Collective, root does it."""
    job.world.on_root(lambda: draw_figure(run, job.plan))


def draw_figure(run: ArmRun, plan: ExperimentPlan) -> None:
    """One process; ConfigError for a figure that is not known."""
    if run.arm.name not in FIGURES:
        raise ConfigError(f"arm {run.arm.name}: expected one of {', '.join(FIGURES)}")
    _, test = data_of(run, plan)
    with Stack.open(f"{test}::/hr") as stack:
        image = np.moveaxis(stack.read(0), 0, -1) * (255 / np.iinfo(stack.dtype).max)
    tiles, titles, captions, versions = FIGURES[run.arm.name](image, run)
    run.output.mkdir(parents=True, exist_ok=True)
    png = io.BytesIO()
    contact_sheet([tiles], titles, [captions]).save(png, "PNG", optimize=True)
    write_atomically(run.output / "picture.png", png.getvalue())
    result = {"arm": run.arm.name, "seed": run.seed, "versions": versions,
              "picture": str((run.output / "picture.png").relative_to(plan.request.output))}
    write_atomically(run.result, (json.dumps(result, indent=1) + "\n").encode())


def figure_2_1(image: np.ndarray, run: ArmRun):
    """The image, and its windows apart from each other."""
    return [to_tile(image), exploded(image, run.config.model.window_px)], ["image", "windows"], [
        "", ""], {}


def figure_2_2(image: np.ndarray, run: ArmRun):
    """The mask of the upper left window, unshifted and shifted, and the windows apart."""
    config, (height, width) = run.config, image.shape[:2]
    shift_px = config.sampler.shift.max_px or 0
    grid = WindowGrid(height, width, config.model.window_px, shift_px, "wrap")
    ratio = getattr(config.model, "mask_width", 1.5)
    masks = [gaussian_masks(grid, shift, [0], ratio, height, width)[0, 0]
             for shift in ((0, 0), (shift_px, shift_px))]
    tiles = [*(to_tile((mask.numpy() + 1) * 127.5) for mask in masks),
             exploded(image, config.model.window_px)]
    return tiles, ["mask of the upper left", f"rolled by {shift_px} px", "windows"], [""] * 3, {}


def figure_3_1(image: np.ndarray, run: ArmRun):
    """Distortions of one PSNR, and their SSIM."""
    noise = generator((run.seed, 0)).standard_normal(image.shape)
    mean = image.mean()
    kinds: dict[str, Callable[[float], np.ndarray]] = {
        "brighter": lambda much: image + 255 * much,
        "less contrast": lambda much: mean + (image - mean) * (1 - much),
        "blurred": lambda much: gaussian_filter(image, (*[much * min(image.shape[:2])] * 2, 0)),
        "noisy": lambda much: image + 255 * much * noise}
    versions, tiles, captions = {}, [to_tile(image)], [""]
    for name, distort in kinds.items():
        distorted = at_level(image, distort)
        figures = {"psnr": psnr(distorted, image, 255.0), "ssim": ssim(distorted, image, 255.0)}
        versions[name] = figures
        tiles.append(to_tile(distorted))
        captions.append(f"{figures['psnr']:.2f} dB · SSIM {figures['ssim']:.3f}")
    # The row's tiles take the size of its last one.
    return tiles, ["image", *kinds], captions, versions


def at_level(image: np.ndarray, distort: Callable[[float], np.ndarray]) -> np.ndarray:
    """The image distorted until its PSNR is LEVEL_DB, clipped to 0..255; as far as the distortion
    goes where it does not go that far."""
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if psnr(distort(middle).clip(0, 255), image, 255.0) > LEVEL_DB:
            low = middle
        else:
            high = middle
    return distort(high).clip(0, 255)


def exploded(image: np.ndarray, window_px: int) -> np.ndarray:
    """Windows with gaps between them, uint8; what is left of whole windows is cut off."""
    rows, cols = (side // window_px for side in image.shape[:2])
    whole = torch.from_numpy(image[:rows * window_px, :cols * window_px].astype(np.float32))
    windows = patchify(whole.movedim(-1, 0)[None], window_px)[0]
    step = window_px + GAP_PX
    sheet = Image.new("RGB", (cols * step - GAP_PX, rows * step - GAP_PX), "white")
    for position, window in enumerate(windows):
        tile = Image.fromarray(to_tile(window.movedim(0, -1).numpy())).convert("RGB")
        sheet.paste(tile, (position % cols * step, position // cols * step))
    return np.asarray(sheet)


def to_tile(image: np.ndarray) -> np.ndarray:
    """0..255 -> uint8; one channel without its axis."""
    rounded = np.rint(image).clip(0, 255).astype(np.uint8)
    return rounded[..., 0] if rounded.ndim == 3 and rounded.shape[2] == 1 else rounded


def pictures_report(plan: ExperimentPlan, results: Mapping) -> dict:
    """Of figures that were drawn."""
    return {**about(plan), "arms": [
        {"name": name, "picture": seeds[0]["picture"], "versions": seeds[0]["versions"]}
        for name, seeds in results.items()]}


FIGURES = {"figure 2.1": figure_2_1, "figure 2.2": figure_2_2, "figure 3.1": figure_3_1}
