"""How the stacks of an evaluation are to be seen: which axis is which, and which of their frames
are compared."""
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from swinmpi.config.strict_yaml import YAMLError, parse_yaml
from swinmpi.errors import ConfigError, StackError
from swinmpi.storage.address import Address
from swinmpi.storage.layout import in_letters
from swinmpi.storage.metadata.frames import AS_STORED, View, check_frames, chosen, spelled
from swinmpi.storage.metadata.said import what_is_said
from swinmpi.storage.outputs.result import read_process
from swinmpi.storage.probe import inspect_stacks
from swinmpi.storage.stack import Stack


@dataclass(frozen=True)
class Viewed:
    """A stack by its address, and how it is to be seen."""

    address: Address | str
    view: View = AS_STORED

    def __str__(self) -> str:
        return str(self.address)

    def open(self, no_data: Sequence[float] = ()) -> Stack:
        """StackError, ConfigError where it cannot be seen so."""
        return Stack.open(self.address, view=self.view, no_data=no_data)


@dataclass(frozen=True)
class SrFacts:
    """What an SR stack says of the stack it was made of.

    letters: of its axes, as data.axes has them, where swinmpi made it. recorded: the frames it was
    made of, as asked for. num_frames: along its first axis of images.
    """

    letters: str | None
    recorded: str | None
    num_frames: int


def read_hwc(stack: Stack, image_index: int) -> np.ndarray:
    """One image as (H, W, C) floats, raw values, NaN for no data."""
    return np.moveaxis(stack.read(image_index), 0, -1).copy()


def viewed(sr: str, others: Sequence[str], asked: View,
           may_be_alone: bool = False) -> tuple[Viewed, list[Viewed]]:
    """How to see the SR stack, and HR and LR. On one process; StackError, ConfigError.

    An output of swinmpi says itself what its axes are and which frames of the others it was made
    of. The others are of its axes too, where neither their files nor the user say otherwise.
    `asked.frames` count in the stack that SR was made of. may_be_alone: a stack of another program
    may hold these frames and no others.
    """
    check_frames(asked.frames)
    whole = replace(asked, frames=None)
    of_sr = view_of_sr(sr, whole)
    with Stack.open(sr, view=of_sr) as stack:
        process = read_process(stack)
        facts = SrFacts(in_letters(stack.arrangement.layout) if process else None,
                        process.get("frames"), frames_along(stack))
    taken, seen = asked.frames, []
    for other in others:
        view = view_of_other(other, whole, facts)
        with Stack.open(other, view=view) as stack:
            size, own = frames_along(stack), stack.arrangement.frames
        made_of = frames_made_of(facts, size, own)
        if asked.frames is not None and made_of is not None:
            option = "--split" if may_be_alone else f"--frames {asked.frames}"
            taken = frames_of_sr(asked.frames, made_of, size, option)
        elif may_be_alone and facts.num_frames != size:
            taken = None
        frames = asked.frames
        if frames is None and made_of not in (None, own):
            frames = spelled(made_of)
        seen.append(Viewed(other, replace(view, frames=frames)))
    return Viewed(sr, replace(of_sr, frames=taken)), seen


def view_of_sr(sr: str, asked: View) -> View:
    """Of an output of swinmpi as its run was told, of another stack as asked. StackError unless it
    can be read so."""
    as_stored = replace(asked, axes=None)
    seen = first_readable(sr, (as_stored, asked), asked)
    with Stack.open(sr, view=seen) as stack:
        process = read_process(stack)
    if not process:
        return asked if seen == asked else first_readable(sr, (asked,), asked)
    try:
        told = parse_yaml(process["configuration"])["data"]["axes"]
    except (KeyError, TypeError, YAMLError):
        told = None
    own = replace(asked, axes=told) if isinstance(told, str) else as_stored
    return seen if own == seen else first_readable(sr, (own, seen), own)


def view_of_other(other: str, asked: View, facts: SrFacts) -> View:
    """Of HR or LR. StackError unless it can be read so."""
    if asked.axes is not None or facts.letters is None:
        return first_readable(other, (asked,), asked)
    like = replace(asked, axes=facts.letters)
    seen = first_readable(other, (asked, like), asked)
    try:
        with Stack.open(other, view=like) as stack:
            group = stack.file[posixpath.dirname(stack.address.dataset)]
            says_nothing = not any(what_is_said(stack.dataset, group).letters)
    except StackError:
        return seen
    return like if says_nothing else seen


def first_readable(address: str, views: Sequence[View], asked: View) -> View:
    """The first view in which a stack can be read without harm; without, the StackError of the one
    that was asked for."""
    refusals = {}
    for view in dict.fromkeys(views):
        try:
            inspect_stacks([address], view=view)
            return view
        except StackError as error:
            refusals[view] = error
    raise refusals[asked]


def frames_along(stack: Stack) -> int:
    """Of the whole dataset, along the first axis of images; 1 without."""
    layout, shape = stack.arrangement.layout, stack.arrangement.shape
    return shape[layout.index("N")] if "N" in layout else 1


def frames_made_of(facts: SrFacts, size: int, own: tuple[int, ...] | None) -> (
        tuple[int, ...] | None):
    """The frames, of `size`, of HR or LR that SR was made of, if it was not of all.

    own: those that the stack's image_key leaves.
    """
    if facts.recorded is not None:
        try:
            own = chosen(str(facts.recorded), size)
        except ConfigError:
            return None
    return own if own is not None and len(own) == facts.num_frames else None


def frames_of_sr(asked: str, made_of: Sequence[int], size: int, option: str) -> str:
    """Where the frames asked for lie among those that SR was made of."""
    frames = chosen(asked, size)
    for frame in frames:
        if frame not in made_of:
            raise ConfigError(f"{option}: expected some of the frames {spelled(made_of)} "
                              f"that the SR stack was made of, got {frame}")
    return spelled([made_of.index(frame) for frame in frames])
