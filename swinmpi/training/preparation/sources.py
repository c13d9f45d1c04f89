"""Where swinmpi-prepare's images come from: folders, pictures, lists of files, HDF5 stacks, as one
sequence of Sources."""
import csv
import os
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NoReturn

import numpy as np

from swinmpi.config.strict_yaml import decoded
from swinmpi.errors import StackError
from swinmpi.images.no_data import NoData
from swinmpi.images.photographs import read_photograph
from swinmpi.images.pictures import EXPECTED, SUFFIXES, Page, is_tiff, read_pages
from swinmpi.storage.files import tell
from swinmpi.storage.kinds import what_is
from swinmpi.storage.metadata.frames import AS_STORED, View
from swinmpi.storage.pairs import SPLITS
from swinmpi.storage.pictures.listing import (
    HDF5_SUFFIXES,
    files_below,
    has_suffix,
    is_folder,
    is_hdf5,
    named,
    reason_of,
)
from swinmpi.storage.pictures.source import no_data_of
from swinmpi.storage.probe import inspect_stacks
from swinmpi.storage.stack import Stack
from swinmpi.training.preparation.partition import NAMES as PARTITION_NAMES
from swinmpi.training.preparation.partition import find_partition, splits_by

LIST_SUFFIXES = (".tsv", ".txt")


@dataclass(frozen=True)
class Source:
    """One image to cut from. `read()` decodes it to (H, W, 1 or 3) as stored, `page()` tells what
    that will be without; they may raise anything. no_data: which of these values are no numbers.
    words: all images of its stack. lr: its LR image, where that is not to be made. stack: the open
    HDF5 stack that it is of."""

    name: str
    read: Callable[[], np.ndarray]
    page: Callable[[], Page]
    reduce: float = 1.0
    split: int | None = None
    no_data: NoData = NoData()
    words: str | None = None
    lr: "Source | None" = None
    stack: Stack | None = None


@dataclass(frozen=True)
class Reading:
    """How HDF5 stacks among the inputs are read, which stay open in `opened`.

    inspected: they were found to be sound before. view, no_data: see Stack.open. partitioned:
    whether a partition file among pictures says what they are for.
    """

    opened: ExitStack
    inspected: bool = False
    view: View = AS_STORED
    no_data: tuple[float, ...] = ()
    partitioned: bool = True

    def inspect(self, addresses: Sequence[str]) -> None:
        """Have all stacks looked at by one child process."""
        if addresses and not self.inspected:
            inspect_stacks(addresses, view=self.view)

    def check_frames(self, text: str) -> None:
        """StackError where frames are asked for, and `text` is no stack."""
        if self.view.frames is not None:
            raise StackError(f"{text}: expected an HDF5 stack for --frames, got none; leave it out")


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
    places = Counter(str(Path(text).resolve()) for text in texts)
    for place, times in places.items():
        if times > 1:  # else the same image would train and validate
            raise StackError(f"{place}: is named {times} times; name it once")
    reading.inspect([address for text in texts for address in stacks_of(text)])
    found = [sources_of(text, root, reading) for text in texts]
    if len(texts) > 1:  # names of two folders may be the same
        found = [[replace(source, name=f"{text.rstrip('/')}/{source.name}") for source in sources]
                 if Path(text).is_dir() else sources
                 for text, sources in zip(texts, found, strict=True)]
    return [source for sources in found for source in sources]


def stacks_of(text: str) -> list[str]:
    """The HDF5 addresses that one input means: itself, or those in a folder without pictures."""
    if is_stack(text):
        return [text]
    folder = Path(text)
    names = files_below(folder).files if is_folder(text) else []
    if any(has_suffix(name, SUFFIXES) for name in names):
        return []
    return [str(folder / name) for name in names if has_suffix(name, HDF5_SUFFIXES)]


def is_stack(text: str) -> bool:
    path = Path(text)
    return not path.is_dir() and ("::" in text or has_suffix(path.name, HDF5_SUFFIXES)
                                  or is_hdf5(path))


def sources_of(text: str, root: Path | None, reading: Reading) -> list[Source]:
    """Of one input, whose stacks were inspected."""
    path = Path(text)
    if stacks := stacks_of(text):
        return [source for address in stacks for source in stack_sources(address, reading)]
    if path.is_dir():
        reading.check_frames(text)
        return folder_sources(path, reading)
    if path.name in PARTITION_NAMES and path.is_file():
        reading.check_frames(text)
        folder = root or path.parent
        pictures = [name for name in files_below(folder).files if has_suffix(name, SUFFIXES)]
        return picture_sources(folder, pictures, path, reading)
    if has_suffix(path.name, LIST_SUFFIXES):
        return list_sources(path, root or path.parent, reading)
    reading.check_frames(text)
    if has_suffix(path.name, SUFFIXES) and path.is_file():
        return page_sources(path.name, path)
    raise StackError(f"{text}: expected a folder of images, a picture ({EXPECTED}), a list (.tsv, "
                     f".txt) or an HDF5 address file.h5::/path, got {what_is(path)}")


def folder_sources(folder: Path, reading: Reading) -> list[Source]:
    """Every picture below `folder`, hidden files left out, sorted by their path."""
    names, results = files_below(folder)
    pictures = [name for name in names if has_suffix(name, SUFFIXES)]
    if not pictures:
        others = [*names, *results]
        raise StackError(f"{folder}: expected images ({', '.join(SUFFIXES)}) or HDF5 files, found "
                         + (f"only {named(others)}; convert them" if others else "none"))
    partition = find_partition(folder, names) if reading.partitioned else None
    return picture_sources(folder, pictures, partition, reading)


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
    """Files in the folders among the inputs that are not read, results of swinmpi-sample also."""
    found = []
    for folder in (Path(text) for text in texts if Path(text).is_dir()):
        names, results = files_below(folder)
        read = next((kind for kind in (SUFFIXES, HDF5_SUFFIXES)
                     if any(has_suffix(name, kind) for name in names)), ())
        unread = [name for name in names if not has_suffix(name, read)
                  and not (read == SUFFIXES and PurePosixPath(name).name in PARTITION_NAMES)]
        found += [str(folder / name) for name in (*unread, *results)]
    return found


def page_sources(name: str, path: Path, reduce: float = 1.0,
                 split: int | None = None) -> list[Source]:
    """A picture, or every page of a TIFF as `name[page]`; one that is damaged says so when it is
    read."""
    try:
        pages = read_pages(path) if is_tiff(path) else []
    except Exception as error:  # noqa: BLE001 - decoders raise anything on damaged files
        return [Source(name, partial(fail, error), partial(fail, error), reduce, split)]
    if not pages:
        return [Source(name, partial(read_photograph, path), partial(first_page, path), reduce,
                       split)]
    return [Source(name if len(pages) == 1 else f"{name}[{number}]",
                   partial(read_photograph, path, number), partial(page_itself, page), reduce,
                   split, no_data_of(page)) for number, page in enumerate(pages)]


def fail(error: Exception) -> NoReturn:
    raise error


def first_page(path: Path) -> Page:
    return read_pages(path)[0]


def page_itself(page: Page) -> Page:
    return page


def list_sources(path: Path, root: Path, reading: Reading) -> list[Source]:
    """The images of the files in a list, as far as it says with a reduction and split."""
    rows = list_rows(path)
    if not rows:
        raise StackError(f"{path}: expected at least one image below the header line, got none")
    stacks = {row["path"]: str(root / row["path"]) for _, row in rows}
    stacks = {name: text for name, text in stacks.items() if is_stack(text)}
    if not any(os.path.isfile(str(root / row["path"]).split("::")[0]) for _, row in rows):
        raise StackError(f"{path}: none of its {len(rows)} files is in {root}; "
                         "say where they are with --root, if it is a list and not another kind of "
                         "file")
    reading.inspect(list(stacks.values()))
    sources = []
    for number, row in rows:
        reduce, split = list_settings(row, f"{path}:{number}")
        if (name := row["path"]) in stacks:
            sources += [replace(source, reduce=reduce, split=split)
                        for source in stack_sources(stacks[name], reading)]
        else:
            reading.check_frames(name)
            sources += page_sources(name, root / name, reduce, split)
    return sources


def list_rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """(number of its line, its columns) of every row: of a tab-separated list with the columns
    path, reduce (1 when absent) and split, more may follow; or of a .txt with a path in each
    line."""
    try:
        # bytes that are not UTF-8 stay what they are in names of files
        lines = decoded(path.read_bytes(), "surrogateescape").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise StackError(f"{path}: cannot read the list: {reason_of(error)}") from None
    numbered = [(number, line) for number, line in enumerate(lines, 1)
                if line.strip() and not line.startswith("#")]
    names = [name.strip() for name in numbered[0][1].split("\t")] if numbered else []
    if "path" not in names:
        if not has_suffix(path.name, (".txt",)):
            raise StackError(f"{path}: expected a header line path<TAB>reduce<TAB>split, "
                             f"got {names}")
        return [(number, {"path": line.strip()}) for number, line in numbered]
    rows = csv.DictReader((line for _, line in numbered[1:]), names, delimiter="\t",
                          quoting=csv.QUOTE_NONE)
    listed = [(number, row) for (number, _), row in zip(numbered[1:], rows, strict=True)]
    for number, row in listed:
        row["path"] = (row["path"] or "").strip()
        if not row["path"]:
            raise StackError(f"{path}:{number}: expected the path of a file, got none")
    return listed


def list_settings(row: dict, where: str) -> tuple[float, int | None]:
    """Reduction and split of one row."""
    try:
        reduce = float(row.get("reduce") or 1)
    except ValueError:
        reduce = 0.0
    if not 1 <= reduce < float("inf"):
        raise StackError(f"{where}: expected a reduce of 1 or more, got {row['reduce']!r}")
    split = (row.get("split") or "").strip()
    if split and split not in SPLITS:
        raise StackError(f"{where}: expected split {', '.join(SPLITS)} or nothing, got {split!r}")
    return reduce, SPLITS.get(split)


def stack_sources(address: str, reading: Reading) -> list[Source]:
    """The images of an HDF5 stack."""
    stack = reading.opened.enter_context(
        Stack.open(address, view=reading.view, no_data=reading.no_data))
    name = f"{stack.address.path.name}::{stack.address.dataset}"
    remark = stack.described.remark
    words = f"{stack.words}{f' ({remark})' if remark else ''}"
    page = Page(0, stack.height, stack.width, stack.channels, stack.dtype.newbyteorder("="))
    return [Source(f"{name}[{stack.stack_index(index)}]", partial(read_stack_image, stack, index),
                   partial(page_itself, page), no_data=stack.no_data, words=words, stack=stack)
            for index in range(stack.num_images)]


def read_stack_image(stack: Stack, image_index: int) -> np.ndarray:
    """(H, W, C) in the stack's dtype."""
    raw = stack.read_rows(image_index, range(stack.height))
    return np.moveaxis(raw, 0, -1).astype(stack.dtype.newbyteorder("="))
