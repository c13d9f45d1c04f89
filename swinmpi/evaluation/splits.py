"""Which images of a file of pairs are judged, and whether a network was trained on them."""
from dataclasses import dataclass, replace

import numpy as np

from swinmpi.errors import StackError
from swinmpi.storage.address import parse_address
from swinmpi.storage.metadata.frames import chosen, spelled
from swinmpi.storage.pairs import SPLITS, TRAIN, PairReader, holds_pairs
from swinmpi.storage.probe import inspect_pairs, inspect_stacks
from swinmpi.storage.stack import Stack


@dataclass(frozen=True)
class Judged:
    """Images of the reference. split: what they are for, None for all; indices: theirs, None for
    all; total: images that there are; num_trained: those among the judged that are there to be
    trained on."""

    split: str | None = None
    indices: tuple[int, ...] | None = None
    total: int = 0
    num_trained: int = 0

    @property
    def frames(self) -> str | None:
        """These images as frames of a stack that has all of them; None for all."""
        return None if self.indices is None else spelled(self.indices)

    def index(self, number: int) -> int:
        """In the reference, of the number-th image."""
        return number if self.indices is None else self.indices[number]

    @property
    def remarks(self) -> list[str]:
        """What a reader of the figures must know, one line each."""
        said = []
        if self.indices is not None:
            said.append(f"split {self.split}: {len(self.indices)} of {self.total} images are "
                        "judged")
        if self.num_trained:
            said.append(f"warning: {self.num_trained} of the images judged are there to train on "
                        "(split train): a network that was trained on them shows more than it can; "
                        "judge others with --split test or validate")
        return said


def judged(reference: str, split: str | None, frames: str | None = None) -> Judged:
    """The images of a reference to judge: of a split, and of these frames alone where some are
    asked for. StackError where it has none; on one process."""
    if split is None:
        return Judged()
    inspect_stacks([reference])
    path = parse_address(reference).path
    if not holds_pairs(path):
        raise StackError(f"{reference}: expected the HR images of a file of swinmpi-prepare for "
                         "--split, such as pairs.h5::/hr; leave out --split to judge all images")
    splits = splits_in(str(path))
    asked = range(len(splits)) if frames is None else chosen(frames, len(splits))
    indices = tuple(index for index in asked if splits[index] == SPLITS[split])
    if not indices:
        if frames is not None:
            raise StackError(f"{reference}: expected images of split {split} among --frames "
                             f"{frames}, got none; name others")
        raise StackError(f"{reference}: expected images of split {split}, got none; prepare some "
                         "with data.test_share, data.validate_share or a list")
    return Judged(split, indices, len(splits))


def split_to_judge(path: str) -> str:
    """Of a file of pairs: `test`, without one `validate`; StackError where there is neither."""
    there = splits_in(path)
    for split in ("test", "validate"):
        if (there == SPLITS[split]).any():
            return split
    raise StackError(f"{path}: expected images of split test or validate, which no network was "
                     "trained on, got none; name others with --split, or prepare some with "
                     "data.test_share")


def with_trained(images: Judged, hr: Stack) -> Judged:
    """The same, and how many of the images that `hr` shows are there to be trained on."""
    if not holds_pairs(hr.address.path):
        return images
    trained = splits_in(str(hr.address.path)) == TRAIN
    if hr.arrangement.frames is not None:
        trained = trained[[*hr.arrangement.frames]]
    return replace(images, num_trained=int(trained.sum()))


def splits_in(path: str) -> np.ndarray:
    """(N,) uint8, what every pair of a file is for."""
    inspect_pairs(path)
    with PairReader(path) as pairs:
        return pairs.splits
