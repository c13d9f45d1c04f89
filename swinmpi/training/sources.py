"""Where swinmpi-prepare's images come from: a folder, a list of files, or an HDF5 stack,
as one sequence of Sources."""
import csv
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np

from swinmpi.errors import StackError
from swinmpi.images.photographs import read_photograph
from swinmpi.images.pictures import SUFFIXES
from swinmpi.storage.pairs import TRAIN, VALIDATE
from swinmpi.storage.probe import inspect_stacks
from swinmpi.storage.stack import Stack
from swinmpi.storage.values import ValueRange, mask_invalid, measure_range

HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf", ".nxs", ".nx")
SPLITS = {"train": TRAIN, "validate": VALIDATE, "": None}


@dataclass(frozen=True)
class Source:
    """One image to cut from. `read()` decodes it to (H, W, 1 or 3), uint8 or uint16;
    it may raise anything."""

    name: str
    read: Callable[[], np.ndarray]
    reduce: float = 1.0
    split: int | None = None


def find_sources(text: str, root: Path | None, opened: ExitStack,
                 inspected: bool = False) -> list[Source]:
    """The images of a folder, a .tsv list or an HDF5 address, in an order that depends
    on their names only.

    Nothing is decoded yet; an HDF5 file stays open in `opened`. inspected: it was found to be sound
    before. StackError if there is not one image.
    """
    path = Path(text)
    if "::" in text or path.suffix.lower() in HDF5_SUFFIXES:
        if not inspected:
            inspect_stacks([text])
        return stack_sources(text, opened)
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
        lines = path.read_text(encoding="utf-8").splitlines()
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


def stack_sources(address: str, opened: ExitStack) -> list[Source]:
    """The images of an HDF5 stack. 8 bit as it is; other types: the range that sampling maps
    to -1..1 becomes 0..65535, and values beyond it are clipped."""
    stack = opened.enter_context(Stack.open(address))
    # reads the whole stack, so not before the first image is wanted
    measured = cache(partial(measure_range, stack))
    name = f"{stack.address.path.name}::{stack.address.dataset}"
    return [Source(f"{name}[{index}]", partial(read_stack_image, stack, measured, index))
            for index in range(stack.num_images)]


def read_stack_image(stack: Stack, measured: Callable[[], ValueRange],
                     image_index: int) -> np.ndarray:
    """(H, W, C), uint8 or uint16; pixels that hold no number take their neighbour's value."""
    raw = stack.read(image_index)
    if not np.isfinite(raw).any():
        raise ValueError("holds not one finite number")
    if stack.dtype == np.uint8:
        return np.moveaxis(raw, 0, -1).astype(np.uint8)
    filled, _ = mask_invalid(raw, measured().low)
    unit = measured().to_unit(np.moveaxis(filled, 0, -1)).clip(-1, 1)
    return np.rint((unit + 1) * 32767.5).astype(np.uint16)
