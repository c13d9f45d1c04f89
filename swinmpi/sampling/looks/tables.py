"""The table of a sweep, to be read and to be computed with."""
import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from swinmpi.reports.tables import format_table
from swinmpi.sampling.looks.asked import as_yaml, short

FIGURES = {"lr_misfit": ("LR misfit", "{:.2g}"), "seam_score": ("seam", "{:.2f}"),
           "fine": ("added detail", "{:.2%}"), "psnr": ("PSNR dB", "{:.2f}"),
           "ssim": ("SSIM", "{:.4f}"), "detail": ("detail", "{:.3f}")}
SECONDS = "seconds_per_image"
MEANING = """
LR misfit: how far the image, shrunk, is from the LR image, in 1/255 of the value range. seam:
steepness of the added detail across window borders over elsewhere; 1 is none. added detail: share
of the power at frequencies that LR cannot hold; more of it is not more truth. PSNR, SSIM, detail:
against the truth. Means over the images.
"""


@dataclass(frozen=True)
class Row:
    """A combination, or bicubic: settings by key, figures by name for each image, seconds per
    image."""

    label: str
    settings: Mapping[str, Any]
    figures: Mapping[str, Mapping[str, float]]
    seconds: float

    def mean(self, name: str) -> float:
        """Of a figure over the images that have it; NaN for none."""
        values = [own[name] for own in self.figures.values()
                  if math.isfinite(own.get(name, math.nan))]
        return sum(values) / len(values) if values else math.nan


def cells(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """(titles, a line for each row), without figures that no image has."""
    keys = list(rows[-1].settings)
    names = [name for name in FIGURES if any(math.isfinite(row.mean(name)) for row in rows)]
    titles = [*map(short, keys), *(FIGURES[name][0] for name in names), "s per image"]
    lines = []
    for row in rows:
        first = ([as_yaml(row.settings[key]) for key in keys] if row.settings
                 else [row.label, *["" for _ in keys[1:]]])
        lines.append([*first, *(said(row.mean(name), FIGURES[name][1]) for name in names),
                      said(row.seconds, "{:.3g}")])
    return titles, lines


def said(value: float, style: str) -> str:
    return style.format(value) if math.isfinite(value) else ""


def as_text(rows: Sequence[Row]) -> str:
    titles, lines = cells(rows)
    return format_table(titles, lines, len(rows[-1].settings))


def as_markdown(rows: Sequence[Row], title: str, images: str, num_ranks: int) -> str:
    """A page: what was tried on what, and the table."""
    titles, lines = cells(rows)
    table = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |"
             for line in (titles, ["---"] * len(titles), *lines)]
    return "\n".join([f"# {title}", "", f"{images}; {num_ranks} ranks", "", *table, MEANING])


def as_csv(rows: Sequence[Row]) -> str:
    """A line for each combination and image, and one for the mean of its images."""
    keys, text = list(rows[-1].settings), io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*keys, "image", *FIGURES, SECONDS])
    for row in rows:
        first = ([as_yaml(row.settings[key]) for key in keys] if row.settings
                 else [row.label, *["" for _ in keys[1:]]])
        images = {name: own.get for name, own in row.figures.items()} | {"mean": row.mean}
        for image, figure in images.items():
            writer.writerow([*first, image, *(said(figure(name) if image == "mean" else
                                                   figure(name, math.nan), "{!r}")
                                              for name in FIGURES), said(row.seconds, "{:.6g}")])
    return text.getvalue()
