"""HDF5 attributes: read as text, and copied from one file to another with their exact types."""
from collections.abc import Collection

import h5py
import numpy as np

# What h5py raises on files that are not sound.
DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError)


def text_attribute(item, name: str) -> str | None:
    """A string attribute (scalar or one element) as str; None when it is absent or not a string."""
    values = text_list(item, name)
    return values[0] if len(values) == 1 else None


def text_list(item, name: str) -> list[str]:
    """A string attribute as a list; [] when it is absent or not made of strings."""
    value = item.attrs.get(name)
    if value is None or isinstance(value, h5py.Empty):
        return []
    values = [part.decode("utf-8", "replace") if isinstance(part, bytes) else part
              for part in np.asarray(value, dtype=object).ravel()]
    return values if all(isinstance(part, str) for part in values) else []


def escaped(text: str) -> str:
    r"""Text that HDF5 can hold: a name of a file that is not UTF-8, Gr\xf6\xdfe.h5, is spelt so."""
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode("utf-8")


def names_of(named) -> list[str]:
    """Of the links of a group, or of attributes; those that are not UTF-8, by which h5py finds
    nothing, are left out."""
    return [name for name in named if isinstance(name, str)]


def readable_attributes(item) -> dict:
    """All portable attributes but those with lists inside of other types."""
    return {name: item.attrs[name] for name in names_of(item.attrs)
            if is_readable(open_attribute(item, name))}


def is_readable(attribute) -> bool:
    """Whether it means something in another file, and h5py can read it without a crash."""
    if is_reference(attribute) or holds_lists(attribute) and not is_list(attribute):
        return False
    try:
        attribute.dtype  # noqa: B018 - h5py raises here
    except TypeError:
        return False
    return True


def copy_attributes(source, target, skip: Collection[str] = ()) -> list[str]:
    """Copy every portable attribute but `skip`, with its HDF5 type.

    That is string kind, character set and byte order. Returns the names of those that cannot be
    copied although they are no references.
    """
    lost = [ascii(name)[2:-1] for name in source.attrs if isinstance(name, bytes)]
    for name in names_of(source.attrs):
        attribute = open_attribute(source, name)
        if name in skip or is_reference(attribute):
            continue
        try:
            if holds_lists(attribute):
                copy_lists(attribute, target, name)
            else:
                copy_attribute(attribute, target, name)
        except (TypeError, ValueError, OSError, RuntimeError, KeyError, AttributeError):
            lost.append(name)
            if name in target.attrs:  # made, but its value could not be written
                del target.attrs[name]
    return lost


def copy_attribute(attribute, target, name: str) -> None:
    """One attribute, bit by bit."""
    kind, space = attribute.get_type().copy(), attribute.get_space()
    is_empty = space.get_simple_extent_type() == h5py.h5s.NULL
    values = None if is_empty else np.empty(attribute.shape, dtype=attribute.dtype)
    if values is not None:
        attribute.read(values, mtype=kind)
    copy = h5py.h5a.create(target.id, name.encode("utf-8", "surrogateescape"), kind, space)
    if values is not None:
        copy.write(values, mtype=kind)


def open_attribute(item, name: str):
    return h5py.h5a.open(item.id, name.encode("utf-8", "surrogateescape"))


def holds_lists(attribute) -> bool:
    """Whether lists of any length are its elements, or inside of them."""
    return attribute.get_type().detect_class(h5py.h5t.VLEN)


def is_list(attribute) -> bool:
    """Whether its elements are lists of numbers."""
    kind = attribute.get_type()
    return (kind.get_class() == h5py.h5t.VLEN
            and kind.get_super().get_class() in (h5py.h5t.INTEGER, h5py.h5t.FLOAT))


def copy_lists(attribute, target, name: str) -> None:
    """An attribute whose elements are lists of numbers. TypeError for other lists, which h5py
    cannot write, or not without a crash."""
    kind = attribute.get_type()
    if not is_list(attribute):
        raise TypeError("lists inside of other types")
    values = np.empty(attribute.shape, dtype=attribute.dtype)
    attribute.read(values, mtype=h5py.h5t.py_create(attribute.dtype))
    copy = h5py.h5a.create(target.id, name.encode("utf-8", "surrogateescape"), kind.copy(),
                           attribute.get_space())
    copy.write(values, mtype=h5py.h5t.py_create(attribute.dtype))


def is_reference(attribute) -> bool:
    """Whether an attribute means nothing in another file.

    True for references, also inside lists and compounds (DIMENSION_LIST, REFERENCE_LIST).
    """
    return attribute.get_type().detect_class(h5py.h5t.REFERENCE)
