"""Weights of a network for 3 channels made into those of one for 1, and the other way.

The new network answers for grey images as the old one does for grey images in colour, with the mean
of its outputs: where a layer sees image channels their kernels are added up, where it makes them
they are averaged. From 1 channel to 3, kernels are shared out and outputs repeated. Two things are
not the same: noise, which has three independent channels in colour and one in grey, and what a
U-Net is told of a regression whose colours differ, of which it now sees the mean.
"""
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from swinmpi.config import AlignedModel, ModelConfig


@dataclass(frozen=True)
class Part:
    """Neighbours along an axis of a tensor. size: so many of each image channel, all of the first
    one first, or so many altogether where `of_image` is False."""

    size: int
    of_image: bool = True


INPUTS, OUTPUTS = 1, 0
"""Axes of a convolution's weight."""
Layout = dict[str, tuple[int, tuple[Part, ...]]]
"""Of each tensor that depends on the number of image channels: axis, and parts along it."""


def to_channels(tensors: Mapping[str, Tensor], model: ModelConfig,
                channels: int) -> dict[str, Tensor]:
    """Those tensors of a model that another number of channels changes, changed; by their names.

    model: what the tensors are of. ValueError for a family whose layout is not known.
    """
    if model.family not in LAYOUTS:
        raise ValueError(f"expected {model.channels} channels, as its weights have; only those of "
                         f"family {', '.join(LAYOUTS)} can be made for another number")
    return {name: changed(tensors[name], axis, parts, model.channels, channels)
            for name, (axis, parts) in LAYOUTS[model.family](model).items() if name in tensors}


def changed(tensor: Tensor, axis: int, parts: tuple[Part, ...], before: int,
            after: int) -> Tensor:
    """One tensor. ValueError, as of `split`, where its axis has another length."""
    made = []
    lengths = [part.size * (before if part.of_image else 1) for part in parts]
    for values, part in zip(tensor.split(lengths, axis), parts, strict=True):
        if part.of_image:
            by_channel = values.unflatten(axis, (before, part.size))
            one = by_channel.double().mean(axis, keepdim=True).to(values.dtype)
            if axis == INPUTS:
                one = one * (before / after)
            values = torch.cat([one] * after, axis).flatten(axis, axis + 1)
        made.append(values)
    return torch.cat(made, axis).contiguous()


def of_aligned(model: AlignedModel) -> Layout:
    """Of models/aligned_encoder.py and aligned_unet.py, which unshuffles and shuffles by 2."""
    subpixels, told = model.scale**2, model.feature_channels
    tail = (Part(told * subpixels, of_image=False), Part(subpixels))
    # x_t, then features and the regression residual, then the border.
    entry = (Part(4), Part(4 * told, of_image=False), Part(4), Part(4, of_image=False))
    layout = {"encoder.head.weight": (INPUTS, (Part(1),)), "unet.entry.weight": (INPUTS, entry)}
    for kind in ("weight", "bias"):
        layout |= {f"encoder.tail.{kind}": (OUTPUTS, tail), f"unet.exit.{kind}": (OUTPUTS,
                                                                                 (Part(4),))}
    return layout | {name.removeprefix("encoder."): kind for name, kind in layout.items()
                     if name.startswith("encoder.")}


LAYOUTS: dict[str, Callable[[ModelConfig], Layout]] = {"aligned": of_aligned}
"""By family; of an encoder alone as well."""
