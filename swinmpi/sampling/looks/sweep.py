"""Settings of the dial tried in all combinations on a few images: one contact sheet, one table."""
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import numpy as np
from PIL import Image

from swinmpi.errors import SomeImagesFailed, StackError, Stopped
from swinmpi.images.contact_sheet import (
    as_png,
    closeup_sheet,
    closeup_square,
    cut_closeup,
    overview,
    to_uint8,
)
from swinmpi.images.figures import FIGURES, ComparedImage, compare_image
from swinmpi.images.metrics import fine_share
from swinmpi.parallel.comm import World
from swinmpi.parallel.launch import StopFlag
from swinmpi.reports.tables import listed
from swinmpi.sampling.looks.asked import (
    CSV,
    PICTURE,
    TABLE,
    Sweep,
    chosen_words,
    whole_stack,
)
from swinmpi.sampling.looks.finished import SR, Finished, Seen, finished_stack, seen_part
from swinmpi.sampling.looks.picture import short
from swinmpi.sampling.looks.tables import Row, as_csv, as_markdown
from swinmpi.sampling.plan import SamplingPlan, plan
from swinmpi.sampling.ranges import SettledRange
from swinmpi.sampling.rehearsal.dry_run import model_of, range_line
from swinmpi.sampling.rehearsal.estimate import describe_time
from swinmpi.sampling.results import settle
from swinmpi.sampling.sample import load_model
from swinmpi.sampling.sample import run as sample
from swinmpi.storage.files import beside, make_folder_of, remove, tell, write_atomically
from swinmpi.storage.stack import Stack

BICUBIC, HR = "bicubic", "HR"
COMPARED = tuple(figure for figure in FIGURES if figure.name in ("psnr", "ssim", "detail"))


@dataclass(frozen=True)
class SweepPlan:
    """A sweep and the run of every combination; made by `plan_sweep`."""

    sweep: Sweep
    plans: tuple[SamplingPlan, ...]

    @property
    def written(self) -> list:
        return [self.sweep.folder / name for name in (PICTURE, TABLE, CSV)]


@dataclass
class Looked:
    """What was seen of one image: tiles by the label of their column, figures of each, in the order
    of the sheet. square, size: of the part that is shown of an SR-sized image."""

    name: str
    whole: np.ndarray
    size: tuple[int, int]
    square: tuple[int, int, int]
    tiles: dict[str, np.ndarray] = field(default_factory=dict)
    figures: dict[str, dict[str, float]] = field(default_factory=dict)

    def show(self, label: str, image: np.ndarray) -> None:
        """image: uint8, whole."""
        self.tiles[label] = cut_closeup(image, self.size, self.square)


def plan_sweep(asked: Sweep, num_ranks: int) -> SweepPlan:
    """On one process; nothing is computed or written."""
    return SweepPlan(asked, tuple(plan(request, config, num_ranks) for request, config
                                  in zip(asked.requests, asked.configs, strict=True)))


def describe(made: SweepPlan) -> str:
    """What `run` would do, with the range and the time. Reads the stack unless it is 8 bit."""
    asked, first = made.sweep, made.plans[0]
    ranges = settled_ranges(made)
    lines = [f"input       {first.stack.address}: {first.stack.words} "
             f"({chosen_words(first.request)})",
             *(f"            {remark}" for remark in first.stack.remarks),
             f"checkpoint  {first.request.checkpoint}: {first.config.model.family}, scale "
             f"{first.config.model.scale}",
             f"sweep       {len(made.plans)} combinations, {first.distribution.num_ranks} ranks",
             *(f"            {in_line(label)}" for label in asked.labels),
             f"reference   {asked.reference or 'none'}",
             *dict.fromkeys(range_line(one) for one in ranges),
             describe_time(made.plans, model_of(first)),
             f"written     {', '.join(map(str, made.written))}"]
    return "\n".join(lines)


def in_line(label: str) -> str:
    return label.replace("\n", ", ")


def settled_ranges(made: SweepPlan) -> list[SettledRange]:
    """The value range of every combination, of the whole stack as in the long run; remarks on it
    are made, once. On one process."""
    known: dict[str, SettledRange] = {}
    with whole_stack(made.plans[0].request) as stack:
        for one in made.plans:
            given = str(one.config.output.value_range)
            known[given] = known.get(given) or settle(one, stack, None)
    for remark in dict.fromkeys(remark for one in known.values() for remark in one.remarks):
        tell(remark)
    return [known[str(one.config.output.value_range)] for one in made.plans]


def run(made: SweepPlan, world: World, stop: StopFlag) -> list[Row]:
    """Sample every combination, write sheet and tables; the rows of the table on every rank.
    Collective. SomeImagesFailed, once all is written, where images could not be read; Stopped,
    and nothing is written."""
    asked, family = made.sweep, load_model(made.plans[0])
    plans = world.on_root(lambda: begun(made))
    looked: dict[int, Looked] = {}
    seconds, failed = {}, {}
    for number, (one, label) in enumerate(zip(plans, asked.labels, strict=True), 1):
        words = f"combination {number} of {len(plans)}: {in_line(label)}"
        world.on_root(lambda words=words: print(words, flush=True))
        try:
            report = sample(one, world, stop, family)
            seconds[label] = (report.seconds / report.num_images if report.num_images
                              else math.nan)
            failed |= report.failed
            world.on_root(lambda one=one, label=label: look_at(looked, one, label, asked))
        except Stopped:
            raise Stopped(f"stopped by a signal in {words}; nothing is written, start "
                          "again") from None
        finally:
            if world.is_root:
                clear(one)
    return world.on_root(lambda: conclude(made, looked, seconds, failed))


def begun(made: SweepPlan) -> list[SamplingPlan]:
    """The plans with their ranges, and the folder for what is written. On one process."""
    ranges = settled_ranges(made)
    make_folder_of(made.sweep.folder / PICTURE)
    return [replace(one, config=one.config.replaced(output={
        "value_range": [settled.values.low, settled.values.high], "picture": False}))
        for one, settled in zip(made.plans, ranges, strict=True)]


def clear(one: SamplingPlan) -> None:
    """Leave nothing of a combination. On one process."""
    output = one.request.output
    for path in (output, beside(output, ".partial")):
        if left := remove(path):
            tell(left)


def look_at(looked: dict[int, Looked], one: SamplingPlan, label: str, asked: Sweep) -> None:
    """Add the images of a combination to what was seen of each. On one process."""
    scale = one.config.model.scale
    with ExitStack() as opened, np.errstate(all="ignore"):
        finished = finished_stack(one.request, scale, opened)
        hr = None if asked.reference is None else opened.enter_context(
            Stack.open(asked.reference, view=one.request.view))
        for index, own in finished.figures.items():
            seen = seen_part(finished, index)
            truth = None if hr is None else hr_part(hr, index, seen, scale)
            span = data_range(finished.lr, finished.limits)
            if index not in looked:
                looked[index] = first_look(finished, index, seen, truth)
                looked[index].figures[BICUBIC] = judged(seen.versions[BICUBIC], truth, span, scale)
            image = seen.versions[SR]
            looked[index].show(label, to_uint8(image, *finished.limits))
            looked[index].figures[label] = (
                {name: float(own[name]) for name in ("lr_misfit", "seam_score")}
                | judged(image, truth, span, scale))


def first_look(finished: Finished, image_index: int, seen: Seen,
               truth: np.ndarray | None) -> Looked:
    """What all combinations share: where to look, LR, bicubic, HR."""
    shown = {"LR": seen.lr, BICUBIC: seen.versions[BICUBIC]}
    shown |= {} if truth is None else {HR: truth}
    pictures = {label: to_uint8(image, *finished.limits) for label, image in shown.items()}
    guide = pictures[BICUBIC if truth is None else HR]
    square = closeup_square(guide)
    made = Looked(finished.lr.short_name_of(image_index), overview(guide, *square),
                  guide.shape[:2], square)
    for label, picture in pictures.items():
        made.show(label, picture)
    return made


def hr_part(hr: Stack, image_index: int, seen: Seen, scale: int) -> np.ndarray:
    """The truth of what is seen, (h, w, C)."""
    rows, cols = (range(line.start * scale, line.stop * scale) for line in (seen.rows, seen.cols))
    values = hr.no_data.hide(hr.read_rows(image_index, rows))
    return np.moveaxis(values[:, :, cols.start:cols.stop], 0, -1)


def data_range(stack: Stack, limits: tuple[float, float]) -> float:
    """What PSNR and SSIM are relative to: of the type for 8 and 16 bit, as swinmpi-evaluate."""
    kind = stack.dtype
    return (float(np.iinfo(kind).max) if kind.kind == "u" and kind.itemsize <= 2
            else limits[1] - limits[0])


def judged(image: np.ndarray, truth: np.ndarray | None, span: float,
           scale: int) -> dict[str, float]:
    """Figures of one version."""
    compared = {} if truth is None else compare_image(ComparedImage(image, truth, None, span),
                                                      COMPARED)
    return {"fine": fine_share(image, scale)} | compared


def conclude(made: SweepPlan, looked: Mapping[int, Looked], seconds: Mapping[str, float],
             failed: Mapping[int, str]) -> list[Row]:
    """Write what was found. On one process; SomeImagesFailed where some images are missing."""
    asked = made.sweep
    if not looked:
        raise StackError(f"{made.plans[0].stack.address}: none of the images can be read; choose "
                         "others with --frames")
    rows = [Row(label, settings, {one.name: one.figures[label] for one in looked.values()},
                seconds.get(label, math.nan))
            for label, settings in [(BICUBIC, {}), *zip(asked.labels, asked.settings, strict=True)]]
    write_atomically(asked.folder / PICTURE, as_png(sheet_of(made, list(looked.values()))))
    about = (title_of(made), f"{chosen_words(made.plans[0].request)} of "
             f"{made.plans[0].stack.address}", made.plans[0].distribution.num_ranks)
    page = as_markdown(rows, *about)
    write_atomically(asked.folder / TABLE, page.encode(errors="backslashreplace"))
    write_atomically(asked.folder / CSV, as_csv(rows).encode())
    if failed:
        raise SomeImagesFailed(f"{asked.folder}: written, but images {listed(failed)} could not be "
                               "read")
    return rows


def sheet_of(made: SweepPlan, looked: Sequence[Looked]) -> Image.Image:
    """A row for each image, a column for each combination."""
    labels = [BICUBIC, *made.sweep.labels, *([HR] if HR in looked[0].tiles else [])]
    rows = [[one.whole, one.tiles["LR"], *(one.tiles[label] for label in labels)]
            for one in looked]
    captions = [[caption(one.figures[label]) for label in [BICUBIC, *made.sweep.labels]]
                for one in looked]
    return closeup_sheet(rows, labels, [one.name for one in looked], captions,
                         title=title_of(made))


def caption(figures: Mapping[str, float]) -> str:
    """Under a tile: how near to LR and to the truth, how much is added."""
    parts = [("LR misfit {:.2g}", "lr_misfit"), ("added {:.2%}", "fine"), ("{:.2f} dB", "psnr")]
    return "\n".join(text.format(figures[name]) for text, name in parts
                     if math.isfinite(figures.get(name, math.nan)))


def title_of(made: SweepPlan) -> str:
    first = made.plans[0]
    return (f"{short(first.request.checkpoint.stem)} ({first.config.model.family}), "
            f"{first.config.model.scale}x, {len(made.plans)} settings of the dial")
