"""More members for an ensemble whose output is there: what it was made with, and whether its first
members come out again as they are."""
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from swinmpi.errors import ConfigError, OutputError, StackError
from swinmpi.storage.address import DAMAGE, find_object, open_file, reason_of
from swinmpi.storage.files import as_output_error
from swinmpi.storage.layout import Arrangement, to_chw
from swinmpi.storage.outputs.carrying import DATA, RESTORED
from swinmpi.storage.outputs.packing import bands, chunk_shape, restored_of
from swinmpi.storage.outputs.partial import (
    PER_IMAGE,
    differing_keys,
    exact_name,
    member_name,
    shortened,
)
from swinmpi.storage.outputs.result import PROCESS, read_entries
from swinmpi.storage.outputs.views import LR
from swinmpi.storage.stack import Stack

FINGERPRINT = "fingerprint"  # JSON, in the process of an output that keeps its members
MAY_DIFFER = ("ensemble", "trust")  # from one number of samples to another


@dataclass(frozen=True)
class Members:
    """`first`:`end` of an ensemble, from 0 on; those before `first` are there. known: unrounded, so
    that they need not be made again."""

    first: int
    end: int
    known: bool = False

    @classmethod
    def parsed(cls, text: str) -> "Members":
        """8:16; ConfigError for what is none."""
        try:
            first, end = map(int, text.split(":"))
            if 2 <= first < end:
                return cls(first, end)
        except ValueError:
            pass
        raise ConfigError("--members: expected FIRST:END with FIRST at least 2 and END above it, "
                          "such as 8:16 for eight more beside 0 to 7, "
                          f"got {text!r}")

    def __str__(self) -> str:
        return f"{self.first}:{self.end}"


def names_before(first: int) -> list[str]:
    """The data sets of members 0 to first - 1."""
    return ["sr", *map(member_name, range(1, first))]


class ExactMembers:
    """The unrounded members of an output before those to add, open on one rank until `close`;
    StackError where they cannot be read."""

    def __init__(self, path: Path, first: int, stack: Stack):
        """stack: what the output was made of."""
        self.path, self.first, self.layout = path, first, stack.layout
        self.file = open_file(path)
        data = self.file[DATA]
        self.datasets = [data[exact_name(k)] for k in range(first)]
        # A shard stays as it is until it is merged.
        layout = stack.layout if RESTORED in data.attrs else stack.arrangement.layout
        self.arrangement = Arrangement(layout, self.datasets[0].shape)

    def read(self, image_index: int, rows: range, cols: range) -> np.ndarray:
        """(first, C, h, w) float32 around -1..1, over these pixels of an image."""
        if not self.file[PER_IMAGE]["done"][image_index]:
            raise StackError(f"{self.path}: image {image_index} has no members to add to, as it "
                             "could not be made; make a new ensemble with another --output")
        spans = {"H": slice(rows.start, rows.stop), "W": slice(cols.start, cols.stop)}
        within = [spans.get(letter, slice(None)) for letter in self.layout[1:]]
        place = self.arrangement.unfolded(self.arrangement.place(image_index), within)
        try:
            return np.stack([to_chw(one[place], self.layout) for one in self.datasets])
        except DAMAGE as error:
            raise StackError(f"{self.path}: members of image {image_index} cannot be read "
                             f"({reason_of(error)}); make the ensemble again") from None

    def close(self) -> None:
        self.file.close()


def kept_exactly(path: Path, members: Members) -> bool:
    """Whether the output, which `check_extended` has seen, has the members before these unrounded
    as well."""
    with open_file(path) as file:
        found = [find_object(file, f"{DATA}/{exact_name(k)}") for k in range(members.first)]
        return all(isinstance(one, h5py.Dataset) and one.shape == file[DATA]["sr"].shape
                   and one.dtype == np.float32 for one in found)


def kept_beside(path: Path) -> set[str]:
    """Which of `regression` and `lr` the output, which `check_extended` has seen, has too."""
    with open_file(path) as file:
        return {name for name, place in (("regression", f"{DATA}/regression"), ("lr", LR))
                if find_object(file, place) is not None}


def check_extended(path: Path, members: Members) -> dict[str, Any]:
    """The fingerprint that the output was made with; OutputError unless it is an ensemble of
    exactly the members before these, all kept. Reads no pixels."""
    try:
        with open_file(path) as file:
            process = find_object(file, PROCESS)
            told = read_entries(process) if isinstance(process, h5py.Group) else {}
            if told.get("program") != "swinmpi":
                raise OutputError(f"{path}: expected an ensemble of swinmpi-sample to add members "
                                  "to, got another file; choose another --output")
            check_count(path, told.get("ensemble"), members)
            kept = [find_object(file, f"{DATA}/{name}") for name in names_before(members.first)]
            if not all(isinstance(one, h5py.Dataset) for one in kept):
                raise OutputError(f"{path}: expected an ensemble that kept its members, got one "
                                  "that did not; make it with --set output.members=true")
            return fingerprint_of(path, told)
    except StackError as error:
        raise OutputError(f"{error}; make the ensemble first, with --ensemble {members.first} "
                          "--set output.members=true, or name it with --output") from None
    except DAMAGE as error:
        raise OutputError(f"{path}: is damaged ({reason_of(error)}); make it again") from None


def check_count(path: Path, count: Any, members: Members) -> None:
    if count == members.first:
        return
    if type(count) is int and 2 <= count < members.end:
        raise OutputError(f"{path}: expected {members.first} members before {members}, got "
                          f"{count}; ask for --members {count}:{members.end}")
    has = f"{count} members already" if type(count) is int and count > 1 else "a single sample"
    raise OutputError(f"{path}: expected an ensemble of {members.first} to add members {members} "
                      f"to, got {has}; choose another --output")


def fingerprint_of(path: Path, process: Mapping[str, Any]) -> dict[str, Any]:
    try:
        told = json.loads(process[FINGERPRINT])
        if isinstance(told, dict):
            return told
    except (KeyError, TypeError, ValueError):
        pass
    raise OutputError(f"{path}: expected an output that tells what its members were made with, got "
                      "one that does not (merged from shards, or older); add members to each shard "
                      "before merging, or make a new ensemble")


def check_same_settings(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """OutputError unless both fingerprints make the same members."""
    before, now = (json.loads(json.dumps(
        {name: value for name, value in one.items() if name not in MAY_DIFFER}))
        for one in (before, now))
    if differing := differing_keys(before, now):
        raise OutputError(f"{path}: its members were made with other settings "
                          f"({shortened(differing)} differ); use the same to add some, or make a "
                          "new ensemble with another --output")


def check_same_members(path: Path, partial: h5py.File, first: int, image_index: int) -> None:
    """OutputError unless OUT.partial has an image's members before `first` as OUT has them, where
    OUT has that image."""
    with (as_output_error(path, f"members of image {image_index} cannot be read ({{reason}})",
                          "make the ensemble again", (*DAMAGE, IndexError)),
          open_file(path) as before):
        # A shard stays as it is until it is merged.
        arrangement = None if RESTORED in before[DATA].attrs else restored_of(partial[DATA])
        if not before[PER_IMAGE]["done"][image_index]:
            return
        for name in names_before(first):
            now = partial[DATA][name]
            for band in bands(now.shape, chunk_shape(now.shape, now.dtype)):
                place = image_index, *band
                into = place if arrangement is None else arrangement.unfolded(
                    arrangement.place(image_index), band)
                if not np.array_equal(before[DATA][name][into], now[place], equal_nan=True):
                    raise OutputError(
                        f"{path}: {name} of image {image_index} comes out otherwise here than it "
                        "is there; add members on such a machine, with such versions, as it was "
                        "made on, or make a new ensemble with another --output")
