"""Exchange `torus`: no rank holds the image. Each keeps the windows that it owns and steps them by
itself; between two steps only what the change of shift moves travels. The same bits as root.py."""
from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from swinmpi.diffusion.noise import X_T_STEP, window_noise
from swinmpi.families.family import Condition
from swinmpi.parallel.ownership import Ownership
from swinmpi.parallel.pieces import Transfer, Underway
from swinmpi.sampling.exchange import FinishedPart, Work, scaled
from swinmpi.sampling.predictor import Item
from swinmpi.sampling.process import Shift
from swinmpi.windows.canvas import Canvas
from swinmpi.windows.grid import WindowGrid, window_span
from swinmpi.windows.moves import Block, Moves, Rect, plan_moves

BAND_PIXELS = 1 << 18


class TorusExchange:
    """See sampling/exchange.py. x_t lies on canvases, one for each block of windows; below it, in
    further channels, what the sampler keeps."""

    in_parts = True

    def __init__(self, work: Work):
        self.work, self.grid, self.process, self.group = work, work.grid, work.process, work.group
        self.ownership, self.stopwatch = work.ownership, work.group.stopwatch
        self.channels = work.family.x_channels
        self.all_channels = self.channels * (1 + self.process.sampler.num_kept)
        inside = [part_inside(rect, self.grid) for rect in self.ownership.at((0, 0))]
        self.held = [rect for rect in inside if rect.rows and rect.cols]
        self.places = [place for place, rect in enumerate(self.held)
                       if rect.rank == self.group.rank]
        self.rects = [self.held[place] for place in self.places]
        self.conditions: list[Condition] = []
        self.images: list[list[Canvas]] = []

    @staticmethod
    def received_pixels(grid: WindowGrid, num_ranks: int,
                        shifts: Sequence[Shift]) -> list[list[int]]:
        """The pieces that come from others."""
        owners = [Ownership(grid, num_ranks, rank) for rank in range(num_ranks)]
        return [[owner.moves(*change).num_received for owner in owners]
                for change in pairwise(shifts)]

    def room_for_residuals(self, num_images: int) -> None:
        """None: every rank has the residual of its own rectangles among its features."""

    def start(self, stack_indices: Sequence[int], seed: int) -> None:
        self.stack_indices, self.seed = stack_indices, seed
        self.before = [(0, 0)] * len(stack_indices)
        self.images = [self.x_T(stack_index) for stack_index in stack_indices]

    def x_T(self, stack_index: int) -> list[Canvas]:
        """By own block; below it room for what is kept."""
        std = self.process.sampler.initial_std * self.process.noise_scale
        canvases = [Canvas.over(block.canvas(self.grid), self.all_channels)
                    for block in self.ownership.own]
        for block, canvas in zip(self.ownership.own, canvases, strict=True):
            for row in block.rows:
                rect = self.row_rect(row, block.cols, (0, 0))
                x_T = std * self.noise(row, block.cols, stack_index, X_T_STEP, (0, 0))
                canvas.view(rect.rows, rect.cols)[:self.channels] = x_T
        return canvases

    def predict(self, number: int, t: int) -> list[list[Canvas]]:
        """By image and own block, on the frames of this evaluation.

        Windows that need nothing from others come first: their computation hides the transfer.
        """
        after = [self.process.shift_at(self.seed, i, number) for i in self.stack_indices]
        plans = [self.ownership.moves(*shifts) for shifts in zip(self.before, after, strict=True)]
        underway = self.work.pieces.start(self.transfers(plans))
        with self.stopwatch.of("windows"):
            waiting = [self.ownership.waiting_for_others(plan, shift)
                       for plan, shift in zip(plans, after, strict=True)]
            live = [(slot, position) for slot, shift in enumerate(after)
                    for position in self.ownership.live(shift)]
            items = sorted(live, key=lambda item: (item[1] in waiting[item[0]], item))
            outputs = [[Canvas.over(block.rect(self.grid, shift, 0), self.channels)
                        for block in self.ownership.own] for shift in after]
        with self.stopwatch.of("encoder"):
            for slot, condition in enumerate(self.conditions):
                condition.prepare(after[slot], [position for at, position in items if at == slot],
                                  lambda: None)
        self.evaluate(items, t, after, outputs, Arrivals(underway, waiting))
        self.before = after
        return outputs

    def evaluate(self, items: Sequence[Item], t: int, shifts: Sequence[Shift],
                 outputs: Sequence[list[Canvas]], arrivals: "Arrivals") -> None:
        """Fill `outputs` with the network's answers to windows (slot, position)."""
        states, answers = ([self.ownership.by_position(canvases) for canvases in which]
                           for which in (self.images, outputs))

        def inputs(item: Item) -> tuple[Tensor, ...]:
            slot, position = item
            span = window_span(self.grid, shifts[slot], position)
            x_t = states[slot][position].view(*span)[:self.channels]
            return x_t, *self.conditions[slot].inputs(shifts[slot], position)

        def store(part: Sequence[Item], predictions: Tensor) -> None:
            for (slot, position), prediction in zip(part, predictions, strict=True):
                span = window_span(self.grid, shifts[slot], position)
                answers[slot][position].view(*span).copy_(prediction)

        self.work.predictor(items, t, inputs, store, arrivals.before)
        arrivals.complete()

    def advance(self, number: int, output: list[list[Canvas]]) -> None:
        for slot, canvases in enumerate(output):
            for block, canvas, answer in zip(self.ownership.own, self.images[slot], canvases,
                                             strict=True):
                for row in block.rows:
                    self.advance_row(number, slot, row, block.cols, canvas, answer)

    def advance_row(self, number: int, slot: int, row: int, cols: range, canvas: Canvas,
                    answer: Canvas) -> None:
        """One row of windows at a time: what is not in the cache is not worth it."""
        sampler, shift = self.process.sampler, self.before[slot]
        stack_index = self.stack_indices[slot]
        rect, noise = self.row_rect(row, cols, shift), None
        if sampler.needs_noise(number):
            noise = self.noise(row, cols, stack_index, number, shift)[None]
        with self.stopwatch.of("step"):
            x_t, *kept = canvas.view(rect.rows, rect.cols)[None].split(self.channels, dim=1)
            following, keeping = sampler.step(number, x_t, answer.view(rect.rows, rect.cols)[None],
                                              noise, kept)
            self.process.check_finite(following, stack_index, number)
            x_t.copy_(following)
            for room, tensor in zip(kept, keeping, strict=False):
                room.copy_(tensor)

    def finish(self) -> list[list[Tensor]]:
        self.work.pieces.run(
            self.transfers([self.ownership.moves(shift, (0, 0)) for shift in self.before]))
        images, self.images = self.images, []
        return [self.own_rects(canvases) for canvases in images]

    def own_rects(self, canvases: Sequence[Canvas]) -> list[Tensor]:
        """x_0 over this rank's rectangles, with what lies around them within the family's reach."""
        home = [next(canvas for canvas in canvases if canvas.holds(rect)) for rect in self.rects]
        x_0 = [canvas.view(rect.rows, rect.cols)[:self.channels]
               for canvas, rect in zip(home, self.rects, strict=True)]
        reach = self.work.family.reach_px
        if not reach:
            return x_0
        needed = [Rect(rect.rank, *(range(line.start - reach, line.stop + reach)
                                    for line in (rect.rows, rect.cols))) for rect in self.held]
        return [canvas.values for canvas in self.bordered(x_0, self.grid, self.held, needed)]

    def shared(self, slot: int, parts: Sequence[Tensor]) -> Iterator[FinishedPart]:
        """In bands of windows."""
        grid, scale = self.work.sr_grid, self.work.family.config.scale
        channels = self.work.family.config.channels
        held = [scaled(rect, self.work.factor) for rect in self.held]
        reach = self.work.border_lr_px * scale
        needed = [seen_rect(rect, grid, scale, reach) for rect in held]
        flat = [part.flatten(0, 1) for part in parts]
        for place, canvas in zip(self.places, self.bordered(flat, grid, held, needed), strict=True):
            for band in row_bands(held[place], grid.window_px):
                seen = seen_rect(band, grid, scale, reach)
                images = canvas.view(seen.rows, seen.cols).unflatten(0, (-1, channels))
                yield FinishedPart(slot, band.rows, band.cols, (seen.rows, seen.cols), images[:-1],
                                   images[-1])

    def bordered(self, own: Sequence[Tensor], grid: WindowGrid, held: Sequence[Rect],
                 needed: Sequence[Rect]) -> list[Canvas]:
        """What this rank needs of an image whose parts all ranks hold, (channels, h, w) each."""
        channels = max([len(part) for part in own], default=0)
        sources = {place: Canvas(part, held[place].rows.start, held[place].cols.start)
                   for place, part in zip(self.places, own, strict=True)}
        targets = {place: Canvas.over(needed[place], channels) for place in self.places}
        moves = plan_moves(grid, held, needed, self.group.rank)
        self.work.pieces.run([Transfer(moves, sources, targets, channels)])
        return list(targets.values())

    def row_rect(self, row: int, cols: range, shift: Shift) -> Rect:
        """What a run of windows in one row shows."""
        return Block(range(row, row + 1), cols).rect(self.grid, shift, self.group.rank)

    def noise(self, row: int, cols: range, stack_index: int, number: int, shift: Shift) -> Tensor:
        """N(0, 1) of a row of windows, (C, w, len(cols) * w); zero where nothing is true."""
        side = self.grid.window_px
        with self.stopwatch.of("noise"):
            drawn = torch.zeros(self.channels, side, len(cols) * side)
            live = self.ownership.live(shift)
            for k, col in enumerate(cols):
                if (position := row * self.grid.cols + col) in live:
                    drawn[:, :, k * side:(k + 1) * side] = window_noise(
                        self.seed, stack_index, number, position, (self.channels, side, side),
                        self.process.coherence)
        return drawn

    def transfers(self, plans: Sequence[Moves]) -> list[Transfer]:
        """What moves on the canvases of all images."""
        mine = [self.ownership.mine(canvases) for canvases in self.images]
        return [Transfer(plan, own, own, self.all_channels)
                for own, plan in zip(mine, plans, strict=True)]


class Arrivals:
    """Sees to it that pieces have arrived before the first window that needs them is cut."""

    def __init__(self, underway: Underway, waiting: Sequence[set[int]]):
        self.underway, self.waiting, self.is_complete = underway, waiting, False

    def before(self, part: Sequence[Item]) -> None:
        slot, position = part[-1]
        if position in self.waiting[slot]:
            self.complete()
        elif not self.is_complete:
            self.underway.progress()

    def complete(self) -> None:
        if not self.is_complete:
            self.underway.finish()
            self.is_complete = True


def part_inside(rect: Rect, grid: WindowGrid) -> Rect:
    """The part of a rectangle that lies in the image, for shift (0, 0)."""
    return Rect(rect.rank, *(range(min(line.start, size), min(line.stop, size))
                             for line, size in zip((rect.rows, rect.cols),
                                                   (grid.height_px, grid.width_px), strict=True)))


def seen_rect(rect: Rect, grid: WindowGrid, scale: int, reach: int) -> Rect:
    """The rectangle with what lies `reach` SR pixels around it in the image, in whole LR
    pixels."""
    sides = []
    for line, size in zip((rect.rows, rect.cols), (grid.height_px, grid.width_px), strict=True):
        start, stop = ((line.start - reach) // scale * scale,
                       -(-(line.stop + reach) // scale) * scale)
        sides.append(range(max(0, start), min(size, stop)) if line else range(0))
    return Rect(rect.rank, *sides)


def row_bands(rect: Rect, window_px: int) -> Iterator[Rect]:
    """The rectangle in rows of windows, a few at a time."""
    height = max(1, BAND_PIXELS // (len(rect.cols) * window_px)) * window_px
    for top in range(rect.rows.start, rect.rows.stop, height):
        yield Rect(rect.rank, range(top, min(top + height, rect.rows.stop)), rect.cols)
