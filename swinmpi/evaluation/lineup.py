"""SR stacks side by side: named after their files, each compared with the same images of one HR
stack, or without the truth with each other."""
import os
import posixpath
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from swinmpi.errors import ConfigError, StackError
from swinmpi.evaluation.compared import ComparedStacks, Comparison, check_compared, open_compared
from swinmpi.images.metrics import valid_pixels
from swinmpi.storage.address import Address, parse_address
from swinmpi.storage.metadata.frames import AS_STORED, View
from swinmpi.storage.values import ValueRange

ALONE = "sr"  # the name of a stack that is the only one
RESERVED = ("bicubic", "regression", "hr", "image", "version")


@dataclass(frozen=True)
class Seen:
    """One image of a lineup, all (H, W, C) raw values; a pixel without a number in any of them is
    NaN in all of HR's size.

    lr: of the first stack. versions: by name, bicubic first. truth: None without HR. bases: what
    each SR stack added its detail to.
    """

    lr: np.ndarray
    versions: Mapping[str, np.ndarray]
    truth: np.ndarray | None
    bases: Mapping[str, np.ndarray]
    nan_pixels: int


@dataclass(frozen=True)
class Lineup:
    """Comparisons by name, of the same images; made by `check_lineup`. value_range: that all
    figures are measured with; range_from: where it comes from, in words."""

    comparisons: Mapping[str, Comparison]
    value_range: ValueRange
    range_from: str

    @property
    def first(self) -> Comparison:
        return next(iter(self.comparisons.values()))

    @property
    def names(self) -> list[str]:
        """Of the SR stacks."""
        return list(self.comparisons)

    @property
    def image_indices(self) -> list[int]:
        """The images that every run made."""
        return sorted(set.intersection(*(set(one.image_indices)
                                         for one in self.comparisons.values())))

    @property
    def failed(self) -> list[int]:
        """The images that some run gave up."""
        return sorted({index for one in self.comparisons.values() for index in one.failed})

    def pairs(self, versions: Sequence[str]) -> list[tuple[str, str]]:
        """Which versions are compared image by image: others with the first stack, one stack with
        bicubic."""
        first, *others = self.names
        if others:
            return [(other, first) for other in others]
        return [(first, "bicubic")] if "bicubic" in versions else []

    def title(self, version: str) -> str:
        """Of a version, for people."""
        return "SR" if version == ALONE and len(self.comparisons) == 1 else version

    def open(self, stacks: ExitStack) -> "OpenLineup":
        """Open all stacks, to be closed by `stacks`."""
        return OpenLineup(self, {name: open_compared(one, stacks)
                                 for name, one in self.comparisons.items()})


@dataclass(frozen=True)
class OpenLineup:
    """The open stacks of a lineup."""

    lineup: Lineup
    stacks: Mapping[str, ComparedStacks]

    @property
    def limits(self) -> ValueRange:
        """Darkest and brightest of a picture."""
        return next(iter(self.stacks.values())).limits

    def read(self, number: int) -> Seen:
        """The number-th image."""
        read = {name: one.read(number) for name, one in self.stacks.items()}
        lr, first, _ = next(iter(read.values()))
        versions = {name: first[name] for name in self.shown(first)}
        versions |= {name: made["sr"] for name, (_, made, _) in read.items()}
        bases = {name: made.get("regression", made["bicubic"])
                 for name, (_, made, _) in read.items()}
        truth = first.get("hr")
        valid = valid_pixels(*versions.values(), *([] if truth is None else [truth]))
        for image in (*versions.values(), *bases.values(), *filter_none(truth)):
            image[~valid] = np.nan
        return Seen(lr, versions, truth, bases, int((~valid).sum()))

    def shown(self, made: Mapping[str, np.ndarray]) -> list[str]:
        """What is measured beside SR: bicubic, unless it is of the SR stack itself; the regression
        of a single stack."""
        first = self.lineup.first
        beside = [] if first.hr is None and first.lr is None else ["bicubic"]
        return beside + ["regression"] * (len(self.stacks) == 1 and "regression" in made)


def check_lineup(addresses: Sequence[str], hr: str | None, lr: str | None,
                 no_data: tuple[float, ...] = (), view: View = AS_STORED,
                 split: str | None = None) -> Lineup:
    """The comparisons of SR stacks, as of `check_compared` for each; StackError, ConfigError where
    they are not of the same images."""
    compared = {name: check_compared(address, hr, lr, no_data, view, split)
                for name, address in zip(names_of(addresses), addresses, strict=True)}
    check_once([one.sr.address for one in compared.values()])
    first = next(iter(compared.values()))
    for one in compared.values():
        for what, wanted, came in (
                ("images", first.extent, one.extent), ("scale", first.scale, one.scale),
                ("frames of HR", first.hr and first.hr.view.frames or "all",
                 one.hr and one.hr.view.frames or "all")):
            if wanted != came:
                raise StackError(f"{one.sr}: expected {what} as of {first.sr}, {show(wanted)}, got "
                                 f"{show(came)}; stacks of the same images are compared, judge "
                                 "others one by one")
    lineup = Lineup(compared, *common_range(compared))
    if not lineup.image_indices:
        raise StackError(f"{', '.join(str(one.sr) for one in compared.values())}: expected an "
                         "image that every run made, got none; judge them one by one")
    return lineup


def common_range(compared: Mapping[str, Comparison]) -> tuple[ValueRange, str]:
    """(a range that is the same for all, where it comes from): of stacks whose files record
    different ones that of HR, without it the widest."""
    first = next(iter(compared.values()))
    ranges = [one.value_range for one in compared.values()]
    if len({(one.low, one.high) for one in ranges}) == 1:
        return first.value_range, first.range_from
    if first.hr is not None:
        with first.hr.open(first.no_data) as stack:
            return stack.range(), "measured on HR, because the SR files record different ones"
    return (ValueRange(min(one.low for one in ranges), max(one.high for one in ranges)),
            "that holds those of all SR stacks")


def names_of(addresses: Sequence[str]) -> list[str]:
    """The shortest names that tell stacks apart: file, file and dataset, the whole address; a
    single one is `sr`. ConfigError where one is named twice."""
    if len(addresses) == 1:
        return [ALONE]
    parsed = [parse_address(address) for address in addresses]
    check_once(parsed)
    inside = [f"::{posixpath.basename(one.dataset)}" if one.dataset else "" for one in parsed]
    files = [one.path.stem for one in parsed]
    for names in (files, [f"{one.path.parent.name}/{one.path.stem}" for one in parsed],
                  [f"{file}{within}" for file, within in zip(files, inside, strict=True)]):
        if len(set(names)) == len(names) and not set(names) & set(RESERVED):
            return names
    return list(addresses)


def check_once(addresses: Sequence[Address]) -> None:
    """ConfigError where one is named twice, however it is spelled."""
    places = Counter((os.path.realpath(one.path), one.dataset) for one in addresses)
    for one in addresses:
        if places[os.path.realpath(one.path), one.dataset] > 1:
            raise ConfigError(f"{one}: expected every SR stack once, got it twice; leave one out")


def filter_none(*images: np.ndarray | None) -> list[np.ndarray]:
    return [image for image in images if image is not None]


def show(value: float | str) -> str:
    return f"{value:g}" if isinstance(value, float | int) else value
