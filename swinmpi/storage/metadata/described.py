"""A stack as its file and its user describe it: which image lies where, what its axes are."""
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass, replace

import h5py
import numpy as np

from swinmpi.storage.address import open_object
from swinmpi.storage.axes import Axis, find_axes
from swinmpi.storage.layout import Arrangement, decide_layout, in_letters
from swinmpi.storage.metadata.frames import PROJECTION, View, spelled, taken, told
from swinmpi.storage.metadata.said import axis_namings
from swinmpi.storage.metadata.tomography import find_image_key


@dataclass(frozen=True)
class Described:
    """What is known of a stack beside its pixels.

    axes: of every dimension of the dataset, whole. names: what its dimensions are called, if
    anything. image_key: NXtomo's, of the frames that are taken. remark: a line on it.
    """

    view: View
    allow_external: bool
    arrangement: Arrangement
    axes: tuple[Axis | None, ...]
    names: tuple[str, ...] | None
    image_key: np.ndarray | None
    remark: str | None

    def own_axes(self, images: range) -> tuple[Axis | None, ...]:
        """The first axis along images cut to those that are taken, of a part of a plain stack to
        its own."""
        arrangement, own = self.arrangement, list(self.axes)
        if "N" in arrangement.layout:
            first = arrangement.layout.index("N")
            size = arrangement.shape[first]
            items: Sequence[int] = (range(size) if arrangement.frames is None
                                    else arrangement.frames)
            if arrangement.is_plain:
                items = items[images.start:images.stop]
            own[first] = own[first] and own[first].cut(items, size)
        return tuple(own)

    def is_calibration(self, image: int) -> bool:
        """Whether the image with this number of those taken is kept as it is: no projection, where
        the user asked for that."""
        return (self.view.calibration == "bicubic" and self.image_key is not None
                and bool(self.image_key[image] != PROJECTION))

    def chosen(self) -> dict[str, str]:
        """What the user's choice of frames adds to the identity of a stack; JSON values."""
        frames, known = self.arrangement.frames, {}
        if frames is not None:
            known["frames"] = spelled(frames)
        if any(map(self.is_calibration, range(self.arrangement.num_images))):
            known["calibration"] = self.view.calibration
        return known

    def image_axes(self) -> str:
        """What the images follow each other along, if not simply along the first dimension."""
        arrangement = self.arrangement
        if arrangement.is_plain:
            return ""
        names = self.names or [*in_letters(arrangement.layout)]
        along = [name or "?" for name, letter in zip(names, arrangement.layout, strict=True)
                 if letter == "N"]
        sizes = " x ".join(f"{name} {size}" for name, size in
                           zip(along, arrangement.image_sizes, strict=True))
        return f" ({sizes})" if sizes else ""


def describe_stack(file: h5py.File, path: str, dataset: h5py.Dataset, view: View,
                   allow_external: bool) -> Described:
    """Of a sound stack. ConfigError where the view asks for frames that are not there."""
    group = open_object(file, posixpath.dirname(path), allow_external)
    arrangement = Arrangement(decide_layout(dataset, view.axes, group), dataset.shape)
    num_frames = arrangement.image_sizes[0] if arrangement.image_sizes else 1
    key = (find_image_key(file, path, num_frames, allow_external)
           if arrangement.layout.count("N") == 1 else None)
    frames = taken(view, num_frames, key)
    names = tuple(view.axes) if view.axes else said_names(dataset, group)
    own_key = key if key is None or frames is None else key[np.asarray(frames)]
    return Described(view, allow_external, replace(arrangement, frames=frames),
                     find_axes(file, path, allow_external), names, own_key, told(view, key))


def said_names(dataset: h5py.Dataset, group: h5py.Group) -> tuple[str, ...] | None:
    """One for each dimension, from the first place that has names; "" where it has none."""
    for _, names in axis_namings(dataset, group):
        if any(names):
            return tuple("" if name == "." else posixpath.basename(name) for name in names)
    return None
