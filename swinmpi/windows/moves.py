"""Exchange `torus` as pure geometry: which part of an image each rank keeps, and what travels when
the shift changes.

Coordinates are those of grid.py. Whatever the shift, a coordinate always shows the same image
pixel. In each frame every image pixel is true in exactly one window, so exactly one rank holds
its value; between two frames a rank needs what its windows show next, gets what others hold of it,
and copies the mirrored rest at home.
"""
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from swinmpi.windows.grid import Border, WindowGrid, canvas_coordinate, source_index

Line = range | Tensor
"""Coordinates of one axis: a range where they follow each other, else int64."""


@dataclass(frozen=True)
class Rect:
    """The coordinates rows x cols on one rank."""

    rank: int
    rows: range
    cols: range


@dataclass(frozen=True, eq=False)
class Piece:
    """Pixels that one rectangle holds and another needs, as a product of rows and columns.

    source, target: places of the rectangles in their lists. from_*: coordinates in the source,
    each once. to_*: coordinates in the target. pick_*: which of from_* is shown at each of to_*
    (a mirrored pixel is sent once and shown twice).
    """

    source: int
    target: int
    from_rows: Line
    from_cols: Line
    to_rows: Line
    to_cols: Line
    pick_rows: Line
    pick_cols: Line

    @property
    def num_pixels(self) -> int:
        """Pixels that travel."""
        return len(self.from_rows) * len(self.from_cols)


@dataclass(frozen=True, eq=False)
class Moves:
    """One rank's part of an exchange: pieces copied at home, and by rank the pieces sent and
    received, in an order on which both sides agree."""

    local: tuple[Piece, ...]
    sends: dict[int, tuple[Piece, ...]]
    receives: dict[int, tuple[Piece, ...]]

    @property
    def num_received(self) -> int:
        """Pixels received from other ranks."""
        return sum(piece.num_pixels for pieces in self.receives.values() for piece in pieces)


@dataclass(frozen=True)
class Block:
    """A rectangle of window positions, by rows and columns of the grid."""

    rows: range
    cols: range

    def rect(self, grid: WindowGrid, shift: tuple[int, int], rank: int) -> Rect:
        """What its windows show at a shift."""
        spans = [range(windows.start * grid.window_px - by, windows.stop * grid.window_px - by)
                 for windows, by in zip((self.rows, self.cols), shift, strict=True)]
        return Rect(rank, *spans)

    def canvas(self, grid: WindowGrid, rank: int = 0) -> Rect:
        """What its windows show at any shift of the grid."""
        rect = self.rect(grid, (0, 0), rank)
        return Rect(rank, *(range(span.start - grid.max_shift_px, span.stop)
                            for span in (rect.rows, rect.cols)))


@lru_cache(maxsize=16)
def ownership_order(grid: WindowGrid) -> tuple[int, ...]:
    """All window positions as they are dealt out to ranks: row by row, under reflect the last two
    rows column by column.

    The last row is there for the shift; most of what it shows is mirrored from the row above it.
    """
    order = tuple(range(grid.num_positions))
    if grid.border == "wrap" or grid.rows < 2:
        return order
    above = grid.num_positions - 2 * grid.cols
    last_rows = zip(order[above:-grid.cols], order[-grid.cols:], strict=True)
    return *order[:above], *(position for column in last_rows for position in column)


def blocks_of(positions: Iterable[int], grid: WindowGrid) -> list[Block]:
    """Window positions as rectangles: neighbours in a row together, and rows
    of the same columns."""
    runs: list[list] = []
    for position in sorted(positions):
        row, col = divmod(position, grid.cols)
        if runs and runs[-1][0] == row and runs[-1][1].stop == col:
            runs[-1][1] = range(runs[-1][1].start, col + 1)
        else:
            runs.append([row, range(col, col + 1)])
    blocks: list[Block] = []
    for row, cols in runs:
        above = next(
            (k for k, block in enumerate(blocks) if block.rows.stop == row and block.cols == cols),
            None)
        if above is None:
            blocks.append(Block(range(row, row + 1), cols))
        else:
            blocks[above] = Block(range(blocks[above].rows.start, row + 1), cols)
    return blocks


def plan_moves(grid: WindowGrid, held: Sequence[Rect], needed: Sequence[Rect], rank: int,
               in_place: bool = False) -> Moves:
    """What `rank` copies, sends and receives so that every rectangle in `needed` shows its pixels.

    held: rectangles whose true pixels are known; an image pixel is true in at most one of them.
    The same lists on every rank. in_place: held[k] and needed[k] are places of the same canvas,
    so what is already there stays.
    """
    local, sends, receives = [], {}, {}
    pairs = [
        (s, n) for s, source in enumerate(held) if source.rank == rank for n in range(len(needed))]
    pairs += [(s, n) for s, source in enumerate(held) if source.rank != rank
              for n, target in enumerate(needed) if target.rank == rank]
    for s, n in pairs:
        here, there = held[s].rank, needed[n].rank
        made = pieces(grid, held[s], needed[n], s, n, in_place and s == n)
        if here == there:
            local += made
        elif made:
            (sends if here == rank else receives).setdefault(there if here == rank else here,
                                                             []).extend(made)
    return Moves(tuple(local), *({other: tuple(parts) for other, parts in sorted(by_rank.items())}
                                 for by_rank in (sends, receives)))


def pieces(grid: WindowGrid, held: Rect, needed: Rect, source: int, target: int,
           in_place: bool) -> list[Piece]:
    """What `held` has of `needed`, in at most two pieces; nothing where the pixel is in
    its place already."""
    from_rows, to_rows = matches(held.rows, needed.rows, grid.height_px, grid.window_px,
                                 grid.border)
    if not len(from_rows):
        return []
    from_cols, to_cols = matches(held.cols, needed.cols, grid.width_px, grid.window_px, grid.border)
    if not len(from_cols):
        return []
    if not in_place:
        return [piece(source, target, (from_rows, to_rows), (from_cols, to_cols))]
    rows_stay, cols_stay = from_rows == to_rows, from_cols == to_cols
    staying, moving = ((from_rows[which], to_rows[which]) for which in (rows_stay, ~rows_stay))
    candidates = [(staying, (from_cols[~cols_stay], to_cols[~cols_stay])),
                  (moving, (from_cols, to_cols))]
    return [piece(source, target, rows,
                  cols) for rows, cols in candidates if len(rows[0]) and len(cols[0])]


def piece(source: int, target: int, rows: tuple[Tensor, Tensor],
          cols: tuple[Tensor, Tensor]) -> Piece:
    """rows, cols: (coordinates in the source, coordinates in the target), pair by pair."""
    (rows_once, pick_rows), (cols_once, pick_cols) = (line[0].unique(return_inverse=True)
                                                      for line in (rows, cols))
    return Piece(source, target,
                 *map(as_line, (rows_once, cols_once, rows[1], cols[1], pick_rows, pick_cols)))


@lru_cache(maxsize=1 << 14)
@torch.inference_mode(False)
def matches(held: range, needed: range, size_px: int, window_px: int,
            border: Border) -> tuple[Tensor, Tensor]:
    """Of one axis: (coordinates in `held`, coordinates in `needed`) that show the same image pixel,
    in `held` truly."""
    at, coordinates = canvas_coordinate(held.start, len(held), size_px, window_px,
                                        border), torch.arange(held.start, held.stop)
    true, nowhere = (at >= 0) & (at < size_px), held.stop
    place = torch.full((size_px,), nowhere)
    place[at[true]] = coordinates[true]
    found = place[source_index(needed.start, len(needed), size_px, window_px, border)]
    hit = found != nowhere
    return found[hit], torch.arange(needed.start, needed.stop)[hit]


def as_line(coordinates: Tensor) -> Line:
    first, count = int(coordinates[0]), len(coordinates)
    follows = torch.equal(coordinates, torch.arange(first, first + count))
    return range(first, first + count) if follows else coordinates


def coordinates(line: Line) -> Sequence[int]:
    """A line as plain numbers."""
    return line if isinstance(line, range) else line.tolist()
