"""Which pixels of a dataset are no numbers, as its file and its user say."""
from collections.abc import Sequence

import h5py
import numpy as np

from swinmpi.errors import StackError
from swinmpi.images.no_data import NoData, as_stored
from swinmpi.storage.attributes import holds_lists, is_readable, names_of, open_attribute

NO_DATA_NAMES = {"fillvalue", "missingvalue", "nodata", "nodatavalue", "gdalnodata"}
# Of netCDF's conventions: what lies outside is no number.
LIMIT_NAMES, PACKING_NAMES = ("valid_range", "valid_min", "valid_max"), ("scale_factor",
                                                                         "add_offset")


def find_no_data(dataset: h5py.Dataset, told: Sequence[float] = ()) -> NoData:
    """Which stored values mean no data: what the file says, and what the user tells."""
    named = {one for value in told for one in as_stored(value, dataset.dtype)}
    said = no_data_values(dataset) or fill_value(dataset)
    return NoData(tuple(sorted({*said, *named})), *valid_limits(dataset))


def check_no_data(address, dataset: h5py.Dataset, told: Sequence[float]) -> None:
    """StackError where the user tells a value that this dtype cannot hold."""
    for value in told:
        if not as_stored(value, dataset.dtype):
            raise StackError(f"{address}: data.no_data: {value:.9g} cannot occur in {dataset.dtype}"
                             "; name the values as they are stored")


def no_data_values(dataset: h5py.Dataset,
                   names: Sequence[str] | None = None) -> tuple[float, ...]:
    """What the attributes `_FillValue`, `missing_value` and their kin say, or those of `names`.

    As stored; numbers, lists and texts of numbers. What the dtype cannot hold marks no pixel.
    """
    found: set[float] = set()
    for name in filter(means_no_data, names_of(dataset.attrs)) if names is None else names:
        for word in words_of(dataset, name):
            found |= as_stored(word, dataset.dtype)
    return tuple(sorted(found))


def means_no_data(name: str) -> bool:
    """Whether an attribute of this name tells the value for pixels without a number."""
    return "".join(filter(str.isalnum, name.lower())) in NO_DATA_NAMES


def fill_value(dataset: h5py.Dataset) -> tuple[float, ...]:
    """What HDF5 shows where nothing was written, if the file's maker chose it: maybe empty.

    netCDF sets it, and says nothing else where its default is meant. 0 is nobody's choice, and
    8 bit have no value to spare.
    """
    chosen = dataset.id.get_create_plist().fill_value_defined() == h5py.h5d.FILL_VALUE_USER_DEFINED
    if not chosen or dataset.dtype.itemsize == 1 or not dataset.fillvalue:
        return ()
    return tuple(as_stored(dataset.fillvalue, dataset.dtype))


def valid_limits(dataset: h5py.Dataset) -> tuple[float, float]:
    """The lowest and the highest value that is a number, as stored; infinite where none is said.

    Those of packed integers are of what they mean where they are floats (netCDF users' guide,
    attribute conventions).
    """
    kind = dataset.dtype.newbyteorder("=")
    low, high = (number_of(dataset, name, end) for name, end in
                 (("valid_min", -np.inf), ("valid_max", np.inf)))
    both = words_of(dataset, "valid_range")
    if len(both) == 2 and isinstance(both[0], np.number):
        low, high = map(float, both)
    if kind.kind == "f":
        with np.errstate(over="ignore"):
            return tuple(float(kind.type(end)) for end in (low, high))
    of_meaning = any(isinstance(word, np.floating) for name in LIMIT_NAMES
                     for word in words_of(dataset, name))
    scale, offset = number_of(dataset, "scale_factor", 1), number_of(dataset, "add_offset", 0)
    if of_meaning and scale and (scale, offset) != (1, 0):
        low, high = sorted(round((end - offset) / scale, 6) for end in (low, high))
    return float(np.ceil(low)), float(np.floor(high))


def number_of(dataset: h5py.Dataset, name: str, default: float) -> float:
    """An attribute's one number; the default without it."""
    words = words_of(dataset, name)
    is_number = len(words) == 1 and isinstance(words[0], np.number) and not np.isnan(words[0])
    return float(words[0]) if is_number else default


def words_of(dataset: h5py.Dataset, name: str) -> list:
    """The elements of an attribute; [] where there are none or they are lists."""
    if name not in dataset.attrs:
        return []
    attribute = open_attribute(dataset, name)
    if not is_readable(attribute) or holds_lists(attribute):
        return []
    value = dataset.attrs[name]
    return [] if isinstance(value, h5py.Empty) else list(np.asarray(value).ravel())
