"""YAML as swinmpi reads it: the safe loader, duplicate keys and aliases refused, 1e-4 a float,
no more than a settings file."""
import codecs
import re
from pathlib import Path
from typing import Any

import yaml
from yaml import YAMLError

from swinmpi.errors import ConfigError

LONGEST_TEXT = 1 << 17  # characters; PyYAML needs seconds for it, ours have two thousand
DEEPEST = 16  # mappings and lists in each other


def read_yaml(path: Path | str) -> dict:
    """One YAML mapping, by `parse_yaml`; ConfigError when it cannot be read or is none."""
    try:
        with open(path, "rb") as file:
            values = parse_yaml(decoded(file.read(4 * LONGEST_TEXT + 4)))
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the configuration: "
                          f"{error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not valid YAML: expected UTF-8, got another byte at position "
                          f"{error.start}; save it as UTF-8") from None
    except YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {one_line(error)}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected sections such as `sampler:`, "
                          f"got {type(values).__name__}")
    return values


def decoded(content: bytes, errors: str = "strict") -> str:
    """A text file in UTF-8, or with the byte order mark of some editors in UTF-16 or UTF-8.

    errors: as of `bytes.decode`, for UTF-8.
    """
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16")
    return content.decode("utf-8-sig", errors)


def parse_override(text: str) -> dict:
    """`sampler.steps=20` -> {"sampler": {"steps": 20}}; the value is YAML."""
    key, equals, value = text.partition("=")
    parts = key.strip().split(".")
    if not equals or len(parts) < 2 or not all(parts):
        raise ConfigError(f"--set {text}: expected section.key=value, "
                          "for example --set sampler.steps=20")
    if not value.isascii() and value != value.encode("utf-8", "ignore").decode():
        raise ConfigError(f"--set {text}: expected UTF-8, which settings are recorded in; rename "
                          "the file, or name a link to it")
    try:
        nested: Any = parse_yaml(value)
    except YAMLError as error:
        raise ConfigError(f"--set {text}: not a YAML value: {one_line(error)}") from None
    for part in reversed(parts):
        nested = {part: nested}
    return nested


class StrictLoader(yaml.SafeLoader):
    """Safe loader that refuses duplicate keys, aliases (a few lines of them can stand for
    terabytes) and deep nesting, and reads 1e-4 as YAML 1.2 does, as a float."""

    def __init__(self, text: str):
        super().__init__(text)
        self.depth = 0

    def compose_node(self, parent, index):
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None,
                                              f"aliases such as *{event.anchor} are not read here; "
                                              "write the value out", event.start_mark)
        if self.depth >= DEEPEST:
            raise yaml.composer.ComposerError(
                None, None, f"more than {DEEPEST} levels of mappings or lists", event.start_mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    None, None, f"expected a name as key, got {key!r}", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key!r}",
                                                        key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


StrictLoader.add_implicit_resolver("tag:yaml.org,2002:float",
                                   re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"),
                                   list("-+0123456789"))


def parse_yaml(text: str) -> Any:
    """One YAML value by the safe loader; YAMLError for whatever is wrong with the text."""
    if len(text) > LONGEST_TEXT:
        raise YAMLError(f"expected at most {LONGEST_TEXT} characters")
    try:
        return yaml.load(text, Loader=StrictLoader)  # noqa: S506 - StrictLoader is a SafeLoader
    except (ValueError, ArithmeticError, LookupError, AttributeError, TypeError) as error:
        # PyYAML's own way with scalars that do not fit their tag, such as the 31st of February.
        raise YAMLError(f"a value does not fit its type: {error}") from None


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())
