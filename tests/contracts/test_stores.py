"""One contract for whatever a run writes finished images to: an HDF5 file, a folder of
pictures, a store in memory."""
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
import pytest
import tifffile

from swinmpi.images.pictures import Pixels, read_page
from swinmpi.images.png import PngDetails, encode_png
from swinmpi.storage.outputs.contents import OutputPlan
from swinmpi.storage.outputs.output import StackOutput
from swinmpi.storage.outputs.store import ImageStore
from swinmpi.storage.pictures.listing import look_at
from swinmpi.storage.pictures.source import PictureSet, PictureStack
from swinmpi.storage.pictures.store import PictureStore
from swinmpi.storage.stack import Stack

NUM_IMAGES, CHANNELS, HEIGHT, WIDTH = 4, 3, 10, 14  # of SR images
SHAPE, DTYPE = (CHANNELS, HEIGHT, WIDTH), np.dtype("uint16")
# (rows, columns) that make an image, in an order that is not that of reading.
PARTS = ((slice(6, 10), slice(0, 14)), (slice(0, 6), slice(9, 14)), (slice(0, 6), slice(0, 9)))
FIGURES = {"lr_psnr": 40.5}


class MemoryStore:
    """The smallest ImageStore: arrays in a dict that outlives it, as a file does."""

    def __init__(self, kept: dict[str, Any], name: str = "sr"):
        self.kept, self.name = kept, name
        kept.setdefault("pixels", np.zeros((NUM_IMAGES, *SHAPE), DTYPE))
        kept.setdefault("done", set())

    def remaining(self) -> list[int]:
        return sorted(set(range(NUM_IMAGES)) - self.kept["done"])

    def write_part(self, image_index: int, top: int, left: int,
                   arrays: Mapping[str, np.ndarray]) -> None:
        if set(arrays) != {self.name}:
            raise ValueError(f"expected {self.name}, got {sorted(arrays)}")
        part = arrays[self.name]
        height, width = part.shape[-2:]
        inside = 0 <= top <= HEIGHT - height and 0 <= left <= WIDTH - width
        if part.ndim != 3 or len(part) != CHANNELS or part.dtype != DTYPE or not inside:
            raise ValueError(f"expected a part of {SHAPE}, got {part.shape} at {top}, {left}")
        self.kept["pixels"][image_index, :, top:top + height, left:left + width] = part

    def complete(self, image_index: int, figures: Mapping[str, float]) -> None:
        self.kept["done"].add(image_index)

    def finish(self, provenance: Mapping[str, Any], failed: Collection[int] = ()) -> Path:
        missing = sorted(set(self.remaining()) - set(failed))
        if missing:
            raise ValueError(f"{len(missing)} images are not done, the first is {missing[0]}")
        self.kept["images"] = {index: self.kept["pixels"][index] for index in self.kept["done"]}
        return Path("memory")

    def close(self) -> None:
        pass


class Place(Protocol):
    """Where the stores of one test write to, and what lies there when one has finished."""

    def open(self) -> ImageStore:
        """A new store, or the one that was begun here."""

    def images(self) -> dict[int, np.ndarray]:
        """The finished images (C, H, W) by index; those left out are missing."""


class MemoryPlace:
    def __init__(self, folder: Path):
        self.kept: dict[str, Any] = {}

    def open(self) -> ImageStore:
        return MemoryStore(self.kept)

    def images(self) -> dict[int, np.ndarray]:
        return self.kept["images"]


@dataclass
class FilePlace:
    folder: Path

    def __post_init__(self):
        with h5py.File(self.folder / "in.h5", "w") as file:
            file["images"] = np.zeros((NUM_IMAGES, HEIGHT // 2, WIDTH // 2, CHANNELS), DTYPE)

    def open(self) -> ImageStore:
        with Stack.open(str(self.folder / "in.h5")) as stack:
            return StackOutput.open(self.folder / "out.h5", stack, OutputPlan(2), {"seed": 0})

    def images(self) -> dict[int, np.ndarray]:
        with h5py.File(self.folder / "out.h5") as file:
            pixels, done = file["entry/data/sr"][:], file["entry/per_image/done"][:]
        assert not pixels[done == 0].any(), "an image that was left out has no pixels"
        return {int(index): np.moveaxis(pixels[index], -1, 0) for index in np.flatnonzero(done)}


@dataclass
class PicturePlace:
    """Four PNGs."""

    folder: Path
    multipage = False

    def __post_init__(self):
        lr = np.arange(np.prod((HEIGHT // 2, WIDTH // 2, CHANNELS))).astype(DTYPE)
        pixels = Pixels(lr.reshape(HEIGHT // 2, WIDTH // 2, CHANNELS))
        names = ["0.png", "1.png", "2.png", "3.png"]
        for name in names:
            (self.folder / name).write_bytes(b"".join(encode_png(pixels, PngDetails())))
        if self.multipage:
            names[1:3] = ["12.tif"]
            tifffile.imwrite(self.folder / "12.tif", np.stack([pixels.colour] * 2),
                             photometric="rgb")
        sound, broken = look_at([(self.folder / name, name) for name in names])
        assert not broken
        [self.group] = PictureSet("pictures", tuple(sound)).groups()

    def open(self) -> ImageStore:
        return PictureStore(self.folder / "out", PictureStack(self.group), 2, {"seed": 0})

    def images(self) -> dict[int, np.ndarray]:
        found = {}
        for index in range(NUM_IMAGES):
            picture, number = PictureStack(self.group).member(index)
            path = self.folder / "out" / picture.target
            if path.exists():
                found[index] = np.moveaxis(read_page(path, number).colour, -1, 0)
        return found


class PagesPlace(PicturePlace):
    """Two of the four in one TIFF."""

    multipage = True


@pytest.fixture(params=[FilePlace, MemoryPlace, PicturePlace, PagesPlace])
def place(request, tmp_path) -> Place:
    return request.param(tmp_path)


@pytest.fixture
def store(place):
    opened = place.open()
    yield opened
    opened.close()


def image_of(index: int) -> np.ndarray:
    """Every value another one in its image."""
    return (np.arange(np.prod(SHAPE)).reshape(SHAPE) + 1000 * index + 1).astype(DTYPE)


def write_whole(store: ImageStore, index: int) -> None:
    store.write_part(index, 0, 0, {"sr": image_of(index)})
    store.complete(index, FIGURES)


def assert_images(place: Place, *indices: int) -> None:
    images = place.images()
    assert sorted(images) == sorted(indices)
    assert all(np.array_equal(images[index], image_of(index)) for index in indices)


def test_parts_in_any_order_make_an_image(place, store):
    for rows, columns in PARTS:
        for index in (2, 0, 3, 1):
            part = image_of(index)[:, rows, columns]
            store.write_part(index, rows.start, columns.start, {"sr": part})
    for index in (3, 1, 0, 2):
        store.complete(index, FIGURES)
    assert isinstance(store.finish({"seed": 0}), Path)
    assert_images(place, 0, 1, 2, 3)


def test_a_part_written_again_replaces_the_first(place, store):
    for index in range(NUM_IMAGES):
        store.write_part(index, 0, 0, {"sr": image_of(9)})
        write_whole(store, index)
    store.finish({})
    assert_images(place, 0, 1, 2, 3)


def test_only_complete_images_are_done(store):
    store.write_part(1, 0, 0, {"sr": image_of(1)})
    assert store.remaining() == [0, 1, 2, 3]
    for index, remaining in ((2, [0, 1, 3]), (0, [1, 3]), (1, [3]), (3, [])):
        write_whole(store, index)
        assert store.remaining() == remaining


def test_what_was_closed_unfinished_goes_on(place):
    begun = place.open()
    for index in (3, 1):
        write_whole(begun, index)
    begun.close()
    resumed = place.open()
    assert resumed.remaining() == [0, 2]
    for index in resumed.remaining():
        write_whole(resumed, index)
    resumed.finish({})
    assert_images(place, 0, 1, 2, 3)


@pytest.mark.parametrize("top, left, arrays", [
    (0, 0, {}),
    (0, 0, {"sr": image_of(0), "other": image_of(0)}),
    (0, 0, {"other": image_of(0)}),
    (0, 0, {"sr": image_of(0)[0]}),
    (0, 0, {"sr": image_of(0)[:1]}),
    (0, 0, {"sr": image_of(0).astype(np.float32)}),
    (1, 0, {"sr": image_of(0)}),
    (0, 1, {"sr": image_of(0)}),
    (-1, 0, {"sr": image_of(0)[:, :4]})])
def test_parts_that_do_not_fit_are_refused_and_nothing_is_stored(place, store, top, left, arrays):
    for index in range(NUM_IMAGES):
        write_whole(store, index)
    with pytest.raises(ValueError, match="expected"):
        store.write_part(0, top, left, {name: array * 0 for name, array in arrays.items()})
    store.finish({})
    assert_images(place, 0, 1, 2, 3)


def test_missing_images_are_an_error(store):
    for index in (0, 2):
        write_whole(store, index)
    with pytest.raises(ValueError, match="2 images are not done, the first is 1"):
        store.finish({})
    with pytest.raises(ValueError, match="1 images are not done, the first is 1"):
        store.finish({}, failed=[3])
    assert store.remaining() == [1, 3]


def test_a_failed_image_is_left_out(place, store):
    store.write_part(3, 0, 0, {"sr": image_of(3)})
    for index in (0, 1, 2):
        write_whole(store, index)
    store.finish({}, failed=[3])
    assert_images(place, 0, 1, 2)
