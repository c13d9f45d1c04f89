"""Where swinmpi-prepare's images come from: a folder, a list of files, or an HDF5 stack,
as one sequence of Sources."""
import codecs
import csv
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from swinmpi.errors import StackError
from swinmpi.images.no_data import NoData
from swinmpi.images.photographs import read_photograph
from swinmpi.images.pictures import (
    EXPECTED,
    OTHER_SUFFIXES,
    SUFFIXES,
    is_tiff,
    read_pages,
)
from swinmpi.storage.files import tell
from swinmpi.storage.metadata.frames import AS_STORED, View
from swinmpi.storage.pairs import SPLITS
from swinmpi.storage.pictures.listing import HDF5_SUFFIXES, files_below, has_suffix, named
from swinmpi.storage.probe import inspect_stacks
from swinmpi.storage.stack import Stack
from swinmpi.training.partition import NAMES as PARTITION_NAMES
from swinmpi.training.partition import find_partition, splits_by


@dataclass(frozen=True)
class Source:
    """One image to cut from. `read()` decodes it to (H, W, 1 or 3) as stored; it may raise
    anything. no_data: which of these values are no numbers. words: all images of its stack. lr: its
    LR image, where that is not to be made."""

    name: str
    read: Callable[[], np.ndarray]
    reduce: float = 1.0
    split: int | None = None
    no_data: NoData = NoData()
    words: str | None = None
    lr: "Source | None" = None


@dataclass(frozen=True)
class Reading:
    """How HDF5 stacks among the inputs are read, which stay open in `opened`.

    inspected: they were found to be sound before. view, no_data: see Stack.open.
    """

    opened: ExitStack
    inspected: bool = False
    view: View = AS_STORED
    no_data: tuple[float, ...] = ()

    def stacks(self, addresses: Sequence[str]) -> list[Source]:
        """The images of all."""
        if not self.inspected:
            inspect_stacks(addresses, view=self.view)
        return [source for address in addresses for source in stack_sources(address, self)]


def in_words(sources: Sequence[Source]) -> str:
    """How many there are, of one stack also of what size."""
    words = sources[0].words
    alone = words is not None and words.startswith(f"{len(sources)} ")
    return words if alone else f"{len(sources)} images"


def find_sources(texts: Sequence[str], root: Path | None, reading: Reading) -> list[Source]:
    """The images of folders, pictures, .tsv lists and HDF5 addresses, in an order that depends
    on their names only.

    Nothing is decoded yet. StackError if one of them holds not one image, or frames are asked for
    where there is no stack.
    """
    found = [sources_of(text, root, reading) for text in texts]
    if len(texts) > 1:  # names of two folders may be the same
        found = [[replace(source, name=f"{text.rstrip('/')}/{source.name}") for source in sources]
                 if Path(text).is_dir() else sources
                 for text, sources in zip(texts, found, strict=True)]
    return [source for sources in found for source in sources]


def sources_of(text: str, root: Path | None, reading: Reading) -> list[Source]:
    """Of one input."""
    path = Path(text)
    if "::" in text or path.suffix.lower() in HDF5_SUFFIXES:
        return reading.stacks([text])
    if reading.view.frames is not None:
        raise StackError(f"{text}: expected an HDF5 stack for --frames, got none; leave it out")
    if path.suffix.lower() == ".tsv":
        return list_sources(path, root or path.parent)
    if path.is_dir():
        return folder_sources(path, reading)
    if path.name in PARTITION_NAMES and path.is_file():
        folder = root or path.parent
        pictures = [name for name in files_below(folder) if has_suffix(name, SUFFIXES)]
        return picture_sources(folder, pictures, path, reading)
    if path.suffix.lower() in SUFFIXES and path.is_file():
        return page_sources(path.name, path)
    raise StackError(f"{text}: expected a folder of images, a picture ({EXPECTED}), a list .tsv "
                     "or an HDF5 address file.h5::/path, got "
                     + ("another kind of file" if path.exists() else "nothing there"))


def folder_sources(folder: Path, reading: Reading) -> list[Source]:
    """Every image below `folder`, hidden files left out, sorted by their path; of pictures, or of
    HDF5 files where it holds no picture."""
    names = files_below(folder)
    pictures = [name for name in names if has_suffix(name, SUFFIXES)]
    stacks = [str(folder / name) for name in names if has_suffix(name, HDF5_SUFFIXES)]
    if not (pictures or stacks):
        others = [name for name in names if has_suffix(name, OTHER_SUFFIXES)]
        raise StackError(f"{folder}: expected images ({', '.join(SUFFIXES)}) or HDF5 files, found "
                         + (f"only {named(others)}; convert them" if others else "none"))
    if pictures:
        return picture_sources(folder, pictures, find_partition(folder, names), reading)
    return reading.stacks(stacks)


def picture_sources(folder: Path, pictures: Sequence[str], partition: Path | None,
                    reading: Reading) -> list[Source]:
    """Pictures by their path below `folder`, for what the partition file says, if there is one."""
    splits: Sequence[int | None] = [None] * len(pictures)
    if partition is not None:
        splits = splits_by(partition, pictures)
        if not reading.inspected:
            counts = ", ".join(f"{splits.count(number)} to {name}"
                               for name, number in SPLITS.items())
            tell(f"{partition} says what the {len(pictures)} pictures are for: {counts}")
    return [source for name, split in zip(pictures, splits, strict=True)
            for source in page_sources(name, folder / name, split=split)]


def left_out(texts: Sequence[str]) -> list[str]:
    """Files in the folders among the inputs that people may take for images, and are not read."""
    found = []
    for folder in (Path(text) for text in texts if Path(text).is_dir()):
        names = files_below(folder)
        unread = (*OTHER_SUFFIXES, *HDF5_SUFFIXES)
        if not any(has_suffix(name, SUFFIXES) for name in names):
            unread = OTHER_SUFFIXES
        found += [str(folder / name) for name in names if has_suffix(name, unread)]
    return found


def page_sources(name: str, path: Path, reduce: float = 1.0,
                 split: int | None = None) -> list[Source]:
    """A picture, or every page of a TIFF as `name[page]`; one that is damaged says so when it is
    read."""
    try:
        pages = len(read_pages(path)) if is_tiff(path) else 1
    except Exception:  # noqa: BLE001 - decoders raise anything on damaged files
        pages = 1
    return [Source(name if pages == 1 else f"{name}[{page}]",
                   partial(read_photograph, path, page), reduce, split) for page in range(pages)]


def list_sources(path: Path, root: Path) -> list[Source]:
    """Rows of a tab-separated list with the columns path, reduce (1 when absent) and split;
    more columns may follow."""
    try:
        lines = decoded(path.read_bytes()).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise StackError(f"{path}: cannot read the list: {error}") from None
    numbered = [(number, line) for number, line in enumerate(lines, 1)
                if line.strip() and not line.startswith("#")]
    rows = csv.DictReader((line for _, line in numbered), delimiter="\t", quoting=csv.QUOTE_NONE)
    if "path" not in (rows.fieldnames or ()):
        raise StackError(f"{path}: expected a header line path<TAB>reduce<TAB>split, "
                         f"got {rows.fieldnames}")
    listed = [(row["path"], list_source(row, root, f"{path}:{number}"))
              for (number, _), row in zip(numbered[1:], rows, strict=True)]
    sources = [source for _, found in listed for source in found]
    if not sources:
        raise StackError(f"{path}: expected at least one image below the header line, got none")
    if not any((root / name).is_file() for name, _ in listed):
        raise StackError(f"{path}: none of its {len(listed)} files is in {root}; "
                         "say where they are with --root")
    return sources


def decoded(content: bytes) -> str:
    """Text with or without the byte order mark of some editors; bytes that are not UTF-8 stay what
    they are in names of files."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16")
    return content.decode("utf-8-sig", "surrogateescape")


def list_source(row: dict, root: Path, where: str) -> list[Source]:
    """The pages of one row's picture."""
    try:
        reduce = float(row.get("reduce") or 1)
    except ValueError:
        reduce = 0.0
    if not 1 <= reduce < float("inf"):
        raise StackError(f"{where}: expected a reduce of 1 or more, got {row['reduce']!r}")
    split = (row.get("split") or "").strip()
    if split and split not in SPLITS:
        raise StackError(f"{where}: expected split {', '.join(SPLITS)} or nothing, got {split!r}")
    return page_sources(row["path"], root / row["path"], reduce, SPLITS.get(split))


def stack_sources(address: str, reading: Reading) -> list[Source]:
    """The images of an HDF5 stack."""
    stack = reading.opened.enter_context(
        Stack.open(address, view=reading.view, no_data=reading.no_data))
    name = f"{stack.address.path.name}::{stack.address.dataset}"
    remark = stack.described.remark
    words = f"{stack.words}{f' ({remark})' if remark else ''}"
    return [Source(f"{name}[{stack.stack_index(index)}]", partial(read_stack_image, stack, index),
                   no_data=stack.no_data, words=words)
            for index in range(stack.num_images)]


def read_stack_image(stack: Stack, image_index: int) -> np.ndarray:
    """(H, W, C) in the stack's dtype."""
    raw = stack.read_rows(image_index, range(stack.height))
    return np.moveaxis(raw, 0, -1).astype(stack.dtype.newbyteorder("="))
