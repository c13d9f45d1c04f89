"""HDF5 addresses: `file.h5::/path/to/images`, opening the file, and finding the stack inside it."""
import errno
import posixpath
import stat
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import h5py

from swinmpi.errors import StackError
from swinmpi.storage.attributes import text_attribute
from swinmpi.storage.layout import EXPECTED, find_problem, looks_plain

with suppress(ImportError):
    import hdf5plugin  # noqa: F401 - registers the compression filters of the `filters` extra

# So much that a chunk which spans many images is unpacked once, not once per image.
CHUNK_CACHE_BYTES = 128 << 20
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # what file systems without locks answer
# What h5py raises on files that are not sound.
DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError)


class Missing(KeyError):
    """Nothing is there."""


@dataclass(frozen=True)
class Address:
    """Where a stack lies: a file and, optionally, the absolute path of a dataset or group in it."""

    path: Path
    dataset: str | None = None

    def __str__(self):
        return str(self.path) if self.dataset is None else f"{self.path}::{self.dataset}"


def parse_address(text: str) -> Address:
    """`file.h5` or `file.h5::/path/to/images`; StackError when a side of `::` is empty."""
    path, colons, dataset = text.partition("::")
    if not path or (colons and not dataset.strip("/ ")):
        raise StackError(f"{text!r}: expected file.h5 or file.h5::/path/to/images")
    return Address(Path(path), posixpath.normpath("/" + dataset.strip("/ ")) if colons else None)


def open_file(path: Path) -> h5py.File:
    """Open an HDF5 file for reading.

    StackError when it is missing, not readable, not HDF5, or damaged.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise StackError(f"{path}: expected an HDF5 file, got a folder or a device")
        with path.open("rb"):
            pass
    except OSError as error:
        raise StackError(f"{path}: cannot open the HDF5 file: {error.strerror or error}") from None
    try:
        if not h5py.is_hdf5(path):
            raise StackError(f"{path}: expected an HDF5 file, got something else "
                             "(no HDF5 signature)")
        return open_for_reading(path, rdcc_nbytes=CHUNK_CACHE_BYTES)
    except DAMAGE as error:
        reason = reason_of(error)
        if "truncated" in reason:
            raise StackError(f"{path}: the HDF5 file is truncated; "
                             "copy or write it again") from None
        if "lock" in reason:
            raise StackError(f"{path}: another program is writing the HDF5 file; "
                             "wait until it has closed it") from None
        raise StackError(f"{path}: the HDF5 file is damaged ({reason}); "
                         "copy or write it again") from None


def open_for_reading(path: Path | str, **options) -> h5py.File:
    """`h5py.File(path, "r")`, also on a file system without locks, where HDF5 would refuse."""
    try:
        return h5py.File(path, "r", **options)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return h5py.File(path, "r", locking=False, **options)


def find_dataset(file: h5py.File, dataset: str | None, allow_external: bool = False,
                 axes: str | None = None) -> str:
    """Absolute path of the stack.

    The named dataset, else (also below a named group) the NeXus default, else the only dataset that
    looks like images. axes: as the user says, one for each of its dimensions. StackError lists the
    candidates.
    """
    start = dataset or "/"
    item = open_object(file, start, allow_external)
    if not isinstance(item, h5py.Group):
        return start
    default = nexus_default(file, start, allow_external)
    if default is not None:
        group = open_object(file, posixpath.dirname(default), allow_external)
        if is_stack(open_object(file, default, allow_external), axes, group):
            return default
    candidates = image_datasets(item, start, axes)
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        raise StackError(f"{file.filename}: expected a dataset of {EXPECTED}, found none below "
                         f"{start}; name one as file.h5::/path/to/images")
    more = f" and {len(candidates) - 8} more" if len(candidates) > 8 else ""
    listed = ", ".join(candidates[:8]) + more
    raise StackError(f"{file.filename}: {len(candidates)} datasets look like images ({listed}); "
                     f"name one, for example {file.filename}::{candidates[0]}")


def open_object(file: h5py.File, name: str, allow_external: bool = False) -> h5py.HLObject:
    """The object at an absolute path; StackError when it is missing or in another file."""
    try:
        return follow(file, name, allow_external)
    except DAMAGE as error:
        raise StackError(f"{file.filename}::{name}: no such dataset ({reason_of(error)}); "
                         f"list what is there with `h5ls -r {file.filename}`") from None


def find_object(file: h5py.File, name: str, allow_external: bool = False) -> h5py.HLObject | None:
    """As `open_object`, but None where nothing is there."""
    try:
        follow(file, name, allow_external)
    except Missing:
        return None
    except DAMAGE:
        pass  # told by open_object
    return open_object(file, name, allow_external)


def refuse_external_storage(dataset: h5py.Dataset, allow_external: bool) -> None:
    """StackError when the pixels lie in other files and that was not allowed.

    Other files: external storage, or the sources of a virtual dataset.
    """
    if allow_external or not (dataset.external or dataset.is_virtual):
        return
    kind = "a virtual dataset" if dataset.is_virtual else "external storage"
    raise StackError(f"{dataset.file.filename}::{dataset.name}: {kind} reads other files, which "
                     "refused; copy the images into one file (h5repack) or allow external data")


def nexus_default(file: h5py.File, start: str, allow_external: bool = False) -> str | None:
    """Follow `default` (or the only NXentry, NXdata) from `start` to `signal`; None without any."""
    path = start
    for _ in range(8):  # deep enough for any real file, and ends when groups name each other
        try:
            item = follow(file, path, allow_external)
        except DAMAGE:
            return None
        if not isinstance(item, h5py.Group):
            return path
        child = (text_attribute(item, "signal") or text_attribute(item, "default")
                 or only_nexus_child(item))
        if child is None:
            return None
        path = posixpath.normpath(posixpath.join(path, child))
    return None


def image_datasets(group: h5py.Group, prefix: str, axes: str | None = None) -> list[str]:
    """Paths of all datasets below `group` that look like images; only hard links are followed.

    Those of 3 or 4 dimensions that do by their shape, if there are any.
    """
    found: dict[str, bool] = {}

    def note(name: str, item) -> None:
        if is_stack(item, axes):
            found[posixpath.join(prefix, name)] = looks_plain(item.shape)

    group.visititems(note)
    plain = [name for name, is_plain in found.items() if is_plain]
    return plain or [*found]


def follow(file: h5py.File, name: str, allow_external: bool) -> h5py.HLObject:
    """The object at an absolute path, walked link by link.

    StackError at a link that leaves the file, Missing at one that leads nowhere. HDF5's own look at
    a path would open the other file.
    """
    if allow_external:
        if name not in file:
            raise Missing(f"{name!r} is not in the file")
        return file[name]
    group, parts, hops = "/", deque(name.split("/")), 0
    while parts:
        part = parts.popleft()
        if part in ("", "."):
            continue
        parent = file[group]
        if not isinstance(parent, h5py.Group) or not parent.id.links.exists(part.encode()):
            raise Missing(f"{part!r} is not in {group}")
        kind = parent.id.links.get_info(part.encode()).type
        if kind == h5py.h5l.TYPE_HARD:
            group = posixpath.join(group, part)
        elif kind == h5py.h5l.TYPE_SOFT and (hops := hops + 1) <= 32:
            target = parent.id.links.get_val(part.encode()).decode()
            group = "/" if target.startswith("/") else group
            parts.extendleft(reversed(target.split("/")))
        else:
            raise StackError(f"{file.filename}::{name}: {part!r} is a link to another file (or a "
                             "loop of links), which is refused; copy the images into one file, or "
                             "allow external data")
    return file[group]


def only_nexus_child(group: h5py.Group) -> str | None:
    """The child NeXus means where no attribute says so.

    It is the only NXentry or NXdata, or a dataset with signal=1.
    """
    hard = [name for name in group if isinstance(group.get(name, getlink=True), h5py.HardLink)]
    classed = [name for name in hard
               if text_attribute(group[name], "NX_class") in ("NXentry", "NXdata")]
    signals = [name for name in hard if str(group[name].attrs.get("signal")) == "1"]
    for names in (classed, signals):
        if len(names) == 1:
            return names[0]
    return None


def is_stack(item, axes: str | None = None, group: h5py.Group | None = None) -> bool:
    return isinstance(item, h5py.Dataset) and find_problem(item, axes, group) is None


def reason_of(error: Exception) -> str:
    """HDF5's own reason in one line: what h5py puts in parentheses, else all of it."""
    text = " ".join(str(error.args[-1] if error.args else error).split())
    return text.partition("(")[2].rstrip(")") or text
