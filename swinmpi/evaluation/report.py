"""The outcome of an evaluation, and what is printed of it."""
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from swinmpi.evaluation.ensemble import Trust, TrustFigure
from swinmpi.evaluation.statistics import (
    FEW_IMAGES,
    LEVEL,
    RESAMPLES,
    SEED,
    Summary,
    plain_number,
    summary_of,
)
from swinmpi.images.figures import CAPTION, FIGURES, HEADLINE, Figure
from swinmpi.reports.tables import format_table

TITLES = {"bicubic": "bicubic", "regression": "regression", "sr": "SR", "hr": "HR"}

Values = Mapping[str, float]  # of an image, by the names of figures; NaN where there is none


@dataclass(frozen=True)
class Evaluation:
    """Values by image index, then by version (bicubic, regression, SR stacks by name); at least one
    image.

    figures: the table whose compared and gathered figures were measured. gathered: those of all
    images together, by version. words: what was compared and how. pairs: versions
    that are compared image by image, (one, other). trust: of ensembles, by version. made_by: what
    each SR file says of its making. spectra: mean power by frequency, by version.
    """

    settings: Mapping[str, Any]
    images: Mapping[int, Mapping[str, Values]]
    nan_pixels: Mapping[int, int]
    remarks: Sequence[str]
    figures: Sequence[Figure] = FIGURES
    gathered: Mapping[str, Values] = field(default_factory=dict)
    words: str = ""
    pairs: Sequence[tuple[str, str]] = ()
    trust: Mapping[str, Trust] = field(default_factory=dict)
    made_by: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    spectra: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def measured(self) -> list[Figure]:
        """The figures of an evaluation, in the order of the table."""
        return [figure for figure in self.figures if figure.compared or figure.gathered]

    @property
    def listed(self) -> list[Figure]:
        """Those of them that have a value somewhere."""
        return [figure for figure in self.measured
                if any(not math.isnan(values[figure.name]) for values in self.mean.values())]

    @property
    def versions(self) -> list[str]:
        return list(next(iter(self.images.values())))

    @cached_property
    def summaries(self) -> dict[str, dict[str, Summary]]:
        """Over the images, by version and figure; of figures of all images together the mean
        alone."""
        return {version: {figure.name: self.summary(figure, version) for figure in self.measured}
                for version in self.versions}

    def summary(self, figure: Figure, version: str) -> Summary:
        if figure.compared:
            return summary_of(self.column(version, figure.name))
        value = self.gathered.get(version, {}).get(figure.name, math.nan)
        return Summary(value, math.nan, math.nan, math.nan, 0)

    @cached_property
    def differences(self) -> dict[tuple[str, str], dict[str, Summary]]:
        """Of pairs, image by image, whose error is smaller than those of both."""
        return {pair: {figure.name: summary_of(difference(*(self.column(version, figure.name)
                                                            for version in pair)))
                       for figure in self.measured if figure.compared} for pair in self.pairs}

    @property
    def mean(self) -> dict[str, Values]:
        """Mean over the images, values that are NaN left out; and what is of all together."""
        return {version: {name: summary.mean for name, summary in figures.items()}
                for version, figures in self.summaries.items()}

    @property
    def shows_trust(self) -> bool:
        """Whether the picture has the mask of trust after the versions: of a single stack."""
        return any(one.ensemble.trust for one in self.trust.values()) and not isinstance(
            self.settings["sr"], Mapping)

    def column(self, version: str, name: str) -> list[float]:
        """A figure of every image."""
        return [image[version][name] for image in self.images.values()]

    def title(self, version: str) -> str:
        """For people."""
        return TITLES.get(version, version)


def difference(one: Sequence[float], other: Sequence[float]) -> list[float]:
    """Image by image; equal values, two infinite ones too, differ by 0."""
    return [0.0 if a == b else a - b for a, b in zip(one, other, strict=True)]


def as_text(evaluation: Evaluation, per_image: bool = False) -> str:
    """Means with their errors, differences, what was compared, ensembles, and one line for each
    thing to know; before them, on request, the figures of every image."""
    return "\n".join([*([image_table(evaluation)] if per_image else []), mean_table(evaluation),
                      *filter(None, [evaluation.words]), *trust_lines(evaluation),
                      *gains(evaluation), *evaluation.remarks])


def image_table(evaluation: Evaluation) -> str:
    """A line for every image and version."""
    rows = [[str(index), evaluation.title(version), *cells(values, evaluation.listed)]
            for index, versions in evaluation.images.items()
            for version, values in versions.items()]
    titles = ["image", "version", *(figure.title for figure in evaluation.listed)]
    return format_table(titles, rows, text_columns=2) + "\n"


def mean_table(evaluation: Evaluation) -> str:
    """Four lines for every version, and for every pair of versions."""
    named = {evaluation.title(version): figures
             for version, figures in evaluation.summaries.items()}
    named |= {" - ".join(map(evaluation.title, pair)): figures
              for pair, figures in evaluation.differences.items()}
    titles = ["version", "", *(figure.title for figure in evaluation.listed)]
    table = format_table(titles, summary_rows(named, evaluation.listed), text_columns=2)
    images = len(evaluation.images)
    return table if images < 2 else (
        f"{table}\nover {images} images; interval: of {RESAMPLES} bootstrap resamples of the "
        f"images, seed {SEED}" + ("; differences are image by image" if evaluation.pairs else "")
        + ("; so few images make it too narrow" if images < FEW_IMAGES else ""))


def summary_rows(named: Mapping[str, Mapping[str, Summary]],
                 figures: Sequence[Figure | TrustFigure]) -> list[list[str]]:
    """mean, standard error and interval, line by line; of a single image the value alone."""
    kinds = {"mean": "mean", "std error": "standard_error", f"{LEVEL:.0%} from": "low",
             f"{LEVEL:.0%} to": "high"}
    rows = []
    for title, summaries in named.items():
        for number, (label, kind) in enumerate(kinds.items()):
            values = {name: getattr(summary, kind) for name, summary in summaries.items()}
            if number == 0 or not all(map(math.isnan, values.values())):
                rows.append([title if number == 0 else "", label, *cells(values, figures)])
    return rows


def trust_lines(evaluation: Evaluation) -> list[str]:
    """The table of ensembles and what it means; nothing where there are none."""
    if not evaluation.trust:
        return []
    figures = list({figure.name: figure for trust in evaluation.trust.values()
                    for figure in trust.figures}.values())
    named = {f"{evaluation.title(version)}, {trust.ensemble.count} samples": trust_summaries(trust)
             for version, trust in evaluation.trust.items()}
    table = format_table(["ensemble", "", *(figure.title for figure in figures)],
                         summary_rows(named, figures), text_columns=2)
    said = [line for version, trust in evaluation.trust.items()
            for line in verdict(evaluation.title(version), trust)]
    return ["", table, *said]


def trust_summaries(trust: Trust) -> dict[str, Summary]:
    """Over the images, by figure."""
    return {figure.name: summary_of([values.get(figure.name, math.nan)
                                     for values in trust.images.values()])
            for figure in trust.figures}


def verdict(title: str, trust: Trust) -> list[str]:
    """How far the spread of an ensemble may be taken for an error."""
    found, said = trust_summaries(trust), []
    covered, calibrated = found.get("coverage_90"), trust.ensemble.calibrated
    if calibrated:
        said.append(f"{title}: sr_std is {calibrated}" + (
            f"; here {covered.mean:.0%}" if covered else ""))
    elif covered is None:
        said.append(f"{title}: the spread of the samples is no error bar; how far it is from the "
                    "truth is told with --reference")
    else:
        ratio = found["spread_skill"].mean if "spread_skill" in found else math.nan
        said.append(f"{title}: the spread of the samples is no error bar; 90 % intervals made of "
                    f"it hold {covered.mean:.0%} of the truth, the spread is "
                    f"{format(ratio, '.2f') if math.isfinite(ratio) else '?'} times the error")
    if covered is not None and not trust.mean_ranks:
        said.append(f"{title}: no CRPS and no ranks, for which the samples are needed: sample "
                    "with --set output.members=true")
    return said


def gains(evaluation: Evaluation) -> list[str]:
    """The difference that matters most, in words, with its standard error."""
    said = []
    for (one, other), figures in evaluation.differences.items():
        gain = figures.get(HEADLINE)
        if gain is not None and math.isfinite(gain.mean):
            error = ("" if math.isnan(gain.standard_error) else
                     f" (standard error {gain.standard_error:.2f})")
            said.append(f"{evaluation.title(one)} is {abs(gain.mean):.2f} dB "
                        f"{'above' if gain.mean >= 0 else 'below'} {evaluation.title(other)}"
                        f"{error}")
    return said


def cells(values: Values, figures: Sequence[Figure | TrustFigure]) -> list[str]:
    """A line of a table; "-" where a figure has no such value."""
    return ["-" if math.isnan(values.get(figure.name, math.nan))
            else format(values[figure.name], figure.style) for figure in figures]


def caption(values: Values, figures: Sequence[Figure]) -> str:
    """The lines under an image; optional figures that are not there are left out."""
    absent = {figure.name for figure in figures
              if figure.optional and math.isnan(values.get(figure.name, math.nan))}
    lines = [[text.format(values[name]) for name, text in line
              if name in values and name not in absent] for line in CAPTION]
    return "\n".join(" · ".join(line) for line in lines if line)


def plain(versions: Mapping[str, Values]) -> dict:
    """Values as JSON has them."""
    return {version: {name: plain_number(value) for name, value in values.items()}
            for version, values in versions.items()}
