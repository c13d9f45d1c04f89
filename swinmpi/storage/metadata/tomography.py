"""Tomograms (NXtomo): which frames are projections, and what belongs to the file beside them."""
import posixpath

import h5py
import numpy as np

from swinmpi.storage.address import find_object, open_object, refuse_external_storage
from swinmpi.storage.attributes import names_of, text_attribute


def find_image_key(file: h5py.File, path: str, num_frames: int,
                   allow_external: bool = False) -> np.ndarray | None:
    """NXtomo's number for each frame (0 projection, 1 flat, 2 dark, 3 invalid); None without.

    Looked for beside the stack, then in the detectors of its entry.
    """
    folder = posixpath.dirname(path)
    for place in (folder, *detectors(file, entry_of(file, path, allow_external), allow_external)):
        key = find_object(file, posixpath.join(place, "image_key"), allow_external)
        if (isinstance(key, h5py.Dataset) and key.shape == (num_frames,)
                and key.dtype.kind in "iuf"):
            refuse_external_storage(key, allow_external)
            return key[()].astype(np.int64)
    return None


def entry_of(file: h5py.File, path: str, allow_external: bool = False) -> str:
    """The group above a dataset that defines a tomogram, else its NXentry, else the root."""
    above, folder = [], posixpath.dirname(path)
    while folder != "/":
        above.append(folder)
        folder = posixpath.dirname(folder)
    defined = [place for place in above if definition(file, place, allow_external) == "NXtomo"]
    entries = [place for place in above
               if text_attribute(open_object(file, place, allow_external), "NX_class")
               in ("NXentry", "NXsubentry")]
    return (defined or entries or ["/"])[0]


def definition(file: h5py.File, entry: str, allow_external: bool = False) -> str | None:
    """What an entry says it is; None where it says nothing."""
    item = find_object(file, posixpath.join(entry, "definition"), allow_external)
    if not isinstance(item, h5py.Dataset) or item.size != 1 or item.external or item.is_virtual:
        return None
    value = np.asarray(item[()]).ravel()[0]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def detectors(file: h5py.File, entry: str, allow_external: bool = False) -> list[str]:
    """Paths of what lies in the instrument of an entry."""
    place = posixpath.join(entry, "instrument")
    group = find_object(file, place, allow_external)
    if not isinstance(group, h5py.Group):
        return []
    return [posixpath.join(place, name) for name in names_of(group)
            if isinstance(group.get(name, getlink=True), h5py.HardLink)
            and isinstance(group[name], h5py.Group)]
