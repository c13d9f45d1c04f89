"""Which LR image belongs to which HR image, where both are given."""
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from swinmpi.errors import StackError
from swinmpi.storage.pictures.listing import named
from swinmpi.training.preparation.decoding import say
from swinmpi.training.preparation.sources import Reading, Source, find_sources

Key = Callable[[str], str]


def with_own_lr(hr: Sequence[Source], hr_inputs: Sequence[str], lr: str,
                reading: Reading) -> list[Source]:
    """Every HR image with its LR image: of one file each (a stack, a TIFF of pages), or of stacks
    in a folder and one stack, by their order; else by name, of HDF5 files and TIFF pages by the
    name of the file and the place in it.

    StackError where one has none, or it cannot be told which.
    """
    if any(source.reduce != 1 for source in hr):
        raise StackError("--lr: expected HR images that are not shrunk (reduce of 1), as their LR "
                         "images are given")
    found = find_sources([lr], None, replace(reading, partitioned=False))
    in_order = is_one_file(hr_inputs[0]) or all("::" in source.name for source in hr)
    if len(hr_inputs) == 1 and in_order and is_one_file(lr):
        if len(found) != len(hr):
            raise StackError(f"{lr}: expected {len(hr)} images as in {hr_inputs[0]}, "
                             f"got {len(found)}")
        chosen = found
    else:
        chosen = by_name(hr, found)
        names = {own.name for own in chosen}
        if not reading.inspected and (unused := [own.name for own in found
                                                 if own.name not in names]):
            say(f"left out, as they have no HR image: {named(unused)}")
    return [replace(source, lr=own) for source, own in zip(hr, chosen, strict=True)]


def is_one_file(text: str) -> bool:
    """Not a folder or a list of files."""
    return not Path(text).is_dir() and Path(text).suffix.lower() not in (".tsv", ".txt")


def by_name(hr: Sequence[Source], lr: Sequence[Source]) -> list[Source]:
    """The LR image of each HR image: with the very name, or without its ending (a.tif, a.png), or
    where one has the scale at its end (a_x2.png, ax2.png)."""
    tables = [(of_hr, grouped(lr, of_lr)) for of_hr, of_lr in COMPARISONS]
    chosen = [find_partner(source.name, tables) for source in hr]
    missing = [source.name for source, own in zip(hr, chosen, strict=True) if own is None]
    if missing:
        more = f" and {len(missing) - 1} others" if len(missing) > 1 else ""
        raise StackError(f"--lr: expected an LR image for every HR image, found none for "
                         f"{missing[0]}{more}, only {named([own.name for own in lr])}; name both "
                         "alike")
    users = defaultdict(list)
    for source, own in zip(hr, chosen, strict=True):
        users[own.name].append(source.name)
    for name, several in users.items():
        if len(several) > 1:
            raise StackError(f"--lr: {name} would be the LR image of {named(several)}; name each "
                             "LR image as its HR image")
    return chosen


def grouped(lr: Sequence[Source], key: Key) -> dict[str, list[Source]]:
    groups = defaultdict(list)
    for own in lr:
        groups[key(own.name)].append(own)
    return groups


def find_partner(name: str,
                 tables: Sequence[tuple[Key, dict[str, list[Source]]]]) -> Source | None:
    """By the first way of comparing names that finds one; StackError where it finds several."""
    for key, groups in tables:
        found = groups.get(key(name), [])
        if len(found) > 1:
            raise StackError(f"--lr: {named([own.name for own in found])} could each be the LR "
                             f"image of {name}; name the right one exactly as it, or take the "
                             "others away")
        if found:
            return found[0]
    return None


def stem(name: str) -> str:
    """deep/a.tif[3], deep/a.h5::/x[3] -> deep/a[3]: without the file's ending and what is in it."""
    path, bracket, place = name.partition("[")
    return str(PurePosixPath(path.partition("::")[0]).with_suffix("")) + bracket + place


def bare(name: str) -> str:
    """The same without the scale at the end of the file's name: a_x2.png -> a."""
    path, bracket, place = stem(name).partition("[")
    return re.sub(r"[_-]?x\d$", "", path, flags=re.IGNORECASE) + bracket + place


COMPARISONS: tuple[tuple[Key, Key], ...] = ((str, str), (stem, stem), (stem, bare), (bare, bare))
"""What of an HR image's name is compared with what of an LR image's, the surest first."""
