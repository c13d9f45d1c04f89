"""Exchange `torus` as geometry, all ranks in one process: whatever moves, every rank then shows
the right pixels."""
import torch
from hypothesis import given
from hypothesis import strategies as st

from swinmpi.parallel.shares import block_range
from swinmpi.windows.canvas import Canvas
from swinmpi.windows.grid import WindowGrid, source_index
from swinmpi.windows.moves import Rect, blocks_of, ownership_order, plan_moves

SIDES = st.integers(1, 60)


@st.composite
def frames(draw):
    """(grid, number of ranks, shifts of frames that follow each other)."""
    window_px = draw(st.integers(2, 12))
    grid = WindowGrid(draw(SIDES), draw(SIDES), window_px, draw(st.integers(0, window_px)),
                      draw(st.sampled_from(["reflect", "wrap"])))
    shift = st.tuples(*[st.integers(0, grid.max_shift_px)] * 2)
    return grid, draw(st.integers(1, 9)), draw(st.lists(shift, min_size=2, max_size=4))


def share(grid: WindowGrid, num_ranks: int, rank: int) -> list[int]:
    return [ownership_order(grid)[k] for k in block_range(grid.num_positions, num_ranks, rank)]


def shown(image: torch.Tensor, grid: WindowGrid, rect: Rect) -> torch.Tensor:
    rows, cols = (source_index(line.start, len(line), size, grid.window_px, grid.border)
                  for line, size in ((rect.rows, grid.height_px), (rect.cols, grid.width_px)))
    return image[:, rows[:, None], cols]


def numbered(grid: WindowGrid, offset: int = 0) -> torch.Tensor:
    return (torch.arange(grid.height_px * grid.width_px, dtype=torch.float32) + offset).view(
        1, grid.height_px, grid.width_px)


def carry_out(grid, held, needed, sources, targets, num_ranks, in_place=False):
    """All ranks' moves: every message is packed before anything is written."""
    plans = [plan_moves(grid, held, needed, rank, in_place) for rank in range(num_ranks)]
    carried = [[(piece, sources[piece.source].take(piece).clone()) for piece in plan.local]
               for plan in plans]
    for rank, plan in enumerate(plans):
        for other, pieces in plan.receives.items():
            sent = plans[other].sends[rank]
            assert [(p.source, p.target, len(p.from_rows), len(p.from_cols)) for p in sent] == [
                (p.source, p.target, len(p.from_rows), len(p.from_cols)) for p in pieces], (
                    "both sides agree")
            carried[rank] += [(mine, sources[its.source].take(its).clone())
                              for mine, its in zip(pieces, sent, strict=True)]
        assert set(plan.sends) == {r for r in range(num_ranks) if rank in plans[r].receives}
        assert plan.num_received == sum(p.num_pixels for pieces in plan.receives.values()
                                        for p in pieces)
    for pieces in carried:
        for piece, values in pieces:
            targets[piece.target].put(piece, values)


@given(frames())
def test_from_frame_to_frame_every_window_shows_what_the_whole_image_would(case):
    grid, num_ranks, shifts = case
    owned = [(rank, block) for rank in range(num_ranks)
             for block in blocks_of(share(grid, num_ranks, rank), grid)]
    canvases = [Canvas.over(block.canvas(grid), 1) for _, block in owned]
    for number, (before, after) in enumerate(zip(shifts, shifts[1:], strict=False)):
        image = numbered(grid, 10000 * number)
        held, needed = ([block.rect(grid, shift, rank) for rank, block in owned]
                        for shift in (before, after))
        for rect, canvas in zip(held, canvases, strict=True):
            # What is only mirrored is no longer true after a step: spoil it.
            fresh = shown(image, grid, rect)
            true = shown(torch.ones_like(image), grid, rect)
            for axis, line, size in ((1, rect.rows, grid.height_px), (2, rect.cols, grid.width_px)):
                at = torch.arange(line.start, line.stop)
                if grid.border == "wrap":
                    at = at.remainder(-(-size // grid.window_px) * grid.window_px)
                inside = ((at >= 0) & (at < size)).float()
                true = true * inside.view([-1 if dim == axis else 1 for dim in range(3)])
            canvas.view(rect.rows, rect.cols)[:] = torch.where(true > 0, fresh, -1.0)
        carry_out(grid, held, needed, canvases, canvases, num_ranks, in_place=True)
        for rect, canvas in zip(needed, canvases, strict=True):
            assert canvas.view(rect.rows, rect.cols).equal(shown(image, grid, rect))


@given(frames(), st.data())
def test_from_blocks_of_an_image_to_any_areas(case, data):
    """As features travel from the ranks that encoded them, and finished pixels to those
    who measure them."""
    grid, num_ranks, _ = case
    cuts = [sorted({0, size, *data.draw(st.lists(st.integers(0, size), max_size=3))})
            for size in (grid.height_px, grid.width_px)]
    rows, cols = ([range(*pair) for pair in zip(line, line[1:], strict=False)] for line in cuts)
    held = [Rect(data.draw(st.integers(0, num_ranks - 1)), down, across) for down in rows
            for across in cols]
    needed = [Rect(rank,
                   *(range(start, start + data.draw(st.integers(0, 20)))
                     for start in (data.draw(st.integers(-9, 40)), data.draw(st.integers(-9, 40)))))
              for rank in range(num_ranks)]
    image = numbered(grid)
    sources = [Canvas(shown(image, grid, rect), rect.rows.start, rect.cols.start) for rect in held]
    targets = [Canvas.over(rect, 1) for rect in needed]
    carry_out(grid, held, needed, sources, targets, num_ranks)
    assert all(canvas.values.equal(shown(image, grid, rect))
               for rect, canvas in zip(needed, targets, strict=True))


@given(frames())
def test_blocks_hold_each_position_once(case):
    grid, num_ranks, _ = case
    for rank in range(num_ranks):
        positions = share(grid, num_ranks, rank)
        blocks = blocks_of(positions, grid)
        assert len(blocks) <= 4
        held = [row * grid.cols + col for block in blocks for row in block.rows
                for col in block.cols]
        assert sorted(held) == sorted(positions)
