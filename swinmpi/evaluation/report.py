"""The outcome of an evaluation, and its three forms: table, JSON and picture."""
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from swinmpi.images.contact_sheet import closeup_sheet
from swinmpi.images.figures import CAPTION, FIGURES, HEADLINE, Figure
from swinmpi.reports.tables import format_table

TITLES = {"bicubic": "bicubic", "regression": "regression", "sr": "SR"}
TABLE_IMAGES = 32

Values = Mapping[str, float]  # of an image, by the names of figures; NaN where there is none


@dataclass(frozen=True)
class Evaluation:
    """Values by image index, then by version (bicubic, regression, sr); at least one image.

    figures: the table whose compared and gathered figures were measured. gathered: those of all
    images together, by version.
    """

    settings: Mapping[str, str | float | None]
    images: Mapping[int, Mapping[str, Values]]
    nan_pixels: Mapping[int, int]
    remarks: Sequence[str]
    figures: Sequence[Figure] = FIGURES
    gathered: Mapping[str, Values] = field(default_factory=dict)

    @property
    def measured(self) -> list[Figure]:
        """The figures of an evaluation, in the order of the table."""
        return [figure for figure in self.figures if figure.compared or figure.gathered]

    @property
    def mean(self) -> dict[str, Values]:
        """Mean over the images, values that are NaN left out; and what is of all together."""
        return {version: {figure.name: (
                    mean_of([image[version][figure.name] for image in self.images.values()])
                    if figure.compared else
                    self.gathered.get(version, {}).get(figure.name, math.nan))
                          for figure in self.measured}
                for version in next(iter(self.images.values()))}


def as_text(evaluation: Evaluation) -> str:
    """The table of figures per image and their mean, then one line for each thing to know."""
    listed, mean = list(evaluation.images.items())[:TABLE_IMAGES], evaluation.mean
    figures = evaluation.measured
    rows = [[label, TITLES[version], *(cell(values.get(figure.name), figure)
                                       for figure in figures)]
            for label, versions in [*((str(index), each) for index, each in listed), ("mean", mean)]
            for version, values in versions.items()]
    titles = ["image", "version", *(figure.title for figure in figures)]
    lines = [format_table(titles, rows, text_columns=2)]
    if len(listed) < len(evaluation.images):
        lines.append(f"{len(evaluation.images) - len(listed)} more images are in evaluate.json")
    gain = mean["sr"].get(HEADLINE, math.nan) - mean["bicubic"].get(HEADLINE, math.nan)
    if math.isfinite(gain):
        lines.append(f"SR is {abs(gain):.2f} dB {'above' if gain >= 0 else 'below'} bicubic")
    return "\n".join([*lines, *evaluation.remarks])


def as_json(evaluation: Evaluation) -> bytes:
    """Settings, means, and figures by image; null where there is none, "inf" where infinite."""
    images = [{"image": index, "nan_pixels": evaluation.nan_pixels[index], **plain(versions)}
              for index, versions in evaluation.images.items()]
    report = {**evaluation.settings, "mean": plain(evaluation.mean), "images": images,
              "remarks": list(evaluation.remarks)}
    return (json.dumps(report, indent=1, allow_nan=False) + "\n").encode()


def as_png(evaluation: Evaluation, rows: Sequence[Sequence[np.ndarray]]) -> bytes:
    """The first images, one a row of tiles: whole, LR, versions with their figures, HR."""
    listed = list(evaluation.images.items())[:len(rows)]
    captions = [[caption(values, evaluation.figures) for values in versions.values()]
                for _, versions in listed]
    labels = [*(TITLES[version] for version in listed[0][1]), "HR"]
    sheet, png = closeup_sheet(rows, labels, [f"image {index}" for index, _ in listed],
                               captions), io.BytesIO()
    sheet.save(png, "PNG", optimize=True)
    return png.getvalue()


def cell(value: float | None, figure: Figure) -> str:
    """One value in the table; None where this figure is not of one image."""
    if value is None:
        return "-"
    if math.isnan(value):
        return "unavailable" if figure.optional else "-"
    return format(value, figure.style)


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


def plain_number(value: float) -> float | str | None:
    """None for NaN, "inf" where it is infinite."""
    if math.isnan(value):
        return None
    return value if math.isfinite(value) else "inf"


def mean_of(values: Sequence[float]) -> float:
    """Of those that are not NaN."""
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else float("nan")


def standard_error_of(values: Sequence[float]) -> float:
    """Of the mean of those that are not NaN; NaN of fewer than two, or where one is infinite."""
    known = [value for value in values if not math.isnan(value)]
    if len(known) < 2 or not all(map(math.isfinite, known)):
        return float("nan")
    return float(np.std(known, ddof=1) / math.sqrt(len(known)))
