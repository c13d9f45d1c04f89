"""Pictures of one size and kind, read as if they were a stack."""
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

import numpy as np

from swinmpi.errors import StackError, SwinmpiError
from swinmpi.images.no_data import NoData, as_stored
from swinmpi.images.pictures import Page, Pixels, read_page
from swinmpi.storage.layout import in_words
from swinmpi.storage.pictures.listing import Picture, reason_of
from swinmpi.storage.values import ValueRange, exact_float, measure_range

PIECE_BYTES = 1 << 20
Kind = tuple[int, int, int, str, tuple[str, ...]]  # height, width, channels, dtype, no data


@dataclass(frozen=True)
class PictureSet:
    """All pictures of a command. name: what the user called them."""

    name: str
    pictures: tuple[Picture, ...]

    def groups(self) -> list["PictureGroup"]:
        """Pages that are alike, in the order of the first of each; TIFF pages of one file may
        differ."""
        members: dict[Kind, list[tuple[int, int]]] = {}
        for at, picture in enumerate(self.pictures):
            for page in picture.pages:
                kind = page.height, page.width, page.channels, page.dtype.str, page.no_data
                members.setdefault(kind, []).append((at, page.number))
        return [PictureGroup(self, tuple(pages)) for pages in members.values()]


@dataclass(frozen=True)
class PictureGroup:
    """Pages of one height, width, number of channels, dtype and value for no data: (index of the
    picture in the set, number of its page) of each."""

    whole: PictureSet
    members: tuple[tuple[int, int], ...]


class PictureStack:
    """A group of pictures seen as a `Stack`; not collective, any rank may have its own.

    An image index counts the group's pages. What is drawn for a page depends on its number in its
    file alone, as for an HDF5 file with its pages: a picture does not depend on its neighbours.
    """

    first_image = 0

    def __init__(self, group: PictureGroup, told_no_data: Sequence[float] = ()):
        """told_no_data: stored values that mean no data, where the depth has them."""
        self.group = group
        picture, number = self.member(0)
        page = picture.pages[number]
        self.height, self.width, self.channels = page.height, page.width, page.channels
        self.dtype, self.address = page.dtype, group.whole.name
        self.told_no_data = told_no_data
        self.no_data = no_data_of(page, told_no_data)
        self.layout = "NHW" if self.channels == 1 else "NHWC"

    @property
    def num_images(self) -> int:
        return len(self.group.members)

    @property
    def shape(self) -> tuple[int, ...]:
        """As an HDF5 stack of them would have."""
        shape = self.num_images, self.height, self.width
        return shape if self.channels == 1 else (*shape, self.channels)

    @property
    def words(self) -> str:
        """2 colour images of 48 x 60 px."""
        return in_words(self.num_images, self.channels, self.height, self.width)

    @property
    def whole(self) -> "SameDepth":
        """All pictures of this dtype in the command, as far as a range is measured of them."""
        return SameDepth(self.group.whole, self.dtype, self.told_no_data)

    def member(self, image_index: int) -> tuple[Picture, int]:
        """(its picture, the number of the page)."""
        at, number = self.group.members[image_index]
        return self.group.whole.pictures[at], number

    def stack_index(self, image_index: int) -> int:
        """The page's number in its file, which keys its noise."""
        return self.member(image_index)[1]

    def name_of(self, image_index: int) -> str:
        """For people."""
        return page_name(*self.member(image_index))

    short_name_of = name_of

    def read(self, image_index: int) -> np.ndarray:
        """One image as (C, H, W), float32 or, where that cannot hold the dtype, float64.

        Raw values, NaN where they mean no data; StackError where it is damaged.
        """
        return self.no_data.hide(self.read_rows(image_index, range(self.height)))

    def read_rows(self, image_index: int, rows: range) -> np.ndarray:
        """Some rows that follow each other, as `read` but for no data: that is as stored."""
        picture, number = self.member(image_index)
        colour = read_picture(picture, number).colour
        if colour.shape != (self.height, self.width, self.channels) or colour.dtype != self.dtype:
            raise StackError(f"{picture.path}: its header tells of another picture than it holds; "
                             "write it again")
        return np.ascontiguousarray(np.moveaxis(colour[rows.start:rows.stop], -1, 0),
                                    dtype=exact_float(self.dtype))

    def range(self) -> ValueRange:
        """Of all pictures of this dtype in the command, which are read unless they are uint8."""
        return measure_range(self.whole)

    def identity(self) -> str:
        """Not of the files, which are told apart one by one; see `content_of`."""
        return "pictures"

    def content_of(self, image_index: int) -> str:
        """SHA-256 of its file."""
        picture = self.member(image_index)[0]
        try:
            return sha256_of(picture.path, picture.stamp)
        except OSError:
            return "unreadable"

    def close(self) -> None:
        """Nothing is held open."""

    def __enter__(self) -> "PictureStack":
        return self

    def __exit__(self, *_) -> None:
        self.close()


class SameDepth:
    """All pages of one dtype, for `survey`."""

    def __init__(self, pictures: PictureSet, dtype: np.dtype, told_no_data: Sequence[float]):
        self.dtype, self.told_no_data = dtype, told_no_data
        self.pages = [(picture, page) for picture in pictures.pictures
                      for page in picture.pages if page.dtype == dtype]

    @property
    def num_images(self) -> int:
        return len(self.pages)

    def name_of(self, image_index: int) -> str:
        """For people."""
        picture, page = self.pages[image_index]
        return page_name(picture, page.number)

    def read(self, image_index: int) -> np.ndarray:
        """(C, H, W) floats, NaN where they mean no data."""
        picture, page = self.pages[image_index]
        colour = np.moveaxis(read_picture(picture, page.number).colour, -1, 0)
        return no_data_of(page, self.told_no_data).hide(colour.astype(exact_float(self.dtype)))


def page_name(picture: Picture, number: int) -> str:
    return f"{picture.path}[{number}]" if len(picture.pages) > 1 else str(picture.path)


def no_data_of(page: Page, told: Sequence[float] = ()) -> NoData:
    """Which stored values of a page mean no data, by its file's word and the user's."""
    return NoData(tuple(sorted({one for value in (*told, *page.no_data)
                                for one in as_stored(value, page.dtype)})))


def read_picture(picture: Picture, number: int) -> Pixels:
    """Decode a page. StackError where it is damaged, SwinmpiError where its file was changed since
    it was listed."""
    status = None
    try:
        pixels = read_page(picture.path, number)
        status = os.stat(picture.path)
    except Exception as error:  # noqa: BLE001 - decoders raise anything on damaged files
        page = f", page {number}" if len(picture.pages) > 1 else ""
        raise StackError(f"{picture.path}{page}: cannot be read ({reason_of(error)})") from None
    if (status.st_size, status.st_mtime_ns) != picture.stamp:
        raise SwinmpiError(f"{picture.path}: the file was changed while it was being read; "
                           "start again, finished pictures are kept")
    return pixels


@lru_cache(maxsize=1 << 16)
def sha256_of(path: Path, stamp: tuple[int, int]) -> str:
    """stamp: of the file when it was listed; with another one it is another file."""
    digest = sha256()
    with open(path, "rb") as file:
        while piece := file.read(PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()
