"""From YAML files, presets and `--set` to a validated Config, and back to YAML.

Later sources win: defaults, what the checkpoint recommends, preset, `--config` files, `--set`.
"""
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from swinmpi.config.families import DEFAULT_FAMILY, FAMILIES
from swinmpi.config.sections import Config
from swinmpi.config.strict_yaml import parse_override, read_yaml
from swinmpi.errors import ConfigError

PRESETS: dict[str, dict] = {
    "faithful": {"sampler": {"method": "ddim", "steps": 1, "noise_scale": 1.0}},
    "balanced": {"sampler": {"method": "ddim", "steps": 10, "noise_scale": 1.0}},
    "detailed": {"sampler": {"method": "ddim", "steps": 25, "noise_scale": 1.0}},
    "regression": {"sampler": {"method": "regression"}},
}


def load_config(files: Sequence[Path | str] = (), overrides: Sequence[str] = (),
                preset: str | None = None, base: Mapping[str, Any] | None = None,
                presets: Mapping[str, dict] = PRESETS) -> Config:
    """Merge base, preset, YAML files and `section.key=value` overrides into a validated Config.

    presets: by name, where those of a checkpoint differ from the usual ones.
    Raises ConfigError naming the source, the key, what was expected and what came.
    """
    merged: dict = {}
    sources = [("checkpoint", dict(base or {}))]
    if preset is not None:
        sources.append((f"preset {preset}", presets[preset]))
    sources += [(str(path), read_yaml(path)) for path in files]
    sources += [(f"--set {text}", parse_override(text)) for text in overrides]
    for name, values in sources:
        merged = merge(merged, values)
        validate(merged, name)
    config = validate(merged, "configuration")
    if problem := config.diffusion.contradiction:
        raise ConfigError(f"diffusion: expected {problem}")
    return config


def validate(values: Mapping[str, Any], source: str) -> Config:
    """Check a nested dict; ConfigError reads `source: key: expected ..., got ...`."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{source}: {describe(error)}") from None


def dump_yaml(config: Config) -> str:
    """The resolved configuration as YAML that `--config` accepts."""
    return yaml.safe_dump(config.model_dump(), sort_keys=False)


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict:
    """Nested dicts key by key, anything else replaced by `above`.

    Another model family starts from its own defaults.
    """
    merged = dict(below)
    for key, value in above.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            family = merged[key].get("family", DEFAULT_FAMILY)
            changes_family = value.get("family", family) != family
            merged[key] = dict(value) if changes_family else merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def describe(error: ValidationError) -> str:
    """The first problem of a pydantic error in one line; alternatives are joined by `or`."""
    problems = error.errors()
    where = key_of(problems[0])
    key = ".".join(where)
    if problems[0]["type"] == "extra_forbidden":
        return f"unknown key {key}{suggest(where)}"
    messages = []
    for problem in problems:
        if key_of(problem) == where:
            messages.append(expectation(problem["msg"]))
    came = problems[0].get("input")
    says_what_came = isinstance(came, Mapping) and problems[0]["type"] == "value_error"
    got = "" if says_what_came else f", got {came!r}"
    return f"{key}: expected {' or '.join(dict.fromkeys(messages))}{got}"


def expectation(message: str) -> str:
    """What pydantic's message expects, to be read after `expected`."""
    for start in ("Value error, ", "Input should be ", "a valid "):
        message = message.removeprefix(start)
    message = message.replace("greater than or equal to", "at least")
    message = message.replace("less than or equal to", "at most")
    return message[0].lower() + message[1:]


def key_of(problem: Mapping) -> list[str]:
    """The YAML key of a pydantic error, without what pydantic says of a union's alternatives."""
    tags = (*FAMILIES, "int", "constrained-int", "str")
    return [str(part) for part in problem["loc"]
            if part not in tags and not str(part).startswith("literal[")]


def suggest(where: Sequence[str]) -> str:
    """`; did you mean sampler.steps?` or the keys that exist there."""
    known, key = known_keys(), ".".join(where)
    if key in known:
        return "; it belongs to another model.family"
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.7)
    if close:
        return f"; did you mean {close[0]}?"
    prefix = ".".join(where[:-1])
    siblings = [key for key in known if key.rpartition(".")[0] == prefix]
    return f"; known here: {', '.join(siblings or Config.model_fields)}"


def known_keys() -> list[str]:
    """Every key that some YAML may set, `section.key` and `section.key.inner`."""
    keys = []
    for section, values in Config().model_dump().items():
        for key, value in values.items():
            keys.append(f"{section}.{key}")
            if isinstance(value, dict):
                keys += [f"{section}.{key}.{inner}" for inner in value]
    of_families = [f"model.{key}" for model in FAMILIES.values() for key in model.model_fields]
    return list(dict.fromkeys(keys + of_families))
