"""The finished file: images compressed band by band, NeXus groups, and where they came from."""
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np

import swinmpi
from swinmpi.storage.attributes import copy_attributes, escaped, text_list
from swinmpi.storage.files import Sink
from swinmpi.storage.layout import Arrangement
from swinmpi.storage.metadata.said import NO_VARIABLE
from swinmpi.storage.outputs.carrying import (
    ALONG,
    DATA,
    LIBRARY,
    LINKED,
    RESTORED,
    nexus_group,
    set_axes,
)
from swinmpi.storage.outputs.partial import PER_IMAGE

CHUNK_BYTES = 1 << 20


def pack(partial: h5py.File, path: Path, compression: int, provenance: Mapping[str, Any],
         add: Callable[[h5py.File], None]) -> None:
    """Write the finished form of OUT.partial to `path`, image by image and safe from a power cut.

    An older file there is overwritten. add: writes what comes last. OSError when the disk is full.
    """
    with Sink(path, "w+b") as sink:
        with h5py.File(sink, "w", libver=LIBRARY) as packed:
            fill(packed, partial, compression, provenance, sink)
            add(packed)
        sink.sync()


def fill(packed: h5py.File, partial: h5py.File, compression: int, provenance: Mapping[str, Any],
         sink: Sink) -> None:
    """Everything that is in the finished file."""
    done = np.flatnonzero(partial[PER_IMAGE]["done"][:])
    is_part = provenance.get("shard") is not None  # it stays folded, for swinmpi-merge
    arrangement = None if is_part else restored_of(partial[DATA])
    copy_attributes(partial, packed, skip=("fingerprint", "range_is_measured",
                                           *(() if is_part else (LINKED, ALONG))))
    packed.attrs["NX_class"] = "NXroot"
    packed.attrs["creator"] = f"swinmpi {swinmpi.__version__}"
    packed.create_group("entry")
    copy_attributes(partial["entry"], packed["entry"])
    for name in (DATA, PER_IMAGE):
        group = packed.create_group(name)
        copy_attributes(partial[name], group)
        for source in partial[name].values():
            copy_dataset(source, group, compression, done, sink, arrangement)
    copy_others(partial["entry"], packed["entry"])
    linked = () if is_part else partial.attrs.get(LINKED, ())
    if not is_part:
        restore_axes(packed[DATA])
        link_images(packed, linked)
    if not len(linked):
        attach_scales(packed[DATA])
    write_process(packed["entry"], provenance)


def copy_dataset(source: h5py.Dataset, group: h5py.Group, compression: int, done: np.ndarray,
                 sink: Sink, arrangement: Arrangement | None) -> None:
    """One dataset with its attributes: images in chunks, compressed; axes, figures as they are.

    arrangement: how the images are to be stored, None where they stay as they are.
    """
    name = source.name.rpartition("/")[2]
    if source.ndim < 3 or not len(source):  # HDF5 cuts nothing into chunks
        target = group.create_dataset(name, data=source[()], dtype=source.dtype)
    else:
        chunks = chunk_shape(source.shape, source.dtype)
        target = group.create_dataset(name, unfolded(arrangement, source.shape), source.dtype,
                                      chunks=unfolded(arrangement, chunks, is_chunk=True),
                                      fillvalue=np.nan if source.dtype.kind == "f" else 0,
                                      **filters(compression))
        for image_index in done:
            for band in bands(source.shape, chunks):
                place = (image_index, *band)
                into = place if arrangement is None else arrangement.unfolded(
                    arrangement.place(image_index), band)
                target[into] = source[place]
                sink.check()
    copy_attributes(source, target)


def filters(compression: int) -> dict[str, Any]:
    """Of a dataset in chunks. compression: gzip's level, 0 for none."""
    how = {"compression": "gzip", "compression_opts": compression, "shuffle": True}
    return how if compression else {}


def restored_of(data: h5py.Group) -> Arrangement | None:
    """How the images of OUT.partial or a shard are stored in the end; None where as they are."""
    if RESTORED not in data.attrs:
        return None
    how = json.loads(data.attrs[RESTORED])
    sizes, within = iter(how["sizes"]), iter(data["sr"].shape[1:])
    return Arrangement(how["layout"], tuple(next(sizes if letter == "N" else within)
                                            for letter in how["layout"]))


def unfolded(arrangement: Arrangement | None, shape: tuple[int, ...],
             is_chunk: bool = False) -> tuple[int, ...]:
    """A shape with the images first, or of a chunk of one image, as it is stored in the end."""
    if arrangement is None:
        return shape
    along = (1,) * len(arrangement.image_sizes) if is_chunk else arrangement.image_sizes
    return arrangement.unfolded(along, shape[1:])


def restore_axes(data: h5py.Group) -> None:
    """NeXus's `axes` and HDF5's labels of images that are stored as those of the input."""
    if RESTORED in data.attrs:
        how = json.loads(data.attrs[RESTORED])
        del data.attrs[RESTORED]
        set_axes(data, how["axes"])
        for dimension, label in enumerate(how["labels"]):
            data["sr"].dims[dimension].label = label


def copy_others(source: h5py.Group, target: h5py.Group) -> None:
    """What lies beside the images and the figures: small, so as it is."""
    for name, item in source.items():
        if isinstance(item, h5py.Dataset):
            copied = target.create_dataset(name, data=item[()], dtype=item.dtype)
            copy_attributes(item, copied)
        elif item.name not in (DATA, PER_IMAGE):
            copy_attributes(item, target.require_group(name))
            copy_others(item, target[name])


def link_images(packed: h5py.File, places: Iterable[str]) -> None:
    """The images also where the input has them."""
    for place in places:
        if place not in packed:
            packed[place] = packed[DATA]["sr"]


def bands(shape: tuple[int, ...], chunks: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Slices of an image: one row of chunks after the other.

    So no more of a large image has to be in memory.
    """
    sides, chunk = shape[1:], chunks[1:]
    cut = next((axis for axis, side in enumerate(sides) if chunk[axis] < side), 0)
    for first in range(0, sides[cut], chunk[cut]):
        others = (slice(None),) * (len(sides) - 1)
        yield (*others[:cut], slice(first, first + chunk[cut]), *others[cut:])


def chunk_shape(shape: tuple[int, ...], dtype: np.dtype) -> tuple[int, ...]:
    """One image, or a tile of it: the longest side is halved until a chunk is at most 1 MiB."""
    sides = list(shape[1:])
    while np.prod(sides, dtype=np.int64) * dtype.itemsize > CHUNK_BYTES:
        longest = int(np.argmax(sides))
        sides[longest] = -(-sides[longest] // 2)
    return (1, *sides)


def attach_scales(data: h5py.Group) -> None:
    """Make the axes dimension scales of the images too, for readers that know HDF5 or netCDF.

    Where only some dimensions have one, netCDF wants the others as well: they get its dimensions
    without a variable, which are no axes; not beside axes that are edges. What holds a value per
    image follows the first. Not of images that lie in a second group too, where netCDF would not
    see the scales, and so nothing at all.
    """
    sr, scales, is_complete = data["sr"], {}, True
    for dimension, name in enumerate(text_list(data, "axes")):
        if name != "." and len(data[name]) == sr.shape[dimension]:
            data[name].make_scale(name)
            scales[dimension] = data[name]
        elif name != ".":
            is_complete = False
    if not scales:
        return
    for dimension, size in enumerate(sr.shape):
        name = f"dimension_{dimension}"
        if dimension not in scales and is_complete and name not in data:
            scales[dimension] = data.create_dataset(name, shape=(size,), dtype=">f4")
            scales[dimension].make_scale(f"{NO_VARIABLE}{size:10d}")
    along = len(data["sr"]) if sr.shape.count(len(sr)) == 1 else None
    for item in list(data.values()):
        if item.shape == sr.shape:
            for dimension, scale in scales.items():
                item.dims[dimension].attach_scale(scale)
        elif item.ndim == 1 and len(item) == along and item not in scales.values():
            item.dims[0].attach_scale(scales[0])


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
