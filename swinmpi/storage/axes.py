"""The axes of a stack: found as NXdata axes or dimension scales, and put on the SR grid."""
import posixpath
from dataclasses import dataclass, replace

import h5py
import numpy as np

from swinmpi.storage.address import find_object, open_object, refuse_external_storage
from swinmpi.storage.attributes import text_list


@dataclass(frozen=True)
class Axis:
    """Coordinates along one dimension of a stack."""

    name: str
    values: np.ndarray
    dataset: h5py.Dataset

    def cut(self, items: range, size: int) -> "Axis":
        """The part over `items` of the `size` items along it: one value each, or their edges."""
        are_edges = len(self.values) == size + 1
        return replace(self, values=self.values[items.start:items.stop + are_edges])


def find_axes(file: h5py.File, path: str, allow_external: bool = False) -> tuple[Axis | None, ...]:
    """The one-dimensional axis of each dimension of the stack at `path`, None where it has none.

    Taken from `axes` of the group or the dataset (NXdata, new and old), else from attached HDF5
    dimension scales.
    """
    stack = open_object(file, path, allow_external)
    group = open_object(file, posixpath.dirname(path), allow_external)
    names = axis_names(group) or axis_names(stack)
    found = []
    for dimension, size in enumerate(stack.shape):
        name = names[dimension] if len(names) == stack.ndim else "."
        place = posixpath.join(posixpath.dirname(path), name)
        dataset = None if name == "." else find_object(file, place, allow_external)
        if dataset is None:
            scales = stack.dims[dimension]
            dataset = scales[0] if len(scales) else None
        found.append(checked_axis(name, dataset, size, allow_external))
    return tuple(found)


def sr_coordinates(values: np.ndarray, size: int, scale: int) -> np.ndarray | None:
    """Pixel coordinates of an LR axis on the SR grid.

    (size,) centres or (size + 1,) edges -> (scale * size [+ 1],). Pixel centres align as the images
    do: SR pixel j lies at (j + 0.5) / scale - 0.5 of the LR pixels. Linear between pixels and
    beyond the outer two; floats keep their dtype, integers become float64; None for what is not a
    number.
    """
    if values.dtype.kind not in "iuf":
        return None
    edges = len(values) == size + 1
    at = (np.arange(scale * size + edges) / scale if edges
          else (np.arange(scale * size) + 0.5) / scale - 0.5)
    left = np.clip(np.floor(at).astype(int), 0, max(len(values) - 2, 0))
    right = np.minimum(left + 1, len(values) - 1)
    exact = values.astype(np.float64)
    fine = exact[left] + (at - left) * (exact[right] - exact[left])
    return fine.astype(values.dtype if values.dtype.kind == "f" else np.float64)


def axis_names(item) -> list[str]:
    """The `axes` attribute, one name per dimension; old files write "frame:y:x" or "frame,y,x"."""
    names = text_list(item, "axes")
    return names[0].strip("[]").replace(",", ":").split(":") if len(names) == 1 else names


def checked_axis(name: str, dataset, size: int, allow_external: bool) -> Axis | None:
    """An Axis if the dataset has one value per pixel (or per pixel edge) of its dimension."""
    if not isinstance(dataset, h5py.Dataset) or dataset.shape not in ((size,), (size + 1,)):
        return None
    refuse_external_storage(dataset, allow_external)
    return Axis(posixpath.basename(dataset.name) if name == "." else name, dataset[()], dataset)
