"""A picture of every run, beside its output: the first, the middle and the worst image."""
import math
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from swinmpi.config import Config, load_config
from swinmpi.images.contact_sheet import (
    as_png,
    closeup_row,
    closeup_sheet,
    is_sheet,
    to_uint8,
    trust_overlay,
)
from swinmpi.sampling.looks.finished import (
    SPREAD,
    SR,
    STD,
    TRUST,
    Finished,
    Seen,
    finished_pictures,
    finished_stack,
    seen_part,
)
from swinmpi.sampling.request import KEPT_SUFFIXES, SampleRequest
from swinmpi.sampling.settings import presets_of, settings_of
from swinmpi.storage.files import tell, write_atomically
from swinmpi.storage.header import read_header
from swinmpi.storage.pictures.listing import reason_of

FOLDER_PICTURE = "swinmpi.png"
TITLES = {"bicubic": "bicubic", SR: "SR", STD: "deviation (std)", SPREAD: "spread of samples",
          TRUST: "trusted"}
LONGEST_NAME = 34


class Run(Protocol):
    """What a picture is of: a SamplingPlan, or what is merged of shards. takes_steps: False for an
    encoder alone."""

    request: SampleRequest
    config: Config
    takes_steps: bool


def picture_of(output: Path) -> Path:
    """scan_x2.h5 -> scan_x2.png."""
    stem = output.stem if output.suffix.lower() in KEPT_SUFFIXES else output.name
    return output.with_name(f"{stem}.png")


def planned_pictures(plans: Iterable[Run]) -> dict[Path, list[Run]]:
    """The pictures of runs, each with the runs it shows: one for an HDF5 output, one for all
    pictures in a folder; none of a shard, nor where output.picture says so."""
    planned: dict[Path, list[Run]] = {}
    for plan in plans:
        request = plan.request
        if plan.config.output.picture and request.shard is None:
            path = (picture_of(request.output) if request.pictures is None
                    else request.output / FOLDER_PICTURE)
            planned.setdefault(path, []).append(plan)
    return planned


def describe_pictures(plans: Sequence[Run], others: Sequence[Path] = ()) -> list[str]:
    """A line of a dry run for each. others: files that a picture must not replace either."""
    files = files_of(plans, others)
    return [f"picture     {path}" + (f": {kept}" if kept else "")
            for path, runs in planned_pictures(plans).items()
            for kept in [why_kept(path, runs[0].request, files, resumed=False)]]


def draw_pictures(plans: Sequence[Run], resumed: bool,
                  others: Sequence[Path] = ()) -> list[Path]:
    """Draw the pictures of finished runs; those that were written. One process.

    resumed: whether this job went on with what another began. A picture that cannot be drawn is no
    reason to fail: a line says why. others: see `describe_pictures`.
    """
    written, files = [], files_of(plans, others)
    for path, runs in planned_pictures(plans).items():
        try:
            kept = why_kept(path, runs[0].request, files, resumed)
            if kept is not None:
                tell(f"{path}: {kept}")
                continue
            with np.errstate(all="ignore"):
                write_atomically(path, as_png(sheet_of(runs)))
            written.append(path)
        except Exception as error:  # noqa: BLE001 - what was asked for is there
            tell(f"{path}: no picture is drawn ({reason_of(error)})")
    return written


def why_kept(path: Path, request: SampleRequest, files: Collection[str],
             resumed: bool) -> str | None:
    """Why no picture is drawn over what is there; None where it may be. files: see `files_of`."""
    if os.path.realpath(path) in files:
        return "is a file of this run, no picture is drawn"
    mine = is_sheet(path) and (resumed or request.pictures is not None)
    if request.overwrite or mine or not os.path.lexists(path):
        return None
    return "exists already and stays, no picture is drawn without --overwrite"


def files_of(plans: Iterable[Run], others: Iterable[Path]) -> set[str]:
    """Real paths of what runs read and write, and of `others`."""
    files: set[Path] = set(others)
    for one in plans:
        request = one.request
        if request.pictures is None:
            files |= {Path(request.stack.partition("::")[0]), request.output}
        else:
            for picture in request.pictures.group.whole.pictures:
                files |= {picture.path, request.output / picture.target}
    return set(map(os.path.realpath, files))


def sheet_of(runs: Sequence[Run]) -> Image.Image:
    """A row for each image that is shown. StackError where nothing can be."""
    rows, names, captions, titles = [], [], [], []
    with ExitStack() as opened:
        finished = [opened_run(one, opened) for one in runs]
        agrees = runs[0].config.output.consistent is True
        for (number, index), why in chosen([one.figures for one in finished], agrees).items():
            one = finished[number]
            seen = seen_part(one, index)
            tiles, told = row_of(seen, one, index)
            titles = max(titles, [TITLES[name] for name in seen.versions], key=len)
            rows.append(tiles)
            names.append("\n".join([short(one.lr.short_name_of(index)), why, *extent(seen, one)]))
            captions.append(told)
    if not rows:
        raise ValueError("there is no image that the network made")
    return closeup_sheet(rows, titles, names, captions, title=title_of(runs[0]))


def opened_run(plan: Run, opened: ExitStack) -> Finished:
    request, scale = plan.request, plan.config.model.scale
    if request.pictures is None:
        return finished_stack(request, scale, opened)
    return finished_pictures(request, scale, plan.config.output.value_range)


def chosen(figures: Sequence[Mapping[int, Mapping[str, float]]],
           agrees: bool) -> dict[tuple[int, int], str]:
    """(number of the run, image index) of the images to show, with the reason: the first, the
    middle, and the one with the highest seam score or LR misfit, as the end of a run names them.

    agrees: whether samples shrink to the LR image, so that their misfit is but rounding.
    """
    every = {(number, index): own for number, run in enumerate(figures)
             for index, own in sorted(run.items())}
    if not every:
        return {}
    places = list(every)
    wanted = [(places[0], "first"), (places[len(places) // 2], "middle")]
    kinds = [("lr_misfit", "most LR misfit"), ("seam_score", "most seams")]
    for name, words in reversed(kinds) if agrees else kinds:
        values = {place: own[name] for place, own in every.items()
                  if math.isfinite(own.get(name, math.nan))}
        if len(values) > 1:
            wanted.append((max(values, key=values.__getitem__), words))
            break
    reasons: dict[tuple[int, int], list[str]] = {}
    for place, why in wanted:
        reasons.setdefault(place, []).append(why)
    return {place: ", ".join(why) for place, why in sorted(reasons.items())}


def row_of(seen: Seen, finished: Finished, image_index: int) -> tuple[list[np.ndarray], list[str]]:
    """(tiles, the captions under bicubic and what follows)."""
    low, high = finished.limits
    figures = finished.figures[image_index]
    tiles, told = {}, {"bicubic": "", SR: "\n".join(
        text.format(figures[name]) for name, text in (("lr_misfit", "LR misfit {:.2g}"),
                                                      ("seam_score", "seams {:.2f}"))
        if math.isfinite(figures.get(name, math.nan)))}
    for name, image in seen.versions.items():
        if name in (STD, SPREAD):
            most = float(np.nanmax(image, initial=0)) or 1.0
            tiles[name], told[name] = to_uint8(image, 0, most), f"0 to {most:.3g}"
        elif name == TRUST:
            trusted = (image > 0).all(axis=2)
            tiles[name] = trust_overlay(tiles[SR], trusted)
            told[name] = f"{trusted.mean():.0%}; the rest is magenta"
        else:
            tiles[name] = to_uint8(image, low, high)
    return (closeup_row(to_uint8(seen.lr, low, high), list(tiles.values()),
                        guide=list(tiles).index(SR)), [told[name] for name in tiles])


def extent(seen: Seen, finished: Finished) -> list[str]:
    """A line on which part of a large image is shown."""
    lr, scale = finished.lr, finished.scale
    if (len(seen.rows), len(seen.cols)) == (lr.height, lr.width):
        return []
    return [f"rows from {seen.rows.start * scale}, columns from {seen.cols.start * scale}",
            f"of {lr.height * scale} x {lr.width * scale} px"]


def title_of(plan: Run) -> str:
    """Model, preset, scale."""
    model = plan.config.model
    sampler = words_of(plan.config, read_header(plan.request.checkpoint))
    return (f"{short(plan.request.checkpoint.stem)} ({model.family}), "
            f"{sampler if plan.takes_steps else 'no diffusion'}, {model.scale}x")


def words_of(config: Config, header: Mapping) -> str:
    """The preset of a checkpoint that a configuration is, else its sampler."""
    sampler, base = config.sampler, settings_of(header)
    presets = presets_of(header, load_config(base=base))
    easy = "" if sampler.adaptive is None else f", adaptive {sampler.adaptive:g}"
    for name, sections in presets.items():
        meant = load_config(preset=name, base=base, presets=presets).sampler
        if all(getattr(sampler, key) == getattr(meant, key) for key in sections["sampler"]):
            return f"preset {name}{easy}"
    return f"{sampler.method}, {sampler.steps} steps, noise_scale {sampler.noise_scale:g}{easy}"


def short(name: str) -> str:
    """A name that fits under a tile, of characters that can be drawn."""
    name = " ".join(os.fsencode(Path(name).name).decode(errors="replace").split())
    return name if len(name) <= LONGEST_NAME else f"...{name[3 - LONGEST_NAME:]}"
