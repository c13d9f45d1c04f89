"""Training batches as a pure function of (seed, update): nothing to save, nothing
to replay on resume."""
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from swinmpi.config import Config
from swinmpi.errors import ConfigError
from swinmpi.families.family import Batch, Drawing, Family, Shift, drawn_shift
from swinmpi.randomness import generator
from swinmpi.sampling.settings import check_shift
from swinmpi.storage.pairs import PairReader
from swinmpi.training.objective import draw_times, make_drawing, noise_like_x_0
from swinmpi.windows.shift import circular_shift

ORDER_STREAM, IMAGE_STREAM, VALIDATE_STREAM, SHIFT_STREAM = range(4)


class BatchSource:
    """This rank's part of every batch. Image j of update u is the same whatever
    the number of ranks."""

    def __init__(self, config: Config, family: Family, pairs: PairReader, rank: int, size: int):
        self.config, self.family, self.pairs, self.rank = config, family, pairs, rank
        self.drawing = make_drawing(config, family)
        self.total, self.size = config.train.batch_images, size
        self.per_step = self.total // (size * config.train.accumulate)

    def batch(self, update: int, micro_step: int) -> Batch:
        """What this rank computes in micro step 0..accumulate-1 of an update."""
        first = (micro_step * self.size + self.rank) * self.per_step
        return self.join([self.sample(update * self.total + first + i)
                          for i in range(self.per_step)])

    def sample(self, number: int) -> tuple:
        """The number-th image of the whole run: crop, orientation, windows, times and noise."""
        return self.draw(self.image_index(number),
                         keyed_rng(self.config.train.seed, number, IMAGE_STREAM),
                         replace(self.drawing, shift=self.shift_of(number)))

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
        return self.join([self.draw(image_index, rng, self.drawing)])

    def draw(self, image_index: int, rng: np.random.Generator, drawing: Drawing) -> tuple:
        config, lr_px = self.config, self.config.train.crop_px // self.config.model.scale
        room = self.pairs.size_px // self.config.model.scale - lr_px
        y, x = (int(v) for v in rng.integers(0, room, size=2, endpoint=True))
        hr, lr = self.pairs.read_crop(image_index, y, x, lr_px)
        turn = int(rng.integers(8)) if config.train.augment else 0
        hr, lr = (orient(to_unit(image, self.pairs.value_max), turn) for image in (hr, lr))
        windows = self.family.draw(drawing, rng)
        t = draw_times(self.family, len(windows), config.diffusion.steps, rng,
                       config.train.first_t)
        eps = noise_like_x_0(self.family, self.drawing.grid, rng)
        return lr, hr, eps, windows, t

    def image_index(self, number: int) -> int:
        """Every image once per epoch, in an order of its own."""
        indices = self.pairs.train_indices
        epoch, place = divmod(number, len(indices))
        return int(indices[epoch_order(self.config.train.seed, epoch, len(indices))[place]])

    def join(self, samples: list[tuple]) -> Batch:
        lr, hr, eps, windows, t = zip(*samples, strict=True)
        stack = lambda arrays: torch.from_numpy(np.stack(arrays))  # noqa: E731
        return Batch(stack(lr), stack(hr), stack(eps), list(windows),
                     torch.from_numpy(np.concatenate(t)))


class Prefetched:
    """A BatchSource whose next batch is made by a thread while the device computes on the last.
    Use as a context manager."""

    def __init__(self, source: BatchSource):
        self.source, self.thread = source, ThreadPoolExecutor(max_workers=1)
        self.ordered: dict[tuple[int, int], Future[Batch]] = {}

    def batch(self, update: int, micro_step: int) -> Batch:
        """As BatchSource, in memory that a GPU copies from without waiting."""
        made = self.ordered.pop((update, micro_step), None) or self.order(update, micro_step)
        last = micro_step + 1 == self.source.config.train.accumulate
        following = (update + 1, 0) if last else (update, micro_step + 1)
        self.ordered = {following: self.order(*following)}
        return made.result()

    def order(self, update: int, micro_step: int) -> Future[Batch]:
        return self.thread.submit(lambda: pinned(self.source.batch(update, micro_step)))

    def __enter__(self) -> "Prefetched":
        return self

    def __exit__(self, *error) -> None:
        self.thread.shutdown(cancel_futures=True)


@lru_cache(maxsize=2)
def epoch_order(seed: int, epoch: int, num_images: int) -> np.ndarray:
    """A permutation of 0..num_images-1; kept, because a batch may lie in two epochs."""
    return keyed_rng(seed, epoch, ORDER_STREAM).permutation(num_images)


def keyed_rng(seed: int, number: int, stream: int) -> np.random.Generator:
    """Counter-based: the counter starts 2^64 draws apart for different streams and numbers."""
    return generator((seed, 0), (0, number, stream, 0))


def to_unit(image: np.ndarray, value_max: float) -> np.ndarray:
    """(H, W, C) of 0..value_max -> float32 (C, H, W) in -1..1."""
    return (np.ascontiguousarray(np.moveaxis(image, -1, 0), dtype=np.float32)
            * np.float32(2 / value_max) - np.float32(1))


def orient(image: np.ndarray, turn: int) -> np.ndarray:
    """One of the eight flips and quarter turns of a square (C, H, W) image."""
    image = np.rot90(image, turn % 4, axes=(1, 2))
    return np.ascontiguousarray(image[:, :, ::-1] if turn >= 4 else image)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Images in channels_last where they will be convolved."""
    def move(image: Tensor) -> Tensor:
        return image.to(device, non_blocking=True, memory_format=torch.channels_last)

    return Batch(move(batch.lr), move(batch.hr), move(batch.eps), batch.windows,
                 batch.t.to(device, non_blocking=True))


def pinned(batch: Batch) -> Batch:
    """Page-locked where there is a GPU."""
    if not torch.cuda.is_available():
        return batch
    lr, hr, eps, t = (part.pin_memory() for part in (batch.lr, batch.hr, batch.eps, batch.t))
    return Batch(lr, hr, eps, batch.windows, t)


def check_batches(config: Config, pairs: PairReader, num_ranks: int) -> None:
    """ConfigError where data, model, crop and ranks do not fit together."""
    model, crop_px, total = config.model, config.train.crop_px, config.train.batch_images
    if total % (num_ranks * config.train.accumulate):
        raise ConfigError("train.batch_images: expected a multiple of ranks x train.accumulate = "
                          f"{num_ranks} x {config.train.accumulate}, got {total}")
    if pairs.scale != model.scale:
        raise ConfigError(f"{config.train.data}: expected pairs of scale {model.scale} "
                          f"(model.scale), got {pairs.scale:g}")
    if pairs.channels != model.channels:
        raise ConfigError(f"{config.train.data}: expected {model.channels} channels "
                          f"(model.channels), got {pairs.channels}")
    if pairs.hr.shape[1] != pairs.hr.shape[2]:
        raise ConfigError(f"{config.train.data}: expected square images, "
                          f"got {pairs.hr.shape[1]} x {pairs.hr.shape[2]}")
    check_shift(config)
    window_px = model.window_px or model.scale
    if crop_px < window_px:
        raise ConfigError(f"train.crop_px: expected at least a window of {window_px} px, "
                          f"got {crop_px}")
    if crop_px > pairs.size_px or crop_px % model.scale:
        raise ConfigError(f"train.crop_px: expected a multiple of {model.scale}, "
                          f"at most the stored {pairs.size_px} px, got {crop_px}")
    if config.sampler.shift.border == "wrap" and crop_px % window_px:
        raise ConfigError(f"train.crop_px: expected whole windows of {window_px} px with "
                          f"border wrap, got {crop_px}")
    if len(pairs.train_indices) == 0:
        raise ConfigError(f"{config.train.data}: holds no images to train on (split 0)")
