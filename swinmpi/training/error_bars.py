"""From the spread of ensembles to error bars: a factor and a floor for each preset, learned on
images that the network was not trained on and written into a copy of its checkpoint."""
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import swinmpi
from swinmpi.config import Config
from swinmpi.errors import ConfigError, OutputError, StackError
from swinmpi.evaluation.lineup import check_lineup
from swinmpi.evaluation.splits import Judged, judged
from swinmpi.evaluation.viewed import read_hwc
from swinmpi.images.conformal import THRESHOLDS, TOLERANCES, losses_of_image
from swinmpi.images.ensembles import (
    LEVELS,
    finite_columns,
    fit_errors,
    reliability_of_moments,
    spread_skill,
    widened,
    widening,
)
from swinmpi.images.likeness.usual import usual_in
from swinmpi.parallel.comm import World
from swinmpi.parallel.launch import StopFlag
from swinmpi.sampling.plan import plan as plan_sampling
from swinmpi.sampling.request import SampleRequest, check_reference
from swinmpi.sampling.sample import run as sample
from swinmpi.sampling.settings import takes_steps
from swinmpi.sampling.validation import GivenSettings, validated
from swinmpi.storage.checkpoint import load_weights, save_weights
from swinmpi.storage.error_bars import HEADER_KEY, decided_by
from swinmpi.storage.files import check_by_trying
from swinmpi.storage.header import read_header
from swinmpi.storage.metadata.frames import View
from swinmpi.storage.outputs.result import read_process
from swinmpi.storage.pairs import PairReader
from swinmpi.storage.stack import Stack
from swinmpi.storage.trust import ENTRY_KEY, TrustAsked, TrustTable
from swinmpi.training.preparation.values import usual_of_pairs

DEFAULT = "default"
FEWEST_IMAGES = 4
MOST_VALUES = 1 << 24  # of all images together; of more, every so many are taken
ENDLESS = 1 << 40
TOLD = TrustAsked(0.1)
LOSS_STEPS = 10_000  # of 0..1: as fine as losses are kept


@dataclass(frozen=True)
class Request:
    """pairs: a file of swinmpi-prepare; samples: of each ensemble; output: the checkpoint to write;
    presets: their names, DEFAULT for the checkpoint's own settings; settings: of every preset,
    `preset` in them not used."""

    checkpoint: Path
    pairs: str
    output: Path
    samples: int
    presets: tuple[str, ...]
    split: str
    settings: GivenSettings
    overwrite: bool = False


@dataclass(frozen=True)
class Errors:
    """What an image tells. spread, error: of some of its pixels, (P,), spread of the samples and
    distance of their mean from the truth; losses, marked: see `losses_of_image`."""

    spread: np.ndarray
    error: np.ndarray
    losses: np.ndarray
    marked: np.ndarray


@dataclass(frozen=True)
class Calibrating:
    """A request that can be done: the sampling of each preset, validated; made by `plan`.
    num_sources: the photographs that the images were cut from."""

    request: Request
    images: Judged
    num_sources: int
    runs: dict[str, tuple[SampleRequest, Config]]


def plan(request: Request) -> Calibrating:
    """Validate everything. One process; ConfigError, StackError, CheckpointError, OutputError."""
    if request.samples < 2:
        raise ConfigError(f"--ensemble: expected at least 2 samples to have a spread, "
                          f"got {request.samples}")
    check_output(request)
    if not takes_steps(read_header(request.checkpoint)):
        raise ConfigError(f"{request.checkpoint}: expected a diffuser, whose samples differ, got "
                          "an encoder trained alone; name another checkpoint")
    hr, lr = (f"{request.pairs}::/{name}" for name in ("hr", "lr"))
    images = judged(hr, request.split)
    if len(images.indices) < FEWEST_IMAGES:
        raise StackError(f"{request.pairs}: expected at least {FEWEST_IMAGES} images of split "
                         f"{request.split} to learn from, got {len(images.indices)}; prepare more "
                         "with data.validate_share")
    runs = {}
    for preset in request.presets:
        wanted = SampleRequest(lr, sampled_file(request, preset), request.checkpoint,
                               request.samples, overwrite=True, view=View(frames=images.frames))
        named = None if preset == DEFAULT else preset
        made, config = validated(wanted, replace(request.settings, preset=named))
        check_reference(made, config, hr)
        if decided_by(config) not in [decided_by(other) for _, other in runs.values()]:
            runs[preset] = made, config
    with PairReader(request.pairs) as pairs:
        num_sources = pairs.count_sources(images.indices)
    return Calibrating(request, images, num_sources, runs)


def check_output(request: Request) -> None:
    """OutputError unless the copy of the checkpoint can be written."""
    read_header(request.checkpoint)
    if request.output.resolve() == request.checkpoint.resolve():
        raise OutputError(f"{request.output}: would overwrite the checkpoint it is made of; choose "
                          "another --output")
    if request.output.is_dir() or not request.output.absolute().parent.is_dir():
        raise OutputError(f"{request.output}: expected a file name in a folder that is there; "
                          "choose another --output")
    if request.output.exists() and not request.overwrite:
        raise OutputError(f"{request.output}: exists already; choose another --output, or replace "
                          "it with --overwrite")
    check_by_trying(request.output.absolute())


def sampled_file(request: Request, preset: str) -> Path:
    """Where the samples of a preset lie until the factor is learned; goes on after a kill."""
    return request.output.with_name(f".{request.output.stem}-{preset}.h5")


def describe(made: Calibrating) -> str:
    """What `run` would do, in one line."""
    request = made.request
    told = (f"{len(made.images.indices)} images of split {request.split} of {request.pairs}, "
            f"{request.samples} samples each, for {', '.join(made.runs)}; {request.checkpoint} "
            f"with what is learned into {request.output}"
            + ("" if usual_in(read_header(request.checkpoint)) else
               "; what the LR images of these pairs are like, too, as it does not tell of others"))
    if made.num_sources == len(made.images.indices):
        return told
    return (f"{told}\ncut from {made.num_sources} photographs or frames: images of others may be "
            "less like them than they are like each other, and what is promised less sure")


def run(made: Calibrating, world: World, stop: StopFlag) -> list[dict]:
    """Sample, learn, write the copy; the entries of its header. Collective; Stopped as sampling."""
    entries = []
    for preset, (request, config) in made.runs.items():
        sample(world.on_root(lambda one=request, settings=config:
                             plan_sampling(one, settings, world.size)), world, stop)
        entries.append(world.on_root(lambda name=preset: learn(made, name)))
    world.on_root(lambda: write(made.request, entries))
    return entries


def learn(made: Calibrating, preset: str) -> dict:
    """The entry of a preset: its factor, and what it does on images it is not learned from."""
    request, (sampling, config) = made.request, made.runs[preset]
    span = span_of(sampling.output)
    images = list(read_errors(made, sampling.output, span))
    count = request.samples
    if len(images) < FEWEST_IMAGES:
        raise StackError(f"{sampling.output}: expected at least {FEWEST_IMAGES} images that were "
                         f"made, got {len(images)}; mend the file of pairs")
    factor, floor = fit_errors(*together(images))
    if not factor > 0:
        raise ConfigError(f"{request.checkpoint}, preset {preset}: expected samples that differ "
                          "more where they are farther from the truth, got others; leave this "
                          "preset out with --preset")
    halves = images[0::2], images[1::2]
    trials = [judge(others, *fit_errors(*together(learned)))
              for learned, others in (halves, halves[::-1])]
    return {"preset": preset, "settings": decided_by(config),
            "factor": factor / widening(count), "floor": floor / span,
            ENTRY_KEY: trust_entry(images) | {"sources": made.num_sources},
            "samples": count,
            "images": len(images), "source": f"split {request.split} of {request.pairs}",
            "held_out": {name: float(np.mean([trial[name] for trial in trials]))
                         for name in trials[0]},
            "before": judge(images, 1.0, 0.0), "swinmpi": swinmpi.__version__}


def read_errors(made: Calibrating, sampled: Path, span: float) -> Iterator[Errors]:
    """What every image tells; one without a number tells nothing. span: the data range."""
    pairs = made.request.pairs
    lineup = check_lineup([str(sampled)], f"{pairs}::/hr", f"{pairs}::/lr",
                          split=made.request.split)
    with ExitStack() as opened:
        stacks = lineup.open(opened)
        (one,) = stacks.stacks.values()
        for number in lineup.image_indices:
            mean = read_hwc(one.ensemble.mean, number).astype(np.float64)
            error = np.abs(stacks.read(number).truth - mean)
            spread = one.ensemble.read_spread(number)
            (known,), of_known = finite_columns(spread[None], error)
            step = max(1, -(-known.size * len(lineup.image_indices) // MOST_VALUES))
            if known.size:
                yield Errors(known[::step], of_known[::step],
                             *losses_of_image(spread / span, error / span))


def together(images: Sequence[Errors]) -> tuple[np.ndarray, np.ndarray]:
    """The pixels of all images: spreads, errors."""
    return tuple(np.concatenate([getattr(one, name) for one in images])
                 for name in ("spread", "error"))


def trust_entry(images: Sequence[Errors]) -> dict:
    """What `TrustTable.of` reads. Losses are rounded up."""
    losses = np.mean([one.losses for one in images], axis=0)
    return {"tolerances": list(TOLERANCES), "thresholds": list(THRESHOLDS),
            "losses": (np.ceil(losses * LOSS_STEPS) / LOSS_STEPS).tolist(),
            "marked": np.mean([one.marked for one in images], axis=0).round(3).tolist(),
            "images": len(images)}


def span_of(sampled: Path) -> float:
    """The data range of an output."""
    with Stack.open(str(sampled)) as stack:
        low, high = read_process(stack)["value_range"]
    return high - low


def judge(images: Sequence[Errors], factor: float,
          floor: float) -> dict[str, float]:
    """What factor and floor make of images: coverage by level, deviation over error."""
    spread, error = together(images)
    std = widened(spread, factor, floor)
    found = reliability_of_moments(np.zeros_like(error), std, error, ENDLESS)
    return {**{f"coverage_{100 * level:.0f}": found.coverage[level] for level in LEVELS},
            "spread_skill": spread_skill(std, error, ENDLESS)}


def write(request: Request, entries: Sequence[dict]) -> None:
    """The copy of the checkpoint; entries for other settings are kept. The samples go."""
    check_output(request)
    tensors, header = load_weights(request.checkpoint)
    before = header.get(HEADER_KEY)
    kept = [one for one in (before if isinstance(before, list) else ())
            if isinstance(one, dict)
            and one.get("settings") not in [entry["settings"] for entry in entries]]
    save_weights(request.output, tensors,
                 header | usual_by_pairs(request, header) | {HEADER_KEY: [*kept, *entries]})
    for preset in request.presets:
        sampled_file(request, preset).unlink(missing_ok=True)


def usual_by_pairs(request: Request, header: dict) -> dict:
    """What the LR images of the pairs are like, for a checkpoint that does not tell; where a
    network was trained on pairs of theirs as well, they are among those looked at."""
    if usual_in(header) is not None:
        return {}
    trained = header.get("train")
    crop_px = trained.get("crop_px") if isinstance(trained, dict) else None
    with PairReader(request.pairs) as pairs:
        whole_px = min(pairs.hr.shape[1:3])
        return usual_of_pairs(pairs, crop_px if isinstance(crop_px, int) else whole_px)


def as_text(entries: Sequence[dict]) -> str:
    """What was learned, a line for each preset."""
    from swinmpi.reports.tables import format_table
    levels = [f"coverage_{100 * level:.0f}" for level in LEVELS]
    rows = [[entry["preset"], f"{entry['factor']:.3f}", f"{entry['floor']:.3%}",
             *(f"{entry['before'][name]:.0%} -> {entry['held_out'][name]:.0%}" for name in levels),
             f"{entry['before']['spread_skill']:.2f} -> {entry['held_out']['spread_skill']:.2f}",
             trusted_share(entry)] for entry in entries]
    titles = ["preset", "factor", "floor", *(f"in {100 * level:.0f} %" for level in LEVELS),
              "spread/skill", f"trusted at {TOLD.risk:g}"]
    return (format_table(titles, rows) + "\nfloor: of the data range; before -> after on images "
            "that it was not learned from, half of them by turns\ntrusted: share of the pixels "
            f"that --trust {TOLD.risk:g} marks in such images, - where it cannot")


def trusted_share(entry: dict) -> str:
    """Of the pixels of the images that were learned from, by default."""
    try:
        return f"{TrustTable.of(entry).trust(TOLD).marked:.0%}"
    except ConfigError:
        return "-"
