"""Training batches as a pure function of (seed, update): nothing to save, nothing
to replay on resume."""
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np
import torch
from torch import Tensor

from swinmpi.config import Config
from swinmpi.families.family import (
    Batch,
    Drawing,
    Family,
    Shift,
    Window,
    drawn_shift,
    places_of,
)
from swinmpi.randomness import generator
from swinmpi.storage.pairs import PairReader
from swinmpi.training.crops import Crops, FromFile, picked, to_device
from swinmpi.training.degrading import Textures, degrading_of
from swinmpi.training.objective import draw_times, make_drawing, noise_of
from swinmpi.windows.shift import circular_shift

ORDER_STREAM, IMAGE_STREAM, VALIDATE_STREAM, SHIFT_STREAM = range(4)


@dataclass(frozen=True)
class Drawn:
    """What was drawn for one training image: its crop's corner (y, x) in LR px, one of eight
    orientations, windows and their times; rng draws its noise next."""

    image_index: int
    corner: tuple[int, int]
    turn: int
    windows: list[Window]
    t: np.ndarray
    rng: np.random.Generator


class BatchSource:
    """This rank's part of every batch. Image j of update u is the same whatever
    the number of ranks.

    What is drawn is drawn here, image by image; all that has as many numbers as pixels is made on
    the device of `crops` for a batch at once.
    """

    def __init__(self, config: Config, family: Family, pairs: PairReader, rank: int, size: int,
                 crops: Crops | None = None):
        """crops: of these pairs; by default read from the file, for the CPU."""
        self.config, self.family, self.pairs, self.rank = config, family, pairs, rank
        self.crops = FromFile(pairs, torch.device("cpu")) if crops is None else crops
        self.drawing, self.degrading = make_drawing(config, family), degrading_of(config, pairs)
        self.textures = Textures(pairs)
        self.total, self.size = config.train.batch_images, size
        self.per_step = self.total // (size * config.train.accumulate)

    def batch(self, update: int, micro_step: int) -> Batch:
        """What this rank computes in micro step 0..accumulate-1 of an update."""
        first = update * self.total + (micro_step * self.size + self.rank) * self.per_step
        return self.images(range(first, first + self.per_step))

    def images(self, numbers: Sequence[int]) -> Batch:
        """Of these numbers in the whole run: crops, orientations, windows, times and noise."""
        return self.made([
            self.draw(self.image_index(number),
                      keyed_rng(self.config.train.seed, number, IMAGE_STREAM),
                      replace(self.drawing, shift=self.shift_of(number))) for number in numbers])

    def shift_of(self, number: int) -> Shift | None:
        """The shift of the number-th image where something else than its own draws decides it."""
        settings, pattern = self.config.train, self.drawing.pattern
        turn = number
        if settings.shift_of == "batch":
            turn //= self.total // settings.accumulate
        if settings.circular == "turn" and pattern == "circular":
            return circular_shift(turn, self.drawing.grid.max_shift_px)
        if settings.shift_of == "batch":
            return drawn_shift(self.drawing, keyed_rng(settings.seed, turn, SHIFT_STREAM))
        return None

    def validation_batch(self, image_index: int) -> Batch:
        """One image of the validation split, cut and made noisy in the same way every time."""
        rng = keyed_rng(self.config.train.seed, image_index, VALIDATE_STREAM)
        return self.made([self.draw(image_index, rng, self.drawing)])

    def draw(self, image_index: int, rng: np.random.Generator, drawing: Drawing) -> Drawn:
        config, lr_px = self.config, self.lr_px
        room = self.pairs.size_px // config.model.scale - lr_px
        y, x = (int(v) for v in rng.integers(0, room, size=2, endpoint=True))
        turn = int(rng.integers(8)) if config.train.augment else 0
        windows = self.family.draw(drawing, rng)
        t = draw_times(self.family, len(windows), config.diffusion.steps, rng,
                       config.train.first_t)
        return Drawn(image_index, (y, x), turn, windows, t, rng)

    def made(self, drawn: Sequence[Drawn]) -> Batch:
        """The batch that was drawn, on the device."""
        device, highest = self.crops.device, self.pairs.value_max
        stored = self.crops.cut([one.image_index for one in drawn],
                                [one.corner for one in drawn], self.lr_px)
        turns = [one.turn for one in drawn]
        hr, lr = (to_unit(oriented(image, turns), highest) for image in stored)
        rngs = [one.rng for one in drawn]
        eps = noise_of(self.family, self.drawing.grid, rngs, device)
        lr, noise = self.degraded(hr, lr, rngs, [one.image_index for one in drawn])
        windows = [one.windows for one in drawn]
        t = to_device(np.concatenate([one.t for one in drawn]), device)
        return Batch(lr, hr, eps, windows, t, to_device(places_of(windows).numpy(), device), noise)

    def degraded(self, hr: Tensor, lr: Tensor, rngs: Sequence[np.random.Generator],
                 image_indices: Sequence[int]) -> tuple[Tensor, Tensor | None]:
        """LR images (n, C, h, w) as they are learned from, and the noise levels that are told."""
        if self.degrading is None:
            return lr, None
        return self.degrading(hr, lr, rngs, [self.textures.of(index) for index in image_indices])

    @property
    def lr_px(self) -> int:
        """Side of the LR crops."""
        return self.config.train.crop_px // self.config.model.scale

    def image_index(self, number: int) -> int:
        """Every image once per epoch, in an order of its own."""
        indices = self.pairs.train_indices
        epoch, place = divmod(number, len(indices))
        return int(indices[epoch_order(self.config.train.seed, epoch, len(indices))[place]])


class Prefetched:
    """A BatchSource whose next batches are made by threads while the device computes on the last.
    Use as a context manager."""

    def __init__(self, source: BatchSource, num_threads: int = 1):
        """Each thread is a batch ahead: one is enough where the device has all that it needs."""
        device = source.crops.device
        self.source, self.num_threads = source, num_threads
        # Every thread starts with the first GPU, which may be another rank's.
        self.threads = ThreadPoolExecutor(num_threads, initializer=(
            partial(torch.cuda.set_device, device) if device.type == "cuda" else None))
        self.ordered: dict[tuple[int, int], Future[Batch]] = {}

    def batch(self, update: int, micro_step: int) -> Batch:
        """As BatchSource."""
        wanted, place = {}, (update, micro_step)
        for _ in range(1 + self.num_threads):
            wanted[place] = self.ordered.pop(place, None) or self.order(*place)
            last = place[1] + 1 == self.source.config.train.accumulate
            place = (place[0] + 1, 0) if last else (place[0], place[1] + 1)
        self.ordered = wanted
        return self.ordered.pop((update, micro_step)).result()

    def order(self, update: int, micro_step: int) -> Future[Batch]:
        return self.threads.submit(self.source.batch, update, micro_step)

    def __enter__(self) -> "Prefetched":
        return self

    def __exit__(self, *error) -> None:
        self.threads.shutdown(cancel_futures=True)


@lru_cache(maxsize=2)
def epoch_order(seed: int, epoch: int, num_images: int) -> np.ndarray:
    """A permutation of 0..num_images-1; kept, because a batch may lie in two epochs."""
    return keyed_rng(seed, epoch, ORDER_STREAM).permutation(num_images)


def keyed_rng(seed: int, number: int, stream: int) -> np.random.Generator:
    """Counter-based: the counter starts 2^64 draws apart for different streams and numbers."""
    return generator((seed, 0), (0, number, stream, 0))


def to_unit(images: Tensor, value_max: float) -> Tensor:
    """(..., H, W, C) of 0..value_max, of 16 bit as int16 of the same bits -> float32 (..., C, H, W)
    in -1..1."""
    if images.dtype == torch.int16:
        images = images.int() & 0xFFFF
    unit = images.float().mul_(float(np.float32(2 / value_max))).sub_(1)
    if unit.shape[-1] == 1:  # of grey images nothing is interleaved
        return unit.squeeze(-1).unsqueeze(-3)
    return unit.movedim(-1, -3)


def oriented(images: Tensor, turns: Sequence[int]) -> Tensor:
    """Squares (B, H, H, C), each in one of the eight orientations of `orientations`."""
    if not any(turns):
        return images
    num_images, side = images.shape[:2]
    table = orientations(side, images.device)[list(turns)]
    first = torch.arange(num_images, device=images.device) * side * side
    return picked(images, first[:, None, None] + table)


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def orientations(side: int, device: torch.device) -> Tensor:
    """Which pixel of a square comes where, int64 (8, side, side): quarter turns, from 4 on also
    mirrored. Kept between calls: do not write to it."""
    pixels = np.arange(side * side).reshape(side, side)
    turned = [np.rot90(pixels, turn) for turn in range(4)]
    return torch.from_numpy(np.stack([*turned, *(one[:, ::-1] for one in turned)])).to(device)


def channels_last(batch: Batch, device: torch.device) -> Batch:
    """On the device, images as they will be convolved."""
    lr, hr, eps = (image.to(device, non_blocking=True, memory_format=torch.channels_last)
                   for image in (batch.lr, batch.hr, batch.eps))
    noise = None if batch.noise is None else batch.noise.to(device, non_blocking=True)
    return Batch(lr, hr, eps, batch.windows, batch.t.to(device, non_blocking=True),
                 batch.places.to(device, non_blocking=True), noise)
