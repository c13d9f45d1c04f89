"""How good an SR stack is: figures per image against the true HR stack, beside bicubic's."""
import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from swinmpi.errors import CheckpointError, OutputError
from swinmpi.evaluation.compared import Opposed, extent, open_opposed
from swinmpi.evaluation.report import Evaluation, Figures, as_json, as_png
from swinmpi.images.metrics import detail, lr_psnr, psnr, seam_score, ssim
from swinmpi.images.perceptual import Distance, default_backbone, load_lpips
from swinmpi.images.contact_sheet import closeup_row, to_uint8
from swinmpi.storage.checkpoint import write_atomically
from swinmpi.storage.values import ValueRange

PICTURE_ROWS = 8


@dataclass(frozen=True)
class Request:
    """Addresses of the stacks to compare, and the folder for the answer."""

    sr: str
    reference: str
    output: Path
    lr: str | None = None
    lpips_backbone: Path | None = None


def evaluate(request: Request) -> Evaluation:
    """Judge every image and write evaluate.json and evaluate.png into the folder. One process. Raises as `judge`."""
    evaluation, rows = judge(request)
    write_atomically(request.output / "evaluate.json", as_json(evaluation))
    write_atomically(request.output / "evaluate.png", as_png(evaluation, rows))
    return evaluation


def judge(request: Request) -> tuple[Evaluation, list[list[np.ndarray]]]:
    """Judge every image, one at a time: figures, and tiles for the picture. Makes the folder, writes nothing into it.

    Raises StackError when the stacks do not fit each other, ConfigError when no LR is known, CheckpointError for a bad
    LPIPS backbone that was named, OutputError when the folder cannot be written.
    """
    with ExitStack() as stacks:
        opposed = open_opposed(request.sr, request.reference, request.lr, stacks)
        distance, no_lpips = find_distance(request.lpips_backbone)
        make_folder(request.output)
        shown = opposed.hr.range()
        images, nan_pixels, rows = {}, {}, []
        for image_index in opposed.image_indices:
            lr, versions, nan_pixels[image_index] = opposed.read(image_index)
            images[image_index] = {name: measure(version, versions["hr"], lr, opposed, distance, shown)
                                   for name, version in versions.items() if name != "hr"}
            if len(rows) < PICTURE_ROWS:
                lr, *tiles = (to_uint8(image, shown.low, shown.high) for image in (lr, *versions.values()))
                rows.append(closeup_row(lr, tiles))
        return Evaluation(settings(opposed), images, nan_pixels, no_lpips + remarks(opposed, nan_pixels)), rows


def plan(request: Request) -> str:
    """What `evaluate` would do, in one line; everything but the pixels is validated, nothing is written."""
    with ExitStack() as stacks:
        opposed = open_opposed(request.sr, request.reference, request.lr, stacks)
        lr = opposed.lr.address if opposed.lr else f"HR made smaller by {opposed.scale:g}"
        return (f"{extent(opposed.sr)}: {opposed.sr.address} against {opposed.hr.address}; LR: {lr}; "
                f"data range {opposed.data_range:g}; into {request.output}")


def measure(image: np.ndarray, hr: np.ndarray, lr: np.ndarray, opposed: Opposed, distance: Distance | None,
            shown: ValueRange) -> Figures:
    """All figures of one version of one image. LPIPS sees the values as the picture shows them."""
    nothing, data_range, window_px = float("nan"), opposed.data_range, opposed.window_px
    return {"psnr": psnr(image, hr, data_range), "ssim": ssim(image, hr, data_range),
            "lpips": distance(*(shown.to_unit(seen).clip(-1, 1) for seen in (image, hr))) if distance else nothing,
            "lr_psnr": lr_psnr(image, lr, data_range), "detail": detail(image, hr),
            "seam": seam_score(image, hr, window_px) if window_px else nothing}


def find_distance(backbone: Path | None) -> tuple[Distance | None, list[str]]:
    """LPIPS and no remark, or None and the remark how to get it. A backbone that was named must be good."""
    if backbone is not None:
        return load_lpips(backbone), []
    try:
        return load_lpips(default_backbone()), []
    except CheckpointError as error:
        return None, [f"LPIPS is unavailable: {error}, or name a copy with --lpips-backbone FILE"]


def remarks(opposed: Opposed, nan_pixels: Mapping[int, int]) -> list[str]:
    """What a reader of the figures must know, one line each."""
    found = []
    if total := sum(nan_pixels.values()):
        affected = sum(count > 0 for count in nan_pixels.values())
        found.append(f"{total} pixels in {affected} images are NaN and count nowhere")
    if opposed.failed:
        found.append(f"left out because the run gave them up: images {', '.join(map(str, opposed.failed))}")
    if opposed.window_px is None:
        found.append("no seam score: the SR file does not tell its window size")
    return found


def settings(opposed: Opposed) -> dict[str, str | float | None]:
    """What the figures depend on beside the pixels."""
    return {"sr": str(opposed.sr.address), "reference": str(opposed.hr.address),
            "lr": str(opposed.lr.address) if opposed.lr else None, "scale": opposed.scale,
            "window_px": opposed.window_px, "data_range": opposed.data_range}


def make_folder(folder: Path) -> None:
    """OutputError when the folder cannot be made or written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot make this folder ({error.strerror}); choose another --output") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{folder}: this folder is not writable; choose another --output")
