"""Looking through a file for images: what is a stack, what nearly is one, and which links lead out
of the file."""
import os
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, field

import h5py

from swinmpi.storage.attributes import DAMAGE, names_of
from swinmpi.storage.layout import EXPECTED, find_problem, looks_plain
from swinmpi.storage.values import most_usual

NAMED = 8
FEWEST_PX = 4  # sides below are those of tables, not of images
MOST_LINKS = 1000  # to other files that are opened; a detector writes hundreds


@dataclass
class Found:
    """Of a search.

    stacks: by path; near: datasets that look like images but are no stack, with shape and
    dtype, of the first the reason; outside: links to other files, not followed; broken: links that
    lead nowhere; unnamed: names that are not UTF-8, by which h5py finds nothing.
    """

    stacks: dict[str, h5py.Dataset] = field(default_factory=dict)
    near: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    unnamed: list[str] = field(default_factory=list)

    @property
    def likely(self) -> list[str]:
        """Paths of the stacks that may be meant: those whose shape alone says so, if there are
        any, and of these those of the usual dtypes."""
        plain = {path: item for path, item in self.stacks.items() if looks_plain(item.shape)}
        return most_usual({path: item.dtype for path, item in (plain or self.stacks).items()})

    def in_words(self) -> str:
        """What there is instead of stacks, to stand behind "found none"; empty for nothing."""
        titles = {"but ": self.near, "links that lead nowhere: ": self.broken,
                  "links to other files, which swinmpi-sample follows with --allow-external: ":
                  self.outside,
                  "names that are not UTF-8, to be changed with h5py: ": self.unnamed}
        return "".join(f", {title}{listed(names)}" for title, names in titles.items() if names)


class Search:
    """Of everything below a group: hard links are followed, those to other files where it is
    allowed; each object once."""

    def __init__(self, allow_external: bool, axes: str | None = None):
        self.allow_external, self.axes = allow_external, axes
        self.found = Found()
        self._seen: set[tuple[str, int]] = set()
        self._links: list[tuple[str, h5py.Group, str]] = []
        self._num_outside = 0  # of the links; they stand first

    def look_below(self, group: h5py.Group, path: str) -> Found:
        """path: of `group`."""
        self._look_at(group, path)
        while self._links:
            place, parent, name = self._links.pop(0)
            self._num_outside = max(0, self._num_outside - 1)
            try:
                item = parent[name]
            except DAMAGE:
                self.found.broken.append(place)
                continue
            if item.file.filename != parent.file.filename:
                self._look_at(item, place)
        return self.found

    def _look_at(self, item: h5py.HLObject, path: str) -> None:
        # Not by HDF5's number of the file, which is another after closing and opening again.
        file = os.path.realpath(item.file.filename)
        self._note(path, item, file)
        if isinstance(item, h5py.Group):
            item.visititems(lambda name, child: self._note_below(path, name, child, file))

    def _note_below(self, path: str, name: str | bytes, item: h5py.HLObject, file: str) -> None:
        if isinstance(name, bytes):
            self.found.unnamed.append(posixpath.join(path, ascii(name)[2:-1]))
        else:
            self._note(posixpath.join(path, name), item, file)

    def _note(self, path: str, item: h5py.HLObject, file: str) -> None:
        identity = file, h5py.h5o.get_info(item.id).addr
        if identity in self._seen:
            return
        self._seen.add(identity)
        if isinstance(item, h5py.Group):
            self._note_links(path, item)
        elif is_stack(item, self.axes):
            self.found.stacks[path] = item
        elif is_near(item):
            reason = "" if self.found.near else f" ({reason_against(item, self.axes)})"
            self.found.near.append(f"{path} {item.shape} {item.dtype}{reason}")

    def _note_links(self, path: str, group: h5py.Group) -> None:
        for name, link in soft_links(group):
            place = posixpath.join(path, name)
            outside = isinstance(link, h5py.ExternalLink)
            if self.allow_external and len(self._links) < MOST_LINKS:
                # A soft link may lead to what a link to another file names better.
                at = self._num_outside if outside else len(self._links)
                self._links.insert(at, (place, group, name))
                self._num_outside += outside
            elif outside:
                self.found.outside.append(f"{place} -> {link.filename}")


def search(group: h5py.Group, path: str, allow_external: bool = False,
           axes: str | None = None) -> Found:
    """See `Search`."""
    return Search(allow_external, axes).look_below(group, path)


def soft_links(group: h5py.Group) -> Iterator[tuple[str, h5py.SoftLink | h5py.ExternalLink]]:
    """The links of a group that name a path, in this file or another."""
    for name in names_of(group):
        link = group.get(name, getlink=True)
        if isinstance(link, h5py.SoftLink | h5py.ExternalLink):
            yield name, link


def is_stack(item, axes: str | None = None, group: h5py.Group | None = None) -> bool:
    return isinstance(item, h5py.Dataset) and find_problem(item, axes, group) is None


def reason_against(item: h5py.Dataset, axes: str | None) -> str:
    """Why a dataset is no stack, without what is expected of all of them."""
    problem = find_problem(item, axes)
    return problem.removeprefix(f"expected {EXPECTED}, ")


def is_near(item) -> bool:
    """Whether a dataset that is no stack may be what the user means: numbers in two dimensions or
    more, of which two are long enough for an image."""
    if not isinstance(item, h5py.Dataset) or item.shape is None:
        return False
    sides = [size for size in item.shape if size >= FEWEST_PX]
    return len(sides) >= 2 and item.dtype.kind in "biufcV"


def listed(names: list[str]) -> str:
    """The first of them."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
