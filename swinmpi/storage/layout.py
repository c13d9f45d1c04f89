"""How images lie in a dataset: the accepted layouts and dtypes, to and from (C, H, W).

A layout has a letter for each dimension: C, H, W, and N where images follow each other, once,
several times (t and z, say) or not at all. Seen from outside, images are folded: the N come first,
as one.
"""
import math
from collections.abc import Sequence
from dataclasses import dataclass

import h5py
import numpy as np

from swinmpi.storage.metadata.names import asked_layout
from swinmpi.storage.metadata.said import Said, what_is_said
from swinmpi.storage.values import find_dtype_problem

EXPECTED = ("(N, H, W), (N, H, W, C) or (N, C, H, W) with C of 1 or 3, of integers of 8 to 32 bit "
            "or floats")
CHANNELS = (1, 3)
ADVICE = "say which axis is which with --set data.axes=tyx (y and x, c for colours, else any)"


class NoLayout(Exception):
    """A dataset whose axes cannot be those of images; the text says why and what to do."""


@dataclass(frozen=True)
class Arrangement:
    """Where each image of a stack lies in its dataset.

    layout: a letter for each dimension of `shape`. frames: the indices along the first N that are
    taken, in this order; None for all.
    """

    layout: str
    shape: tuple[int, ...]
    frames: tuple[int, ...] | None = None

    @property
    def image_sizes(self) -> tuple[int, ...]:
        """Along each N, of the frames that are taken."""
        sizes = self._of("N", self.shape)
        return sizes if self.frames is None else (len(self.frames), *sizes[1:])

    @property
    def num_images(self) -> int:
        return math.prod(self.image_sizes)

    @property
    def folded(self) -> str:
        """The layout with one N, which comes first."""
        return "N" + self.layout.replace("N", "")

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Of one image as it is stored."""
        return self._of("CHW", self.shape)

    @property
    def is_plain(self) -> bool:
        """Whether the stack is stored as it is seen from outside."""
        return self.layout == self.folded

    def place(self, image: int) -> tuple[int, ...]:
        """Where the image with this number of those taken lies along each N of the dataset."""
        first, *others = map(int, np.unravel_index(image, self.image_sizes or (1,)))
        taken = first if self.frames is None else self.frames[first]
        return (taken, *others)[:self.layout.count("N")]

    def stack_index(self, image: int) -> int:
        """The image's index in the whole dataset, whatever frames are taken."""
        sizes = self._of("N", self.shape)
        return int(np.ravel_multi_index(self.place(image), sizes)) if sizes else 0

    def unfolded(self, along: Sequence, within: Sequence) -> tuple:
        """What belongs to each N and to each other dimension, in the order of the dataset."""
        along, within = iter(along), iter(within)
        return tuple(next(along if letter == "N" else within) for letter in self.layout)

    def _of(self, letters: str, values: Sequence) -> tuple:
        return tuple(value for letter, value in zip(self.layout, values, strict=True)
                     if letter in letters)


def find_problem(dataset: h5py.Dataset, asked: str | None = None,
                 group: h5py.Group | None = None) -> str | None:
    """Why this dataset is not a stack of images, or None; the number of images is not looked at.

    asked: a letter for each dimension, as in the setting data.axes. group: where it was found, if
    that is not where it lies.
    """
    if dataset.shape is None or len(dataset.shape) < 2:
        return f"expected {EXPECTED}, got shape {dataset.shape}"
    if (wrong := find_dtype_problem(dataset)) is not None:
        return f"expected {EXPECTED}, got {wrong}"
    try:
        decide_layout(dataset, asked, group)
    except NoLayout as reason:
        return str(reason)
    return None


def decide_layout(dataset: h5py.Dataset, asked: str | None = None,
                  group: h5py.Group | None = None) -> str:
    """A letter for each dimension: as asked, else as the file says, else by shape.

    By shape (N, H, W), (N, H, W, C), (N, C, H, W), more dimensions where those before them have a
    size of 1. NoLayout where the file contradicts itself or this is no stack of images.
    """
    shape = dataset.shape
    if asked is not None:
        return checked(layout_as_asked(asked, shape), shape, f"data.axes={asked} says")
    said = what_is_said(dataset, group)
    if said.problem is not None:
        raise NoLayout(f"expected images, but {said.problem}; or {ADVICE}")
    by_shape = [layout for layout in layouts_by_shape(shape)
                if all(letter in (None, own)
                       for letter, own in zip(said.letters, layout, strict=True))]
    if any(layout[axis] == "C" and shape[axis] > 1 for layout in by_shape for axis in said.strange):
        by_shape = []  # colours would be called so
        if not {"H", "W"} <= set(said.letters):
            raise NoLayout(f"expected names of axes that say which are y, x and colours, got "
                           f"{said.words}; {ADVICE}")
    if by_shape:
        layout = by_shape[0]
        if layout == "NHW" and looks_like_one_colour_image(shape, said):
            raise NoLayout(f"expected {EXPECTED}, got shape {shape}, which looks like one colour "
                           f"image; store it as {(1, *shape)}, or give --set data.axes=yxc")
        return layout
    if not any(said.letters):
        raise NoLayout(no_shape(shape))
    return checked(completed(said), shape, said.words + " say")


def layouts_by_shape(shape: tuple[int, ...]) -> list[str]:
    """What a shape alone may mean, the likeliest first."""
    found = []
    if len(shape) == 3:
        found.append("NHW")
    if len(shape) == 4 and shape[3] in CHANNELS:
        found.append("NHWC")
    if len(shape) == 4 and shape[1] in CHANNELS:
        found.append("NCHW")
    if not found and len(shape) > 3 and shape[0] == 1:
        found += ["N" + layout for layout in layouts_by_shape(shape[1:])]
    return found


def looks_plain(shape: tuple[int, ...]) -> bool:
    """Whether a shape is that of images that follow each other along the first dimension."""
    return len(shape) == 3 or len(shape) == 4 and not {shape[1], shape[3]}.isdisjoint(CHANNELS)


def layout_as_asked(asked: str, shape: tuple[int, ...]) -> str:
    layout = asked_layout(asked)
    if layout is None or len(layout) != len(shape):
        raise NoLayout(f"expected data.axes to have a letter for each dimension of its shape "
                       f"{shape}, y and x among them and none twice, got {asked!r}")
    return layout


def completed(said: Said) -> str:
    """A letter for every dimension: what is left becomes H and W from the end, and N."""
    letters = list(said.letters)
    if ("H" in letters) != ("W" in letters):  # `sample_x` alone may be anything
        raise NoLayout(f"expected y and x among its axes, but its {said.words}; {ADVICE}")
    for missing in "WH":
        free = [axis for axis, letter in enumerate(letters) if letter is None]
        if missing not in letters:
            if not free:
                raise NoLayout(f"expected y and x among its axes, but its {said.words}; {ADVICE}")
            letters[free[-1]] = missing
    return "".join(letter or "N" for letter in letters)


def checked(layout: str, shape: tuple[int, ...], who: str) -> str:
    """The layout, if it is one of images and fits the shape."""
    for letter in "HWC":
        if layout.count(letter) > 1:
            raise NoLayout(f"expected one axis each for y, x and colours, but its {who} otherwise; "
                           f"{ADVICE}")
    if "C" in layout and (size := shape[layout.index("C")]) not in CHANNELS:
        raise NoLayout(f"expected 1 or 3 colours, but {who} that an axis of its shape {shape} "
                       f"holds {size}; to enlarge each by itself call it z: "
                       f"--set data.axes={in_letters(layout).replace('c', 'z')}")
    return layout


def in_letters(layout: str) -> str:
    """NNCHW -> tncyx, as data.axes would have it."""
    others = iter("tnsabdefgijklm")
    known = {"H": "y", "W": "x", "C": "c"}
    return "".join(known.get(letter) or next(others) for letter in layout)


def no_shape(shape: tuple[int, ...]) -> str:
    if len(shape) == 2:
        return (f"expected {EXPECTED}, got shape {shape}; store one image as (1, "
                f"{', '.join(map(str, shape))}), or give --set data.axes=yx")
    letters = "tzsabdefgijklm"[:len(shape) - 2]
    return (f"expected {EXPECTED}, got shape {shape}; say which axis is which, for example "
            f"--set data.axes={letters}yx")


def looks_like_one_colour_image(shape: tuple[int, ...], said: Said) -> bool:
    """(H, W, 3) without a word that it is a stack: nobody stacks images three pixels wide."""
    height, width, channels = shape
    return channels == 3 and min(height, width) >= 16 and not said.named


def to_chw(image: np.ndarray, layout: str) -> np.ndarray:
    """One image as it is stored -> (C, H, W), a view."""
    within = layout.replace("N", "")
    if "C" not in within:
        image, within = image[None], "C" + within
    return image.transpose([within.index(letter) for letter in "CHW"])


def from_chw(image: np.ndarray, layout: str) -> np.ndarray:
    """(C, H, W) -> one image as it is stored, a view; the inverse of `to_chw`."""
    within = layout.replace("N", "")
    if "C" not in within:
        return image[0] if within == "HW" else image[0].T
    return image.transpose(["CHW".index(letter) for letter in within])


def scaled_shape(shape: tuple[int, ...], layout: str, scale: int) -> tuple[int, ...]:
    """Shape of the SR stack of an LR stack."""
    return tuple(size * scale if axis in "HW" else size
                 for axis, size in zip(layout, shape, strict=True))


def in_words(num_images: int, channels: int, height: int, width: int) -> str:
    """2 colour images of 48 x 60 px."""
    return (f"{num_images} {'colour ' if channels == 3 else ''}"
            f"images of {height} x {width} px")
