"""Where swinmpi-prepare's images come from: a folder, a list of files, or an HDF5 stack,
as one sequence of Sources."""
import codecs
import csv
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from swinmpi.errors import StackError
from swinmpi.images.no_data import NoData
from swinmpi.images.photographs import SUFFIXES, read_photograph
from swinmpi.storage.metadata.frames import AS_STORED, View
from swinmpi.storage.pairs import TRAIN, VALIDATE
from swinmpi.storage.probe import inspect_stacks
from swinmpi.storage.stack import Stack

HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf", ".nxs", ".nx")
SPLITS = {"train": TRAIN, "validate": VALIDATE, "": None}


@dataclass(frozen=True)
class Source:
    """One image to cut from. `read()` decodes it to (H, W, 1 or 3) as stored; it may raise
    anything. no_data: which of these values are no numbers. words: all images of its stack."""

    name: str
    read: Callable[[], np.ndarray]
    reduce: float = 1.0
    split: int | None = None
    no_data: NoData = NoData()
    words: str | None = None


def in_words(sources: Sequence[Source]) -> str:
    """How many there are, of a stack also of what size."""
    return sources[0].words or f"{len(sources)} images"


def find_sources(text: str, root: Path | None, opened: ExitStack, inspected: bool = False,
                 view: View = AS_STORED, no_data: Sequence[float] = ()) -> list[Source]:
    """The images of a folder, a .tsv list or an HDF5 address, in an order that depends
    on their names only.

    Nothing is decoded yet; an HDF5 file stays open in `opened`. inspected: it was found to be sound
    before. view: of an HDF5 stack; no_data: see Stack.open. StackError if there is not one image,
    or frames are asked for where there is no stack.
    """
    path = Path(text)
    if "::" in text or path.suffix.lower() in HDF5_SUFFIXES:
        if not inspected:
            inspect_stacks([text], view=view)
        return stack_sources(text, opened, view, no_data)
    if view.frames is not None:
        raise StackError(f"{text}: expected an HDF5 stack for --frames, got none; leave it out")
    if path.suffix.lower() == ".tsv":
        return list_sources(path, root or path.parent)
    if path.is_dir():
        return folder_sources(path)
    raise StackError(f"{text}: expected a folder of images, a list .tsv "
                     "or an HDF5 address file.h5::/path, got "
                     + ("another kind of file" if path.exists() else "nothing there"))


def folder_sources(folder: Path) -> list[Source]:
    """Every image file below `folder`, hidden ones left out, sorted by their path."""
    inside = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*")
                    if path.suffix.lower() in SUFFIXES and path.is_file())
    names = [name for name in inside if not any(part.startswith(".") for part in name.split("/"))]
    if not names:
        raise StackError(f"{folder}: expected images ({', '.join(SUFFIXES)}), found none")
    return [Source(name, partial(read_photograph, folder / name)) for name in names]


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
    sources = [list_source(row, root, f"{path}:{number}")
               for (number, _), row in zip(numbered[1:], rows, strict=True)]
    if not sources:
        raise StackError(f"{path}: expected at least one image below the header line, got none")
    if not any((root / source.name).is_file() for source in sources):
        raise StackError(f"{path}: none of its {len(sources)} files is in {root}; "
                         "say where they are with --root")
    return sources


def decoded(content: bytes) -> str:
    """Text with or without the byte order mark of some editors; bytes that are not UTF-8 stay what
    they are in names of files."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16")
    return content.decode("utf-8-sig", "surrogateescape")


def list_source(row: dict, root: Path, where: str) -> Source:
    try:
        reduce = float(row.get("reduce") or 1)
    except ValueError:
        reduce = 0.0
    if not 1 <= reduce < float("inf"):
        raise StackError(f"{where}: expected a reduce of 1 or more, got {row['reduce']!r}")
    split = (row.get("split") or "").strip()
    if split not in SPLITS:
        raise StackError(f"{where}: expected split train, validate or nothing, got {split!r}")
    return Source(row["path"], partial(read_photograph, root / row["path"]), reduce, SPLITS[split])


def stack_sources(address: str, opened: ExitStack, view: View = AS_STORED,
                  no_data: Sequence[float] = ()) -> list[Source]:
    """The images of an HDF5 stack."""
    stack = opened.enter_context(Stack.open(address, view=view, no_data=no_data))
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
