"""The outcome of an evaluation, and its three forms: table, JSON and picture."""
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from swinmpi.images.contact_sheet import contact_sheet
from swinmpi.reports.tables import format_table

FIGURES = {"psnr": ("PSNR dB", ".2f"), "ssim": ("SSIM", ".4f"), "lpips": ("LPIPS", ".4f"),
           "lr_psnr": ("LR-PSNR dB", ".2f"), "detail": ("detail", ".3f"), "seam": ("seam", ".3f")}
TITLES = {"bicubic": "bicubic", "regression": "regression", "sr": "SR"}
TABLE_IMAGES = 32

Figures = Mapping[str, float]  # by the names of FIGURES, NaN where there is none


@dataclass(frozen=True)
class Evaluation:
    """Figures by image index, then by version (bicubic, regression, sr); at least one image."""

    settings: Mapping[str, str | float | None]
    images: Mapping[int, Mapping[str, Figures]]
    nan_pixels: Mapping[int, int]
    remarks: Sequence[str]

    @property
    def mean(self) -> dict[str, Figures]:
        """Mean over the images; figures that are NaN are left out."""
        versions = next(iter(self.images.values()))
        return {version: {name: mean_of([image[version][name] for image in self.images.values()]) for name in FIGURES}
                for version in versions}


def as_text(evaluation: Evaluation) -> str:
    """The table of figures per image and their mean, then one line for each thing a reader must know."""
    listed = list(evaluation.images.items())[:TABLE_IMAGES]
    rows = [[label, TITLES[version], *cells(figures)]
            for label, versions in [*((str(index), versions) for index, versions in listed), ("mean", evaluation.mean)]
            for version, figures in versions.items()]
    lines = [format_table(["image", "version", *(title for title, _ in FIGURES.values())], rows, text_columns=2)]
    if len(listed) < len(evaluation.images):
        lines.append(f"{len(evaluation.images) - len(listed)} more images are in evaluate.json")
    gain = evaluation.mean["sr"]["psnr"] - evaluation.mean["bicubic"]["psnr"]
    if math.isfinite(gain):
        lines.append(f"SR is {abs(gain):.2f} dB {'above' if gain >= 0 else 'below'} bicubic")
    return "\n".join([*lines, *evaluation.remarks])


def as_json(evaluation: Evaluation) -> bytes:
    """Settings, means, and figures by image; null where there is none, "inf" for the PSNR of equal images."""
    images = [{"image": index, "nan_pixels": evaluation.nan_pixels[index], **plain(versions)}
              for index, versions in evaluation.images.items()]
    report = {**evaluation.settings, "mean": plain(evaluation.mean), "images": images,
              "remarks": list(evaluation.remarks)}
    return (json.dumps(report, indent=1, allow_nan=False) + "\n").encode()


def as_png(evaluation: Evaluation, rows: Sequence[Sequence[np.ndarray]]) -> bytes:
    """The first images, one a row of tiles (whole, LR, versions, HR), the figures of the whole image under each."""
    listed = list(evaluation.images.items())[:len(rows)]
    captions = [[f"image {index}", "", *(caption(figures) for figures in versions.values()), ""]
                for index, versions in listed]
    titles = ["", "LR", *(TITLES[version] for version in listed[0][1]), "HR"]
    png = io.BytesIO()
    contact_sheet(rows, titles, captions, max_rows=len(rows)).save(png, "PNG", optimize=True)
    return png.getvalue()


def cells(figures: Figures) -> list[str]:
    return [format(figures[name], style) if not math.isnan(figures[name]) else "unavailable" if name == "lpips" else "-"
            for name, (_, style) in FIGURES.items()]


def caption(figures: Figures) -> str:
    second_line = f"detail {figures['detail']:.2f}"
    if not math.isnan(figures["lpips"]):
        second_line += f" · LPIPS {figures['lpips']:.3f}"
    return f"{figures['psnr']:.2f} dB · SSIM {figures['ssim']:.3f}\n{second_line}"


def plain(versions: Mapping[str, Figures]) -> dict:
    """Figures as JSON values."""
    return {version: {name: None if math.isnan(value) else value if math.isfinite(value) else "inf"
                      for name, value in figures.items()} for version, figures in versions.items()}


def mean_of(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else float("nan")
