"""The axes of a stack: found as NXdata axes or dimension scales, and put on the SR grid."""
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass, replace

import h5py
import numpy as np

from swinmpi.storage.address import find_object, open_object, refuse_external_storage
from swinmpi.storage.metadata.said import is_no_variable, nexus_names

# What the output calls its images.
TAKEN_NAMES = ("sr", "regression", "sr_mean", "sr_spread", "sr_std", "sr_trust",
               "sr_errors", "sr_mean_errors")


@dataclass(frozen=True)
class Axis:
    """Coordinates along one dimension of a stack."""

    name: str
    values: np.ndarray
    dataset: h5py.Dataset

    def cut(self, items: Sequence[int], size: int) -> "Axis | None":
        """The part over `items` of the `size` items along it: one value each, or their edges.

        None where the edges of items that do not follow each other would be wanted.
        """
        if len(self.values) == size + 1:
            if list(items) != list(range(items[0], items[0] + len(items)) if items else []):
                return None
            first = items[0] if items else getattr(items, "start", 0)
            return replace(self, values=self.values[first:first + len(items) + 1])
        return replace(self, values=self.values[np.asarray(items, dtype=int)])


def find_axes(file: h5py.File, path: str, allow_external: bool = False) -> tuple[Axis | None, ...]:
    """The one-dimensional axis of each dimension of the stack at `path`, None where it has none.

    Taken from `axes` of the group or the dataset (NXdata, new and old), also of other groups
    (`../sample/rotation_angle`), else from attached HDF5 dimension scales.
    """
    stack = open_object(file, path, allow_external)
    group = open_object(file, posixpath.dirname(path), allow_external)
    names = nexus_names(stack, group)
    if not names and "emd_group_type" in group.attrs:
        names = [f"dim{number}" for number in range(1, stack.ndim + 1)]
    found: list[Axis | None] = []
    for dimension, size in enumerate(stack.shape):
        name = names[dimension] if len(names) == stack.ndim else "."
        place = posixpath.normpath(posixpath.join(posixpath.dirname(path), name))
        dataset = None if name in (".", "") else find_object(file, place, allow_external)
        if dataset is None:
            scales = stack.dims[dimension]
            dataset = scales[0] if len(scales) else None
        axis = checked_axis(name, dataset, size, allow_external)
        taken = {*TAKEN_NAMES, *(other.name for other in found if other)}
        found.append(None if axis and axis.name in taken else axis)
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


def checked_axis(name: str, dataset, size: int, allow_external: bool) -> Axis | None:
    """An Axis if the dataset has one value per pixel (or per pixel edge) of its dimension.

    Not netCDF's dimensions without a variable, which hold zeros.
    """
    if not isinstance(dataset, h5py.Dataset) or dataset.shape not in ((size,), (size + 1,)):
        return None
    if is_no_variable(dataset):
        return None
    refuse_external_storage(dataset, allow_external)
    return Axis(posixpath.basename(dataset.name if name in (".", "") else name), dataset[()],
                dataset)
