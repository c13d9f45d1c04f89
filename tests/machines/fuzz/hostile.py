"""Sound HDF5 files of every dtype whose words are hostile: values that mean no data, scales,
axes, frames, of the wrong kind, size or length."""
import io
import random

import h5py
import numpy as np

DTYPES = ("f8", "f4", "f2", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", ">f8", ">i2", ">u4",
          "?", "c8")
NUMBERS = (0, -1, 1, 255, 65535, -32768, 2**31, -2**31, 2**63 - 1, 1e308, -1e308, 5e-324, 1e-30,
           float("nan"), float("inf"), float("-inf"))
NAMES = ("y", "x", "z", "t", "time", "channel", "frame_number", "Y", "", "\u2028", "a" * 300, "/",
         "..", ".", "0", "rgb")
PLACES = {"stack": "entry/data/images", "group": "entry/data", "entry": "entry", "root": "/"}
WORDS = ("_FillValue", "missing_value", "scale_factor", "add_offset", "valid_min", "valid_max",
         "valid_range", "_Unsigned", "units", "DIMENSION_LABELS", "axes", "signal", "default",
         "interpretation", "CLASS", "IMAGE_SUBCLASS", "INTERLACE_MODE", "IMAGE_MINMAXRANGE",
         "axisorder", "element_size_um", "x_indices", "x_pixel_size", "coordinates", "NX_class",
         "long_name", "scaling_factor", "offset", "saturation_value")


def hostile_stack(_content: bytes, rng: random.Random) -> bytes:
    """A file of its own, whatever was there."""
    made = io.BytesIO()
    with h5py.File(made, "w") as file:
        images = pixels(rng)
        stack = file.create_dataset("entry/data/images", data=images,
                                    fillvalue=rng.choice((None, images.dtype.type(1))))
        file["entry/data"].attrs.update({"NX_class": "NXdata", "signal": "images"})
        file["entry"].attrs["NX_class"] = "NXentry"
        if rng.random() < 0.4:
            beside(file, len(images), rng)
        for _ in range(rng.choice((1, 1, 2, 3, 5))):
            place = file[PLACES[rng.choice((*PLACES, "stack", "stack", "stack"))]]
            say(place, rng.choice(WORDS), rng)
        if rng.random() < 0.3:
            for axis in range(stack.ndim):
                stack.dims[axis].label = rng.choice(NAMES)
    return made.getvalue()


def pixels(rng: random.Random) -> np.ndarray:
    """A stack of a few small images, of any dtype and sometimes of values at its ends."""
    shape = rng.choice(((3, 10, 12), (2, 10, 12, 3), (2, 3, 10, 12), (10, 12), (1, 10, 12),
                        (2, 2, 10, 12), (0, 10, 12), (3, 1, 1), (2, 10, 12, 2)))
    dtype = np.dtype(rng.choice(DTYPES))
    drawn = np.random.default_rng(rng.getrandbits(32)).uniform(0, 100, shape)
    if dtype.kind in "fi" and rng.random() < 0.4:
        drawn -= 50
    images = drawn.astype(dtype)
    if images.size and rng.random() < 0.4:
        with np.errstate(all="ignore"):
            images.reshape(-1)[::7] = np.array(rng.choice(NUMBERS)).astype(dtype)
    return images


def beside(file: h5py.File, length: int, rng: random.Random) -> None:
    """Frames and axes that do not fit."""
    detector = file.require_group("entry/instrument/detector")
    for place, name in ((detector, "image_key"), (file["entry/data"], "image_key"),
                        (file["entry/data"], "y"), (file["entry/data"], "rotation_angle"),
                        (detector, "x_pixel_size")):
        if rng.random() < 0.5 and name not in place:
            count = rng.choice((length, length, length + 1, 0, 1, 10, 12, 13))
            values = rng.choice((np.arange(count), np.full(count, np.nan), np.zeros(count, "i1"),
                                 np.array([b"x"] * max(1, count)), np.full(count, 7.5),
                                 np.zeros((2, max(1, count))), np.float64(rng.choice(NUMBERS))))
            say(place.create_dataset(name, data=values), rng.choice(WORDS), rng)


def say(place, word: str, rng: random.Random) -> None:
    """An attribute whose value may be anything."""
    number, name = rng.choice(NUMBERS), rng.choice(NAMES)
    values = (lambda: np.float64(number), lambda: np.array([number, rng.choice(NUMBERS)]),
              lambda: np.full(rng.choice((0, 1, 3, 5000)), number), lambda: name.replace("\0", ""),
              lambda: [rng.choice(NAMES) for _ in range(rng.choice((1, 2, 3, 4, 9)))],
              lambda: h5py.Empty("f8"), lambda: np.zeros((2, 3)), lambda: b"\xff\xfe",
              lambda: np.bool_(True), lambda: np.complex128(1 + 2j),
              lambda: np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
              lambda: place.ref, lambda: np.float16(3), lambda: np.uint64(2**64 - 1))
    place.attrs[word] = rng.choice(values)()
