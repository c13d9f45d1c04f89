"""How images lie in a dataset: the accepted layouts and dtypes, to and from (C, H, W)."""
import h5py
import numpy as np

from swinmpi.storage.attributes import text_attribute, text_list
from swinmpi.storage.values import find_dtype_problem

EXPECTED = ("(N, H, W), (N, H, W, C) or (N, C, H, W) with C of 1 or 3, of integers of 8 to 32 bit "
            "or floats")
CHANNEL_WORDS = {"c", "channel", "channels", "color", "colour", "colors", "colours", "rgb", "band",
                 "bands"}


def find_problem(dataset: h5py.Dataset) -> str | None:
    """Why this dataset is not a stack of images, or None; the number of images is not looked at."""
    shape = dataset.shape
    if shape is None or len(shape) not in (3, 4):
        is_image = shape and len(shape) == 2
        advice = f"; store one image as (1, {', '.join(map(str, shape))})" if is_image else ""
        return f"expected {EXPECTED}, got shape {shape}{advice}"
    if (wrong := find_dtype_problem(dataset)) is not None:
        return f"expected {EXPECTED}, got {wrong}"
    if len(shape) == 4 and not (shape[1] in (1, 3) or shape[3] in (1, 3)):
        return f"expected {EXPECTED}, got shape {shape}"
    if len(shape) == 3 and looks_like_one_colour_image(dataset):
        return (f"expected {EXPECTED}, got shape {shape}, which looks like one colour image; "
                f"store it as {(1, *shape)}")
    return None


def decide_layout(dataset: h5py.Dataset) -> str:
    """`NHW`, `NHWC` or `NCHW` by shape.

    Where both of the latter fit, by the dataset's hints, else `NHWC`.
    """
    shape = dataset.shape
    if len(shape) == 3:
        return "NHW"
    if shape[1] in (1, 3) and shape[3] in (1, 3):
        return "NCHW" if hinted_channel_axis(dataset) == 1 else "NHWC"
    return "NHWC" if shape[3] in (1, 3) else "NCHW"


def to_chw(image: np.ndarray, layout: str) -> np.ndarray:
    """One image as it is stored -> (C, H, W), a view."""
    if layout == "NHW":
        return image[None]
    return np.moveaxis(image, -1, 0) if layout == "NHWC" else image


def from_chw(image: np.ndarray, layout: str) -> np.ndarray:
    """(C, H, W) -> one image as it is stored, a view; the inverse of `to_chw`."""
    if layout == "NHW":
        return image[0]
    return np.moveaxis(image, 0, -1) if layout == "NHWC" else image


def scaled_shape(shape: tuple[int, ...], layout: str, scale: int) -> tuple[int, ...]:
    """Shape of the SR stack of an LR stack."""
    return tuple(size * scale if axis in "HW" else size
                 for axis, size in zip(layout, shape, strict=True))


def hinted_channel_axis(dataset: h5py.Dataset) -> int | None:
    """The channel axis of a 4-d dataset by NeXus `interpretation`, dimension labels or `axes`."""
    interpretation = text_attribute(dataset, "interpretation")
    if interpretation in ("image", "rgb-image"):
        return 1 if interpretation == "image" else 3
    for names in ([dim.label for dim in dataset.dims], text_list(dataset.parent, "axes")):
        for axis in (1, 3):
            if len(names) == 4 and names[axis].lower() in CHANNEL_WORDS:
                return axis
    return None


def looks_like_one_colour_image(dataset: h5py.Dataset) -> bool:
    """(H, W, 3) without a word that it is a stack: nobody stacks images three pixels wide."""
    interpretation = text_attribute(dataset, "interpretation")
    if interpretation is not None:
        return interpretation == "rgb-image"
    height, width, channels = dataset.shape
    return channels == 3 and min(height, width) >= 16
