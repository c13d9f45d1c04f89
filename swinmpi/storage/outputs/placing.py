"""Where the parts of an image lie in the datasets of an output file, checked before a write."""
from collections.abc import Collection, Mapping

import h5py
import numpy as np

from swinmpi.storage.layout import from_chw

PlacedPixels = tuple[tuple[slice, ...], np.ndarray]  # where in a dataset, and the values there


def checked_part(datasets: Mapping[str, h5py.Dataset], layout: str, image_index: int, top: int,
                 left: int, arrays: Mapping[str, np.ndarray]) -> dict[str, PlacedPixels]:
    """Where arrays (C, h, w) at (top, left) of an image lie in their datasets, and their values.

    The values are views. ValueError when names, shape or dtype would have to be changed.
    """
    if set(arrays) != set(datasets):
        raise ValueError(f"expected arrays {sorted(datasets)}, got {sorted(arrays)}")
    placed = {}
    for name, dataset in datasets.items():
        array = arrays[name]
        place = place_of(array.shape, layout, image_index, top, left) if array.ndim == 3 else ()
        if not (place and fits(array, place, layout, dataset)):
            raise ValueError(
                f"{name}: expected (C, h, w) of {dataset.dtype} inside {layout} {dataset.shape}, "
                f"got {array.shape} of {array.dtype} at row {top}, column {left} of image "
                f"{image_index}")
        placed[name] = place, from_chw(array, layout)[None]
    return placed


def fits(array: np.ndarray, place: tuple[slice, ...], layout: str, dataset: h5py.Dataset) -> bool:
    """Whether `array` has all channels, the dtype of `dataset`, and its place inside of it."""
    channels = dict(zip(layout, dataset.shape, strict=True)).get("C", 1)
    return (len(array) == channels
            and array.dtype.newbyteorder("=") == dataset.dtype.newbyteorder("=")
            and all(0 <= span.start < span.stop <= size
                    for span, size in zip(place, dataset.shape, strict=True)))


def place_of(shape: tuple[int, int, int], layout: str, image_index: int, top: int,
             left: int) -> tuple[slice, ...]:
    """Where pixels (C, h, w) at (top, left) of an image lie in a dataset of that layout.

    shape: of those pixels.
    """
    channels, height, width = shape
    spans = {"N": slice(image_index, image_index + 1), "C": slice(0, channels),
             "H": slice(top, top + height), "W": slice(left, left + width)}
    return tuple(spans[axis] for axis in layout)


def check_figures(figures: Mapping[str, float], names: Collection[str]) -> None:
    """ValueError unless they are among `names`."""
    if not set(figures) <= set(names):
        raise ValueError(f"expected figures among {names}, got {sorted(figures)}")
