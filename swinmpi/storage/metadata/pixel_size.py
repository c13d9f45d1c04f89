"""Sizes of a pixel among attributes and values: recognised by name, put right for finer pixels."""
import json
import re
from collections.abc import Mapping

import numpy as np

UNITS = {"um", "nm", "mm", "cm", "m", "km", "micron", "microns", "micrometer", "micrometers",
         "nanometer", "nanometers", "angstrom", "angstroms", "deg", "arcsec", "value"}
SIZES = {"elementsize", "pixelsize", "voxelsize", "spacing", "pixelspacing", "voxelspacing",
         "gridspacing", "imagespacing", "pixelresolution", "voxelresolution", "physicalsize",
         "physicalpixelsize", "effectivepixelsize", "samplepixelsize", "detectorpixelsize",
         "imagepixelsize", "cellsize", "pixelpitch", "pixelscale", "resolution", "res"}
ONE_AXIS = {"pixelwidth": "W", "pixelheight": "H", "dx": "W", "dy": "H", "deltax": "W",
            "deltay": "H"}
CENTRES = {"beamcenterx", "beamcentery", "xrotationaxispixelposition",
           "yrotationaxispixelposition"}  # in pixels from the first one's middle
# FITS: steps, matrices of steps, and the reference pixel, which counts from 1; 1 is x, 2 is y.
FITS = re.compile(r"cdelt([12])|cd[12]_([12])")
REFERENCE = re.compile(r"crpix[12]")
# May be of pixels, in an order or unit that nobody knows.
UNCERTAIN = {"affine", "transform", "scale", "step", "pixelarea", "modelpixelscale", "pixelsizes",
             "lateralresolution", "imageresolution", "voxelvolume"}
DOTS = {"pixel", "pixels", "px", "dot", "dots"}
PER_LENGTH = re.compile(r"/|\bper\b|\^?-1\b|dpi|ppi|ppm", re.IGNORECASE)
NUMBER_AND_UNIT = re.compile(r"\s*([-+]?\d*\.?\d+(?:[eE][-+]?\d+)?)(\s*[^\d\s.,;][^\d,;]*)?\s*")

Value = str | np.ndarray | np.generic


def finer(name: str, value: Value, layout: str, scale: int,
          attributes: Mapping = {}) -> Value | None:
    """The value on a grid `scale` times finer along H and W; None where it is no size of a pixel.

    layout: a letter for each dimension of the images. attributes: those beside it, for a unit.
    """
    known = kind_of(name)
    if known in (None, "uncertain"):
        return geo_transform(name, value, scale)
    if isinstance(value, str):
        return finer_text(value, known, scale)
    numbers = np.asarray(value)
    if numbers.dtype.kind not in "iuf" or numbers.ndim > 1:
        return None
    if known in ("centre", "reference"):
        middle = 0.5 if known == "centre" else -0.5  # from a pixel's low edge, as it counts
        return ((numbers + middle) * scale - middle).astype(np.result_type(numbers, np.float32))
    factors = factors_of(numbers, known, layout, scale)
    if factors is None:
        return None
    if known == "resolution":
        unit = unit_of(name, attributes)
        if unit is not None and PER_LENGTH.search(unit):
            factors = 1 / factors
        elif unit is None and numbers.size < 3:
            return None  # a length, or dots per length?
    if known == "dots":
        factors = 1 / factors
    made = numbers / factors
    whole = numbers.dtype.kind in "iu" and np.array_equal(made, np.rint(made))
    kept = numbers.dtype if numbers.dtype.kind == "f" or whole else np.dtype(np.float64)
    return made.astype(kept)


def kind_of(name: str) -> str | None:
    """HW (all), H or W, `resolution`, `dots` (per length), `centre`, `reference`, `uncertain`, or
    None."""
    split = re.sub(r"([a-z])([A-Z])|([XYZ])(?=[A-Z][a-z])", r"\1\3_\2", name).lower()
    if match := FITS.fullmatch(name.lower()):
        return {"1": "W", "2": "H"}[match[1] or match[2]]
    if REFERENCE.fullmatch(name.lower()):
        return "reference"
    words = [word for word in re.split(r"[^a-z]+", split) if word]
    joined = "".join(words)
    if joined in CENTRES:
        return "centre"
    if joined in ("dpi", "ppi") or "per" in words:
        return kind_of_ratio(words)
    words = [word for word in words if word not in UNITS and word not in ("units", "in")]
    along = [word for word in words if word in ("x", "y", "z", "xy", "yx", "zyx", "xyz")]
    base = "".join(word for word in words if word not in along)
    if base[-1:] in "xy" and base[:-1] in SIZES:  # pixelsizex
        base, along = base[:-1], [base[-1]]
    if "".join(words) in ONE_AXIS:
        return ONE_AXIS["".join(words)]
    if base in UNCERTAIN and along != ["z"]:
        return "uncertain"
    if base not in SIZES or along == ["z"] or len(along) > 1:
        return None
    if base == "resolution":
        return "resolution"
    return {"x": "W", "y": "H"}[along[0]] if along in (["x"], ["y"]) else "HW"


def kind_of_ratio(words: list[str]) -> str | None:
    """Of dpi, `um_per_pixel`, `resolution_px_per_um`; None of `bits_per_pixel`."""
    if "per" not in words:
        return "dots"
    at = words.index("per")
    before, after = ({*words[:at]}, {*words[at + 1:]})
    lengths = UNITS | {"inch"}
    if before & DOTS and after & lengths:
        return "dots"
    return "HW" if before & lengths and after & DOTS else None


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
    if "ResolutionUnit" in attributes:  # TIFF's, of dots
        return f"per {attributes['ResolutionUnit']}"
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
    """GDAL's six numbers: corner and step along x, along y. And vigra's `axistags`."""
    if name.lower() == "axistags":
        return finer_axistags(value, scale)
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


def finer_axistags(text: Value, scale: int) -> str | None:
    """JSON with a `resolution` of each axis; None where it is none."""
    try:
        tags = json.loads(text)
        for axis in tags["axes"]:
            if axis["key"] in ("x", "y") and axis.get("resolution"):
                axis["resolution"] /= scale
    except (ValueError, TypeError, KeyError):
        return None
    return json.dumps(tags)


def set_finer(target, layout: str, scale: int) -> list[str]:
    """Put the sizes of pixels among the attributes of `target` right.

    Returns one line for each, and for each that may be one and was left as it is.
    """
    told, before = [], simple_attributes(target)
    for name, old in before.items():
        old = old.decode("utf-8", "replace") if isinstance(old, bytes) else old
        if kind_of(name) is None and name.lower() not in ("geotransform", "axistags"):
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
