"""Pictures out: a folder that grows picture by picture, each complete or not there.

A kill at any moment leaves whole pictures, and a journal by which the same command goes on:
 - a picture is written into OUT/.partial, and renamed when it is on the disk;
 - pages of a TIFF wait in OUT/.partial until the last one is done.
"""
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from swinmpi.errors import OutputError
from swinmpi.images.likeness.usual import SCORES
from swinmpi.images.pictures import Pixels
from swinmpi.storage.files import (
    as_output_error,
    check_by_trying,
    is_too_long,
    is_writable,
    system_reason,
    tell,
)
from swinmpi.storage.pictures.done import (
    PARTIAL,
    figures_of,
    has_page,
    is_done,
    is_published,
    kept_range,
    spool,
)
from swinmpi.storage.pictures.encoding import encode, enlarged, written
from swinmpi.storage.pictures.journal import (
    ADVICE,
    NAME,
    Journal,
    Memory,
    differing,
    read_memory,
)
from swinmpi.storage.pictures.listing import Picture
from swinmpi.storage.pictures.source import PictureSet, PictureStack
from swinmpi.storage.values import ValueRange


class PictureStore:
    """The pictures of one group, an `ImageStore` for one process (rank 0); a context manager.

    An image is a page: index as in the group's `PictureStack`. Its pixels wait in memory until it
    is complete.
    """

    def __init__(self, folder: Path, stack: PictureStack, scale: int,
                 settings: Mapping[str, Any], overwrite: bool = False):
        """Opens the folder, or goes on with it. settings: JSON values that decide the pixels.

        OutputError as of `check_folder`, and when another run writes there.
        """
        self.folder, self.stack, self.scale = folder, stack, scale
        self._growing: dict[int, np.ndarray] = {}
        make_folder(folder)
        self.journal = Journal(folder)
        try:
            # Only under the journal's lock: another run that ends removes what it left there.
            make_folder(folder / PARTIAL)
            memory = self.journal.memory
            if memory.settings is None or differing(memory.settings, settings):
                if memory.settings is not None and not overwrite:
                    raise_other_settings(folder, memory, settings)
                self.journal.add(format=1, settings=dict(settings))
            self._publish_waiting()
        except BaseException:
            self.close()
            raise

    @property
    def memory(self) -> Memory:
        return self.journal.memory

    def range_before(self) -> ValueRange | None:
        """Of pictures of this depth, what the folder was begun with."""
        return kept_range(self.memory, self.stack)

    def keep_range(self, values: ValueRange) -> None:
        """For those who go on with the folder."""
        key = self.stack.dtype.str
        if key not in self.memory.ranges:
            self.journal.add(range={key: [values.low, values.high]})

    def remaining(self) -> list[int]:
        """Image indices that are not done, ascending."""
        return [index for index in range(self.stack.num_images)
                if not is_done(self.folder, self.memory, self.stack, index)]

    def scores_before(self) -> dict[int, dict[str, float]]:
        """See `StackOutput`."""
        kept = {index: figures_of(self.memory, self.stack, index)
                for index in set(range(self.stack.num_images)) - set(self.remaining())}
        return {index: {name: figures[name] for name in SCORES if name in figures}
                for index, figures in sorted(kept.items())}

    def write_part(self, image_index: int, top: int, left: int,
                   arrays: Mapping[str, np.ndarray]) -> None:
        """See `ImageStore`."""
        shape = (self.stack.height * self.scale, self.stack.width * self.scale,
                 self.stack.channels)
        part = arrays.get("sr")
        if set(arrays) != {"sr"} or not fits(part, top, left, shape, self.stack.dtype):
            came = {name: (array.shape, array.dtype) for name, array in arrays.items()}
            raise ValueError(f"expected sr of {self.stack.dtype} inside (H, W, C) of {shape}, got "
                             f"{came} at row {top}, column {left} of image {image_index}")
        if image_index not in self._growing:
            self._growing[image_index] = np.zeros(shape, self.stack.dtype)
        rows, columns = part.shape[1:]
        place = self._growing[image_index][top:top + rows, left:left + columns]
        place[:] = np.moveaxis(part, 0, -1)

    def complete(self, image_index: int, figures: Mapping[str, float]) -> None:
        """See `ImageStore`; a picture appears with the last of its pages."""
        picture, number = self.stack.member(image_index)
        content = self.stack.content_of(image_index)
        colour = self._growing.pop(image_index)
        noted = {name: float(value) for name, value in figures.items()}
        with as_output_error(self.folder / picture.target, "cannot be written ({reason})", ADVICE,
                             reason=system_reason):
            if len(picture.pages) == 1:
                self._publish(picture, content, iter([enlarged(picture, number, colour)]),
                              [noted])
                return
            with written(self._spool(picture, number)) as file:
                np.save(file, colour)
            self.journal.add(page=[picture.target, number], input=content, figures=noted)
            self._publish_pages(picture, content)

    def finish(self, provenance: Mapping[str, Any], failed: Collection[int] = ()) -> Path:
        """See `ImageStore`; returns the folder. A file with failed pages is left out."""
        missing = sorted(set(self.remaining()) - set(failed))
        if missing:
            raise ValueError(f"{self.folder}: {len(missing)} images are not done, the first is "
                             f"{missing[0]}")
        with as_output_error(self.folder, "cannot be written ({reason})", ADVICE,
                             reason=system_reason):
            self.journal.add(made={name: value for name, value in provenance.items()
                                   if value is not None})
        self.close()
        return self.folder

    def close(self) -> None:
        """Let go of the folder; it can be gone on with."""
        self._growing = {}
        self.journal.close()

    def _is_published(self, picture: Picture, content: str) -> bool:
        return is_published(self.folder, self.memory, picture, content)

    def _has_page(self, picture: Picture, number: int, content: str) -> bool:
        return has_page(self.folder, self.memory, picture, number, content)

    def _spool(self, picture: Picture, number: int) -> Path:
        return spool(self.folder, picture, number)

    def _spooled(self, picture: Picture) -> Iterator[Pixels]:
        for page in picture.pages:
            colour = np.load(self._spool(picture, page.number))
            yield enlarged(picture, page.number, colour)

    def _publish_waiting(self) -> None:
        """Files all of whose pages are done: a kill came before they could appear."""
        for image_index in range(self.stack.num_images):
            picture, _ = self.stack.member(image_index)
            content = self.stack.content_of(image_index)
            if len(picture.pages) > 1 and not self._is_published(picture, content):
                with as_output_error(self.folder / picture.target, "cannot be written ({reason})",
                                     ADVICE, reason=system_reason):
                    self._publish_pages(picture, content)

    def _publish_pages(self, picture: Picture, content: str) -> None:
        """The file appears if none of its pages is missing."""
        if not all(self._has_page(picture, page.number, content) for page in picture.pages):
            return
        self._publish(picture, content, self._spooled(picture),
                      [self.memory.pages[picture.target, page.number]["figures"]
                       for page in picture.pages])
        for page in picture.pages:
            with suppress(OSError):  # it goes with the folder, at the end
                self._spool(picture, page.number).unlink(missing_ok=True)

    def _publish(self, picture: Picture, content: str, pages: Iterator[Pixels],
                 figures: list[dict[str, float]]) -> None:
        """The picture appears under its name, whole."""
        final = self.folder / picture.target
        self.journal.add(writing=picture.target, input=content)
        final.parent.mkdir(parents=True, exist_ok=True)
        with written(final, self.folder / PARTIAL / "writing") as file:
            encode(file, picture, pages, self.scale)
        self.journal.add(picture=picture.target, input=content, bytes=final.stat().st_size,
                         figures=figures)

    def __enter__(self) -> "PictureStore":
        return self

    def __exit__(self, *_) -> None:
        self.close()


def check_folder(folder: Path, pictures: PictureSet, settings: Mapping[str, Any],
                 overwrite: bool) -> None:
    """OutputError unless pictures may be written into `folder`. Leaves nothing behind.

    Not over the inputs; over other files and pictures made with other settings with `overwrite`.
    """
    if is_too_long(folder.absolute() / NAME):
        raise OutputError(f"{folder}: cannot write here (its name, or that of a folder on the way, "
                          "is too long); choose a shorter --output")
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder}: expected a folder for the pictures, got a file; "
                          "use --output FOLDER")
    above = folder.absolute()
    while not above.exists():
        above = above.parent
    if not above.is_dir() or not is_writable(above):
        raise OutputError(f"{folder}: the folder {above} is not writable; choose another --output")
    check_by_trying(folder.absolute() / NAME)
    memory = read_memory(folder)
    if not overwrite and memory.settings is not None and differing(memory.settings, settings):
        raise_other_settings(folder, memory, settings)
    for picture in pictures.pictures:
        final = folder / picture.target
        if final.exists() and os.path.samefile(final, picture.path):
            raise OutputError(f"{final}: would overwrite the input; choose another --output")
        if os.path.lexists(final) and not (overwrite or memory.owns(picture.target)):
            raise OutputError(f"{final}: exists already; choose another --output, or replace it "
                              "with --overwrite")
        if final.is_dir():
            raise OutputError(f"{final}: is a folder; choose another --output")
        for above in final.relative_to(folder).parents[:-1]:
            if os.path.lexists(folder / above) and not (folder / above).is_dir():
                raise OutputError(f"{folder / above}: is no folder, where {final} should go; "
                                  "choose another --output")


def begin_afresh(folder: Path) -> None:
    """Forget a finished run, for `--overwrite`; one that was interrupted is gone on with."""
    if read_memory(folder).is_over:
        with Journal(folder) as journal:
            journal.add(format=1, settings=journal.memory.settings)


def end_run(folder: Path) -> None:
    """All that could be made is there: remove what only an unfinished run needs. What cannot be
    done is told, the pictures are complete."""
    left: list[str] = []
    try:
        with Journal(folder) as journal:
            shutil.rmtree(folder / PARTIAL, onerror=lambda _, path, error: left.append(
                f"{path} is left behind ({system_reason(error[1])}), delete it"))
            journal.add(over=True)
    except OutputError as error:
        left.append(str(error))
    if left:
        tell(f"{folder}: is complete, but {left[0]}")


def make_folder(folder: Path) -> None:
    """With those above it, where it is missing. OutputError where that fails."""
    with as_output_error(folder, "cannot write here ({reason})", "choose another --output",
                         reason=system_reason):
        folder.mkdir(parents=True, exist_ok=True)


def raise_other_settings(folder: Path, memory: Memory, settings: Mapping[str, Any]) -> None:
    raise OutputError(f"{folder}: its pictures were made with other settings "
                      f"({differing(memory.settings, settings)} differ, see {NAME}); choose "
                      "another --output, or replace them with --overwrite")


def fits(part: np.ndarray | None, top: int, left: int, shape: tuple[int, int, int],
         dtype: np.dtype) -> bool:
    """Whether `part` (C, h, w) at (top, left) lies inside (H, W, C) of that dtype."""
    if part is None or part.ndim != 3 or len(part) != shape[2] or part.dtype != dtype:
        return False
    return all(0 <= start < start + size <= end for start, size, end
               in zip((top, left), part.shape[1:], shape[:2], strict=True))
