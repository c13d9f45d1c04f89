"""What readers of NeXus find beside the images: error bars under the names they know, LR."""
from collections.abc import Iterable

import h5py

from swinmpi.storage.attributes import copy_attributes
from swinmpi.storage.outputs.carrying import (
    DATA,
    FOREIGN,
    RESTORED,
    STRUCTURE,
    carry_axes,
    nexus_group,
)
from swinmpi.storage.outputs.packing import chunk_shape, filters
from swinmpi.storage.stack import Stack

LR = "/entry/lr"


def link_errors(file: h5py.File) -> None:
    """NeXus's names for the calibrated deviation, where there is one: the errors of the mean, and
    of the default plot, a sample, which lies around the mean. Links in the same group: of one in
    another, netCDF would not see the dimension scales."""
    data = file[DATA]
    for name in ("sr_errors", "sr_mean_errors") if "sr_std" in data else ():
        data[name] = h5py.SoftLink("sr_std")


def store_lr(file: h5py.File, stack: Stack, compression: int, images: Iterable[int]) -> None:
    """The LR images that SR was made of, and their axes, in an NXdata, images first. images: those
    that can be read."""
    group = nexus_group(file, LR if LR not in file else f"{LR}_images", "NXdata")
    stored = group.create_dataset(
        "lr", stack.shape, stack.dtype, chunks=chunk_shape(stack.shape, stack.dtype),
        **filters(compression))
    copy_attributes(stack.dataset, stored, (*STRUCTURE, *FOREIGN))
    for image_index in images:
        stored[image_index] = stack.read_stored(image_index)
    group.attrs["signal"] = "lr"
    carry_axes(group, stack, scale=1)
    group.attrs.pop(RESTORED, None)
