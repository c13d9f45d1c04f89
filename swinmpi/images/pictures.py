"""Pictures: the images of PNG, JPEG, WebP and TIFF files as arrays of their own depth, upright.

A file has one page, a TIFF as many as it holds. What a page is can be asked before it is decoded.
"""
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp")
FORMATS = ("PNG", "JPEG", "WEBP")  # JPEG: also several in one file (MPO), of which the first is it
EXPECTED = "PNG, JPEG, WebP or TIFF"
MAX_PIXELS = 2**28  # decoded, with the copies that takes, about 3 GiB of colour
# Larger images are believed up to this ratio; deflate packs zeros 1030 times.
BELIEVED_PIXELS, MOST_TIMES = 2**24, 2000
ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)
# Pillow decodes 16-bit colour to one byte per sample, the high one; with the byte orders
# exchanged, to the low one.
OTHER_BYTE = {"16L": "16B", "16B": "16L", "16N": "16B" if sys.byteorder == "little" else "16L"}
GREY_MODES = ("1", "L", "LA", "La")
ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")


@dataclass(frozen=True)
class Page:
    """One image of a file, as its header tells: upright size, 1 (grey) or 3 (RGB) channels.

    no_data: the stored value that is no number, in words, where the file tells one.
    """

    number: int
    height: int
    width: int
    channels: int
    dtype: np.dtype
    no_data: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pixels:
    """A decoded page. colour: (H, W, 1 or 3); alpha: (H, W) of the same dtype, or None."""

    colour: np.ndarray
    alpha: np.ndarray | None = None


def read_pages(path: Path) -> list[Page]:
    """What the file says of its images; nothing is decoded.

    Raises whatever Pillow and tifffile raise on a damaged file; ValueError for a kind of image that
    cannot be kept as it is, with what to do.
    """
    if is_tiff(path):
        from swinmpi.images.tiff import read_tiff_pages
        pages = read_tiff_pages(path)
    else:
        pages = [page_of(path)]
    for page in pages:
        check_size(page.width, page.height)
        check_claim(page, path.stat().st_size)
    return pages


def read_page(path: Path, number: int = 0) -> Pixels:
    """Decode one page; errors as of `read_pages`."""
    if is_tiff(path):
        from swinmpi.images.tiff import read_tiff_page
        return read_tiff_page(path, number)
    return decode_pillow(path)


def is_tiff(path: Path) -> bool:
    """By its first bytes, whatever it is called; BigTIFF too."""
    with open(path, "rb") as file:
        return file.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def check_size(width: int, height: int) -> None:
    """ValueError for an image too large to be held in memory."""
    if not width * height:
        raise ValueError(f"expected at least one pixel, got {width} x {height}")
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width} x {height} px are more than {MAX_PIXELS / 1e6:.0f} million; "
                         "cut it into smaller pictures or put it into an HDF5 stack")


def check_claim(page: Page, num_bytes: int) -> None:
    """ValueError for a large image that a file of `num_bytes` is too small to hold."""
    claimed = page.height * page.width * page.channels * page.dtype.itemsize
    if page.height * page.width > BELIEVED_PIXELS and claimed > MOST_TIMES * num_bytes:
        raise ValueError(f"{page.width} x {page.height} px in {num_bytes} bytes: no picture is "
                         "packed like that, it is damaged or made to fill the memory; leave it out")


def page_of(path: Path) -> Page:
    """The one page of a file that is no TIFF."""
    with open_picture(path) as image:
        height, width, channels, dtype = (image.height, image.width, 1 if is_grey(image) else 3,
                                          depth_of(image))
        if exif_of(image, path).get(ORIENTATION) in TURNED:
            height, width = width, height
        return Page(0, height, width, channels, dtype)


def open_picture(path: Path) -> Image.Image:
    """Opened by Pillow, not decoded; ValueError for an animation and other formats."""
    Image.MAX_IMAGE_PIXELS = None  # `check_size` has the limit, and says more
    image = Image.open(path, formats=FORMATS)
    try:
        check_size(image.width, image.height)
        if image.format in ("PNG", "WEBP") and getattr(image, "n_frames", 1) > 1:
            raise ValueError(f"an animation of {image.n_frames} frames; save its frames one by one")
        if image.mode == "I" and image.format != "PNG" or image.mode == "F":
            raise ValueError(f"expected 8 or 16 bit per channel, got mode {image.mode}")
    except ValueError:
        image.close()
        raise
    return image


def exif_of(image: Image.Image, path: Path) -> Image.Exif:
    """EXIF of a picture that need not be decoded, as Pillow finds it when it is.

    Of a PNG it may follow the pixels, so Pillow would decode them all.
    """
    if image.format != "PNG":
        return image.getexif()
    kinds = [kind for kind, _ in png_chunks(path, ())]
    late = {b"eXIf", b"tEXt", b"zTXt", b"iTXt"}.intersection(
        kinds[kinds.index(b"IDAT"):] if b"IDAT" in kinds else ())
    return image.getexif() if late else Image.Image.getexif(image)


def png_chunks(path: Path, wanted: Collection[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """(kind, content) of all chunks of a PNG in their order, without the content of others than
    those that are wanted."""
    with open(path, "rb") as file:
        file.seek(8)
        while len(header := file.read(8)) == 8:
            size, kind = int.from_bytes(header[:4], "big"), header[4:]
            content = file.read(size) if kind in wanted else b""
            yield kind, content
            file.seek(size - len(content) + 4, 1)


def decode_pillow(path: Path) -> Pixels:
    """A file that is no TIFF, upright, a palette resolved."""
    with open_picture(path) as image:
        kind, rawmode = image.mode, raw_mode(image)
        if depth_of(image) == np.uint8:
            return decoded(upright(image))
        transparent = image.info.get("transparency")
        if kind.startswith("I"):
            colour = np.asarray(upright(image)).astype(np.uint16)[..., None]
            return Pixels(colour, keyed_alpha(colour, transparent))
        if rawmode.startswith("LA;16"):
            return grey_alpha_16(path, exif_of(image, path).get(ORIENTATION, 1))
        known = rawmode.partition(";")[0] in ("RGB", "RGBA", "RGBX") and rawmode[-3:] in OTHER_BYTE
        if not known:
            raise ValueError(f"16-bit layout {rawmode} would lose its depth; save it as "
                             "16-bit grey or RGB")
        high = np.asarray(without_key(upright(image)))
    with open_picture(path) as image:
        image.tile = [with_rawmode(tile, rawmode[:-3] + OTHER_BYTE[rawmode[-3:]])
                      for tile in image.tile]
        low = np.asarray(without_key(upright(image)))
    both = high.astype(np.uint16) * 256 + low
    alpha = (np.ascontiguousarray(both[..., 3]) if both.shape[2] == 4
             else keyed_alpha(both, transparent))
    return Pixels(np.ascontiguousarray(both[..., :3]), alpha)


def grey_alpha_16(path: Path, orientation: int) -> Pixels:
    """A 16-bit grey PNG with alpha, which Pillow would shorten to 8 bit."""
    try:
        from imagecodecs import png_decode
    except ImportError:
        raise ValueError("16-bit grey with alpha needs imagecodecs; "
                         "pip install 'swinmpi[filters]'") from None
    both = turned(png_decode(path.read_bytes()), orientation)
    return Pixels(np.ascontiguousarray(both[..., :1]), np.ascontiguousarray(both[..., 1]))


def decoded(image: Image.Image) -> Pixels:
    """8 bits per sample of any Pillow mode: grey stays grey, everything else becomes RGB."""
    has_alpha = image.mode in ALPHA_MODES or "transparency" in image.info
    grey = is_grey(image)
    if has_alpha:
        both = np.asarray(image.convert("LA" if grey else "RGBA"))
        return Pixels(np.ascontiguousarray(both[..., :-1]), np.ascontiguousarray(both[..., -1]))
    colour = np.array(image.convert("L" if grey else "RGB"))
    return Pixels(colour[..., None] if grey else colour)


def keyed_alpha(colour: np.ndarray, key) -> np.ndarray | None:
    """Alpha of a 16-bit PNG one of whose colours is transparent; None where it names none."""
    if key is None:
        return None
    return np.where((colour == np.asarray(key)).all(axis=2), 0, 65535).astype(np.uint16)


def without_key(image: Image.Image) -> Image.Image:
    image.info.pop("transparency", None)
    return image


def upright(image: Image.Image) -> Image.Image:
    """Decoded and turned as EXIF says."""
    image.load()
    return ImageOps.exif_transpose(image)


def turned(image: np.ndarray, orientation: int) -> np.ndarray:
    """(H, W, ...) stored by EXIF's `orientation` (1 to 8) -> upright, a view."""
    if orientation in TURNED:
        image = image.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return image[:, ::-1] if orientation in (2, 3, 6, 7) else image


def is_grey(image: Image.Image) -> bool:
    # Pillow takes 16-bit grey with alpha for colour
    return (image.mode in GREY_MODES or image.mode.startswith("I")
            or raw_mode(image).startswith("LA"))


def depth_of(image: Image.Image) -> np.dtype:
    """uint8 or uint16, of an image that is not decoded yet."""
    deep = image.mode.startswith("I") or "16" in raw_mode(image)
    return np.dtype(np.uint16 if deep else np.uint8)


def raw_mode(image: Image.Image) -> str:
    """How Pillow will unpack the samples."""
    tile = getattr(image, "tile", None)  # only of files, until they are decoded
    args = tile[0][3] if tile else ""
    return str(args if isinstance(args, str) else args[0] if args else "")


def with_rawmode(tile: tuple, rawmode: str) -> tuple:
    """A Pillow tile (codec, extents, offset, arguments) with another raw mode; arguments are that
    or start with it."""
    arguments = rawmode if isinstance(tile[3], str) else (rawmode, *tile[3][1:])
    # a named tuple in newer versions of Pillow
    return getattr(tile, "_make", tuple)((*tile[:3], arguments))
