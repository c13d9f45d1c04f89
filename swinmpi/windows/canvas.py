"""A part of an image by its coordinates: where a rank keeps what its windows show."""
from dataclasses import dataclass, fields, replace
from functools import lru_cache

import torch
from torch import Tensor

from swinmpi.windows.moves import Line, Piece, Rect

KEPT_PIECES = 1 << 12


@dataclass(frozen=True, eq=False)
class Canvas:
    """values (C, h, w) shown at coordinates top.., left..; its values change, its
    place does not."""

    values: Tensor
    top: int
    left: int

    @classmethod
    def over(cls, rect: Rect, channels: int, device: torch.device | None = None) -> "Canvas":
        """Zeros over a rectangle."""
        values = torch.zeros(channels, len(rect.rows), len(rect.cols), device=device)
        return cls(values, rect.rows.start, rect.cols.start)

    def holds(self, rect: Rect) -> bool:
        """Whether all of a rectangle lies on it."""
        height, width = self.values.shape[-2:]
        return (self.top <= rect.rows.start and rect.rows.stop <= self.top + height
                and self.left <= rect.cols.start and rect.cols.stop <= self.left + width)

    def view(self, rows: range, cols: range) -> Tensor:
        """(C, len(rows), len(cols)), writable."""
        return self.values[:, self._rows(rows), self._cols(cols)]

    def take(self, piece: Piece) -> Tensor:
        """What a piece carries: (C, from_rows, from_cols)."""
        piece = on_device(piece, self.values.device)
        return self.values[:, self._rows(piece.from_rows)][:, :, self._cols(piece.from_cols)]

    def put(self, piece: Piece, carried: Tensor) -> None:
        """Show what a piece carries, given as `take` made it."""
        piece, carried = on_device(piece, self.values.device), carried.to(self.values.device)
        shown = carried[:, plain(piece.pick_rows)][:, :, plain(piece.pick_cols)]
        rows, cols = self._rows(piece.to_rows), self._cols(piece.to_cols)
        if isinstance(rows, Tensor) and isinstance(cols, Tensor):
            rows = rows[:, None]
        self.values[:, rows, cols] = shown

    def _rows(self, line: Line) -> slice | Tensor:
        return plain(line, self.top)

    def _cols(self, line: Line) -> slice | Tensor:
        return plain(line, self.left)


@lru_cache(maxsize=KEPT_PIECES)
@torch.inference_mode(False)
def on_device(piece: Piece, device: torch.device) -> Piece:
    """With its coordinates where they index the values of a canvas."""
    lines = {line.name: getattr(piece, line.name) for line in fields(piece)
             if isinstance(getattr(piece, line.name), Tensor)}
    if device.type == "cpu" or not lines:
        return piece
    return replace(piece, **{name: line.to(device) for name, line in lines.items()})


def plain(line: Line, origin: int = 0) -> slice | Tensor:
    """Coordinates as an index of an axis that starts at `origin`."""
    return (slice(line.start - origin, line.stop - origin) if isinstance(line, range)
            else line - origin)
