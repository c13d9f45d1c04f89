"""PNG out: 8 or 16 bit, grey or colour, with or without alpha, and what belongs to a picture
besides its pixels."""
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from swinmpi.images.pictures import (
    ORIENTATION,
    TURNED,
    Pixels,
    exif_of,
    open_picture,
    png_chunks,
)

SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOUR_TYPES = {(1, False): 0, (3, False): 2, (1, True): 4, (3, True): 6}
BAND_BYTES, LEVEL = 1 << 24, 6
METRES_PER_INCH = 0.0254
EXIF_POINTER, EXIF_WIDTH, EXIF_HEIGHT, X_RESOLUTION, Y_RESOLUTION = 0x8769, 0xA002, 0xA003, 282, 283
THUMBNAIL_TAGS = (0x0201, 0x0202)
FOCAL_PLANE_RESOLUTION = (0xA20E, 0xA20F)
STALE_TEXTS = (b"XML:com.adobe.xmp\0", b"Raw profile type ")  # the latter of ImageMagick: EXIF
KEPT_CHUNKS = (b"cICP", b"tEXt", b"zTXt", b"iTXt")


@dataclass(frozen=True)
class PngDetails:
    """density: px per metre along x and y, or None; others: whole chunks; the rest as in PNG's."""

    density: tuple[float, float] | None = None
    icc: bytes | None = None
    exif: bytes | None = None
    srgb: int | None = None
    gamma: float | None = None
    chromaticity: tuple[float, ...] | None = None
    others: tuple[tuple[bytes, bytes], ...] = ()


def read_details(path: Path, scale: int) -> PngDetails:
    """Of a PNG, JPEG or WebP: right when upright and on a grid that is `scale` times finer."""
    with open_picture(path) as image:
        exif, info = exif_of(image, path), image.info
        orientation = exif.get(ORIENTATION, 1)
        height, width = image.height, image.width
        if orientation in TURNED:
            height, width = width, height
        density = density_of(image, exif)
        if density is not None:
            density = density[::-1] if orientation in TURNED else density
            density = tuple(value * scale for value in density)
        # Pixels of other colour spaces become RGB, for which such a profile would be wrong.
        icc = info.get("icc_profile") if image.mode not in ("CMYK", "LAB") else None
        return PngDetails(density, icc, upright_exif(exif, height * scale, width * scale, scale),
                          info.get("srgb"), info.get("gamma"), info.get("chromaticity"),
                          kept_chunks(path) if image.format == "PNG" else ())


def kept_chunks(path: Path) -> tuple[tuple[bytes, bytes], ...]:
    """Texts, but none that tells sizes and orientation, and the newer way to name colours."""
    return tuple((kind, content) for kind, content in png_chunks(path, KEPT_CHUNKS)
                 if kind in KEPT_CHUNKS and not content.startswith(STALE_TEXTS))


def encode_png(pixels: Pixels, details: PngDetails) -> Iterator[bytes]:
    """The bytes of a PNG file, piece by piece. pixels: uint8 or uint16."""
    height, width, channels = pixels.colour.shape
    kind = COLOUR_TYPES[channels, pixels.alpha is not None]
    yield SIGNATURE
    yield chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8 * pixels.colour.itemsize, kind,
                                     0, 0, 0))
    yield from detail_chunks(details)
    compressor = zlib.compressobj(LEVEL)
    row_bytes = width * (channels + (pixels.alpha is not None)) * pixels.colour.itemsize
    rows = max(1, BAND_BYTES // row_bytes)
    above = np.zeros(row_bytes, np.uint8)
    for top in range(0, height, rows):
        band = raw_rows(pixels, slice(top, top + rows))
        packed = compressor.compress(filtered(band, above, row_bytes // width))
        above = band[-1]
        if packed:
            yield chunk(b"IDAT", packed)
    yield chunk(b"IDAT", compressor.flush())
    yield chunk(b"IEND", b"")


def raw_rows(pixels: Pixels, rows: slice) -> np.ndarray:
    """(rows, bytes) uint8, samples interleaved, high byte first."""
    samples = pixels.colour[rows]
    if pixels.alpha is not None:
        samples = np.concatenate([samples, pixels.alpha[rows, :, None]], axis=2)
    big = np.ascontiguousarray(samples, samples.dtype.newbyteorder(">"))
    return big.reshape(len(big), -1).view(np.uint8)


def filtered(band: np.ndarray, above: np.ndarray, step: int) -> bytes:
    """Rows (n, bytes) by the filter whose differences are smallest, a row at a time (PNG 12.8).

    above: the row before the band; step: bytes of a pixel.
    """
    up = np.vstack([above[None], band[:-1]])
    left, corner = (np.hstack([np.zeros((len(rows), step), np.uint8), rows[:, :-step]])
                    for rows in (band, up))
    candidates = (band, band - left, band - up, band - paeth(left, up, corner))
    costs = np.stack([np.abs(rows.view(np.int8).astype(np.int16)).sum(axis=1, dtype=np.int64)
                      for rows in candidates])
    chosen, numbers = costs.argmin(axis=0), np.array([0, 1, 2, 4], np.uint8)
    best = np.empty((len(band), 1 + band.shape[1]), np.uint8)
    best[:, 0] = numbers[chosen]
    for number, rows in enumerate(candidates):
        best[chosen == number, 1:] = rows[chosen == number]
    return best.tobytes()


def paeth(left: np.ndarray, up: np.ndarray, corner: np.ndarray) -> np.ndarray:
    """Whichever of the three is nearest to left + up - corner (PNG 9.4)."""
    a, b, c = (values.astype(np.int16) for values in (left, up, corner))
    to_a, to_b, to_c = np.abs(b - c), np.abs(a - c), np.abs(a + b - 2 * c)
    return np.where((to_a <= to_b) & (to_a <= to_c), left, np.where(to_b <= to_c, up, corner))


def detail_chunks(details: PngDetails) -> Iterator[bytes]:
    """In the order that PNG asks for: before the pixels, colour first."""
    for kind, content in details.others:
        yield chunk(kind, content)
    if details.icc:
        yield chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(details.icc))
    else:
        if details.srgb is not None:
            yield chunk(b"sRGB", bytes([details.srgb]))
        if details.gamma is not None:
            yield chunk(b"gAMA", struct.pack(">I", round(details.gamma * 100_000)))
        if details.chromaticity is not None:
            yield chunk(b"cHRM", struct.pack(">8I", *(round(value * 100_000)
                                                      for value in details.chromaticity)))
    if details.density is not None:
        yield chunk(b"pHYs", struct.pack(">IIB", *map(round, details.density), 1))
    if details.exif:
        yield chunk(b"eXIf", details.exif)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def density_of(image: Image.Image, exif: Image.Exif) -> tuple[float, float] | None:
    """px per metre as stored, from the file's own words or EXIF's; None where neither is known."""
    dots = image.info.get("dpi")
    if dots is None and image.format != "PNG" and exif.get(X_RESOLUTION):
        dots = exif.get(X_RESOLUTION), exif.get(Y_RESOLUTION, exif.get(X_RESOLUTION))
        if exif.get(296, 2) == 3:  # per centimetre
            dots = tuple(float(value) * 2.54 for value in dots)
    try:
        found = tuple(float(value) / METRES_PER_INCH for value in dots or ())
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return found if len(found) == 2 and all(0 < value < 1e8 for value in found) else None


def upright_exif(exif: Image.Exif, height: int, width: int, scale: int) -> bytes | None:
    """EXIF without orientation and thumbnail, its sizes those of the new picture; None without."""
    if not len(exif):
        return None
    exif.pop(ORIENTATION, None)
    for tag in THUMBNAIL_TAGS:
        exif.pop(tag, None)
    for tag in (X_RESOLUTION, Y_RESOLUTION):
        if tag in exif:
            exif[tag] = float(exif[tag]) * scale
    inner = exif.get_ifd(EXIF_POINTER)
    for tag, size in ((EXIF_WIDTH, width), (EXIF_HEIGHT, height)):
        if tag in inner:
            inner[tag] = size
    for tag in FOCAL_PLANE_RESOLUTION:
        if tag in inner:
            inner[tag] = float(inner[tag]) * scale
    try:
        written = exif.tobytes()
    except Exception:  # Pillow cannot write back some tags that it reads; the picture matters more
        return None
    return written.removeprefix(b"Exif\0\0") or None
