"""docs/configuration.md says what every key means, and is the page the sections make."""
from pathlib import Path

import pytest

from swinmpi.config import Config
from swinmpi.config.document import document, settings_of
from swinmpi.config.families import FAMILIES
from swinmpi.config.loading import known_keys

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
SECTIONS = {name: field.annotation for name, field in Config.model_fields.items()
            if name != "model"} | {f"model {name}": section for name, section in FAMILIES.items()}


@pytest.mark.parametrize("name", SECTIONS)
def test_every_key_has_a_description_of_its_own(name):
    meanings = {key: field.description for key, field in settings_of(SECTIONS[name])}
    assert meanings and all(meanings.values()), [key for key in meanings if not meanings[key]]
    assert len(set(meanings.values())) == len(meanings), "two keys of a section read the same"
    inherited = [key for key, meaning in meanings.items() if meaning == SECTIONS[name].__doc__]
    assert not inherited, "the section's own text is none of a key"


def test_every_key_has_a_row():
    rows = [line for line in document().splitlines() if line.startswith("| `")]
    keys = {row.split("`")[1] for row in rows}
    inside = {key.partition(".")[2] for key in known_keys()} - {"shift"}
    assert inside <= keys, inside - keys


def test_the_page_is_up_to_date():
    assert PAGE.read_text() == document(), \
        "renew it: python -m swinmpi.config.document > docs/configuration.md"


@pytest.mark.parametrize("row", [
    "| `mode` | one of crop, whole | `crop` |",
    "| `size_px` | whole number, 8 to 8192 | `192` |",
    "| `scale` | number, above 1, at most 64 | `2.0` |",
    "| `coverage` | number, above 0, at most 1e6, or nothing | nothing |",
    "| `window_px` | whole number, 16 to 4096, in multiples of 4 | `48` |",
    "| `unet_channels` | list of 2 to 4 whole numbers, each at most 16384 | `[48, 96]` |",
    "| `shift.pattern` | one of none, circular, random | `circular` |",
    "| `threads` | whole number, 1 to 4096, or auto | `auto` |",
    "| `seed` | whole number, 0 to 2^63 - 1 | `0` |",
    "| `faithful` | `ddim` | `1` | `1.0` |",
])
def test_types_and_bounds_read_as_words(row):
    assert row in document()
