"""Weights of a network for 3 channels made into those of one for 1, and the other way.

The new network answers for grey images as the old one does for grey images in colour, with the mean
of its outputs: where a layer sees image channels their kernels are added up, where it makes them
they are averaged. From 1 channel to 3, kernels are shared out and outputs repeated. Two things are
not the same: noise, which has three independent channels in colour and one in grey, and what a
U-Net of family aligned is told of a regression whose colours differ, of which it now sees the mean.
"""
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from swinmpi.config import (
    AlignedModel,
    LatentModel,
    ModelConfig,
    SrdiffModel,
    ThesisModel,
    VanillaModel,
    WaveletModel,
)


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

    model: what the tensors are of.
    """
    return {name: changed(tensors[name], axis, parts, model.channels, channels)
            for name, (axis, parts) in LAYOUTS[model.family](model).items() if name in tensors}


def to_noise_told(tensors: Mapping[str, Tensor], told: bool) -> dict[str, Tensor]:
    """Of a model of family aligned, which is told the noise level or is not: those tensors that
    differ in one that is, or is not. What is new is zero: the answers stay, whatever the level, or
    become those for level 0."""
    names = [name for name in ("head.weight", "encoder.head.weight") if name in tensors]
    return {name: torch.cat([tensors[name], torch.zeros_like(tensors[name][:, :1])], INPUTS)
            if told else tensors[name][:, :-1].contiguous() for name in names}


def changed(tensor: Tensor, axis: int, parts: tuple[Part, ...], before: int,
            after: int) -> Tensor:
    """One tensor. RuntimeError, as of `split`, where its axis has another length."""
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
    told, subpixels = model.feature_channels, model.scale**2
    tail = (Part(told * subpixels, of_image=False), Part(subpixels))
    # x_t, then features and the regression residual, then the border.
    entry = (Part(4), Part(4 * told, of_image=False), Part(4), Part(4, of_image=False))
    encoder = sees_of_aligned(model) | making("tail", *tail)
    return encoder | within("encoder", encoder) | seeing("unet.entry", *entry) | making(
        "unet.exit", Part(4))


def sees_of_aligned(model: AlignedModel) -> Layout:
    """What sees LR images in models/aligned_encoder.py."""
    noise = [Part(1, of_image=False)] * model.noise_aware
    return (seeing("head", Part(1), *noise)
            | seeing("transformer.embed", Part(model.vit_patch_px**2)))


def of_latent(model: LatentModel) -> Layout:
    """Of models/latent_encoder.py and aligned_unet.py; latents are of no image channel."""
    folded = model.latent_factor**2
    subpixels = (model.scale // model.latent_factor)**2
    tail = (Part(model.feature_channels * subpixels, of_image=False), Part(folded * subpixels))
    encoder = (sees_of_aligned(model) | making("tail", *tail)
               | seeing("autoencoder.encoder.0", Part(folded))
               | making(f"autoencoder.decoder.{model.autoencoder_blocks + 1}", Part(folded)))
    # x_t and features, then the regression residual, then the border.
    entry = (Part(model.latent_channels + model.feature_channels, of_image=False), Part(folded),
             Part(1, of_image=False))
    return encoder | within("encoder", encoder) | seeing("unet.entry", *entry)


def of_wavelet(model: WaveletModel) -> Layout:
    """Of models/aligned_encoder.py and wavelet_unet.py: as of family aligned, with all image
    channels of a band together, band after band."""
    told, subpixels = model.feature_channels, (model.scale // model.hr_px_per_x_px)**2
    each = range(model.num_parts)
    tail = (Part(told * subpixels, of_image=False), *(Part(subpixels) for _ in each))
    bands = tuple(Part(4) for _ in each)
    entry = (*bands, Part(4 * told, of_image=False), *bands, Part(4, of_image=False))
    encoder = seeing("head", Part(1)) | making("tail", *tail)
    return encoder | within("encoder", encoder) | seeing("unet.unet.entry", *entry) | making(
        "unet.unet.exit", *bands)


def of_thesis(model: ThesisModel) -> Layout:
    """Of models/thesis_encoders.py and thesis_unet.py; an encoder alone has no `head` around its
    last convolution."""
    mask, x_t = Part(1, of_image=False), [Part(1)] if model.condition_on == "lr+x_t" else []
    encoder = (seeing("trunk.first", Part(1)) | making("head.last", Part(1))
               | seeing("layers.0", Part(1), mask, *x_t)
               | seeing("transformer.embed", Part(model.vit_patch_px**2))
               | (seeing("join", mask, *x_t) if x_t else {}))
    return (within("encoder", encoder) | seeing("trunk.first", Part(1)) | making("last", Part(1))
            | seeing("unet.entry.0", Part(1)) | making("unet.exit", Part(1)))


def of_srdiff(model: SrdiffModel) -> Layout:
    """Of models/srdiff_encoder.py and srdiff_unet.py."""
    encoder = seeing("first", Part(1)) | making("last", Part(1))
    first = "unet.encoders.0.blocks.0"
    return (encoder | within("encoder", encoder) | seeing(f"{first}.conv1", Part(1))
            | seeing(f"{first}.skip", Part(1)) | making("unet.exit.2", Part(1)))


def of_vanilla(model: VanillaModel) -> Layout:
    """Of models/vanilla_unet.py: x_t, then the bicubic image."""
    seen = [Part(1)] * (2 if model.conditional else 1)
    return seeing("unet.entry", *seen) | making("unet.exit", Part(1))


def seeing(name: str, *parts: Part) -> Layout:
    """A convolution that sees them."""
    return {f"{name}.weight": (INPUTS, parts)}


def making(name: str, *parts: Part) -> Layout:
    """A convolution that makes them."""
    return {f"{name}.{kind}": (OUTPUTS, parts) for kind in ("weight", "bias")}


def within(name: str, layout: Layout) -> Layout:
    return {f"{name}.{inner}": told for inner, told in layout.items()}


LAYOUTS: dict[str, Callable[[ModelConfig], Layout]] = {
    "aligned": of_aligned, "thesis": of_thesis, "srdiff": of_srdiff, "vanilla": of_vanilla,
    "latent": of_latent, "wavelet": of_wavelet}
"""By family; of an encoder alone as well."""
