"""Weights under the names of the thesis's published code, as weights of our networks.

The names and shapes of that network are facts about its state dict; nothing of its code is here.
"""
import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from swinmpi.config import ThesisModel
from swinmpi.errors import CheckpointError
from swinmpi.models.diffuser import Diffuser
from swinmpi.models.rrdb import UPSAMPLING_STAGES
from swinmpi.models.thesis_encoders import make_encoder
from swinmpi.models.thesis_unet import EMBEDDING_CHANNELS, ThesisUNet

RULES = (
    (r"^unet\.entry\.", lambda found: "input_conv.double_conv."),
    (r"^unet\.exit\.", lambda found: "out_conv."),
    (r"^unet\.bottleneck\.(\d)\.", lambda found: f"bottleneck{after(found)}.double_conv."),
    (r"^unet\.downs\.(\d)\.", lambda found: f"down{after(found)}."),
    (r"^unet\.ups\.(\d)\.", lambda found: f"up{after(found)}."),
    (r"^(down\d)\.convs\.", lambda found: f"{found[1]}.maxpool_conv."),
    (r"^(up\d)\.convs\.", lambda found: f"{found[1]}.conv."),
    (r"^(down\d\.maxpool_conv\.1|up\d\.conv\.0)\.change\.",
     lambda found: f"{found[1]}.double_conv."),
    (r"^(down\d\.maxpool_conv\.2|up\d\.conv\.1)\.(\d)", lambda found:
     f"{found[1]}.double_conv.{found[2]}"),
    (r"\.time\.project\.", lambda found: ".emb_layer."),
    (r"^unet\.attention_down\.(\d)\.", lambda found: f"sa{after(found)}."),
    (r"^unet\.attention_up\.(\d)\.", lambda found: f"sa{after(found) + 3}."),
    (r"^(sa\d)\.norm\.", lambda found: f"{found[1]}.ln."),
    (r"^(sa\d)\.to_qkv\.", lambda found: f"{found[1]}.mha.in_proj_"),
    (r"^(sa\d)\.join_heads\.", lambda found: f"{found[1]}.mha.out_proj."),
    (r"^(sa\d)\.feed_forward\.", lambda found: f"{found[1]}.ff_self."),
    (r"^encoder\.(trunk\.first|join)\.", lambda found: "extract_condition.conv_first."),
    (r"^encoder\.trunk\.last\.", lambda found: "extract_condition.trunk_conv."),
    (r"^encoder\.trunk\.blocks\.(\d+)\.dense\.(\d)\.", lambda found:
     f"extract_condition.RRDB_trunk.{found[1]}.RDB{after(found, 2)}."),
    (r"\.grow\.(\d)\.", lambda found: f".conv{after(found)}."),
    (r"\.close\.", lambda found: ".conv5."),
    (r"^encoder\.project\.first\.", lambda found: "condition_proj.0."),
    (r"^encoder\.head\.upsample\.0\.", lambda found: "extract_condition.upconv1."),
    (r"^encoder\.head\.upsample\.1\.", lambda found: "extract_condition.output_down.1."),
    (r"^encoder\.head\.last\.", lambda found: "extract_condition.conv_last."),
)


def from_published(tensors: Mapping[str, Tensor], config: ThesisModel,
                   source: str) -> dict[str, Tensor]:
    """The weights of a `Diffuser` of this configuration, which takes them, out of a state dict with
    the published names, float32. CheckpointError, which starts with `source`, for the first name or
    shape that is not the published network's."""
    with torch.device("meta"):
        ours = Diffuser(make_encoder(config), ThesisUNet(config)).state_dict()
    told = {name.removeprefix("module."): value for name, value in tensors.items()}
    names = {name: published_name(name, config) for name in ours}
    check_names(told, names.values(), config, source)
    return {name: placed(name, told[names[name]], value.shape, f"{source}: {names[name]}")
            for name, value in ours.items()}


def published_name(name: str, config: ThesisModel) -> str:
    """The published name of one of our weights."""
    stages = len(UPSAMPLING_STAGES[config.scale])
    # As many names for one module as it is applied times; the last one's values are in force.
    name = name.replace("encoder.project.second.", f"condition_proj.{2 * stages}.")
    name = name.replace("encoder.head.refine.", f"extract_condition.output_down.{2 * stages - 1}.")
    for pattern, made in RULES:
        name = re.sub(pattern, made, name)
    return name


def check_names(told: Mapping[str, Tensor], wanted: Iterable[str], config: ThesisModel,
                source: str) -> None:
    """CheckpointError unless the names are those of the network, no more and no fewer."""
    stages = len(UPSAMPLING_STAGES[config.scale])
    known = set(wanted)
    if config.encoder != "none":
        known |= {f"condition_proj.{2 * k}.{part}" for k in range(1, stages)
                  for part in ("weight", "bias")}
    if different := sorted(known ^ told.keys()):
        name = different[0]
        raise CheckpointError(
            f"{source}: {'lacks' if name in known else 'also holds'} {name}, unlike the published "
            f"network with model.scale={config.scale}, encoder={config.encoder}, "
            f"rrdb_blocks={config.rrdb_blocks} ({len(different)} names differ); set `model` as "
            "the weights were trained, or name another file")


def placed(name: str, value: Tensor, shape: torch.Size, source: str) -> Tensor:
    """One of our weights out of the published one; CheckpointError unless it fits."""
    if name == "encoder.trunk.first.weight":
        value = value[:, :shape[1]]
    elif name == "encoder.join.weight":
        value = value[:, value.shape[1] - shape[1]:]
    if value.shape != shape:
        raise CheckpointError(f"{source}: expected shape {tuple(shape)}, got {tuple(value.shape)}; "
                              "set `model` as the weights were trained")
    if not torch.isfinite(value).all():
        raise CheckpointError(f"{source}: expected numbers, got values that are not finite; "
                              "name a file that is not damaged")
    if name.endswith("time.project.1.weight"):
        value = value[:, embedding_order()]
    return value.to(torch.float32).contiguous()


def embedding_order() -> Tensor:
    """Where the published time embedding has our sines, then our cosines: it takes them in turn."""
    return torch.arange(EMBEDDING_CHANNELS).view(-1, 2).T.flatten()


def after(found: re.Match, group: int = 1) -> int:
    """We count from 0."""
    return int(found[group]) + 1
