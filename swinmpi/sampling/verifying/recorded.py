"""What an output says of its making, brought into the form of a run that can be made again."""
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from swinmpi.config import Config, load_config
from swinmpi.config.strict_yaml import YAMLError, parse_yaml
from swinmpi.demo import FILES, shipped
from swinmpi.errors import CheckpointError, ConfigError, StackError
from swinmpi.parallel.shares import Shard
from swinmpi.sampling.request import MOST_SAMPLES
from swinmpi.storage.checkpoint import file_sha256
from swinmpi.storage.metadata.frames import chosen
from swinmpi.storage.trust import TrustAsked

HEAD_BYTES = 1 << 16


@dataclass(frozen=True)
class Asked:
    """What the command line says. output: a file or a folder; inputs, checkpoint: in the places of
    those that are recorded; count: of images, frames: which images of the output instead."""

    output: Path
    inputs: tuple[str, ...] = ()
    checkpoint: Path | None = None
    count: int = 3
    frames: str | None = None
    allow_external: bool = False


@dataclass(frozen=True)
class Making:
    """How a run made its images. config: with the value range that it used; checkpoint: the file
    of the weights that it used; ensemble: samples; frames, shard: of the input, None for all;
    machine: what else decides the last bits, by name, empty where the output does not tell; input:
    what the images were, as JSON, None where it does not tell; trust: the mask, if it has one."""

    process: Mapping[str, Any]
    config: Config
    checkpoint: Path
    ensemble: int
    frames: str | None
    shard: Shard | None
    machine: Mapping[str, Any]
    input: Any
    trust: TrustAsked | None

    def check_input(self, identity: Any, address: str) -> None:
        """StackError where the output tells that it was made of other images."""
        now = json.loads(json.dumps(identity))
        if self.input is not None and without_part(self.input) != without_part(now):
            raise StackError(f"{address}: holds other images, or is seen in another way, than when "
                             "the output was made of it; name what it was made of with --input")


def without_part(identity: Any) -> Any:
    """What is the same for all shards of a run, wherever in its file the stack lies now."""
    return ({name: value for name, value in identity.items() if name not in ("images", "dataset")}
            if isinstance(identity, dict) else identity)


def making_of(process: Mapping[str, Any], asked: Asked) -> Making:
    """ConfigError, CheckpointError where what the output tells is not enough to make it again."""
    output = asked.output
    try:
        low, high = map(float, process["value_range"])
        settings = parse_yaml(one_of(process["configuration"]))
        wanted, count = str(one_of(process["checkpoint_sha256"])), process.get("ensemble", 1)
        shard = process.get("shard")
        shard = None if shard is None else Shard(int(shard["number"]), int(shard["of"]))
        identity = json.loads(one_of(process.get("input_identity", "null")))
        frames, told = one_of(process.get("frames")), one_of(process.get("trust"))
        trust = None if told is None else TrustAsked.recorded(str(told))
        if not (type(count) is int and 1 <= count <= MOST_SAMPLES):
            raise ValueError("no number of samples")
        if not isinstance(settings, dict):
            raise TypeError("no sections")
    except (ConfigError, KeyError, TypeError, ValueError, YAMLError):
        raise ConfigError(f"{output}: expected the settings of a run in it, got none that can be "
                          "made again; name an output of swinmpi-sample") from None
    try:
        config = load_config(base=settings).replaced(output={"value_range": [low, high]})
    except ConfigError as error:
        raise ConfigError(f"{output}: was made with settings that this version does not know "
                          f"({error}); use swinmpi {one_of(process.get('version', 'of then'))}"
                          ) from None
    # Matters of the launch, which do not show.
    config = config.replaced(parallel={"shares": "equal", "staging": "host"})
    told = process.get("machine")
    machine = dict(told) if isinstance(told, Mapping) else {}
    if type(threads := machine.get("threads")) is int and threads > 0:
        config = config.replaced(parallel={"threads": threads})
    return Making(process, config, find_checkpoint(process, wanted, asked), count,
                  None if frames is None else str(frames), shard, machine, identity, trust)


def find_checkpoint(process: Mapping[str, Any], wanted: str, asked: Asked) -> Path:
    """The file with the weights of a run, by their SHA-256; CheckpointError without it."""
    recorded = Path(str(one_of(process.get("checkpoint", "nowhere"))))
    tried = [recorded, asked.output.parent / recorded.name, *map(shipped, FILES)]
    if asked.checkpoint is not None:
        tried = [asked.checkpoint]
    there = [path for path in dict.fromkeys(tried) if path.is_file()]
    for path in there:
        if file_sha256(path) == wanted:
            return path
    named = asked.checkpoint or recorded
    came = "another checkpoint" if named in there else "nothing there"
    raise CheckpointError(f"{named}: expected the checkpoint with SHA-256 {wanted:.12} that "
                          f"{asked.output} was made with, got {came}; name it with --checkpoint")


def find_input(process: Mapping[str, Any], asked: Asked) -> str:
    """The address of the stack that a file was made of; StackError where it is gone."""
    recorded = str(one_of(process.get("input", "")))
    path, colons, dataset = recorded.partition("::")
    for address in asked.inputs or (recorded, f"{asked.output.parent / Path(path).name}"
                                              f"{colons}{dataset}"):
        if asked.inputs or path and Path(address.partition("::")[0]).is_file():
            return address
    raise StackError(f"{recorded or 'its input'}: {asked.output} was made of it, but it is not "
                     "there any more; name it with --input")


def one_of(told: Any) -> Any:
    """What all shards of a merged file say, or the first of them."""
    return told[0] if isinstance(told, list) and told else told


def images_to_make(asked: Asked, made: Sequence[int], total: int, marks: str) -> tuple[int, ...]:
    """As asked for, else the first, the last, and others drawn by `marks`. made: those of `total`
    that the output has; StackError where it has none."""
    if asked.frames is not None:
        return chosen(asked.frames, total)
    if not made:
        raise StackError(f"{asked.output}: expected images that were made, got none; there is "
                         "nothing to verify")
    taken = list(dict.fromkeys((made[0], made[-1])))[:asked.count]
    others = [index for index in made if index not in taken]
    while others and len(taken) < asked.count:
        marks = sha256(marks.encode()).hexdigest()
        taken.append(others.pop(int(marks[:16], 16) % len(others)))
    return tuple(sorted(taken))


def marks_of(path: Path) -> str:
    """A digest of both ends of a file and its size: what draws images needs no more of it."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
        file.seek(max(0, size - HEAD_BYTES))
        return sha256(head + file.read() + str(size).encode()).hexdigest()
