"""Pictures for people: contact sheets of images with their figures, and training curves."""
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from swinmpi.errors import SwinmpiError
from swinmpi.images.metrics import laplacian, luma

TILE_PX, CLOSEUP_PX = 288, 96
CLOSEUP_STEP_PX = 12  # a square that starts on a multiple of 12 starts on a whole LR pixel at 2x, 3x and 4x
PAPER, INK, GREY, HAIRLINE, MARK = "#ffffff", "#16181d", "#5b616e", "#d5d8de", "#ffcf33"
MARGIN_PX, GAP_PX = 28, 12
TITLE_PT, CAPTION_PT = 20, 15
CAPTION_LINE_PX = 20
COLOURS = ["#2f6fde", "#e0712b", "#2f9e63", "#8a5cc7", "#7a7f8a"]


def contact_sheet(rows: Sequence[Sequence[np.ndarray]], column_titles: Sequence[str],
                  captions: Sequence[Sequence[str]], max_rows: int = 8, tile_px: int = TILE_PX) -> Image.Image:
    """One row per image, one column per version of it, figures in small text (may have several lines) under each.

    rows: tiles uint8, (H, W), (H, W, 1) or (H, W, 3), of any sizes; captions: one per tile. A tile smaller than
    `tile_px` is enlarged by a whole factor with nearest neighbour, a larger one shrunk, then all of a row get the
    height and width of its last tile. Rows beyond `max_rows` are left out.
    """
    tiles = [fit_row(row, tile_px) for row in rows[:max_rows]]
    widths = [max(row[column].width for row in tiles) for column in range(len(column_titles))]
    lines = [max(text.count("\n") + 1 if text else 0 for text in row) for row in captions[:max_rows]]
    heights = [max(tile.height for tile in row) + CAPTION_LINE_PX * count + 8
               for row, count in zip(tiles, lines, strict=True)]
    title_px = TITLE_PT + 16
    sheet = Image.new("RGB", (2 * MARGIN_PX + sum(widths) + GAP_PX * (len(widths) - 1),
                              2 * MARGIN_PX + title_px + sum(heights) + GAP_PX * (len(heights) - 1)), PAPER)
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(column_titles):
        left = MARGIN_PX + sum(widths[:column]) + GAP_PX * column
        draw.text((left + widths[column] / 2, MARGIN_PX), title, INK, ImageFont.load_default(TITLE_PT), anchor="ma")
        for row in range(len(tiles)):
            top = MARGIN_PX + title_px + sum(heights[:row]) + GAP_PX * row
            draw_tile(sheet, draw, tiles[row][column], captions[row][column], left, top, widths[column])
    return sheet


def closeup_row(lr: np.ndarray, versions: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Tiles for one row of a contact sheet: the last version whole, with a frame; then the framed part of LR and each.

    All uint8; versions: the same image at HR size, (H, W) or (H, W, C). The frame lies where the last version has
    most detail.
    """
    whole = versions[-1]
    height, width = whole.shape[:2]
    side = min(CLOSEUP_PX, height, width)
    top, left = busiest_square(whole, side)
    tiles = [overview(whole, top, left, side)]
    for image in [lr, *versions]:
        down, across = image.shape[0] / height, image.shape[1] / width
        rows = slice(round(top * down), round((top + side) * down))
        tiles.append(image[rows, round(left * across):round((left + side) * across)])
    return tiles


def to_uint8(image: np.ndarray, low: float, high: float) -> np.ndarray:
    """low..high -> 0..255 for showing; clipped, NaN black."""
    unit = (np.nan_to_num(image, nan=low).astype(np.float64) - low) / max(high - low, np.finfo(np.float64).tiny)
    return np.rint(255 * unit.clip(0, 1)).astype(np.uint8)


def plot_curves(records: Sequence[Mapping], path: Path | str) -> None:
    """PNG of a training log: every `*loss*` of the records over `update` (log scale), beside it every `*psnr*` in dB.

    records: one mapping per line of the log, with the key `update`; a record need not have every key. Raises
    SwinmpiError when matplotlib is not installed.
    """
    Figure = figure_class(path, "curves")
    panels = [(word, names) for word in ("loss", "psnr") if (names := keys_with(records, word))]
    figure = Figure(figsize=(6 * max(1, len(panels)), 4), layout="constrained")
    for number, (word, names) in enumerate(panels, start=1):
        axes = figure.add_subplot(1, len(panels), number)
        draw_curves(axes, records, {name: name.replace(word, "").strip("_") or word for name in names})
        axes.set_ylabel("PSNR in dB" if word == "psnr" else "loss")
        axes.set_yscale("linear" if word == "psnr" else "log")
    figure.savefig(path, dpi=120)


def plot_scaling(speed_ups: Mapping[str, Sequence[tuple[int, float, float, float]]], shares: Mapping[str, Mapping[str, float]],
                 path: Path | str) -> None:
    """PNG: speed-up over cores, beside it what is not network in a step.

    speed_ups: by the name of a line, points (cores, median, lowest, highest); shares: by the name of a setting, parts of
    a step (0..1) by the name of a phase. Raises SwinmpiError when matplotlib is not installed.
    """
    figure = figure_class(path, "scaling")(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    most = max(point[0] for points in speed_ups.values() for point in points)
    left.plot([1, most], [1, most], color=HAIRLINE, linewidth=1.6, label="ideal")
    for number, (name, points) in enumerate(speed_ups.items()):
        cores, middle, low, high = np.array(points).T
        left.errorbar(cores, middle, np.abs([middle - low, high - middle]), label=name, color=COLOURS[number % len(COLOURS)],
                      linewidth=1.6, marker="o", capsize=3)
    left.set(xlabel="cores", ylabel="speed-up (median, range)", xticks=range(1, most + 1, max(1, most // 8)))
    below = np.zeros(len(shares))
    for number, phase in enumerate(next(iter(shares.values()))):
        height = np.array([100 * parts[phase] for parts in shares.values()])
        right.bar(range(len(shares)), height, bottom=below, width=0.6, label=phase, color=COLOURS[number % len(COLOURS)])
        below += height
    right.set_xticks(range(len(shares)), [name.replace(", ", "\n").replace(" x ", "\nx ") for name in shares])
    right.set_ylabel("not network, % of a step")
    for axes in (left, right):
        axes.grid(color=HAIRLINE, linewidth=0.6, axis="y")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    figure.savefig(path, dpi=120)


def figure_class(path: Path | str, what: str):
    """matplotlib's Figure, which needs no display; SwinmpiError when it is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise SwinmpiError(f"{path}: drawing {what} needs matplotlib; pip install 'swinmpi[plot]'") from None
    return Figure


def busiest_square(image: np.ndarray, side_px: int) -> tuple[int, int]:
    """(top, left) of the square with the largest mean |Laplacian|, among those that start on multiples of 12 px."""
    strength = np.pad(np.abs(laplacian(luma(image.astype(np.float64)))), 1)
    total = np.pad(strength.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    sums = total[side_px:] - total[:-side_px]
    sums = (sums[:, side_px:] - sums[:, :-side_px])[::CLOSEUP_STEP_PX, ::CLOSEUP_STEP_PX]
    row, column = np.unravel_index(sums.argmax(), sums.shape)
    return int(row) * CLOSEUP_STEP_PX, int(column) * CLOSEUP_STEP_PX


def overview(image: np.ndarray, top: int, left: int, side_px: int) -> np.ndarray:
    """The image fitted into a square tile on paper, uint8 RGB, the square framed."""
    picture = as_picture(image)
    factor = TILE_PX / max(picture.size)
    picture = picture.resize([max(1, round(length * factor)) for length in picture.size], Image.Resampling.LANCZOS)
    box = [round(edge * factor) for edge in (left, top, left + side_px, top + side_px)]
    ImageDraw.Draw(picture).rectangle((box[0], box[1], box[2] - 1, box[3] - 1), outline=MARK, width=2)
    tile = Image.new("RGB", (TILE_PX, TILE_PX), PAPER)
    tile.paste(picture, ((TILE_PX - picture.width) // 2, (TILE_PX - picture.height) // 2))
    return np.asarray(tile)


def fit_row(row: Sequence[np.ndarray], tile_px: int) -> list[Image.Image]:
    """Pictures of one row, all as large as its last tile becomes."""
    height, width = row[-1].shape[:2]
    factor = tile_px / max(height, width)
    factor = math.floor(factor) if factor >= 1 else factor
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return [fit(as_picture(tile), size) for tile in row]


def fit(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Nearest neighbour where it grows, so that its own pixels stay visible; antialiased where it shrinks."""
    shrinks = picture.width > size[0] or picture.height > size[1]
    return picture.resize(size, Image.Resampling.LANCZOS if shrinks else Image.Resampling.NEAREST)


def as_picture(tile: np.ndarray) -> Image.Image:
    """uint8 (H, W), (H, W, 1) or (H, W, 3) -> RGB picture."""
    return Image.fromarray(tile[..., 0] if tile.ndim == 3 and tile.shape[2] == 1 else tile).convert("RGB")


def draw_tile(sheet: Image.Image, draw: ImageDraw.ImageDraw, tile: Image.Image, caption: str, left: int, top: int,
              width: int) -> None:
    """The tile in a hairline frame, centred in its column, and its caption below."""
    x = left + (width - tile.width) // 2
    draw.rectangle((x - 1, top - 1, x + tile.width, top + tile.height), outline=HAIRLINE)
    sheet.paste(tile, (x, top))
    font = ImageFont.load_default(CAPTION_PT)
    for number, line in enumerate(caption.split("\n")):
        y = top + tile.height + 8 + CAPTION_LINE_PX * number
        draw.text((left + width / 2, y), line, GREY, font, anchor="ma")


def keys_with(records: Sequence[Mapping], word: str) -> list[str]:
    """Keys that hold numbers and contain `word`, in the order they first appear."""
    return list(dict.fromkeys(key for record in records for key, value in record.items()
                              if word in key.lower() and isinstance(value, int | float)))


def draw_curves(axes, records: Sequence[Mapping], labels: Mapping[str, str]) -> None:
    for number, (name, label) in enumerate(labels.items()):
        points = [(record["update"], record[name]) for record in records if name in record]
        axes.plot(*zip(*points, strict=True), label=label.replace("_", " "), color=COLOURS[number % len(COLOURS)],
                  linewidth=1.6, marker="." if len(points) < 40 else None)
    axes.set_xlabel("update")
    axes.grid(color=HAIRLINE, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
