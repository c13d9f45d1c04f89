"""Contact sheets: rows of images beside each other, with their figures in small text under them."""
import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from swinmpi.images.metrics import laplacian, luma

TILE_PX, CLOSEUP_PX = 288, 96
# A square that starts on a multiple of 12 starts on a whole LR pixel at 2x, 3x and 4x.
CLOSEUP_STEP_PX = 12
PAPER, INK, GREY, HAIRLINE, MARK = "#ffffff", "#16181d", "#5b616e", "#d5d8de", "#ffcf33"
UNTRUSTED, VEIL = "#c2188b", 0.5  # magenta, which photographs have next to none of
MARGIN_PX, GAP_PX = 28, 12
TITLE_PT, CAPTION_PT = 20, 15
CAPTION_LINE_PX, TITLE_LINE_PX = 20, 24
OURS = "swinmpi", "contact sheet"  # a text in PNGs that are made to be looked at


def contact_sheet(rows: Sequence[Sequence[np.ndarray]], column_titles: Sequence[str],
                  captions: Sequence[Sequence[str]], max_rows: int = 8,
                  tile_px: int = TILE_PX, title: str = "") -> Image.Image:
    """One row per image, one column per version, figures in small text (several lines) under each.

    rows: tiles uint8, (H, W), (H, W, 1) or (H, W, 3), of any sizes; captions: one per tile. A tile
    smaller than `tile_px` is enlarged by a whole factor with nearest neighbour, a larger one
    shrunk, then all of a row get the height and width of its last tile. Rows beyond `max_rows` are
    left out. Titles of columns may have several lines; `title` stands above all.
    """
    tiles = [fit_row(row, tile_px) for row in rows[:max_rows]]
    widths = [max(row[column].width for row in tiles) for column in range(len(column_titles))]
    lines = [max(text.count("\n") + 1 if text else 0 for text in row)
             for row in captions[:max_rows]]
    heights = [max(tile.height for tile in row) + CAPTION_LINE_PX * count + 8
               for row, count in zip(tiles, lines, strict=True)]
    head_px = MARGIN_PX + (TITLE_LINE_PX + GAP_PX if title else 0)
    title_px = TITLE_PT + 16 + TITLE_LINE_PX * max(text.count("\n") for text in column_titles)
    size = (2 * MARGIN_PX + sum(widths) + GAP_PX * (len(widths) - 1),
            head_px + MARGIN_PX + title_px + sum(heights) + GAP_PX * (len(heights) - 1))
    sheet = Image.new("RGB", size, PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(TITLE_PT)
    draw.text((MARGIN_PX, MARGIN_PX), title, INK, font)
    for column, text in enumerate(column_titles):
        left = MARGIN_PX + sum(widths[:column]) + GAP_PX * column
        for number, line in enumerate(text.split("\n")):
            draw.text((left + widths[column] / 2, head_px + TITLE_LINE_PX * number), line, INK,
                      font, anchor="ma")
        for row in range(len(tiles)):
            top = head_px + title_px + sum(heights[:row]) + GAP_PX * row
            draw_tile(sheet, tiles[row][column], captions[row][column], (left, top), widths[column])
    return sheet


def closeup_row(lr: np.ndarray, versions: Sequence[np.ndarray],
                guide: int = -1) -> list[np.ndarray]:
    """Tiles for one row of a contact sheet: one version whole, then a part of LR and of each.

    All uint8; versions: the same image at HR size, (H, W) or (H, W, C). The part is framed in the
    whole image, which is the version `guide`; it lies where that has most detail.
    """
    square = closeup_square(versions[guide])
    size = versions[guide].shape[:2]
    return [overview(versions[guide], *square),
            *(cut_closeup(image, size, square) for image in [lr, *versions])]


def closeup_square(image: np.ndarray) -> tuple[int, int, int]:
    """(top, left, side) of the part with most detail."""
    side = min(CLOSEUP_PX, *image.shape[:2])
    return *busiest_square(image, side), side


def cut_closeup(image: np.ndarray, size: tuple[int, int],
                square: tuple[int, int, int]) -> np.ndarray:
    """The part `square`, which counts in an image of `size`, of one that may be smaller."""
    top, left, side = square
    down, across = (own / whole for own, whole in zip(image.shape[:2], size, strict=True))
    rows = slice(round(top * down), round((top + side) * down))
    return image[rows, round(left * across):round((left + side) * across)]


def closeup_sheet(rows: Sequence[Sequence[np.ndarray]], labels: Sequence[str],
                  names: Sequence[str], captions: Sequence[Sequence[str]],
                  lr_label: str = "LR", title: str = "") -> Image.Image:
    """A contact sheet of versions of images side by side, a row of `closeup_row` for each image.

    labels: of the versions, the true image last; names: of the images; captions: for every image
    one under each version but the last, which may be left out at the end.
    """
    texts = [[name, "", *under, *[""] * (len(labels) - len(under))]
             for name, under in zip(names, captions, strict=True)]
    return contact_sheet(rows, ["", lr_label, *labels], texts, max_rows=len(rows), title=title)


def as_png(sheet: Image.Image) -> bytes:
    """A PNG file that `is_sheet` knows again."""
    png, texts = io.BytesIO(), PngInfo()
    texts.add_text(*OURS)
    sheet.save(png, "PNG", pnginfo=texts)
    return png.getvalue()


def is_sheet(path: Path) -> bool:
    """Whether a file is a PNG of `as_png`, by its first bytes; not where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return "\0".join(OURS).encode() in file.read(128)
    except OSError:
        return False


def to_uint8(image: np.ndarray, low: float, high: float) -> np.ndarray:
    """low..high -> 0..255 for showing; clipped, NaN black."""
    span = max(high - low, np.finfo(np.float64).tiny)
    unit = (np.nan_to_num(image, nan=low).astype(np.float64) - low) / span
    return np.rint(255 * unit.clip(0, 1)).astype(np.uint8)


def trust_overlay(image: np.ndarray, trusted: np.ndarray) -> np.ndarray:
    """An image with what is not trusted in magenta, uint8 (H, W, 3). image: uint8, (H, W),
    (H, W, 1) or (H, W, 3); trusted: (H, W) bool."""
    shown = np.asarray(as_picture(image)).astype(np.float64)
    veiled = (1 - VEIL) * shown + VEIL * np.array(ImageColor.getrgb(UNTRUSTED))
    return np.where(trusted[..., None], shown, veiled).round().astype(np.uint8)


def busiest_square(image: np.ndarray, side_px: int) -> tuple[int, int]:
    """(top, left) of the square with the largest mean |Laplacian|.

    Only squares that start on multiples of CLOSEUP_STEP_PX are looked at.
    """
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
    size = [max(1, round(length * factor)) for length in picture.size]
    picture = picture.resize(size, Image.Resampling.LANCZOS)
    box = [round(edge * factor) for edge in (left, top, left + side_px, top + side_px)]
    frame = (box[0], box[1], box[2] - 1, box[3] - 1)
    ImageDraw.Draw(picture).rectangle(frame, outline=MARK, width=2)
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
    """Nearest neighbour where it grows, so that pixels stay visible; smooth where it shrinks."""
    shrinks = picture.width > size[0] or picture.height > size[1]
    resampling = Image.Resampling.LANCZOS if shrinks else Image.Resampling.NEAREST
    return picture.resize(size, resampling)


def as_picture(tile: np.ndarray) -> Image.Image:
    """uint8 (H, W), (H, W, 1) or (H, W, 3) -> RGB picture."""
    grey = tile.ndim == 3 and tile.shape[2] == 1
    return Image.fromarray(tile[..., 0] if grey else tile).convert("RGB")


def draw_tile(sheet: Image.Image, tile: Image.Image, caption: str, corner: tuple[int, int],
              width: int) -> None:
    """The tile in a hairline frame, centred in its column, and its caption below."""
    draw, (left, top) = ImageDraw.Draw(sheet), corner
    x = left + (width - tile.width) // 2
    draw.rectangle((x - 1, top - 1, x + tile.width, top + tile.height), outline=HAIRLINE)
    sheet.paste(tile, (x, top))
    font = ImageFont.load_default(CAPTION_PT)
    for number, line in enumerate(caption.split("\n")):
        y = top + tile.height + 8 + CAPTION_LINE_PX * number
        draw.text((left + width / 2, y), line, GREY, font, anchor="ma")
