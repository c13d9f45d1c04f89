"""What sampling needs of communication, and the answer of a process that is alone."""
from collections.abc import Sequence
from typing import Protocol

from torch import Tensor


class Exchange(Protocol):
    """How frames, predictions and features travel between the ranks of a group. All methods but `owned` are collective."""

    rank: int
    size: int

    def owned(self, num_positions: int) -> range:
        """The window positions of this rank, a contiguous block."""

    def broadcast(self, frames: Tensor | None, shape: tuple[int, ...]) -> Tensor:
        """The root's float32 frames of that shape, on every rank."""

    def gather(self, windows: Tensor, live: Sequence[Sequence[int]]) -> list[Tensor] | None:
        """From every rank its predictions, image by image in order of position; per image (len(live[i]), C, w, w) on
        the root, None elsewhere. `live` lists the predicted positions of each image."""

    def allgather(self, parts: list[Tensor], shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
        """All ranks' float32 tensors in order of rank; `shapes` are those of the result."""


class Alone:
    """The exchange of a single process."""

    rank, size = 0, 1

    def owned(self, num_positions: int) -> range:
        return range(num_positions)

    def broadcast(self, frames: Tensor | None, shape: tuple[int, ...]) -> Tensor:
        return frames

    def gather(self, windows: Tensor, live: Sequence[Sequence[int]]) -> list[Tensor] | None:
        return list(windows.split([len(positions) for positions in live]))

    def allgather(self, parts: list[Tensor], shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
        return parts
