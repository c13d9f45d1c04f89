"""Which windows each rank of a group owns, and what moves between ranks when the shift changes."""
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import cached_property
from itertools import chain
from typing import TypeVar

from swinmpi.parallel.shares import Weights, share_in_turn
from swinmpi.windows.canvas import Canvas
from swinmpi.windows.grid import WindowGrid, live_positions
from swinmpi.windows.moves import (
    Block,
    Moves,
    Piece,
    Rect,
    blocks_of,
    coordinates,
    ownership_order,
    plan_moves,
)

Shift = tuple[int, int]
KEPT_PLANS = 16
Value = TypeVar("Value")


class Ownership:
    """The blocks of windows of every rank, and the plans of one of them; the same on every rank.

    Pure arithmetic: simulate all ranks by making one for each.
    """

    def __init__(self, grid: WindowGrid, num_ranks: int, rank: int, turn: int | None = 0,
                 weights: Weights | None = None, num_parts: int = 1):
        """turn, weights: see `share_in_turn`; turn None: every rank has all windows, see `of_all`.
        num_parts: of every window, dealt out one by one, so that a window whose parts go to several
        ranks is owned by each of them."""
        self.grid, self.rank, self.num_ranks = grid, rank, num_ranks
        self.weights, self.num_parts = weights, num_parts
        order = ownership_order(grid)
        shares = [list(order) if turn is None else
                  list(dict.fromkeys(order[k // num_parts] for k in share_in_turn(
                      len(order) * num_parts, num_ranks, r, turn, weights)))
                  for r in range(num_ranks)]
        self.by_rank = [blocks_of(share, grid) for share in shares]
        self.own = self.by_rank[rank]
        self.first_own = sum(map(len, self.by_rank[:rank]))
        self.positions = frozenset(shares[rank])
        self.canvas_rects = tuple(self.rects(lambda block, rank: block.canvas(grid, rank)))
        """What the windows of all blocks show at any shift."""
        self._moves: dict[Hashable, Moves] = {}
        self._live: dict[Hashable, frozenset[int]] = {}
        self._waiting: dict[Hashable, frozenset[int]] = {}
        self._turned: dict[Hashable, Ownership] = {}

    def turned(self, turn: int) -> "Ownership":
        """Of another turn."""
        turn %= self.num_ranks
        return kept(self._turned, turn, lambda: Ownership(self.grid, self.num_ranks, self.rank,
                                                          turn, self.weights, self.num_parts))

    @cached_property
    def of_all(self) -> "Ownership":
        """In which every rank has all windows, so that any may be dealt to it in any step; x_t is
        elsewhere then."""
        return Ownership(self.grid, self.num_ranks, self.rank, None)

    def rects(self, of: Callable[[Block, int], Rect]) -> list[Rect]:
        """`of(block, rank)` for the blocks of all ranks, rank by rank."""
        return [of(block, rank) for rank, blocks in enumerate(self.by_rank) for block in blocks]

    def at(self, shift: Shift) -> list[Rect]:
        """What the windows of all blocks show at a shift."""
        return self.rects(lambda block, rank: block.rect(self.grid, shift, rank))

    def mine(self, canvases: Sequence[Canvas]) -> dict[int, Canvas]:
        """This rank's canvases by their place in the list of all rectangles."""
        return {self.first_own + k: canvas for k, canvas in enumerate(canvases)}

    def moves(self, before: Shift, after: Shift) -> Moves:
        """From one frame to the next, on the canvases of all blocks."""
        def plan() -> Moves:
            return plan_moves(self.grid, self.at(before), self.at(after), self.rank, in_place=True)

        return kept(self._moves, (before, after), plan)

    def live(self, shift: Shift) -> frozenset[int]:
        """Own window positions that need a prediction at a shift."""
        return kept(self._live, shift,
                    lambda: self.positions.intersection(live_positions(self.grid, shift)))

    def waiting_for_others(self, before: Shift, after: Shift) -> frozenset[int]:
        """Own window positions that show, at the shift after, what other ranks send."""
        return kept(self._waiting, (before, after), lambda: self.shown_by(
            self.moves(before, after).receives.values(), after))

    def shown_by(self, received: Iterable[Sequence[Piece]], shift: Shift) -> frozenset[int]:
        """Window positions that pieces reach into at a shift."""
        side, shown = self.grid.window_px, set()
        for piece in chain.from_iterable(received):
            rows = {(y + shift[0]) // side for y in coordinates(piece.to_rows)}
            cols = {(x + shift[1]) // side for x in coordinates(piece.to_cols)}
            shown |= {row * self.grid.cols + col for row in rows for col in cols}
        return frozenset(shown)


def kept(store: dict[Hashable, Value], key: Hashable, make: Callable[[], Value]) -> Value:
    """`make()` of a key, made once while there is room."""
    if key not in store:
        if len(store) == KEPT_PLANS:
            store.clear()
        store[key] = make()
    return store[key]
