"""YAML as swinmpi reads it: the safe loader, duplicate keys refused, 1e-4 a float."""
import re
from pathlib import Path
from typing import Any

import yaml

from swinmpi.errors import ConfigError


def read_yaml(path: Path | str) -> dict:
    """One YAML mapping by the safe loader; duplicate keys are refused and 1e-4 is a float."""
    try:
        values = parse_yaml(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the configuration: {error.strerror or error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML: {one_line(error)}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected sections such as `sampler:`, got {type(values).__name__}")
    return values


def parse_override(text: str) -> dict:
    """`sampler.steps=20` -> {"sampler": {"steps": 20}}; the value is YAML."""
    key, equals, value = text.partition("=")
    parts = key.strip().split(".")
    if not equals or len(parts) < 2 or not all(parts):
        raise ConfigError(f"--set {text}: expected section.key=value, for example --set sampler.steps=20")
    try:
        nested: Any = parse_yaml(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {text}: not a YAML value: {one_line(error)}") from None
    for part in reversed(parts):
        nested = {part: nested}
    return nested


class StrictLoader(yaml.SafeLoader):
    """Safe loader that refuses duplicate keys and reads 1e-4 as YAML 1.2 does, as a float."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, f"expected a name as key, got {key!r}", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key!r}", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


StrictLoader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"),
                                   list("-+0123456789"))


def parse_yaml(text: str) -> Any:
    return yaml.load(text, Loader=StrictLoader)  # noqa: S506 - StrictLoader is a SafeLoader


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())
