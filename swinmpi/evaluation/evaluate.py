"""How good SR stacks are: figures per image against the true HR stack, beside bicubic's, or without
the truth."""
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from swinmpi.errors import CheckpointError
from swinmpi.evaluation.ensemble import Trust
from swinmpi.evaluation.files import Rows, check_folder, make_folder, write_all
from swinmpi.evaluation.gathering import Gathering
from swinmpi.evaluation.lineup import Lineup, OpenLineup, Seen, check_lineup
from swinmpi.evaluation.origins import made_by
from swinmpi.evaluation.report import Evaluation
from swinmpi.images.contact_sheet import closeup_row, to_uint8, trust_overlay
from swinmpi.images.figures import (
    FIGURES,
    FIGURES_ALONE,
    ComparedImage,
    Figure,
    compare_image,
    gathered_figures,
)
from swinmpi.images.frechet import load_inception
from swinmpi.images.metrics import radial_power
from swinmpi.images.perceptual import Distance, default_backbone, load_lpips
from swinmpi.storage.metadata.frames import AS_STORED, View
from swinmpi.storage.values import ValueRange

PICTURE_ROWS = 8
SPECTRUM_STEPS = 32


@dataclass(frozen=True)
class Request:
    """Addresses of the stacks to compare, and the folder for the answer. sr: one or several;
    reference: None to judge without the truth; no_data: see Comparison; view: see `viewed`; split:
    of the reference, a file of pairs, to judge alone; lpips_backbone, inception: weights, None for
    those in torch's cache; overwrite: whether what an evaluation before left in the folder may be
    replaced, to which the command line says no."""

    sr: str | Sequence[str]
    reference: str | None
    output: Path
    lr: str | None = None
    lpips_backbone: Path | None = None
    no_data: tuple[float, ...] = ()
    view: View = AS_STORED
    split: str | None = None
    inception: Path | None = None
    overwrite: bool = True

    @property
    def stacks(self) -> list[str]:
        return [self.sr] if isinstance(self.sr, str) else list(self.sr)


@dataclass(frozen=True)
class EvaluationPlan:
    """A request that can be done; made by `plan`."""

    request: Request
    lineup: Lineup
    figures: tuple[Figure, ...]


@dataclass
class Measured:
    """What is found image by image."""

    images: dict[int, dict[str, dict[str, float]]] = field(default_factory=dict)
    nan_pixels: dict[int, int] = field(default_factory=dict)
    rows: list[list[np.ndarray]] = field(default_factory=list)
    trust: dict[str, Trust] = field(default_factory=dict)
    spectra: dict[str, list[np.ndarray]] = field(default_factory=dict)

    @property
    def mean_spectra(self) -> dict[str, np.ndarray]:
        """Over the images without a NaN; of none where all have some."""
        return {name: np.mean(known, axis=0) for name, powers in self.spectra.items()
                if (known := [power for power in powers if np.isfinite(power).any()])}


def plan(request: Request, figures: tuple[Figure, ...] | None = None) -> EvaluationPlan:
    """Validate everything but the pixels; nothing is written. One process.

    figures: the table; None for that of evaluations with the truth or without. Raises StackError
    when the stacks do not fit each other, ConfigError when no LR is known, CheckpointError for
    weights of LPIPS or FID that were named and are bad, OutputError where nothing can be written.
    """
    check_folder(request.output, request.overwrite)
    lineup = check_lineup(request.stacks, request.reference, request.lr, request.no_data,
                          request.view, request.split)
    if request.lpips_backbone is not None:
        load_lpips(request.lpips_backbone)
    if request.inception is not None:
        load_inception(request.inception)
    if figures is None:
        figures = FIGURES if request.reference else FIGURES_ALONE
    return EvaluationPlan(request, lineup, figures)


def describe(plan: EvaluationPlan) -> str:
    """What `run` would do, in one line."""
    return (f"{words(plan.lineup)}; into {plan.request.output}"
            + "".join(f"\n{remark}" for remark in plan.lineup.first.judged.remarks))


def words(lineup: Lineup) -> str:
    """What is compared, and with which range."""
    first = lineup.first
    stacks = ", ".join(str(one.sr) for one in lineup.comparisons.values())
    made_smaller = f"{'HR' if first.hr else 'SR'} made smaller by {first.scale:g}"
    truth = f"against {first.hr}" if first.hr else "without the truth"
    return (f"{first.extent}: {stacks} {truth}; LR: {first.lr or made_smaller}; "
            f"data range {lineup.value_range.span:g} ({lineup.value_range}, {lineup.range_from})")


def rehearse(plan: EvaluationPlan) -> None:
    """Read everything that `run` would; StackError where an image cannot be read. One process."""
    with ExitStack() as opened:
        for one in plan.lineup.open(opened).stacks.values():
            ensemble = one.ensemble
            members = (ensemble.mean, ensemble.std, *ensemble.members) if ensemble else ()
            for image_index in plan.lineup.image_indices:
                for stack in filter(None, (one.sr, one.hr, one.lr, one.regression, *members)):
                    stack.read(image_index)


def run(plan: EvaluationPlan) -> Evaluation:
    """Measure every image, write the files of an evaluation into the folder. One process.

    Raises as `measure`.
    """
    return write_all(plan.request.output, *measure(plan))


def measure(plan: EvaluationPlan) -> tuple[Evaluation, Rows]:
    """The figures of every image, one at a time, and tiles for the picture.

    Makes the folder, writes nothing into it. Raises StackError when an image cannot be read,
    CheckpointError for a bad LPIPS backbone that was named, OutputError when the folder cannot be
    written.
    """
    lineup, found = plan.lineup, Measured()
    wanted = plan.figures if plan.request.reference else ()
    gathering = Gathering(gathered_figures(wanted))
    with ExitStack() as opened:
        stacks = lineup.open(opened)
        distance, no_lpips = (find_distance(plan.request.lpips_backbone)
                              if any(figure.name == "lpips" for figure in wanted) else (None, []))
        no_fid = gathering.find_features(plan.request.inception)
        make_folder(plan.request.output)
        limits = stacks.limits
        on_raw = distance and distance_of_raw(distance, limits)
        for number in lineup.image_indices:
            seen = stacks.read(number)
            add_image(found, plan, number, seen, on_raw)
            add_trust(found, stacks, number, seen)
            if seen.truth is not None:
                gathering.add({name: limits.to_unit(image) for name, image in all_of(seen).items()})
            if len(found.rows) < PICTURE_ROWS:
                found.rows.append(closeup_row(*tiles(seen, limits, trusted_in(stacks, number))))
    said = [*lineup.first.judged.remarks, *no_lpips, *no_fid, *remarks(lineup, found.nan_pixels)]
    versions = next(iter(found.images.values()))
    return Evaluation(settings(lineup), found.images, found.nan_pixels, said, plan.figures,
                      gathering.finish(), words(lineup), lineup.pairs(versions), found.trust,
                      {name: made_by(one) for name, one in lineup.comparisons.items()},
                      found.mean_spectra), found.rows


def add_image(found: Measured, plan: EvaluationPlan, number: int, seen: Seen,
              distance: Distance | None) -> None:
    """The figures of an image's versions, and their spectra."""
    lineup, first = plan.lineup, plan.lineup.first
    image_index = first.judged.index(number)
    found.nan_pixels[image_index] = seen.nan_pixels
    lr = None if first.hr is None and first.lr is None else seen.lr
    base = next(iter(seen.bases.values()))
    compared = {}
    for name, image in seen.versions.items():
        comparison = lineup.comparisons.get(name, first)
        truth = seen.bases.get(name, base) if seen.truth is None else seen.truth
        compared[name] = ComparedImage(image, truth, lr, lineup.value_range.span,
                                       comparison.window_px, distance, first.scale)
    found.images[image_index] = {name: compare_image(one, plan.figures)
                                 for name, one in compared.items()}
    for name, image in all_of(seen).items():
        found.spectra.setdefault(name, []).append(radial_power(image, SPECTRUM_STEPS))


def add_trust(found: Measured, stacks: OpenLineup, number: int, seen: Seen) -> None:
    """What an image says of the ensembles."""
    for name, one in stacks.stacks.items():
        if one.ensemble is not None:
            trust = found.trust.setdefault(name, Trust(one.ensemble.ensemble))
            trust.add(one.comparison.judged.index(number), one.ensemble, number, seen.truth)


def all_of(seen: Seen) -> dict[str, np.ndarray]:
    """The versions of an image, the true one last where there is one."""
    return {**seen.versions, **({} if seen.truth is None else {"hr": seen.truth})}


def tiles(seen: Seen, limits: ValueRange,
          trusted: np.ndarray | None) -> tuple[np.ndarray, list[np.ndarray]]:
    """(LR, the versions), for a picture. trusted: (H, W), pixels of SR, shown after it."""
    lr, *versions = (to_uint8(image, limits.low, limits.high)
                     for image in (seen.lr, *all_of(seen).values()))
    if trusted is not None:
        at = len(seen.versions)
        versions.insert(at, trust_overlay(versions[at - 1], trusted))
    return lr, versions


def trusted_in(stacks: OpenLineup, number: int) -> np.ndarray | None:
    """The mask of trust of an image of a single stack; None without."""
    ensembles = [one.ensemble for one in stacks.stacks.values()]
    return ensembles[0].read_trust(number) if len(ensembles) == 1 and ensembles[0] else None


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


def remarks(lineup: Lineup, nan_pixels: Mapping[int, int]) -> list[str]:
    """What a reader of the figures must know, one line each."""
    found, first = [], lineup.first
    if total := sum(nan_pixels.values()):
        affected = sum(count > 0 for count in nan_pixels.values())
        found.append(f"{total} pixels in {affected} images are NaN and count nowhere")
    if lineup.failed:
        failed = ", ".join(str(first.judged.index(number)) for number in lineup.failed)
        found.append(f"left out because the run gave them up: images {failed}")
    for name, one in lineup.comparisons.items():
        if one.window_px is None:
            of = f" of {name}" if len(lineup.comparisons) > 1 else ""
            found.append(f"no seam score{of}: {one.seamless}")
    if first.hr is None and first.lr is None:
        found.append("no LR-PSNR: name the LR stack that SR was made from with --lr")
    return found


def settings(lineup: Lineup) -> dict[str, Any]:
    """What the figures depend on beside the pixels."""
    first = lineup.first
    stacks = {name: str(one.sr) for name, one in lineup.comparisons.items()}
    return {"sr": stacks if len(stacks) > 1 else str(first.sr),
            "reference": str(first.hr) if first.hr else None,
            "lr": str(first.lr) if first.lr else None, "scale": first.scale,
            "window_px": first.window_px, "data_range": lineup.value_range.span,
            "value_range": [lineup.value_range.low, lineup.value_range.high],
            "range_from": lineup.range_from,
            **({"split": first.judged.split} if first.judged.split else {})}
