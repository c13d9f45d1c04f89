"""What of a folder of pictures is done, by its journal and the files that are there."""
import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from swinmpi.storage.pictures.journal import Memory, differing, is_there, read_memory
from swinmpi.storage.pictures.listing import Picture
from swinmpi.storage.pictures.source import PictureStack
from swinmpi.storage.values import ValueRange

PARTIAL = ".partial"


def count_done(folder: Path, stack: PictureStack, settings: Mapping[str, Any],
               overwrite: bool) -> int:
    """How many images of a stack a run into `folder` would find done."""
    memory = read_memory(folder)
    afresh = memory.settings is None or differing(memory.settings, settings)
    if afresh or overwrite and memory.is_over:
        return 0
    return sum(is_done(folder, memory, stack, index) for index in range(stack.num_images))


def is_done(folder: Path, memory: Memory, stack: PictureStack, image_index: int) -> bool:
    """Whether the page is there, in its picture or waiting for it."""
    picture, number = stack.member(image_index)
    content = stack.content_of(image_index)
    return (is_published(folder, memory, picture, content)
            or has_page(folder, memory, picture, number, content))


def is_published(folder: Path, memory: Memory, picture: Picture, content: str) -> bool:
    told = memory.pictures.get(picture.target)
    return told is not None and told["input"] == content and is_there(folder, told)


def has_page(folder: Path, memory: Memory, picture: Picture, number: int, content: str) -> bool:
    told = memory.pages.get((picture.target, number))
    return (told is not None and told["input"] == content
            and spool(folder, picture, number).exists())


def figures_of(memory: Memory, stack: PictureStack, image_index: int) -> Mapping[str, float]:
    """Of a page that is done, in its picture or waiting for it."""
    picture, number = stack.member(image_index)
    told = memory.pages.get((picture.target, number))
    if told is None:
        of_pages = memory.pictures[picture.target]["figures"]
        place = [page.number for page in picture.pages].index(number)
        figures = of_pages[place] if isinstance(of_pages, list) and place < len(of_pages) else {}
    else:
        figures = told["figures"]
    if not isinstance(figures, Mapping):
        return {}
    return {name: value for name, value in figures.items() if isinstance(value, float | int)}


def spool(folder: Path, picture: Picture, number: int) -> Path:
    name = sha256(os.fsencode(picture.target)).hexdigest()[:16]
    return folder / PARTIAL / f"{name}-{number}.npy"


def range_before(folder: Path, stack: PictureStack) -> ValueRange | None:
    """What a folder, if it is there, was begun with for pictures of this depth."""
    return kept_range(read_memory(folder), stack)


def kept_range(memory: Memory, stack: PictureStack) -> ValueRange | None:
    kept = memory.ranges.get(stack.dtype.str)
    return None if kept is None else ValueRange(*kept)
