"""Sizes of a pixel among attributes and values: recognised by name, put right for finer pixels."""
import re
from collections.abc import Mapping

import numpy as np

UNITS = {"um", "nm", "mm", "cm", "m", "km", "micron", "microns", "micrometer", "micrometers",
         "nanometer", "nanometers", "angstrom", "angstroms", "deg", "arcsec", "value"}
SIZES = {"elementsize", "pixelsize", "voxelsize", "spacing", "pixelspacing", "voxelspacing",
         "gridspacing", "imagespacing", "pixelresolution", "voxelresolution", "physicalsize",
         "physicalpixelsize", "effectivepixelsize", "samplepixelsize", "detectorpixelsize",
         "imagepixelsize", "cellsize", "pixelpitch", "pixelscale", "resolution"}
ONE_AXIS = {"pixelwidth": "W", "pixelheight": "H", "dx": "W", "dy": "H", "deltax": "W",
            "deltay": "H"}
CENTRES = {"beamcenterx", "beamcentery", "xrotationaxispixelposition",
           "yrotationaxispixelposition"}  # in pixels from the first one's middle
PER_LENGTH = re.compile(r"/|\bper\b|\^?-1\b|dpi|ppi|ppm", re.IGNORECASE)
NUMBER_AND_UNIT = re.compile(r"\s*([-+]?\d*\.?\d+(?:[eE][-+]?\d+)?)(\s*[^\d\s.,;][^\d,;]*)?\s*")

Value = str | np.ndarray | np.generic


def finer(name: str, value: Value, layout: str, scale: int,
          attributes: Mapping = {}) -> Value | None:
    """The value on a grid `scale` times finer along H and W; None where it is no size of a pixel.

    layout: a letter for each dimension of the images. attributes: those beside it, for a unit.
    """
    known = kind_of(name)
    if known is None:
        return geo_transform(name, value, scale)
    if isinstance(value, str):
        return finer_text(value, known, scale)
    numbers = np.asarray(value)
    if numbers.dtype.kind not in "iuf" or numbers.ndim > 1:
        return None
    if known == "centre":
        return ((numbers + 0.5) * scale - 0.5).astype(np.result_type(numbers, np.float32))
    factors = factors_of(numbers, known, layout, scale)
    if factors is None:
        return None
    if known == "resolution":
        unit = unit_of(name, attributes)
        if unit is not None and PER_LENGTH.search(unit):
            factors = 1 / factors
        elif unit is None and numbers.size == 1:
            return None  # a length, or dots per length?
    made = numbers / factors
    whole = numbers.dtype.kind in "iu" and np.array_equal(made, np.rint(made))
    kept = numbers.dtype if numbers.dtype.kind == "f" or whole else np.dtype(np.float64)
    return made.astype(kept)


def kind_of(name: str) -> str | None:
    """HW (all), H or W, `resolution`, `centre`, or None."""
    split = re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
    words = [word for word in re.split(r"[^a-z]+", split) if word]
    joined = "".join(words)
    if joined in CENTRES:
        return "centre"
    words = [word for word in words if word not in UNITS and word not in ("units", "in")]
    along = [word for word in words if word in ("x", "y", "z", "xy", "yx", "zyx", "xyz")]
    base = "".join(word for word in words if word not in along)
    if base[-1:] in "xy" and base[:-1] in SIZES:  # pixelsizex
        base, along = base[:-1], [base[-1]]
    if "".join(words) in ONE_AXIS:
        return ONE_AXIS["".join(words)]
    if base not in SIZES or along == ["z"] or len(along) > 1:
        return None
    if along in (["x"], ["y"]):
        return {"x": "W", "y": "H"}[along[0]]
    return "resolution" if base == "resolution" else "HW"


def factors_of(numbers: np.ndarray, known: str, layout: str, scale: int) -> np.ndarray | None:
    """What each number is to be divided by; None where there is no telling.

    One number for each dimension, for each but colours, or for the last of these; two for the
    image's sides. Three that come as x, y, z are told by x and y being equal and z not.
    """
    if numbers.size == 1:
        return np.full(numbers.shape, float(scale))
    spatial = layout.replace("C", "")
    size = numbers.size
    if size == 2:
        return np.full(2, float(scale))
    letters = layout if size == len(layout) else spatial[-size:] if size <= len(spatial) else ""
    if not letters and size == 3:
        letters = "NHW"
    if not {"H", "W"} <= set(letters):
        return None
    if letters == "NHW" and numbers[0] == numbers[1] != numbers[2]:
        letters = "WHN"
    return np.array([float(scale) if letter in "HW" else 1.0 for letter in letters])


def unit_of(name: str, attributes: Mapping) -> str | None:
    """A unit in the name, or in an attribute beside it."""
    words = set(re.split(r"[^a-z]+", name.lower())) & UNITS
    for key in (f"{name}_units", f"{name}_unit", f"{name}units", "units", "unit"):
        value = attributes.get(key)
        if isinstance(value, bytes | str):
            return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return next(iter(words), None)


def finer_text(text: str, known: str, scale: int) -> str | None:
    """`0.325 um` -> `0.1625 um`; None for other text."""
    match = NUMBER_AND_UNIT.fullmatch(text)
    if match is None or known == "centre" or known == "resolution" and not match[2]:
        return None
    number = float(match[1])
    inverse = known == "resolution" and PER_LENGTH.search(match[2])
    return f"{number * scale if inverse else number / scale:.12g}{match[2] or ''}"


def geo_transform(name: str, value: Value, scale: int) -> Value | None:
    """GDAL's six numbers: corner and step along x, along y."""
    if name.lower() != "geotransform":
        return None
    try:
        numbers = np.array(value.split() if isinstance(value, str) else value, dtype=np.float64)
    except (TypeError, ValueError):
        return None
    if numbers.shape != (6,):
        return None
    numbers[[1, 2, 4, 5]] /= scale
    return " ".join(f"{number:.17g}" for number in numbers) if isinstance(value, str) else numbers


def set_finer(target, layout: str, scale: int) -> list[str]:
    """Put the sizes of pixels among the attributes of `target` right.

    Returns one line for each, and for each that may be one and was left as it is.
    """
    told, before = [], simple_attributes(target)
    for name, old in before.items():
        old = old.decode("utf-8", "replace") if isinstance(old, bytes) else old
        if kind_of(name) is None and name.lower() != "geotransform":
            continue
        new = finer(name, old, layout, scale, before) if isinstance(
            old, str | np.ndarray | np.generic) else None
        if new is None:
            told.append(f"attribute {name} = {shown(old)} is kept; it may be a size of the input's "
                        "pixels")
            continue
        same = isinstance(new, np.ndarray) and np.asarray(old).dtype == new.dtype
        if same:
            target.attrs.modify(name, new)
        else:
            target.attrs[name] = new
        told.append(f"attribute {name}: {shown(old)} becomes {shown(new)}")
    return told


def shown(value) -> str:
    return str(value.tolist() if isinstance(value, np.ndarray | np.generic) else value)


def simple_attributes(item) -> dict:
    """Texts, numbers and arrays of them, in the file's order of names."""
    return {name: value for name, value in item.attrs.items()
            if isinstance(name, str) and isinstance(value, bytes | str | np.ndarray | np.generic)}
