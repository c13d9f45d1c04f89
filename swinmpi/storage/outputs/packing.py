"""The finished file: images compressed band by band, NeXus groups, and where they came from."""
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np

import swinmpi
from swinmpi.storage.attributes import copy_attributes, escaped, text_list
from swinmpi.storage.files import Sink
from swinmpi.storage.outputs.partial import DATA, LIBRARY, PER_IMAGE, nexus_group

CHUNK_BYTES = 1 << 20


def pack(partial: h5py.File, path: Path, compression: int, provenance: Mapping[str, Any]) -> None:
    """Write the finished form of OUT.partial to `path`, image by image and safe from a power cut.

    An older file there is overwritten. OSError when the disk is full.
    """
    with Sink(path, "w+b") as sink:
        with h5py.File(sink, "w", libver=LIBRARY) as packed:
            fill(packed, partial, compression, provenance, sink)
        sink.sync()


def fill(packed: h5py.File, partial: h5py.File, compression: int, provenance: Mapping[str, Any],
         sink: Sink) -> None:
    """Everything that is in the finished file."""
    done = np.flatnonzero(partial[PER_IMAGE]["done"][:])
    copy_attributes(partial, packed, skip=("fingerprint", "range_is_measured"))
    packed.attrs["NX_class"] = "NXroot"
    packed.attrs["creator"] = f"swinmpi {swinmpi.__version__}"
    packed.create_group("entry")
    copy_attributes(partial["entry"], packed["entry"])
    for name in (DATA, PER_IMAGE):
        group = packed.create_group(name)
        copy_attributes(partial[name], group)
        for source in partial[name].values():
            copy_dataset(source, group, compression, done, sink)
    attach_scales(packed[DATA])
    write_process(packed["entry"], provenance)


def copy_dataset(source: h5py.Dataset, group: h5py.Group, compression: int, done: np.ndarray,
                 sink: Sink) -> None:
    """One dataset with its attributes: images in chunks, compressed; axes, figures as they are."""
    name = source.name.rpartition("/")[2]
    if source.ndim < 3 or not len(source):  # HDF5 cuts nothing into chunks
        target = group.create_dataset(name, data=source[()], dtype=source.dtype)
    else:
        filters = {"compression": "gzip", "compression_opts": compression, "shuffle": True}
        target = group.create_dataset(name, source.shape, source.dtype,
                                      chunks=chunk_shape(source.shape, source.dtype),
                                      fillvalue=np.nan if source.dtype.kind == "f" else 0,
                                      **(filters if compression else {}))
        for image_index in done:
            for band in bands(target):
                place = (image_index, *band)
                target[place] = source[place]
                sink.check()
    copy_attributes(source, target)


def bands(dataset: h5py.Dataset) -> Iterator[tuple[slice, ...]]:
    """Slices of an image: one row of chunks after the other.

    So no more of a large image has to be in memory.
    """
    sides, chunk = dataset.shape[1:], dataset.chunks[1:]
    cut = next((axis for axis, side in enumerate(sides) if chunk[axis] < side), 0)
    for first in range(0, sides[cut], chunk[cut]):
        yield (slice(None),) * cut + (slice(first, first + chunk[cut]),)


def chunk_shape(shape: tuple[int, ...], dtype: np.dtype) -> tuple[int, ...]:
    """One image, or a tile of it: the longest side is halved until a chunk is at most 1 MiB."""
    sides = list(shape[1:])
    while np.prod(sides, dtype=np.int64) * dtype.itemsize > CHUNK_BYTES:
        longest = int(np.argmax(sides))
        sides[longest] = -(-sides[longest] // 2)
    return (1, *sides)


def attach_scales(data: h5py.Group) -> None:
    """Make the axes dimension scales of `sr` too, for readers that know HDF5 but not NeXus."""
    for dimension, name in enumerate(text_list(data, "axes")):
        if name != "." and len(data[name]) == data["sr"].shape[dimension]:
            data[name].make_scale(name)
            data["sr"].dims[dimension].attach_scale(data[name])


def write_process(entry: h5py.Group, provenance: Mapping[str, Any]) -> None:
    """NXprocess: the program, its version, the date, and every entry of `provenance`."""
    date = datetime.now().astimezone().isoformat(timespec="seconds")
    made_by = {"program": "swinmpi", "version": swinmpi.__version__, "date": date}
    write_entries(nexus_group(entry, "process", "NXprocess"), made_by | dict(provenance))


def write_entries(group: h5py.Group, entries: Mapping[str, Any]) -> None:
    """Each entry a dataset, a mapping an NXcollection of its entries, None nothing."""
    for name, value in entries.items():
        if isinstance(value, Mapping):
            write_entries(nexus_group(group, name, "NXcollection"), value)
        elif value is not None:
            group[name] = storable(value)


def storable(value: Any) -> Any:
    """A value as HDF5 can hold it: paths as text, names that are not UTF-8 escaped."""
    if isinstance(value, Path | str):
        return escaped(str(value))
    if isinstance(value, list | tuple):
        return [storable(item) for item in value]
    return value
