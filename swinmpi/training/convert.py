"""Weights of the thesis's published code -> a checkpoint of the family `thesis`."""
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from swinmpi import __version__
from swinmpi.config import Config
from swinmpi.errors import ConfigError
from swinmpi.models.published_names import from_published
from swinmpi.storage.checkpoint import load_state_dict, save_weights
from swinmpi.storage.files import check_place, make_folder_of

PLACE = {"no folder": "{folder} is no folder; choose another --output",
         "not writable": "its folder is not writable; choose another --output",
         "is a folder": "expected a file name, got a folder",
         "is the input": "would replace the weights that are converted; choose another --output",
         "exists": "exists already; give --overwrite to replace it"}


@dataclass(frozen=True, eq=False)
class ConversionPlan:
    """Weights that fit the configuration, and where they go."""

    config: Config
    source: Path
    output: Path
    weights: dict[str, Tensor]


def plan(config: Config, source: Path, output: Path, overwrite: bool) -> ConversionPlan:
    """Read and validate everything, write nothing. One process.

    Raises ConfigError, CheckpointError or OutputError.
    """
    if not config.model.takes_published_weights:
        raise ConfigError("model: expected family thesis with layers published and encoder rrdb "
                          "or none, whose published weights can be converted, got "
                          f"{config.model}; give --config configs/train/thesis_64.yaml")
    if output.suffix != ".safetensors":
        raise ConfigError(f"--output {output}: expected a name that ends in .safetensors")
    check_place(output, PLACE, overwrite, source)
    weights = from_published(load_state_dict(source), config.model, str(source))
    return ConversionPlan(config, source, output, weights)


def describe(plan: ConversionPlan) -> str:
    """What `run` would do, in a few lines."""
    model = plan.config.model
    count = sum(value.numel() for value in plan.weights.values())
    return "\n".join([f"weights {plan.source}: {len(plan.weights)} tensors, {count:,} numbers",
                      f"model   {model.family}, scale {model.scale}, encoder {model.encoder}",
                      f"output  {plan.output}"])


def run(plan: ConversionPlan) -> None:
    """Write the checkpoint. OutputError where that fails."""
    sections = plan.config.model_dump(include={"model", "diffusion", "sampler"},
                                      exclude={"model": plan.config.model.unsaid})
    header = {"swinmpi": __version__, "update": 0, "target": "diffuser",
              "converted_from": plan.source.name, **sections}
    make_folder_of(plan.output)
    save_weights(plan.output, plan.weights, header)
