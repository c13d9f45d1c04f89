"""LR crops blurred and made noisy anew each time they are trained on, for networks that are told
how noisy an image is.

What is stored of a pair is free of noise; the level, the noise itself and the width of the blur are
drawn by the generator of the crop, so that they depend on (seed, update, crop) alone.
"""
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from swinmpi.config import Config
from swinmpi.config.data_section import MEASURE
from swinmpi.errors import ConfigError, StackError
from swinmpi.images.imresize import imresize_tensor
from swinmpi.images.likeness.noise import noise_level
from swinmpi.randomness import generator
from swinmpi.storage.pairs import PairReader
from swinmpi.training.objective import normal

STREAM = 5  # of noise on images that are looked at before training
LOOKED_AT = 128  # of them
REACH = 4.0  # of a Gaussian, in sigmas
SHARPEST_PX = 1e-3  # a sigma that blurs nothing


@dataclass(frozen=True)
class Degrading:
    """noise: (low, high) of the level, a share of the value range; blur_px: of the sigma of a
    Gaussian, HR px, None for LR as it is stored; kernel: of imresize, that LR is made by."""

    noise: tuple[float, float]
    blur_px: tuple[float, float] | None = None
    kernel: str = "bicubic"

    def draw(self, rngs: Sequence[np.random.Generator],
             textures: Sequence[float]) -> tuple[np.ndarray, ...]:
        """(levels, sigmas, levels as told), float32 (n,): low levels more often, so that images
        next to free of noise are learned from as well; sigmas evenly.

        textures: of the images, the levels that are measured in them without noise. In every other
        crop on average what is told is the level that would be measured; else it is anything
        between that and the true one, so that both can be told when sampling.
        """
        shares = np.array([rng.random(3) for rng in rngs])
        (low, high), (sharp, soft) = self.noise, self.blur_px or (0.0, 0.0)
        levels = low + (high - low) * shares[:, 0]**2
        measured = np.hypot(levels, np.asarray(textures) * np.minimum(2 * shares[:, 2], 1))
        return tuple(map(np.float32, (levels, sharp + (soft - sharp) * shares[:, 1],
                                      measured.clip(low, high))))

    def __call__(self, hr: Tensor, lr: Tensor, rngs: Sequence[np.random.Generator],
                 textures: Sequence[float]) -> tuple[Tensor, Tensor]:
        """(LR images with noise (n, C, h, w), the levels that are told (n,)). hr, lr: in -1..1;
        textures: see `draw`."""
        levels, sigmas, told = (torch.from_numpy(drawn).to(lr.device)
                                for drawn in self.draw(rngs, textures))
        return self.at(hr, lr, (levels, sigmas), normal(lr.shape[1:], rngs, lr.device)), told

    def at(self, hr: Tensor, lr: Tensor, drawn: tuple[Tensor, Tensor], noise: Tensor) -> Tensor:
        """LR images of these levels and sigmas, (n,) each. noise: N(0, 1), like lr."""
        levels, sigmas = drawn
        if self.blur_px is not None:
            reach = max(1, math.ceil(REACH * self.blur_px[1]))
            lr = imresize_tensor(blurred(hr, sigmas, reach), size=lr.shape[-2:],
                                 kernel=self.kernel)
        return lr + 2 * levels[:, None, None, None] * noise

    @property
    def words(self) -> Mapping[str, list[float]]:
        """What a checkpoint keeps of it."""
        return {"noise": [*self.noise]} | ({"blur_px": [*self.blur_px]} if self.blur_px else {})


def degrading_of(config: Config, pairs: PairReader) -> Degrading | None:
    """What `data.noise` and `data.blur_px` ask for; None for a network that is not told."""
    drawn = config.data.drawn
    if not config.model.told_noise:
        return None
    return Degrading(drawn["noise"], drawn.get("blur_px"), pairs.kernel)


def check_degrading(config: Config, pairs: PairReader) -> None:
    """ConfigError where noise is asked for that the network is not told of, or the other way, or
    where the pairs have some already."""
    data, told = config.data, config.model.told_noise
    given = [f"data.{name}" for name in ("noise", "blur_px") if getattr(data, name) is not None]
    if given and not told:
        raise ConfigError(f"{', '.join(given)}: expected model.noise_aware true with it, got a "
                          "network that is not told; set that, or give data.read_noise and "
                          "data.psf_px to swinmpi-prepare")
    if not told:
        return
    if data.noise in (None, MEASURE):
        raise ConfigError("data.noise: expected the levels to train on with model.noise_aware, "
                          f"such as [0,0.05], got {data.noise or 'nothing'}")
    stored = {name for name, (_, high) in pairs.degradation.items() if high > 0}
    clashing = stored & ({"photons", "read_noise"} | ({"psf_px"} if data.blur_px is not None
                                                      else set()))
    if clashing:
        raise ConfigError(f"{config.train.data}: expected LR images without "
                          f"{' and '.join(sorted(clashing))}, since noise and blur are drawn in "
                          "training (model.noise_aware); prepare pairs without data."
                          f"{' and data.'.join(sorted(clashing))}")


class Textures:
    """What is measured as noise in the LR images of pairs, which have none: grain and fine texture.
    Each is read once."""

    def __init__(self, pairs: PairReader):
        self.pairs, self.levels = pairs, {}

    def of(self, image_index: int) -> float:
        """A share of the value range."""
        if image_index not in self.levels:
            stored = self.pairs.read(self.pairs.lr, image_index, ...)
            lr = in_unit(stored, self.pairs.value_max).numpy()
            self.levels[image_index] = noise_level(lambda rows: lr[:, rows.start:rows.stop],
                                                   lr.shape[1:])
        return self.levels[image_index]


def degraded_groups(config: Config, pairs: PairReader) -> list[Iterator[np.ndarray]]:
    """LR images (C, h, w), -1..1, as noisy and as blurred as they can be drawn, a group each; none
    for a network that is not told of noise."""
    made = degrading_of(config, pairs)
    if made is None:
        return []
    (quiet, loud), (sharp, soft) = made.noise, made.blur_px or (0.0, 0.0)
    ends = [(loud, sharp)] + [(quiet, soft)] * (soft > 0)
    return [degraded(made, pairs, *end) for end in ends]


def degraded(made: Degrading, pairs: PairReader, level: float,
             sigma: float) -> Iterator[np.ndarray]:
    """Of some images to train on; damaged ones are passed over."""
    indices = pairs.train_indices
    for index in indices[::max(1, len(indices) // LOOKED_AT)]:
        with suppress(StackError):
            hr, lr = (in_unit(image, pairs.value_max)[None] for image in pairs.read_pair(index))
            noise = normal(lr.shape[1:], [generator((0, 0), (0, int(index), STREAM, 0))], lr.device)
            drawn = torch.tensor([level]), torch.tensor([sigma])
            yield made.at(hr, lr, drawn, noise)[0].numpy()


def in_unit(stored: np.ndarray, value_max: float) -> Tensor:
    """(H, W, C) of 0..value_max -> float32 (C, H, W) in -1..1."""
    return torch.from_numpy(np.moveaxis(np.float32(stored) * np.float32(2 / value_max) - 1, -1, 0)
                            .copy())


def blurred(images: Tensor, sigmas: Tensor, reach: int) -> Tensor:
    """Each of (n, C, H, W) convolved with a Gaussian of its own sigma, (n,) px, that is cut off
    after `reach` px; beyond their edges lies their mirror image.

    Sums in a fixed order: an image does not depend on the batch it is in.
    """
    offsets = torch.arange(-reach, reach + 1, device=images.device)
    weights = torch.exp(-0.5 * (offsets / sigmas.clamp(min=SHARPEST_PX)[:, None])**2)
    weights = weights / weights.sum(dim=1, keepdim=True)
    for axis in (2, 3):
        side = images.shape[axis]
        around = images.index_select(axis, mirrored(side, reach, images.device))
        images = sum(weights[:, k, None, None, None] * around.narrow(axis, k, side)
                     for k in range(2 * reach + 1))
    return images


def mirrored(side: int, reach: int, device: torch.device) -> Tensor:
    """Indices of a line with `reach` px more at both ends, int64."""
    line = torch.arange(-reach, side + reach, device=device) % (2 * side)
    return torch.minimum(line, 2 * side - 1 - line)
