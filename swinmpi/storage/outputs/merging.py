"""The finished shards of one run put together: their chunks copied as they are, or referred to."""
import itertools
import json
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from swinmpi.errors import StackError
from swinmpi.storage.address import DAMAGE, open_file
from swinmpi.storage.attributes import copy_attributes, names_of, text_list
from swinmpi.storage.files import (
    Sink,
    as_output_error,
    beside,
    make_folder_of,
    put_in_place,
)
from swinmpi.storage.layout import Arrangement
from swinmpi.storage.locking import begin
from swinmpi.storage.metadata.said import is_no_variable
from swinmpi.storage.outputs.carrying import ALONG, DATA, LIBRARY, LINKED, STRUCTURE
from swinmpi.storage.outputs.packing import (
    attach_scales,
    link_images,
    restore_axes,
    restored_of,
    unfolded,
    write_process,
)
from swinmpi.storage.outputs.partial import PER_IMAGE, differing_keys, shortened
from swinmpi.storage.outputs.result import PROCESS, read_entries
from swinmpi.storage.outputs.views import link_errors


@dataclass(frozen=True)
class ShardFile:
    """A finished shard.

    images: its image indices in the whole stack of `total`; failed: those of them given up; pixels:
    (shape of an image, dtype, chunks and filters) of every dataset of images, by name.
    """

    path: Path
    number: int
    of: int
    images: range
    total: int
    failed: tuple[int, ...]
    pixels: Mapping[str, tuple]
    figures: tuple[str, ...]
    fingerprint: Mapping[str, Any] = field(repr=False)
    process: Mapping[str, Any] = field(repr=False)


def read_shard(path: Path) -> ShardFile:
    """What a shard says about itself, its pixels unread.

    StackError when it is missing, damaged, or no finished shard.
    """
    with closing(open_file(path)) as file:
        try:
            process = read_entries(file[PROCESS])
            shard, done = process.pop("shard"), file[PER_IMAGE]["done"][:]
            first = shard["first_image"]
            failed = (first + np.flatnonzero(done == 0)).tolist()
            images, fingerprint = range(first, first + len(done)), json.loads(shard["fingerprint"])
            return ShardFile(path, shard["number"], shard["of"], images, shard["total"],
                             tuple(failed), pixels_of(file), tuple(sorted(file[PER_IMAGE])),
                             fingerprint, process)
        except DAMAGE:
            raise StackError(f"{path}: expected a finished file of swinmpi-sample --shard I/N, got "
                             "another one; leave it out, or run that shard to its end") from None


def difference(one: ShardFile, other: ShardFile) -> str | None:
    """What differs between two shards that is the same in one run; None if they belong together."""
    if (one.of, one.total) != (other.of, other.total):
        return "the number of shards or images"
    if one.fingerprint != other.fingerprint:
        return shortened(differing_keys(one.fingerprint, other.fingerprint))
    if one.figures != other.figures:
        return "the figures of images, so the versions of swinmpi"
    compared = 3 if one.images and other.images else 2  # a shard without images has no chunks
    pixels = [{name: facts[:compared] for name, facts in shard.pixels.items()}
              for shard in (one, other)]
    return None if pixels[0] == pixels[1] else (
        "output.regression, output.members or output.compression")


def merge_files(shards: Sequence[ShardFile], path: Path, provenance: Mapping[str, Any],
                virtual: bool = False) -> None:
    """Write the stack of which `shards` (all of one run, in order) are the parts to `path`.

    It is written whole or not at all. One chunk is in memory at a time and none is unpacked.
    virtual: only refer to the images, by file names relative to `path`. provenance: as for
    `StackOutput.finish`. OutputError when the disk is full, when a shard cannot be read, or when
    another process merges into the same file.
    """
    make_folder_of(path)
    unfinished, unharmed = beside(path, ".packing"), "the shards are as they were, start again"
    with (as_output_error(path, "cannot be merged ({reason})", unharmed, DAMAGE),
          ExitStack() as stack):
        sink = begin(unfinished, stack)
        sink.truncate(0)
        with h5py.File(sink, "w", libver=LIBRARY) as merged:
            with_images = [shard for shard in shards if shard.images]
            fill(merged, with_images, path if virtual else None, sink)
            write_process(merged["entry"], provenance)
        sink.sync()
        put_in_place(unfinished, path)


def fill(merged: h5py.File, shards: Sequence[ShardFile], virtual_path: Path | None,
         sink: Sink) -> None:
    """Everything but the process.

    The first shard gives the structure, each of them its images and small values.
    """
    parts: dict[str, list[np.ndarray]] = defaultdict(list)
    with closing(open_file(shards[0].path)) as first:
        for name in ("/", "entry", DATA, PER_IMAGE):
            copy_attributes(first[name], merged.require_group(name), (LINKED, ALONG))
        arrangement, along = restored_of(first[DATA]), set(first.attrs.get(ALONG, ()))
        for name in shards[0].pixels:
            create_images(merged[DATA], first[DATA][name], shards, virtual_path, arrangement)
        for shard in shards:
            with closing(open_file(shard.path)) as file:
                for name in small_datasets(file):
                    parts[name].append(file[name][()])
                for name in () if virtual_path else shard.pixels:
                    copy_chunks(file[DATA][name], merged[DATA][name], shard.images.start, sink,
                                arrangement)
        along.add(f"{DATA}/{text_list(first[DATA], 'axes')[0]}")
        for name, values in parts.items():
            along_stack = name in along or name.startswith(PER_IMAGE)
            joined = join(values, shards) if along_stack else values[0]
            copied = merged.create_dataset(name, data=joined, dtype=first[name].dtype)
            copy_attributes(first[name], copied, skip=STRUCTURE)
        copy_groups(first["entry"], merged["entry"])
        restore_axes(merged[DATA])
        linked = first.attrs.get(LINKED, ())
        link_images(merged, linked)
    if not len(linked):
        attach_scales(merged[DATA])
    link_errors(merged)


def copy_groups(source: h5py.Group, target: h5py.Group) -> None:
    """The attributes of what lies beside the images; its values are there already."""
    for name in names_of(source):
        item = source[name]
        if isinstance(item, h5py.Group) and item.name not in (DATA, PER_IMAGE, PROCESS):
            copy_attributes(item, target.require_group(name))
            copy_groups(item, target[name])


def create_images(data: h5py.Group, source: h5py.Dataset, shards: Sequence[ShardFile],
                  virtual_path: Path | None, arrangement: Arrangement | None) -> None:
    """The dataset of all images, stored like `source`, still without pixels; or the virtual one.

    arrangement: how the images are to be stored, None where like those of a shard.
    """
    name = source.name.rpartition("/")[2]
    shape = unfolded(arrangement, (shards[0].total, *source.shape[1:]))
    if virtual_path is None:
        creation = source.id.get_create_plist()
        creation.set_chunk(unfolded(arrangement, source.chunks, is_chunk=True))
        dataset = h5py.h5d.create(data.id, name.encode(), source.id.get_type(),
                                  h5py.h5s.create_simple(shape), creation)
        target = h5py.Dataset(dataset)
    else:
        layout = h5py.VirtualLayout(shape, source.dtype)
        for shard in shards:
            part = h5py.VirtualSource(relative_name(shard.path, virtual_path), source.name,
                                      (len(shard.images), *source.shape[1:]), source.dtype)
            if arrangement is None:
                layout[shard.images.start:shard.images.stop] = part
                continue
            for image, number in enumerate(shard.images):
                within = [slice(None)] * (source.ndim - 1)
                layout[arrangement.unfolded(arrangement.place(number), within)] = part[image]
        target = data.create_virtual_dataset(name, layout, fillvalue=source.fillvalue)
    copy_attributes(source, target)


def relative_name(path: Path, of: Path) -> str:
    """How a virtual dataset in the file `of` calls the file `path`.

    HDF5 reads a percent sign as the start of a pattern.
    """
    return os.path.relpath(os.path.realpath(path), of.parent).replace("%", "%%")


def copy_chunks(source: h5py.Dataset, target: h5py.Dataset, first_image: int, sink: Sink,
                arrangement: Arrangement | None) -> None:
    """Copy the stored chunks of a shard to their place in the whole; images given up have none.

    OSError when the disk is full.
    """
    for offset in chunk_offsets(source):
        if source.id.get_chunk_info_by_coord(offset).byte_offset is not None:
            filter_mask, chunk = source.id.read_direct_chunk(offset)
            image = first_image + offset[0]
            into = (image, *offset[1:]) if arrangement is None else arrangement.unfolded(
                arrangement.place(image), offset[1:])
            target.id.write_direct_chunk(into, chunk, filter_mask)
            sink.check()


def chunk_offsets(dataset: h5py.Dataset) -> Iterator[tuple[int, ...]]:
    """Where the chunks begin; a chunk holds pixels of one image only."""
    return itertools.product(*map(range, (0,) * dataset.ndim, dataset.shape, dataset.chunks))


def join(parts: Sequence[np.ndarray], shards: Sequence[ShardFile]) -> np.ndarray:
    """Values along the stack, one per image, or their edges, of which neighbours share one."""
    edges = len(parts[0]) == len(shards[0].images) + 1
    return np.concatenate([part[1:] if edges and number else part
                           for number, part in enumerate(parts)])


def small_datasets(file: h5py.File) -> list[str]:
    """Paths of all but the images and the process: axes, figures, what lies beside them."""
    found: list[str] = []

    def note(name: str, item) -> None:
        place = f"/entry/{name}"
        images = place.startswith(f"{DATA}/") and getattr(item, "ndim", 0) >= 3
        if (isinstance(item, h5py.Dataset) and not images and not is_no_variable(item)
                and not place.startswith(f"{PROCESS}/")):
            found.append(place)

    file["entry"].visititems(note)
    return found


def pixels_of(file: h5py.File) -> dict[str, tuple]:
    """See ShardFile."""
    return {name: (item.shape[1:], item.dtype.str, (item.chunks, filters_of(item)))
            for name, item in file[DATA].items()
            if isinstance(item, h5py.Dataset) and item.ndim >= 3}


def filters_of(dataset: h5py.Dataset) -> tuple:
    creation = dataset.id.get_create_plist()
    return tuple(creation.get_filter(position) for position in range(creation.get_nfilters()))
