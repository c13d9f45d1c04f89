"""Which files a command means: those that it names, and those in the folders that it names."""
import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import h5py

from swinmpi.errors import OutputError, StackError
from swinmpi.images.contact_sheet import is_sheet
from swinmpi.images.pictures import EXPECTED, SUFFIXES, Page, is_tiff, read_pages
from swinmpi.storage.kinds import what_is
from swinmpi.storage.pictures.journal import NAME

HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf", ".nxs", ".nx", ".he5", ".nc", ".h5ebsd")
TIFF_SUFFIXES = (".tif", ".tiff")
RESULT = re.compile(r"_x\d+(\.shard-\d+-of-\d+)?$")  # what swinmpi-sample adds to a name
MOST_NAMED = 8


@dataclass(frozen=True)
class Found:
    """The files of a command. pictures: (path, its name below the output folder); stacks: (HDF5
    address, the same); others: files in folders that are neither; results: of swinmpi-sample, in
    folders, which are no inputs unless they are named themselves."""

    pictures: tuple[tuple[Path, str], ...]
    stacks: tuple[tuple[str, str], ...]
    others: tuple[str, ...] = ()
    results: tuple[str, ...] = ()


class Below(NamedTuple):
    """POSIX paths below a folder, sorted: of files, and of results of swinmpi-sample."""

    files: list[str]
    results: list[str]


@dataclass(frozen=True)
class Picture:
    """A file that can be read, as far as its headers tell. target: where its SR picture goes, below
    the output folder; stamp: size and date when it was looked at."""

    path: Path
    target: str
    pages: tuple[Page, ...]
    stamp: tuple[int, int]


def find_files(inputs: Sequence[str], skip: Path | None = None) -> Found:
    """What files and folders are named; folders with all below them, hidden files left out, sorted
    by their paths. skip: a folder that is not looked into (the output).

    StackError where there is nothing, or nothing of use.
    """
    pictures, stacks, others, results = [], [], [], []
    for text in inputs:
        path = Path(text)
        if "::" in text:
            stacks.append((text, Path(text.partition("::")[0]).name))
        elif is_folder(text):
            inside, made = files_below(path, skip)
            pictures += [(path / name, name) for name in inside if has_suffix(name, SUFFIXES)]
            stacks += [(str(path / name), name) for name in inside
                       if has_suffix(name, HDF5_SUFFIXES)]
            others += [str(path / name) for name in inside
                       if not has_suffix(name, (*SUFFIXES, *HDF5_SUFFIXES))]
            results += [str(path / name) for name in made]
        elif path.is_file() and has_suffix(path.name, SUFFIXES) and not is_hdf5(path):
            pictures.append((path, path.name))
        elif path.is_file() and (is_hdf5(path) or has_suffix(path.name, HDF5_SUFFIXES)):
            stacks.append((text, path.name))
        else:
            raise StackError(f"{text!r}: expected a folder, {EXPECTED}, or an HDF5 file, "
                             f"got {what_is(path)}")
    if not (pictures or stacks):
        beside = f", only {named(others + results)}" if others + results else ""
        raise StackError(f"{', '.join(inputs)}: expected {EXPECTED} or HDF5 files in the folder, "
                         f"found none{beside}")
    return Found(tuple(pictures), tuple(stacks), tuple(others), tuple(results))


def are_many(inputs: Sequence[str]) -> bool:
    """Whether the output of these inputs is a folder: not for one HDF5 file."""
    if len(inputs) != 1:
        return len(inputs) > 1
    path = Path(inputs[0])
    return path.is_dir() or not ("::" in inputs[0] or is_hdf5(path)
                                 or has_suffix(path.name, HDF5_SUFFIXES))


def is_folder(text: str) -> bool:
    """Whether an input is one. StackError for an empty name, as of an unset variable, which would
    mean the current folder."""
    if not text:
        raise StackError("expected an INPUT, got an empty name; for the current folder say .")
    return Path(text).is_dir()


def look_at(pictures: Sequence[tuple[Path, str]]) -> tuple[list[Picture], dict[str, str]]:
    """(pictures with their pages, why others cannot be read by their names); no pixel is decoded.

    OutputError where two of them would be written to one file.
    """
    sound, broken = [], {}
    for (path, _), target in zip(pictures, targets_of(pictures), strict=True):
        try:
            status = os.stat(path)
            if is_tiff(path) != is_tiff_name(target):
                raise ValueError(f"its name ends with {path.suffix}, but it is {what_is(path)}; "
                                 "rename it")
            pages = tuple(read_pages(path))
            sound.append(Picture(path, target, pages, (status.st_size, status.st_mtime_ns)))
        except Exception as error:  # noqa: BLE001 - decoders raise anything on damaged files
            broken[str(path)] = reason_of(error)
    return sound, broken


def targets_of(pictures: Sequence[tuple[Path, str]]) -> list[str]:
    """Names below the output folder. TIFF and PNG keep theirs; others become NAME.png, or, where
    that is another's, NAME.jpg.png."""
    names = [name for _, name in pictures]
    plain = [png_name(name) for name in names]
    counts = Counter(map(str.lower, plain))
    targets = [short if counts[short.lower()] == 1 or short == name else f"{name}.png"
               for name, short in zip(names, plain, strict=True)]
    taken: dict[str, Path] = {}
    for (path, _), target in zip(pictures, targets, strict=True):
        other = taken.setdefault(target.lower(), path)
        if other is not path:
            raise OutputError(f"{other} and {path} would both be written to {target}; rename one, "
                              "or use two commands with two --output folders")
    return targets


def png_name(name: str) -> str:
    """a.jpg -> a.png; PNG and TIFF keep their names."""
    if has_suffix(name, (".png", *TIFF_SUFFIXES)):
        return name
    return str(PurePosixPath(name).with_suffix(".png"))


def is_tiff_name(name: str) -> bool:
    return has_suffix(name, TIFF_SUFFIXES)


def files_below(folder: Path, skip: Path | None = None) -> Below:
    """All files below `folder`, also by links; hidden ones and `skip` left out."""
    files = sorted(walk(folder, folder, [os.path.realpath(skip)] if skip else []))
    stems = {PurePosixPath(name).with_suffix("") for name in files
             if has_suffix(name, HDF5_SUFFIXES)}
    results = {name for name in files if name.endswith("/") or is_result(name, stems)
               or (name.lower().endswith(".png") and is_sheet(folder / name))}
    return Below([name for name in files if name not in results and Path(name).name != NAME],
                 sorted(results))


def walk(folder: Path, top: Path, skip: Sequence[str]) -> Iterator[str]:
    """Paths of files; of a folder that swinmpi-sample made its own, with / behind it. skip: real
    paths of folders that are not looked into."""
    try:
        names = sorted(entry.name for entry in os.scandir(folder))
    except OSError as error:
        raise StackError(f"{folder}: the folder cannot be read ({error.strerror}); "
                         "change its rights, or name its files one by one") from None
    skip = (*skip, os.path.realpath(folder))  # a link may lead back
    for path in (folder / name for name in names if not name.startswith(".")):
        below = path.relative_to(top).as_posix()
        if path.is_dir():
            if os.path.realpath(path) in skip:
                continue
            if (path / NAME).is_file():
                yield f"{below}/"
            else:
                yield from walk(path, top, skip)
        elif path.is_file() or not path.exists():  # a link that leads nowhere is told of later
            yield below


def is_result(name: str, stems: Collection[PurePosixPath]) -> bool:
    """Whether a file below a folder is named after another HDF5 file there, as results are."""
    stem = PurePosixPath(name).with_suffix("")
    plain = RESULT.sub("", stem.name)
    return has_suffix(name, HDF5_SUFFIXES) and plain not in ("", stem.name) and (
        stem.with_name(plain) in stems)


def has_suffix(name: str, suffixes: Collection[str]) -> bool:
    return PurePosixPath(name).suffix.lower() in suffixes


def is_hdf5(path: Path) -> bool:
    return path.is_file() and bool(h5py.is_hdf5(path))


def named(names: Sequence[str]) -> str:
    """Some names in a line; of many the first."""
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more


def reason_of(error: Exception) -> str:
    """One line of what a decoder says."""
    said = " ".join((getattr(error, "strerror", None) or str(error)).split())
    said = said or type(error).__name__
    return {"UnidentifiedImageError": f"not {EXPECTED}"}.get(type(error).__name__, said)
