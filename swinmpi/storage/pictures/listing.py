"""Which files a command means: those that it names, and those in the folders that it names."""
import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import h5py

from swinmpi.errors import OutputError, StackError
from swinmpi.images.pictures import EXPECTED, OTHER_SUFFIXES, SUFFIXES, Page, is_tiff, read_pages

HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf", ".nxs", ".nx", ".he5", ".nc", ".h5ebsd")
TIFF_SUFFIXES = (".tif", ".tiff")
MOST_NAMED = 8


@dataclass(frozen=True)
class Found:
    """The files of a command. pictures: (path, its name below the output folder); stacks: HDF5
    addresses; others: names of files that look like pictures, but are of another kind."""

    pictures: tuple[tuple[Path, str], ...]
    stacks: tuple[str, ...]
    others: tuple[str, ...] = ()


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
    pictures, stacks, others = [], [], []
    for text in inputs:
        path = Path(text)
        if "::" in text:
            stacks.append(text)
        elif path.is_dir():
            inside = files_below(path, skip)
            pictures += [(path / name, name) for name in inside if has_suffix(name, SUFFIXES)]
            stacks += [str(path / name) for name in inside if has_suffix(name, HDF5_SUFFIXES)]
            others += [str(path / name) for name in inside if has_suffix(name, OTHER_SUFFIXES)]
        elif is_hdf5(path) or has_suffix(path.name, HDF5_SUFFIXES):
            stacks.append(text)
        elif has_suffix(path.name, SUFFIXES) and path.is_file():
            pictures.append((path, path.name))
        else:
            raise StackError(f"{text}: expected a folder, {EXPECTED}, or an HDF5 file, got "
                             + (f"{path.suffix or 'another kind of file'}; convert it"
                                if path.exists() else "nothing there"))
    if not (pictures or stacks):
        beside = f", only {named(others)}" if others else ""
        raise StackError(f"{', '.join(inputs)}: expected {EXPECTED} or HDF5 files in the folder, "
                         f"found none{beside}")
    return Found(tuple(pictures), tuple(stacks), tuple(others))


def are_many(inputs: Sequence[str]) -> bool:
    """Whether the output of these inputs is a folder: not for one HDF5 file."""
    if len(inputs) != 1:
        return len(inputs) > 1
    path = Path(inputs[0])
    return path.is_dir() or ("::" not in inputs[0] and not is_hdf5(path)
                             and has_suffix(path.name, (*SUFFIXES, *OTHER_SUFFIXES)))


def look_at(pictures: Sequence[tuple[Path, str]]) -> tuple[list[Picture], dict[str, str]]:
    """(pictures with their pages, why others cannot be read by their names); no pixel is decoded.

    OutputError where two of them would be written to one file.
    """
    sound, broken = [], {}
    for (path, _), target in zip(pictures, targets_of(pictures), strict=True):
        try:
            status = os.stat(path)
            if is_tiff(path) != is_tiff_name(target):
                raise ValueError("its name says what it is not, or it is no picture; rename it")
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


def files_below(folder: Path, skip: Path | None = None) -> list[str]:
    """POSIX paths below `folder` of all files, hidden ones and `skip` left out, sorted."""
    return sorted(walk(folder, folder, os.path.realpath(skip) if skip else None))


def walk(folder: Path, top: Path, skip: str | None) -> Iterator[str]:
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        raise StackError(f"{folder}: the folder cannot be read ({error.strerror}); "
                         "change its rights, or name its files one by one") from None
    for entry in entries:
        if entry.name.startswith("."):
            continue
        path = Path(entry.path)
        if entry.is_dir(follow_symlinks=False):
            if os.path.realpath(path) != skip:
                yield from walk(path, top, skip)
        elif entry.is_file() or entry.is_symlink():  # also one that leads nowhere: it is told
            yield path.relative_to(top).as_posix()


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
    said = " ".join(str(error).split()) or type(error).__name__
    return {"UnidentifiedImageError": f"not {EXPECTED}"}.get(type(error).__name__, said)
