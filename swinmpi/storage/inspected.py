"""Which files this process has found sound, so that it need not have them inspected again: one
command looks at its input and at the truth several times, an experiment a hundred times.
"""
import os
import time
from collections.abc import Hashable
from pathlib import Path

import h5py

from swinmpi.storage.address import parse_address

MOST_OBJECTS, MOST_KEPT = 1000, 1 << 12
# A file may change twice in a tick of its file system's clock, and then looks as before. Times of
# whole seconds are those of a clock that ticks slowly.
TICK_S, SLOW_TICK_S = 0.1, 2.0
NS_PER_S = 10**9

_sound: set[Hashable] = set()


def mark_of(kind: str, address: str, view: Hashable) -> Hashable | None:
    """What an inspection was of: as long as it stays, so does its answer. None where the file is
    not there.

    kind, view: as which, and how seen, the file is inspected.
    """
    where = parse_address(address)
    try:
        # Opened, because on a network the state of a file is asked for anew only then.
        opened = os.open(where.path, os.O_RDONLY | os.O_NONBLOCK)
    except (OSError, ValueError):
        return None
    try:
        state = os.fstat(opened)
    finally:
        os.close(opened)
    return (kind, view, os.path.realpath(where.path), where.dataset, state.st_dev, state.st_ino,
            state.st_size, state.st_mtime_ns, state.st_ctime_ns)


def is_known_sound(mark: Hashable | None) -> bool:
    return mark in _sound


def remember_sound(mark: Hashable | None) -> None:
    """A file that `stands_alone`, unless it was changed so lately that it may change unseen."""
    if mark is None:
        return
    changed_ns = mark[-1]
    tick_s = TICK_S if changed_ns % NS_PER_S else SLOW_TICK_S
    if time.time() - changed_ns / NS_PER_S < tick_s:
        return
    if len(_sound) == MOST_KEPT:
        _sound.clear()
    _sound.add(mark)


def stands_alone(path: Path) -> bool:
    """Whether nothing in an HDF5 file leads to another one, whose change could not be seen in it;
    False for one of very many objects. For the process that may crash."""
    count = 0

    def leads_out(_: str, found: h5py.HLObject | h5py.HardLink) -> bool | None:
        """True ends the visit."""
        nonlocal count
        count += 1
        elsewhere = isinstance(found, h5py.ExternalLink) or (
            isinstance(found, h5py.Dataset) and (found.is_virtual or bool(found.external)))
        return True if elsewhere or count > MOST_OBJECTS else None

    with h5py.File(path) as file:
        return file.visititems_links(leads_out) is None and file.visititems(leads_out) is None
