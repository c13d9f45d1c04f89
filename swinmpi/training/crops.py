"""Crops of stored pairs on the device that trains, as they are stored: from a copy of all of them
that lies there, or read from the file.

Values of 16 bit travel as int16 of the same bits, which every device can index.
"""
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from swinmpi.storage.pairs import PairReader

HELD_SHARE = 0.25  # of the memory that is free on a GPU: what is left has to train
READ_IMAGES = 64  # read together while a copy is made


class Crops(Protocol):
    """Cuts crops."""

    pairs: PairReader
    device: torch.device
    num_threads: int
    """That make batches best, beside the one that trains."""

    def cut(self, image_indices: Sequence[int], corners: Sequence[tuple[int, int]],
            lr_px: int) -> tuple[Tensor, Tensor]:
        """hr (B, H, W, C) and lr (B, lr_px, lr_px, C) on the device, uint8 or the bits of uint16.
        corners: (y, x) in LR px."""


def crops_on(pairs: PairReader, device: torch.device) -> "FromFile | Held":
    """On a GPU held there, where they fit; else from the file."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        if bytes_held(pairs) <= HELD_SHARE * free:
            return Held(pairs, device)
    return FromFile(pairs, device)


def bytes_held(pairs: PairReader) -> int:
    """By the training images."""
    pixels = np.prod(pairs.hr.shape[1:]) + np.prod(pairs.lr.shape[1:])
    return int(pixels) * pairs.hr.dtype.itemsize * len(pairs.train_indices)


class FromFile:
    """See Crops."""

    num_threads = 4

    def __init__(self, pairs: PairReader, device: torch.device):
        self.pairs, self.device = pairs, device

    def cut(self, image_indices: Sequence[int], corners: Sequence[tuple[int, int]],
            lr_px: int) -> tuple[Tensor, Tensor]:
        read = [self.pairs.read_crop(index, *corner, lr_px)
                for index, corner in zip(image_indices, corners, strict=True)]
        hr, lr = (to_device(as_bits(np.stack(images)), self.device)
                  for images in zip(*read, strict=True))
        return hr, lr


class Held:
    """See Crops. Only the images to train on are held; made in one reading of the file."""

    num_threads = 1

    def __init__(self, pairs: PairReader, device: torch.device):
        self.pairs, self.device = pairs, device
        self.slots = {int(index): slot for slot, index in enumerate(pairs.train_indices)}
        self.hr, self.lr = (self.empty(dataset) for dataset in (pairs.hr, pairs.lr))
        for start in range(0, len(self.slots), READ_IMAGES):
            chosen = pairs.train_indices[start:start + READ_IMAGES]
            read = zip(*(pairs.read_pair(index) for index in chosen), strict=True)
            for held, images in zip((self.hr, self.lr), read, strict=True):
                held[start:start + len(chosen)] = torch.from_numpy(as_bits(np.stack(images)))

    def empty(self, dataset) -> Tensor:
        """Room for the images of one of the pairs' data sets."""
        kind = torch.uint8 if dataset.dtype == np.uint8 else torch.int16
        return torch.empty(len(self.slots), *dataset.shape[1:], dtype=kind, device=self.device)

    def cut(self, image_indices: Sequence[int], corners: Sequence[tuple[int, int]],
            lr_px: int) -> tuple[Tensor, Tensor]:
        places = to_device(np.array([(self.slots[index], *corner) for index, corner
                                     in zip(image_indices, corners, strict=True)]), self.device)
        slots, (y, x) = places[:, 0], (places[:, axis] for axis in (1, 2))
        scale = self.pairs.to_hr(lr_px) // lr_px
        return (squares(self.hr, slots, y * scale, x * scale, lr_px * scale),
                squares(self.lr, slots, y, x, lr_px))


def squares(images: Tensor, slots: Tensor, y: Tensor, x: Tensor, side: int) -> Tensor:
    """(N, H, W, C) -> (B, side, side, C): of image slots[i] the square at (y[i], x[i])."""
    height, width = images.shape[1:3]
    line = torch.arange(side, device=images.device)
    rows, cols = (slots * height + y)[:, None] + line, x[:, None] + line
    return picked(images, rows[:, :, None] * width + cols[:, None, :])


def picked(images: Tensor, places: Tensor) -> Tensor:
    """(N, H, W, C) -> (*places.shape, C): the pixels at these places in all of them, row by row."""
    flat = images.reshape(-1, images.shape[-1]).index_select(0, places.flatten())
    return flat.view(*places.shape, -1)


def as_bits(images: np.ndarray) -> np.ndarray:
    """uint8 as it is, uint16 as int16 of the same bits."""
    return images if images.dtype == np.uint8 else images.astype(np.uint16).view(np.int16)


def to_device(values: np.ndarray, device: torch.device) -> Tensor:
    """Through page-locked memory to a GPU, which then copies without being waited for."""
    tensor = torch.from_numpy(values)
    if device.type == "cpu" or not tensor.numel():
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
