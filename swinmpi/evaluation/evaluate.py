"""How good an SR stack is: figures per image against the true HR stack, beside bicubic's."""
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from swinmpi.errors import CheckpointError, OutputError
from swinmpi.evaluation.compared import Comparison, check_compared, open_compared
from swinmpi.evaluation.report import Evaluation, as_json, as_png
from swinmpi.images.contact_sheet import closeup_row, to_uint8
from swinmpi.images.figures import (
    FIGURES,
    ComparedImage,
    Figure,
    compare_image,
    gathered_figures,
)
from swinmpi.images.frechet import Features, default_inception, load_inception
from swinmpi.images.perceptual import Distance, default_backbone, load_lpips
from swinmpi.storage.files import existing_folder, is_writable, write_atomically
from swinmpi.storage.values import ValueRange

PICTURE_ROWS = 8

Rows = list[list[np.ndarray]]  # the tiles of a contact sheet


@dataclass(frozen=True)
class Request:
    """Addresses of the stacks to compare, and the folder for the answer. no_data: see
    Comparison. lpips_backbone, inception: weights, None for those in torch's cache. split: of the
    reference, a file of pairs, to judge alone."""

    sr: str
    reference: str
    output: Path
    lr: str | None = None
    lpips_backbone: Path | None = None
    no_data: tuple[float, ...] = ()
    inception: Path | None = None
    split: str | None = None


@dataclass(frozen=True)
class EvaluationPlan:
    """A request that can be done; made by `plan`."""

    request: Request
    comparison: Comparison
    figures: tuple[Figure, ...]


def plan(request: Request, figures: tuple[Figure, ...] = FIGURES) -> EvaluationPlan:
    """Validate everything but the pixels; nothing is written. One process.

    Raises StackError when the stacks do not fit each other, ConfigError when no LR is known,
    CheckpointError for weights of LPIPS or FID that were named and are bad, OutputError where
    nothing can be written.
    """
    comparison = check_compared(request.sr, request.reference, request.lr, request.no_data,
                                request.split)
    if request.lpips_backbone is not None:
        load_lpips(request.lpips_backbone)
    if request.inception is not None:
        load_inception(request.inception)
    check_folder(request.output)
    return EvaluationPlan(request, comparison, figures)


def describe(plan: EvaluationPlan) -> str:
    """What `run` would do, in one line."""
    compared = plan.comparison
    lr = compared.lr or f"HR made smaller by {compared.scale:g}"
    return (f"{compared.extent}: {compared.sr} against {compared.hr}; LR: {lr}; "
            f"data range {compared.value_range.span:g}; into {plan.request.output}"
            + "".join(f"\n{remark}" for remark in compared.judged.remarks))


def run(plan: EvaluationPlan) -> Evaluation:
    """Measure every image; write evaluate.json and evaluate.png into the folder. One process.

    Raises as `measure`.
    """
    evaluation, rows = measure(plan)
    write_atomically(plan.request.output / "evaluate.json", as_json(evaluation))
    write_atomically(plan.request.output / "evaluate.png", as_png(evaluation, rows))
    return evaluation


def measure(plan: EvaluationPlan) -> tuple[Evaluation, Rows]:
    """The figures of every image, one at a time, and tiles for the picture.

    Makes the folder, writes nothing into it. Raises StackError when an image cannot be read,
    CheckpointError for a bad LPIPS backbone that was named, OutputError when the folder cannot be
    written.
    """
    comparison, images, nan_pixels, rows = plan.comparison, {}, {}, []
    gathering = Gathering(gathered_figures(plan.figures))
    with ExitStack() as opened:
        stacks = open_compared(comparison, opened)
        distance, no_lpips = find_distance(plan.request.lpips_backbone)
        no_fid = gathering.find_features(plan.request.inception)
        make_folder(plan.request.output)
        limits = stacks.hr.range()
        on_raw = distance and distance_of_raw(distance, limits)
        for number in comparison.image_indices:
            image_index = comparison.judged.index(number)
            lr, versions, nan_pixels[image_index] = stacks.read(number)
            compared = {name: ComparedImage(image, versions["hr"], lr, comparison.value_range.span,
                                            comparison.window_px, on_raw)
                        for name, image in versions.items() if name != "hr"}
            images[image_index] = {name: compare_image(image, plan.figures)
                                   for name, image in compared.items()}
            gathering.add({name: limits.to_unit(image) for name, image in versions.items()})
            if len(rows) < PICTURE_ROWS:
                lr, *tiles = (to_uint8(image, limits.low, limits.high)
                              for image in (lr, *versions.values()))
                rows.append(closeup_row(lr, tiles))
    said = [*comparison.judged.remarks, *no_lpips, *no_fid, *remarks(comparison, nan_pixels)]
    return Evaluation(settings(comparison), images, nan_pixels, said, plan.figures,
                      gathering.finish()), rows


class Gathering:
    """The features of all images, by version, for figures of them together."""

    def __init__(self, figures: Sequence[Figure]):
        self.figures, self.rows = figures, defaultdict(list)
        self.features: Features | None = None

    def find_features(self, inception: Path | None) -> list[str]:
        """No remark, or how to get what is missing; CheckpointError where it was named."""
        if not self.figures:
            return []
        if inception is not None:
            self.features = load_inception(inception)
            return []
        try:
            self.features = load_inception(default_inception())
        except CheckpointError as error:
            return [f"FID is unavailable: {error}, or name a copy with --inception FILE"]
        return []

    def add(self, versions: Mapping[str, np.ndarray]) -> None:
        """One image in -1..1 by version, `hr` among them."""
        if self.features is not None:
            for name, image in versions.items():
                self.rows[name].append(self.features(image))

    def finish(self) -> dict[str, dict[str, float]]:
        """The figures by version; empty without features."""
        truth = self.rows.pop("hr", [])
        return {version: {figure.name: figure.gathered(np.array(rows), np.array(truth))
                          for figure in self.figures} for version, rows in self.rows.items()}


def find_distance(backbone: Path | None) -> tuple[Distance | None, list[str]]:
    """LPIPS and no remark, or None and the remark how to get it.

    CheckpointError when a backbone was named that is not good.
    """
    if backbone is not None:
        return load_lpips(backbone), []
    try:
        return load_lpips(default_backbone()), []
    except CheckpointError as error:
        return None, [f"LPIPS is unavailable: {error}, or name a copy with --lpips-backbone FILE"]


def distance_of_raw(distance: Distance, limits: ValueRange) -> Distance:
    """LPIPS of images in raw values, which it sees as the picture has them: clipped to `limits`."""
    return lambda *images: distance(*(limits.to_unit(image).clip(-1, 1) for image in images))


def remarks(comparison: Comparison, nan_pixels: Mapping[int, int]) -> list[str]:
    """What a reader of the figures must know, one line each."""
    found = []
    if total := sum(nan_pixels.values()):
        affected = sum(count > 0 for count in nan_pixels.values())
        found.append(f"{total} pixels in {affected} images are NaN and count nowhere")
    if comparison.failed:
        failed = ", ".join(str(comparison.judged.index(number)) for number in comparison.failed)
        found.append(f"left out because the run gave them up: images {failed}")
    if comparison.window_px is None:
        found.append(f"no seam score: {comparison.seamless}")
    return found


def settings(comparison: Comparison) -> dict[str, str | float | None]:
    """What the figures depend on beside the pixels."""
    return {"sr": str(comparison.sr), "reference": str(comparison.hr),
            "lr": str(comparison.lr) if comparison.lr else None, "scale": comparison.scale,
            "window_px": comparison.window_px, "data_range": comparison.value_range.span,
            **({"split": comparison.judged.split} if comparison.judged.split else {})}


def check_folder(folder: Path) -> None:
    """OutputError where `make_folder` would raise it, as far as can be told; makes nothing."""
    above = existing_folder(folder / "evaluate.json")
    if not os.path.isdir(above) or not is_writable(above):
        raise OutputError(f"{folder}: cannot make this folder ({above} is no folder, or not "
                          "writable); choose another --output")


def make_folder(folder: Path) -> None:
    """OutputError when the folder cannot be made or written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot make this folder ({error.strerror}); "
                          "choose another --output") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{folder}: this folder is not writable; choose another --output")
