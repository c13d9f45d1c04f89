"""README and docs: every command line shown exists, every file referred to is there."""
import importlib
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")),
         ROOT / "swinmpi" / "demo" / "PROVENANCE.md"]


def command_lines() -> list[tuple[str, list[str]]]:
    """(command, arguments) of every swinmpi-* call in a code block."""
    found = []
    for page in PAGES:
        text = page.read_text().replace("\\\n", " ")
        for line in text.splitlines():
            words = (shlex.split(line, comments=True)
                     if re.match(r"\s*(mpirun|srun|swinmpi-|torchrun)", line) else [])
            names = [word for word in words if re.fullmatch(r"swinmpi-[a-z]+", word)]
            if names:
                found.append((names[0].removeprefix("swinmpi-"), words[words.index(names[0]) + 1:]))
    return found


@pytest.mark.parametrize(("command", "arguments"), command_lines(),
                         ids=lambda value: " ".join(value)[:60] or "none")
def test_every_command_line_parses(command, arguments):
    importlib.import_module(f"swinmpi.cli.{command}").parser().parse_args(arguments)


def test_the_two_commands_come_first():
    text = (ROOT / "README.md").read_text()
    assert text.index("<!-- command: run -->") < text.index("<!-- command: test -->") < text.index(
        "## Your own data")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_referred_to_exists(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} refers to {target}"


@pytest.mark.parametrize("command",
                         ["prepare", "train", "calibrate", "sample", "evaluate", "benchmark",
                          "merge", "experiment", "info", "verify"])
def test_help_ends_with_examples_that_parse(command):
    parser = importlib.import_module(f"swinmpi.cli.{command}").parser()
    lines = [line.split() for line in parser.epilog.partition("example:")[2].splitlines()
             if line.strip()]
    for words in lines:
        parser.parse_args(words[words.index(f"swinmpi-{command}") + 1:])
    assert lines, "no example"
