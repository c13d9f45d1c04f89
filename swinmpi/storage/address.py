"""HDF5 addresses: `file.h5::/path/to/images`, opening the file, and finding the stack inside it."""
import errno
import posixpath
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import h5py

from swinmpi.errors import StackError
from swinmpi.storage.attributes import DAMAGE, names_of, text_attribute
from swinmpi.storage.kinds import nearest, what_is
from swinmpi.storage.layout import EXPECTED
from swinmpi.storage.search import is_stack, listed, search

with suppress(ImportError):
    import hdf5plugin  # noqa: F401 - registers the compression filters of the `filters` extra

# So much that a chunk which spans many images is unpacked once, not once per image.
CHUNK_CACHE_BYTES = 128 << 20
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # what file systems without locks answer
ALLOW = "let swinmpi-sample follow it with --allow-external"


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
        if not (path.is_file() and h5py.is_hdf5(path)):
            raise StackError(f"{path}: expected an HDF5 file, got {what_is(path)}")
        return open_for_reading(path, rdcc_nbytes=CHUNK_CACHE_BYTES)
    except DAMAGE as error:
        raise StackError(f"{path}: {why_unopened(error)}") from None


def why_unopened(error: Exception) -> str:
    """Why HDF5 did not open a file, and what to do."""
    reason = reason_of(error)
    if is_being_written(error):
        return ("is open for writing (SWMR), or its writer crashed: wait until the writer has "
                "closed it, or run h5clear -s FILE")
    if "truncated" in reason:
        return "the HDF5 file is truncated; copy or write it again"
    if "lock" in reason:
        return "another program is writing the HDF5 file; wait until it has closed it"
    return f"the HDF5 file is damaged ({reason}); copy or write it again"


def is_being_written(error: Exception) -> bool:
    """Whether HDF5 did not open a file because of its mark "open for writing"."""
    return "already open for" in reason_of(error)


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
    found = search(item, start, allow_external, axes)
    candidates = found.likely
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        raise StackError(f"{file.filename}: expected a dataset of {EXPECTED}, found none below "
                         f"{start}{found.in_words()}; name one as file.h5::/path/to/images")
    raise StackError(f"{file.filename}: {len(candidates)} datasets look like images "
                     f"({listed(candidates)}); name one, for example "
                     f"{file.filename}::{candidates[0]}")


def open_object(file: h5py.File, name: str, allow_external: bool = False) -> h5py.HLObject:
    """The object at an absolute path; StackError when it is missing or in another file."""
    try:
        return follow(file, name, allow_external)
    except DAMAGE as error:
        raise StackError(f"{file.filename}::{name}: no such dataset ({reason_of(error)}); "
                         f"list what is there with `h5ls -r {file.filename}`"
                         f"{or_meant(file, name)}") from None


def or_meant(file: h5py.File, name: str) -> str:
    """, or did you mean PATH? Empty where nothing in its group has such a name."""
    above, _, last = name.rpartition("/")
    try:
        group = follow(file, above or "/", allow_external=False)
        near = nearest(last, names_of(group)) if isinstance(group, h5py.Group) else None
    except (StackError, *DAMAGE):
        return ""
    return f", or did you mean {above}/{near}?" if near else ""


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

    Other files: external storage, or sources of a virtual dataset, also of those that it shows.
    """
    if allow_external or not (dataset.external or dataset.is_virtual):
        return
    if dataset.is_virtual and not leaves_file(dataset):
        return
    kind = "a virtual dataset" if dataset.is_virtual else "external storage"
    raise StackError(f"{dataset.file.filename}::{dataset.name}: {kind} reads other files, which "
                     "is refused; copy the images into one file (h5repack -l CONTI OLD NEW) or "
                     f"{ALLOW}")


def leaves_file(dataset: h5py.Dataset, above: tuple[str, ...] = ()) -> bool:
    """Whether any pixel of a dataset comes from another file.

    above: the virtual datasets that led here; one that leads back to itself leads nowhere else.
    """
    if dataset.external:
        return True
    if not dataset.is_virtual or dataset.name in above:
        return False
    own = Path(dataset.file.filename)
    for source in dataset.virtual_sources():
        if not is_same_file(source.file_name, own):
            return True
        try:
            shown = follow(dataset.file, source.dset_name, allow_external=False)
        except Missing:
            continue
        if isinstance(shown, h5py.Dataset) and leaves_file(shown, (*above, dataset.name)):
            return True
    return False


def is_same_file(name: str, own: Path) -> bool:
    """Whether a virtual dataset in the file `own` that names a file means `own` itself."""
    if name == ".":
        return True
    places = (own.parent / name, Path(name), own.parent / Path(name).name)
    first = next((place for place in places if place.exists()), None)
    return first is not None and first.samefile(own)


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
                 or only_nexus_child(item, allow_external))
        if child is None:
            return None
        path = posixpath.normpath(posixpath.join(path, child))
    return None


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
            told = "another file, which is refused; copy the images into one file, or " + ALLOW
            if kind == h5py.h5l.TYPE_SOFT:
                told = "itself; name the dataset"
            raise StackError(f"{file.filename}::{name}: {part!r} is a link to {told}")
    return file[group]


def only_nexus_child(group: h5py.Group, allow_external: bool = False) -> str | None:
    """The child NeXus means where no attribute says so.

    It is the only NXentry or NXdata, or a dataset with signal=1.
    """
    children = {name: child_of(group, name, allow_external) for name in names_of(group)}
    classed = [name for name, child in children.items() if child is not None
               and text_attribute(child, "NX_class") in ("NXentry", "NXdata")]
    signals = [name for name, child in children.items() if child is not None
               and str(child.attrs.get("signal")) == "1"]
    for names in (classed, signals):
        if len(names) == 1:
            return names[0]
    return None


def child_of(group: h5py.Group, name: str, allow_external: bool) -> h5py.HLObject | None:
    """What a hard link leads to, and where that is allowed a link to another file; else None."""
    link = group.get(name, getlink=True)
    if isinstance(link, h5py.HardLink):
        return group[name]
    if not (allow_external and isinstance(link, h5py.ExternalLink)):
        return None
    try:
        return group[name]
    except DAMAGE:
        return None


def reason_of(error: Exception) -> str:
    """HDF5's own reason in one line: what h5py puts in parentheses, else all of it."""
    text = " ".join(str(error.args[-1] if error.args else error).split())
    return text.partition("(")[2].rstrip(")") or text
