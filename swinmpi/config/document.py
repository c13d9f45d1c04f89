"""docs/configuration.md, from the sections: `python -m swinmpi.config.document` prints it."""
import types
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from swinmpi.config.families import DEFAULT_FAMILY, FAMILIES
from swinmpi.config.loading import PRESETS
from swinmpi.config.sections import Config

LIMITS = ("gt", "ge", "lt", "le", "multiple_of", "min_length", "max_length")
INTRODUCTION = """\
# Configuration

<!-- Generated: python -m swinmpi.config.document > docs/configuration.md -->

Every setting has a default; what a command is told on top of it comes from, later ones winning:

1. the defaults below;
2. the checkpoint, which brings the model it holds and the settings it recommends;
3. `--preset NAME`, of those below;
4. `--config FILE.yaml`, which may be given several times: sections as below, each with the keys to
   change;
5. `--set section.key=value`, which may be given several times, such as `--set sampler.steps=20`.

An unknown key, or a value of another type or out of its bounds, ends the command with one line that
says so; `--dry-run` checks all of it and writes nothing. Nothing is written `null`.
"""


def document() -> str:
    """The page: introduction, presets, one table per section, one per model family."""
    parts = [INTRODUCTION, "## Presets\n", presets_table()]
    for name, field in Config.model_fields.items():
        parts += [f"## {name}\n"]
        if name == "model":
            parts += ["The network. `model.family` decides which of the following keys there are; "
                      "another family\nstarts from its own defaults.\n"]
            for family, section in FAMILIES.items():
                default = ", the default" if family == DEFAULT_FAMILY else ""
                parts += [f"### model.family: {family}{default}\n", f"{section.__doc__}\n",
                          section_table(section)]
        else:
            parts += [f"{field.annotation.__doc__}\n", section_table(field.annotation)]
    return "\n".join(parts)


def presets_table() -> str:
    """What each preset sets; `-` where it leaves a key alone."""
    rows = {name: {f"`{section}.{key}`": literal(value) for section, values in preset.items()
                   for key, value in values.items()} for name, preset in PRESETS.items()}
    keys = list(dict.fromkeys(chain.from_iterable(rows.values())))
    return table(["preset", *keys], [[f"`{name}`", *(row.get(key, "-") for key in keys)]
                                     for name, row in rows.items()])


def section_table(section: type[BaseModel]) -> str:
    rows = [[f"`{key}`", in_words(field.annotation, limits_of(field.metadata)),
             literal(field.default), field.description] for key, field in settings_of(section)]
    return table(["key", "type and bounds", "default", "meaning"], rows)


def settings_of(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """(key, field) of every value in a section, those of a section inside it as `shift.pattern`."""
    for key, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from settings_of(field.annotation, f"{prefix}{key}.")
        else:
            yield prefix + key, field


def in_words(annotation: Any, limits: Mapping[str, Any]) -> str:
    """A type in words: `one of crop, whole`, `whole number, 8 to 8192`, `text, or nothing`."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return in_words(args[0], limits_of(args[1:]))
    if origin in (Union, types.UnionType):
        kinds = [in_words(kind, limits) for kind in args if kind is not types.NoneType]
        return ", or ".join(kinds + ["nothing"] * (types.NoneType in args))
    if origin is Literal:
        return f"one of {', '.join(map(str, args))}" if len(args) > 1 else str(args[0])
    if origin is list:
        kind, *bounds = in_words(args[0], {}).split(", ")
        if "max_length" not in limits:
            return ", each ".join([f"list of {kind}s", *bounds])
        shortest, longest = limits["min_length"], limits["max_length"]
        number = f"{shortest}" if shortest == longest else f"{shortest} to {longest}"
        return ", each ".join([f"list of {number} {kind}s", *bounds])
    if annotation in (bool, str):
        return {bool: "true or false", str: "text"}[annotation]
    if annotation is int:
        return ", ".join(["whole number", *bounds_in_words(of_whole_numbers(limits))])
    return ", ".join(["number", *bounds_in_words(limits)])


def limits_of(metadata: Sequence[Any]) -> dict[str, Any]:
    """What pydantic keeps of a field's bounds, by the names they have in `Field(...)`."""
    found = {}
    for item in metadata:
        found |= limits_of(item.metadata) if isinstance(item, FieldInfo) else \
            {name: getattr(item, name) for name in LIMITS if hasattr(item, name)}
    return found


def of_whole_numbers(limits: Mapping[str, Any]) -> dict[str, Any]:
    """The same bounds with the lowest and the highest value themselves."""
    moved = {"ge": limits["gt"] + 1} if "gt" in limits else {}
    moved |= {"le": limits["lt"] - 1} if "lt" in limits else {}
    return {name: limit for name, limit in limits.items() if name not in ("gt", "lt")} | moved


def bounds_in_words(limits: Mapping[str, Any]) -> list[str]:
    given = {name: figure(limit) for name, limit in limits.items()}
    if "ge" in given and "le" in given:
        given["range"] = f"{given.pop('ge')} to {given.pop('le')}"
    words = {"range": "", "gt": "above ", "ge": "at least ", "lt": "below ", "le": "at most ",
             "multiple_of": "in multiples of "}
    return [words[name] + given[name] for name in words if name in given]


def figure(value: float) -> str:
    """A bound as a reader takes it in: large powers of two as such."""
    for offset, rest in ((0, ""), (1, " - 1")):
        power = int(value) + offset
        if power > 1 << 16 and power & (power - 1) == 0:
            return f"2^{power.bit_length() - 1}{rest}"
    return f"{value:g}" if 1e-3 <= abs(value) < 1e6 or not value else \
        f"{value:.0e}".replace("e+0", "e").replace("e-0", "e-")


def literal(value: Any) -> str:
    """A default as YAML writes it."""
    if value is None:
        return "nothing"
    text = yaml.safe_dump([value], default_flow_style=True, width=1000).strip()
    return f"`{text[1:-1]}`"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; a bar inside a cell does not end it."""
    lines = [head, ["---"] * len(head), *rows]
    cells = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


if __name__ == "__main__":
    print(document(), end="")
