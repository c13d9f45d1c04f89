"""TIFF in and out: every page an image, planar or not, 8 to 32 bit, with units of a finer grid."""
import logging
import math
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import tifffile
from PIL import Image
from tifffile import PHOTOMETRIC, PLANARCONFIG, SAMPLEFORMAT

from swinmpi.images.pictures import (
    ORIENTATION,
    TURNED,
    Page,
    Pixels,
    check_size,
    decoded,
    turned,
    upright,
)

GREY = (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.MINISWHITE)
GDAL_NODATA = 42113
TEXTS = (271, 272, 306, 315, 33432, GDAL_NODATA)  # make, model, date, artist, copyright
ICC, RESOLUTION_UNIT = 34675, 296
BIG_BYTES = 2**32 - 2**25
DTYPES = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float16", "float32", "float64")


@dataclass(frozen=True)
class TiffDetails:
    """What a TIFF says besides its pixels. resolution: px per unit along x and y, as stored;
    unit: TIFF's number for it; texts: tag -> text; extra: what the sample after the colours is;
    is_white: whether 0 is white."""

    resolution: tuple[float, float] | None = None
    unit: int = 1
    description: str | None = None
    icc: bytes | None = None
    texts: dict[int, str] = field(default_factory=dict)
    extra: int = 2
    is_white: bool = False

    def scaled(self, scale: int) -> "TiffDetails":
        """As it is on a grid that is `scale` times finer."""
        resolution = self.resolution and tuple(value * scale for value in self.resolution)
        return replace(self, resolution=resolution,
                       description=scaled_description(self.description, scale))


def read_tiff_pages(path: Path) -> list[Page]:
    """See `pictures.read_pages`; reduced copies (thumbnails, pyramids) are left out."""
    with opened(path) as tiff:
        return [Page(number, *shape_of(page), channels_of(page), dtype_of(page), no_data_of(page))
                for number, (page, _) in enumerate(planes(tiff))]


def read_tiff_page(path: Path, number: int) -> Pixels:
    """See `pictures.read_page`."""
    with opened(path) as tiff:
        page, plane = planes(tiff)[number]
        channels_of(page)
        check_stored(page)
        if plane is None and is_pillows(page):
            return decoded_by_pillow(path, page.index)
        stored = page.asarray() if plane is None else contiguous_plane(tiff, page, plane)
        return pixels_of(stored, page)


def read_details(path: Path) -> TiffDetails:
    """Of the first page."""
    with opened(path) as tiff:
        page = planes(tiff)[0][0]
        tags = page.tags
        values = [tags[code].value if code in tags else None for code in (282, 283)]
        resolution = (tuple(top / bottom for top, bottom in values)
                      if all(value and all(value) for value in values) else None)
        if resolution and orientation_of(page) in TURNED:
            resolution = resolution[::-1]
        texts = {code: str(tags[code].value) for code in TEXTS
                 if code in tags and str(tags[code].value).isascii()}
        # Pillow divides colours by an alpha they were multiplied with.
        extra = int(page.extrasamples[0]) if page.extrasamples and not is_pillows(page) else 2
        unit = int(tags[RESOLUTION_UNIT].value) if RESOLUTION_UNIT in tags else 2
        unit = unit if resolution else 1
        icc = bytes(tags[ICC].value) if ICC in tags and page.photometric != 5 else None
        # Of tifffile's own JSON the shape would be wrong, and says nothing else.
        description = page.description if tiff.is_ome or tiff.is_imagej else (
            page.description if page.description.isascii() and not tiff.is_shaped else None)
        return TiffDetails(resolution, unit, description or None, icc, texts, extra,
                           is_white(page) and dtype_of(page).kind != "u")


def write_tiff(file: BinaryIO, pages: Iterable[Pixels], num_bytes: int,
               details: TiffDetails) -> None:
    """Write pages of any kind, one after the other. num_bytes: of all pixels, uncompressed."""
    with tifffile.TiffWriter(file, bigtiff=num_bytes > BIG_BYTES) as writer:
        for number, pixels in enumerate(pages):
            samples, extra = pixels.colour, []
            if pixels.alpha is not None:
                samples = np.concatenate([samples, pixels.alpha[..., None]], axis=2)
                extra = [details.extra]
            grey = pixels.colour.shape[2] == 1
            first = number == 0
            writer.write(
                samples if samples.shape[2] > 1 else samples[..., 0],
                photometric=("rgb" if not grey else "miniswhite" if details.is_white else
                             "minisblack"), extrasamples=extra,
                planarconfig="contig" if samples.shape[2] > 1 else None, compression="zlib",
                predictor=samples.dtype.kind in "iu", metadata=None, contiguous=False,
                resolution=details.resolution, resolutionunit=details.unit, software="swinmpi",
                description=(details.description or "").encode() or None if first else None,
                extratags=extra_tags(details) if first else
                [tag for tag in extra_tags(details) if tag[0] in (ICC, GDAL_NODATA)])


def extra_tags(details: TiffDetails) -> list[tuple]:
    tags = [(code, "s", 0, text, True) for code, text in details.texts.items()]
    if details.icc:
        tags.append((ICC, "B", len(details.icc), details.icc, True))
    return tags


class Complaints(logging.Handler):
    """What tifffile says of a file; it goes on with the pages before the damage."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


@contextmanager
def complaints() -> Iterator[list[str]]:
    """What tifffile says inside; it is not printed."""
    logger, handler = logging.getLogger("tifffile"), Complaints()
    propagates, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield handler.said
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagates


@contextmanager
def opened(path: Path) -> Iterator[tifffile.TiffFile]:
    """A TIFF open for reading; ValueError where it is damaged."""
    try:
        with complaints() as said, tifffile.TiffFile(path) as tiff:
            num_pages = len(tiff.pages)
            if not num_pages or any("offset" in text for text in said):
                raise ValueError(f"the file ends after {num_pages} pages, but tells of more; "
                                 "copy or write it again")
            yield tiff
    except (tifffile.TiffFileError, IndexError, KeyError, TypeError, AttributeError,
            ZeroDivisionError, OverflowError) as error:
        raise ValueError(f"damaged TIFF ({error})") from None


def planes(tiff: tifffile.TiffFile) -> list[tuple[tifffile.TiffPage, int | None]]:
    """(page, None) for every full-size page; (page, number) for the planes of a file that tells
    of many but holds one page, as ImageJ writes large stacks."""
    pages = [page for page in map(whole_page, tiff.pages) if not page.is_reduced]
    pages = pages or [whole_page(tiff.pages[0])]
    if len(tiff.pages) == 1 and pages[0].is_contiguous:
        series = tiff.series[0]
        count = series.size // max(1, pages[0].size)
        if count > 1 and series.dataoffset is not None:
            return [(pages[0], number) for number in range(count)]
    return [(page, None) for page in pages]


def whole_page(page) -> tifffile.TiffPage:
    """With all its tags: tifffile reads pages that look alike as frames of the first."""
    return page.aspage() if hasattr(page, "aspage") else page


def contiguous_plane(tiff: tifffile.TiffFile, page: tifffile.TiffPage, number: int) -> np.ndarray:
    """The plane `number` of those that follow each other without pages of their own."""
    dtype = page.dtype.newbyteorder(tiff.byteorder)
    offset = tiff.series[0].dataoffset + number * page.size * dtype.itemsize
    tiff.filehandle.seek(offset)
    stored = tiff.filehandle.read(page.size * dtype.itemsize)
    if len(stored) < page.size * dtype.itemsize:
        raise ValueError(f"the file ends inside plane {number}; copy or write it again")
    return np.frombuffer(stored, dtype).reshape(page.shape)


def is_pillows(page: tifffile.TiffPage) -> bool:
    """Whether Pillow decodes it right: unsigned, up to 8 bit, with its palettes and compressions.

    But it drops a fourth sample that is not said to be alpha.
    """
    unknown = page.extrasamples and int(page.extrasamples[0]) == 0
    return bits_of(page) <= 8 and sample_format(page) == SAMPLEFORMAT.UINT and not unknown


def decoded_by_pillow(path: Path, index: int) -> Pixels:
    """A page of at most 8 bit per sample."""
    with Image.open(path, formats=("TIFF",)) as image:
        image.seek(index)
        check_size(image.width, image.height)
        return decoded(upright(image))


def pixels_of(stored: np.ndarray, page: tifffile.TiffPage) -> Pixels:
    """An array of tifffile -> upright colour and alpha, in the machine's byte order; of unsigned
    types 0 is black."""
    if page.planarconfig == PLANARCONFIG.SEPARATE and stored.ndim == 3:
        stored = np.moveaxis(stored, 0, -1)
    samples = stored.reshape(page.imagelength, page.imagewidth, page.samplesperpixel)
    samples = turned(samples, orientation_of(page)).astype(dtype_of(page), copy=False)
    channels = channels_of(page)
    colour = np.ascontiguousarray(samples[..., :channels])
    if is_white(page) and colour.dtype.kind == "u":
        colour = (2 ** bits_of(page) - 1 - colour.astype(np.uint64)).astype(colour.dtype)
    alpha = np.ascontiguousarray(samples[..., -1]) if page.samplesperpixel > channels else None
    return Pixels(colour, alpha)


def check_stored(page: tifffile.TiffPage) -> None:
    """ValueError where strips or tiles are missing, which would be read as black."""
    wanted = math.prod(page.chunked)
    there = sum(bool(offset and count) for offset, count in
                zip(page.dataoffsets, page.databytecounts, strict=False))
    if there < wanted:
        raise ValueError(f"{wanted - there} of {wanted} strips or tiles are missing; "
                         "copy or write it again")


def channels_of(page: tifffile.TiffPage) -> int:
    """1 or 3; ValueError for samples that are neither grey nor RGB, or more than alpha besides."""
    photometric, samples = page.photometric, page.samplesperpixel
    if getattr(page, "imagedepth", 1) > 1:
        raise ValueError(f"a volume of {page.imagedepth} planes in one page; save one page each")
    if page.dtype is None or (not is_pillows(page) and str(dtype_of(page)) not in DTYPES):
        raise ValueError(f"expected 8, 16 or 32 bit per sample, got {page.bitspersample} of "
                         f"{sample_format(page).name}; convert it")
    if photometric in GREY and samples in (1, 2):
        return 1
    if photometric == PHOTOMETRIC.RGB and samples in (3, 4):
        return 3
    if is_pillows(page) and (photometric == PHOTOMETRIC.PALETTE or samples == 3 and photometric in (
            PHOTOMETRIC.YCBCR, PHOTOMETRIC.CIELAB) or samples == 4 and photometric == 5):
        return 3
    name = getattr(photometric, "name", photometric)
    raise ValueError("expected grey or RGB with at most one sample of alpha, "
                     f"got {samples} samples of {name}; save it as grey or RGB")


def shape_of(page: tifffile.TiffPage) -> tuple[int, int]:
    """Upright (height, width)."""
    shape = page.imagelength, page.imagewidth
    return shape[::-1] if orientation_of(page) in TURNED else shape


def dtype_of(page: tifffile.TiffPage) -> np.dtype:
    """In the machine's byte order."""
    return np.dtype(np.uint8) if is_pillows(page) else np.dtype(page.dtype).newbyteorder("=")


def bits_of(page: tifffile.TiffPage) -> int:
    bits = page.bitspersample
    return max(bits) if isinstance(bits, tuple) else bits


def sample_format(page: tifffile.TiffPage) -> SAMPLEFORMAT:
    kind = page.sampleformat
    kind = kind[0] if isinstance(kind, tuple) else kind
    return SAMPLEFORMAT.UINT if kind == SAMPLEFORMAT.VOID else SAMPLEFORMAT(kind)


def is_white(page: tifffile.TiffPage) -> bool:
    return page.photometric == PHOTOMETRIC.MINISWHITE


def no_data_of(page: tifffile.TiffPage) -> tuple[str, ...]:
    """GDAL's word for it."""
    return (str(page.tags[GDAL_NODATA].value),) if GDAL_NODATA in page.tags else ()


def orientation_of(page: tifffile.TiffPage) -> int:
    return int(page.tags[ORIENTATION].value) if ORIENTATION in page.tags else 1


def scaled_description(text: str | None, scale: int) -> str | None:
    """ImageJ's and OME's words about pixels, true on a grid that is `scale` times finer."""
    if text is None:
        return None
    if text.startswith("ImageJ="):
        return re.sub(r"(?m)^([xy]origin=)(\S+)$", lambda found: times(found, scale), text)
    if "<OME" in text[:4096]:
        text = re.sub(r'(\bPhysicalSize[XY]=")([^"]+)', lambda found: times(found, 1 / scale), text)
        return re.sub(r'(\bSize[XY]=")(\d+)', lambda found: times(found, scale), text)
    return text


def times(found: re.Match, factor: float) -> str:
    """`name="` and a number -> the same with the number times `factor`; no number stays."""
    try:
        value = float(found[2]) * factor
    except ValueError:
        return found[0]
    return f"{found[1]}{int(value) if found[2].isdigit() and value == int(value) else repr(value)}"
