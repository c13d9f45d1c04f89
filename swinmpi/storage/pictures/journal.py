"""OUT/swinmpi.jsonl: what a folder of pictures knows of its making, a JSON object a line.

    {"format": 1, "settings": {...}}                               first; begins afresh what follows
    {"range": {"<u2": [0.0, 4095.0]}}                              raw values mapped to -1..1
    {"page": ["scan.tif", 3], "input": SHA-256}                    kept until its file is complete
    {"writing": "a.png", "input": SHA-256}                         is about to appear
    {"picture": "a.png", "input": SHA-256, "bytes": 1234, "figures": [{...}]}         is there
    {"made": {...}}                              how all of one size were made, when they are there
    {"over": true}                                                 last: a run ended

Lines are only added, each safe from a power cut before the next thing is done. A kill may cut the
last one, which is then taken away.
"""
import errno
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from swinmpi.errors import ConfigError, OutputError
from swinmpi.storage.files import as_output_error, sync_folder, system_reason
from swinmpi.storage.locking import open_locked
from swinmpi.storage.outputs.partial import differing_keys, shortened
from swinmpi.storage.values import ValueRange

NAME, FORMAT = "swinmpi.jsonl", 1
ADVICE = "make room and start again, finished pictures are kept"


class Memory:
    """What the lines of a journal say."""

    def __init__(self, lines: list[dict[str, Any]]):
        self.settings: dict[str, Any] | None = None
        self.ranges: dict[str, list[float]] = {}
        self.pages: dict[tuple[str, int], dict[str, Any]] = {}
        self.pictures: dict[str, dict[str, Any]] = {}
        self.begun: set[str] = set()
        self.made: list[dict[str, Any]] = []  # how, by size
        self.is_over = False
        for line in lines:
            self.learn(line)

    def learn(self, line: Mapping[str, Any]) -> None:
        """One more line. KeyError, TypeError, ValueError where it is not ours."""
        check(line)
        if "settings" in line:
            self.settings = line["settings"]
            self.ranges, self.pages, self.made, self.is_over = {}, {}, [], False
            # Still ours to replace, but made otherwise.
            self.begun |= set(self.pictures)
            self.pictures = {}
        elif "range" in line:
            self.ranges |= line["range"]
        elif "page" in line:
            self.pages[line["page"][0], line["page"][1]] = dict(line)
        elif "writing" in line:
            self.begun.add(line["writing"])
        elif "picture" in line:
            self.pictures[line["picture"]] = dict(line)
        elif "made" in line:
            self.made.append(line["made"])
        self.is_over = "over" in line

    def owns(self, target: str) -> bool:
        """Whether a file of that name is from us."""
        return target in self.begun or target in self.pictures


def check(line: Mapping[str, Any]) -> None:
    """ValueError unless what a line says is of the kinds that are written."""
    page, ranges = line.get("page", ["", 0]), line.get("range", {})
    names = [line.get(name, "") for name in ("picture", "writing", "input")]
    sound = (isinstance(line.get("settings", {}), dict) and isinstance(ranges, dict)
             and isinstance(line.get("made", {}), dict)
             and isinstance(page, list) and [*map(type, page)] == [str, int]
             and all(isinstance(name, str) for name in names)
             and (not {"page", "picture"} & line.keys() or {"input", "figures"} <= line.keys())
             and ("picture" not in line or type(line.get("bytes")) is int)
             and all(type(end) in (int, float) for ends in ranges.values() for end in ends))
    if not sound:
        raise ValueError(f"a line says {str(dict(line))[:80]}")
    for ends in ranges.values():
        ValueRange(*ends)


class Journal:
    """The open and locked journal of a folder; for one process (rank 0). A context manager."""

    def __init__(self, folder: Path):
        """Made where it is missing. OutputError when another run holds it, or it is not ours."""
        self.path = folder / NAME
        with as_output_error(self.path, "cannot write here ({reason})", "choose another --output",
                             reason=system_reason):
            self._sink = open_locked(self.path, create=True)
            sync_folder(folder)
        try:
            lines, end = read_lines(self.path)
            self.memory = memory_of(self.path, lines)
            self._sink.truncate(end)
            self._sink.seek(end)
        except BaseException:
            self._sink.close()
            raise

    def add(self, **line: Any) -> None:
        """Add a line; returns when it is on the disk. OutputError where it cannot be written."""
        self.memory.learn(line)
        with as_output_error(self.path, "cannot write ({reason})", ADVICE, reason=system_reason):
            self._sink.write(json.dumps(line).encode() + b"\n")
            self._sink.sync()

    def close(self) -> None:
        self._sink.close()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_) -> None:
        self.close()


def read_memory(folder: Path) -> Memory:
    """What the journal of a folder says, if there is one; nothing is locked or changed.

    OutputError where it is not ours.
    """
    path = folder / NAME
    return memory_of(path, read_lines(path)[0]) if path.exists() else Memory([])


def read_lines(path: Path) -> tuple[list[bytes], int]:
    """(whole lines, where they end)."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise OSError(errno.EINVAL, "it is no file")
        content = path.read_bytes()
    except OSError as error:
        raise OutputError(f"{path}: cannot be read ({error.strerror}); choose another --output"
                          ) from None
    end = content.rfind(b"\n") + 1
    return content[:end].splitlines(), end


def memory_of(path: Path, lines: list[bytes]) -> Memory:
    try:
        said = [json.loads(line) for line in lines]
        if said and said[0].get("format") != FORMAT:
            raise ValueError(f"format {said[0].get('format')}")
        return Memory(said)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError,
            ConfigError) as error:
        raise OutputError(f"{path}: is damaged, or not the journal of a folder of ours ({error}); "
                          "choose another --output, or delete it and use --overwrite") from None


def differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Names of the settings that differ, in a line; empty when none does."""
    return shortened(differing_keys(before, json.loads(json.dumps(after))))


def is_there(folder: Path, told: Mapping[str, Any]) -> bool:
    """Whether the picture of a journal's line is still the file that was written."""
    try:
        return os.stat(folder / told["picture"]).st_size == told["bytes"]
    except OSError:
        return False
