"""Which images of a file of pairs are judged, and whether a network was trained on them."""
from dataclasses import dataclass

from swinmpi.errors import StackError
from swinmpi.storage.address import parse_address
from swinmpi.storage.metadata.frames import AS_STORED, View, spelled
from swinmpi.storage.pairs import SPLITS, TRAIN, PairReader, holds_pairs
from swinmpi.storage.probe import inspect_pairs


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
    def view(self) -> View:
        """What shows these images of a stack that has all of them."""
        return AS_STORED if self.indices is None else View(frames=spelled(self.indices))

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


def judged(reference: str, split: str | None) -> Judged:
    """The images of a reference to judge. StackError where it has none of that split; on one
    process."""
    address = parse_address(reference)
    if not holds_pairs(address.path):
        if split is None:
            return Judged()
        raise StackError(f"{reference}: expected the HR images of a file of swinmpi-prepare for "
                         "--split, such as pairs.h5::/hr; leave out --split to judge all images")
    inspect_pairs(str(address.path))
    with PairReader(address.path) as pairs:
        splits = pairs.splits
    if split is None:
        return Judged(num_trained=int((splits == TRAIN).sum()), total=len(splits))
    indices = tuple((splits == SPLITS[split]).nonzero()[0].tolist())
    if not indices:
        raise StackError(f"{reference}: expected images of split {split}, got none; prepare some "
                         "with data.test_share, data.validate_share or a list")
    return Judged(split, indices, len(splits), len(indices) if split == "train" else 0)
