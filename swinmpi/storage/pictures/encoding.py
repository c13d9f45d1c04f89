"""A picture file, written whole: its pixels, and what belongs to them besides."""
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np

from swinmpi.images import png
from swinmpi.images.pictures import Pixels
from swinmpi.storage.files import sync_folder
from swinmpi.storage.pictures.listing import Picture, is_tiff_name
from swinmpi.storage.pictures.source import read_picture

Details = TypeVar("Details")


def encode(file: BinaryIO, picture: Picture, pages: Iterator[Pixels], scale: int) -> None:
    """A TIFF for a TIFF, a PNG for everything else, with what belongs to the picture."""
    if is_tiff_name(picture.target):
        from swinmpi.images import tiff
        details = details_or(tiff.TiffDetails(),
                             lambda: tiff.read_details(picture.path).scaled(scale))
        num_bytes = sum(page.height * page.width * 4 * page.dtype.itemsize
                        for page in picture.pages) * scale**2
        tiff.write_tiff(file, pages, num_bytes, details)
        return
    details = details_or(png.PngDetails(), lambda: png.read_details(picture.path, scale))
    for pixels in pages:
        for piece in png.encode_png(pixels, details):
            file.write(piece)


def enlarged(picture: Picture, number: int, colour: np.ndarray) -> Pixels:
    """SR colour (H, W, C) with the alpha of its LR page, enlarged by bicubic interpolation."""
    alpha = read_picture(picture, number).alpha
    if alpha is None:
        return Pixels(colour)
    # torch takes seconds to import; the first error must not wait for it
    from swinmpi.images.imresize import imresize
    return Pixels(colour, imresize(alpha, size=colour.shape[:2]))


def details_or(none: Details, read: Callable[[], Details]) -> Details:
    """What is said besides the pixels; `none` where that is damaged: the picture matters more."""
    try:
        return read()
    except Exception:  # noqa: BLE001 - decoders raise anything on damaged files
        return none


@contextmanager
def written(path: Path, temporary: Path | None = None) -> Iterator[BinaryIO]:
    """A file that appears under its name when it is whole and on the disk."""
    temporary = temporary or path.with_name(f"{path.name}.new")
    with open(temporary, "w+b") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync_folder(path.parent)
