"""What an output of swinmpi-sample says of its making, a file or a folder of pictures."""
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from swinmpi.errors import StackError, SwinmpiError
from swinmpi.storage.outputs.result import read_process
from swinmpi.storage.pictures.journal import NAME, read_memory
from swinmpi.storage.probe import inspect_stacks
from swinmpi.storage.stack import Stack


@dataclass(frozen=True)
class Making:
    """output: as named; process: names to values; files: what was written; inputs: SHA-256 of the
    picture that each of a folder's was made of, by its name."""

    output: Path
    process: Mapping[str, Any]
    files: tuple[Path, ...]
    inputs: Mapping[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """That the files lie in."""
        return self.output if self.inputs else self.output.parent

    @property
    def name(self) -> str:
        return self.output.resolve().name


def read_making(output: Path) -> Making:
    """StackError where it is no finished output of ours. On one process."""
    if os.path.isdir(output):
        return of_folder(output)
    inspect_stacks([str(output)])
    with Stack.open(str(output)) as stack:
        process = read_process(stack)
        path = stack.address.path
    if not process:
        raise StackError(f"{output}: expected an output of swinmpi-sample, which tells how it was "
                         "made, got a stack that does not")
    return Making(path, process, (path,))


def of_folder(output: Path) -> Making:
    if not (output / NAME).is_file():
        raise StackError(f"{output}: expected an output of swinmpi-sample, a file or a folder with "
                         f"{NAME}, got a folder without")
    memory = read_memory(output)
    there = {target: told["input"] for target, told in memory.pictures.items()
             if (output / target).is_file()}
    if not (memory.made and there):
        raise StackError(f"{output}: expected pictures of a run that came to its end, got none; "
                         "start the same swinmpi-sample again")
    return Making(output, memory.made[-1], tuple(output / target for target in there), there)


def as_text(making: Making) -> str:
    """A line for every entry, the settings last."""
    entries = dict(making.process)
    settings = entries.pop("configuration", None)
    lines = [f"{name:<19} {value}" for name, value in flat(entries)]
    lines += ["", *str(settings).rstrip().splitlines()] if settings else []
    return "\n".join(str(SwinmpiError(line)) for line in lines)  # whatever a hostile file says


def as_json(making: Making) -> str:
    return json.dumps(making.process, indent=1, default=str)


def flat(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """{"sampler": {"steps": 5}} -> sampler.steps, 5; what is not set is left out."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{above}{name}.")
        elif value is not None:
            yield f"{above}{name}", value
