"""What a dataset says about its axes, collected once from all the places where files say it."""
import json
import posixpath
import string
from contextlib import suppress
from dataclasses import dataclass

import h5py

from swinmpi.storage.attributes import text_attribute, text_list
from swinmpi.storage.metadata.names import letters_of, means_nothing

NO_VARIABLE = "This is a netCDF dimension but not a netCDF variable"
INTERLACED = {"INTERLACE_PIXEL": "HWC", "INTERLACE_PLANE": "CHW", "INTERLACE_LINE": "HCW"}
OTHER_COLOURS = ("rgba-image", "hsl-image", "hsla-image", "cmyk-image")
COLOUR_CUBES = (1, 3)
LISTS = ("_ARRAY_DIMENSIONS", "dims", "dimensions", "AXES")  # of zarr, xarray and others

Letters = list[str | None]


@dataclass(frozen=True)
class Said:
    """letters: N, C, H, W or None for each dimension. words: who says so, for a message.

    named: whether a name or an interpretation says it. problem: why these are no images for us, or
    which two disagree. strange: which dimensions have names that say nothing.
    """

    letters: Letters
    words: str
    named: bool = False
    problem: str | None = None
    strange: tuple[int, ...] = ()


def what_is_said(dataset: h5py.Dataset, group: h5py.Group | None = None) -> Said:
    """All that the dataset and its group say; nothing is read but attributes.

    group: where it was found, which may be another one than where it lies.
    """
    ndim = len(dataset.shape)
    merged: Letters = [None] * ndim
    told: list[str] = []
    named = text_attribute(dataset, "interpretation") is not None
    strange: set[int] = set()
    for where, names in axis_namings(dataset, group):
        letters = letters_of(names)
        unknown = {axis for axis, name in enumerate(names) if means_nothing(name)}
        if unknown or any(letters):
            strange |= unknown
            named = named or any(letters)
            told.append(f"{where} {', '.join(name or '.' for name in names)}")
            merged, problem = joined(merged, letters, told)
            if problem is not None:
                return Said(merged, "; ".join(told), named, problem)
    for where, letters, problem in (interpreted(dataset), image_class(dataset)):
        if problem is None and any(letters):
            told.append(where)
            merged, problem = joined(merged, letters, told)
        if problem is not None:
            return Said(merged, "; ".join(told), named, problem)
    strange -= {axis for axis, letter in enumerate(merged) if letter}
    return Said(merged, "; ".join(told), named, strange=tuple(sorted(strange)))


def joined(before: Letters, letters: Letters, told: list[str]) -> tuple[Letters, str | None]:
    """Both together, and the problem where they contradict each other."""
    if any(one and other and one != other for one, other in zip(before, letters, strict=True)):
        return before, f"the file contradicts itself about its axes ({'; '.join(told)})"
    return [one or other for one, other in zip(before, letters, strict=True)], None


def axis_namings(dataset: h5py.Dataset,
                 group: h5py.Group | None = None) -> list[tuple[str, list[str]]]:
    """(who says it, one name for each dimension) of every place that names the axes."""
    found = [("dimension labels", dimension_labels(dataset)),
             ("axes", nexus_names(dataset, group)),
             ("dimension scales", scale_names(dataset)),
             ("axistags", axistags(dataset)),
             ("EMD's dim1, dim2 ...", emd_names(dataset, group or dataset.parent)),
             *((name, listed_names(dataset, name)) for name in LISTS),
             ("DimensionOrder", [*reversed(text_attribute(dataset, "DimensionOrder") or "")])]
    return [(where, names) for where, names in found if len(names) == len(dataset.shape)]


def dimension_labels(dataset: h5py.Dataset) -> list[str]:
    """[] without labels; not by HDF5's own function, which trusts the number of them."""
    labels = text_list(dataset, "DIMENSION_LABELS")
    return labels if any(labels) else []


def nexus_names(dataset: h5py.Dataset, group: h5py.Group | None = None) -> list[str]:
    """Names by NXdata's `axes` (of the group, or as old files have it of the dataset).

    One for each dimension, "." where there is none; [] where it is absent. A list that is shorter
    than the dataset has dimensions is put in place by NAME_indices.
    """
    group = dataset.parent if group is None or not axis_names(group) else group
    names = axis_names(group) or axis_names(dataset)
    ndim = len(dataset.shape)
    if len(names) == ndim or not names:
        return names
    placed = ["."] * ndim
    for name in names:
        at = group.attrs.get(f"{posixpath.basename(name)}_indices")
        with suppress(TypeError, ValueError):
            at = int(at[0] if getattr(at, "shape", ()) else at)
            if 0 <= at < ndim:
                placed[at] = name
    return placed if any(name != "." for name in placed) else []


def axis_names(item) -> list[str]:
    """The `axes` attribute, one name per dimension; old files write "frame:y:x" or "frame,y,x"."""
    names = text_list(item, "axes")
    if len(names) != 1:
        return names
    word = names[0].strip("[]")
    return as_letters(word) or word.replace(",", ":").split(":")


def as_letters(word: str) -> list[str]:
    """TZYX, a letter for each axis, of which S are samples of a colour; [] for other words."""
    known = {"Y", "X"} <= set(word.upper()) and set(word.upper()) <= set(string.ascii_uppercase)
    return [*word.replace("S", "C")] if known and len(set(word)) == len(word) else []


def listed_names(dataset: h5py.Dataset, attribute: str) -> list[str]:
    """Of a list of names, as it is or as JSON, or of one word of letters."""
    names = text_list(dataset, attribute)
    if len(names) != 1:
        return names
    with suppress(ValueError):
        listed = json.loads(names[0])
        return listed if isinstance(listed, list) and all(
            isinstance(name, str) for name in listed) else []
    return as_letters(names[0])


def scale_names(dataset: h5py.Dataset) -> list[str]:
    """The names of attached dimension scales, netCDF's dimensions; CF's `axis` counts more."""
    names = []
    with suppress(OSError, RuntimeError, KeyError, ValueError, TypeError):  # told by `find_axes`
        for dimension in dataset.dims:
            scale = dimension[0] if len(dimension) else None
            cf = None if scale is None else text_attribute(scale, "axis")
            known = cf if cf in ("X", "Y", "Z", "T") else posixpath.basename(scale.name or "") \
                if scale is not None else ""
            names.append(known)
    return names if any(names) else []


def axistags(dataset: h5py.Dataset) -> list[str]:
    """The keys of vigra's `axistags`, JSON."""
    text = text_attribute(dataset, "axistags")
    with suppress(ValueError, TypeError, KeyError):
        return [str(axis["key"]) for axis in json.loads(text)["axes"]]
    return []


def emd_names(dataset: h5py.Dataset, group: h5py.Group) -> list[str]:
    """The attributes `name` of dim1, dim2 ... beside it, as EMD has them (emdatasets.com); [] in
    other groups."""
    if "emd_group_type" not in group.attrs:
        return []
    names = []
    for number in range(1, len(dataset.shape) + 1):
        link = group.get(f"dim{number}", getlink=True)
        item = group[f"dim{number}"] if isinstance(link, h5py.HardLink) else None
        names.append(text_attribute(item, "name") or "" if item is not None else "")
    return names


def interpreted(dataset: h5py.Dataset) -> tuple[str, Letters, str | None]:
    """(who says it, letters, problem) by NeXus's `interpretation`."""
    kind, shape = text_attribute(dataset, "interpretation"), dataset.shape
    letters: Letters = [None] * len(shape)
    where = f"interpretation {kind}"
    if kind in OTHER_COLOURS:
        return where, letters, f"its interpretation says {kind}; convert it to RGB or grey"
    if kind == "spectrum":
        letters[-1:] = ["N"]
    elif kind == "rgb-image" and len(shape) >= 3:
        if 3 not in (shape[-1], shape[-3]):
            return where, letters, "its interpretation says rgb-image, but no axis holds 3 colours"
        letters[-3:] = "HWC" if shape[-1] == 3 else "CHW"
    elif kind == "image" and (shape[-1] not in COLOUR_CUBES
                              or len(shape) > 3 and shape[-3] in COLOUR_CUBES):
        letters[-2:] = "HW"
        if shape[-1] not in COLOUR_CUBES:  # colours would be an rgb-image
            letters[:-2] = [None if size == 1 else "N" for size in shape[:-2]]
    return where, letters, None


def image_class(dataset: h5py.Dataset) -> tuple[str, Letters, str | None]:
    """(who says it, letters, problem) by HDF5's image specification."""
    kind, shape = text_attribute(dataset, "IMAGE_SUBCLASS"), dataset.shape
    letters: Letters = [None] * len(shape)
    where = f"IMAGE_SUBCLASS {kind}"
    colours = text_attribute(dataset, "IMAGE_COLORMODEL")
    if kind == "IMAGE_INDEXED" or (kind is None and "PALETTE" in dataset.attrs):
        return where, letters, ("its pixels are numbers of a palette's colours; "
                                "convert them to colours or greys")
    if kind == "IMAGE_BITMAP":
        return where, letters, "its pixels are bits (IMAGE_BITMAP); convert them to greys"
    if kind == "IMAGE_TRUECOLOR":
        if colours not in (None, "RGB"):
            return where, letters, f"its IMAGE_COLORMODEL says {colours}; convert it to RGB"
        mode = text_attribute(dataset, "INTERLACE_MODE")
        orders = [INTERLACED[mode]] if mode in INTERLACED else list(INTERLACED.values())
        fitting = [order for order in orders
                   if len(shape) >= 3 and shape[len(shape) - 3 + order.index("C")] == 3]
        if not fitting:
            return where, letters, (f"its IMAGE_TRUECOLOR ({mode or 'no INTERLACE_MODE'}) does not "
                                    f"fit its shape {shape}")
        letters[-3:] = fitting[0]
        return f"{where} {mode or ''}".strip(), letters, None
    is_image = text_attribute(dataset, "CLASS") == "IMAGE"
    if len(shape) >= 2 and (kind == "IMAGE_GRAYSCALE" or is_image and len(shape) == 2):
        letters[-2:] = "HW"
        letters[:-2] = ["N"] * (len(shape) - 2)
        where = where if kind else "CLASS IMAGE"
    return where, letters, None


def is_no_variable(item: h5py.Dataset) -> bool:
    """Whether it is only a dimension of netCDF, which holds zeros."""
    return (text_attribute(item, "NAME") or "").startswith(NO_VARIABLE)
