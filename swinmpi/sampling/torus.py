"""Exchange `torus`: no rank holds the image. Each keeps the windows that it owns and steps them by
itself; between two steps only what the change of shift moves travels. The same bits as root.py."""
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise

from torch import Tensor

from swinmpi.diffusion.noise import X_T_STEP
from swinmpi.families.family import Condition
from swinmpi.parallel.ownership import Ownership
from swinmpi.parallel.pieces import Transfer, Underway
from swinmpi.parallel.shares import Weights
from swinmpi.sampling.exchange import FinishedPart, Work, scaled
from swinmpi.sampling.on_device.finiteness import FiniteCheck
from swinmpi.sampling.on_device.noise import Wanted, noise_source
from swinmpi.sampling.process import Shift
from swinmpi.windows.canvas import Canvas
from swinmpi.windows.grid import WindowGrid
from swinmpi.windows.moves import Block, Moves, Rect, plan_moves
from swinmpi.windows.tiles import Item, Tiled, of_slots, parted

BAND_PIXELS = 1 << 18


class TorusExchange:
    """See sampling/exchange.py. x_t lies on canvases, one for each block of windows; below it, in
    further channels, what the sampler keeps."""

    in_parts, in_turn, shares_parts = True, False, False

    def __init__(self, work: Work):
        self.work, self.grid, self.process, self.group = work, work.grid, work.process, work.group
        self.ownership, self.stopwatch = work.ownership, work.group.stopwatch
        self.channels, self.device = work.family.x_channels, work.device
        self.source = noise_source(work)
        self.check = FiniteCheck(self.process)
        self.all_channels = self.channels * (1 + self.process.sampler.num_kept)
        inside = [part_inside(rect, self.grid) for rect in self.ownership.at((0, 0))]
        self.held = [rect for rect in inside if rect.rows and rect.cols]
        self.places = [place for place, rect in enumerate(self.held)
                       if rect.rank == self.group.rank]
        self.rects = [self.held[place] for place in self.places]
        self.conditions: list[Condition] = []
        self.images: list[list[Canvas]] = []

    @staticmethod
    def received_pixels(grid: WindowGrid, num_ranks: int, shifts: Sequence[Shift],
                        weights: Weights | None = None) -> list[list[int]]:
        """The pieces that come from others."""
        owners = [Ownership(grid, num_ranks, rank, weights=weights) for rank in range(num_ranks)]
        return [[owner.moves(*change).num_received for owner in owners]
                for change in pairwise(shifts)]

    def room_for_residuals(self, num_images: int) -> None:
        """None: every rank has the residual of its own rectangles among its features."""

    def start(self, stack_indices: Sequence[int], seed: int) -> None:
        self.stack_indices, self.seed = stack_indices, seed
        self.before = [(0, 0)] * len(stack_indices)
        self.source.drop()
        self.check.drop()
        self.images = [self.x_T(stack_index) for stack_index in stack_indices]

    def x_T(self, stack_index: int) -> list[Canvas]:
        """By own block; below it room for what is kept."""
        std = self.process.sampler.initial_std * self.process.noise_scale
        canvases = [Canvas.over(block.canvas(self.grid), self.all_channels, self.device)
                    for block in self.ownership.own]
        for block, canvas in zip(self.ownership.own, canvases, strict=True):
            for rows in self.bands(block):
                rect = rows.rect(self.grid, (0, 0), self.group.rank)
                x_T = std * self.noise(rows, stack_index, X_T_STEP, (0, 0))
                canvas.view(rect.rows, rect.cols)[:self.channels] = x_T
        return canvases

    def bands(self, block: Block) -> list[Block]:
        """A block in parts that are stepped at a time: on a CPU a row of windows, as what is not in
        its cache is not worth it."""
        if self.device.type != "cpu":
            return [block]
        return [Block(range(row, row + 1), block.cols) for row in block.rows]

    def predict(self, number: int, t: int) -> list[list[Canvas]]:
        """By image and own block, on the frames of this evaluation.

        Windows that need nothing from others come first: their computation hides the transfer.
        """
        after = [self.process.shift_at(self.seed, i, number) for i in self.stack_indices]
        plans = [self.ownership.moves(*shifts) for shifts in zip(self.before, after, strict=True)]
        underway = self.work.pieces.start(self.transfers(plans))
        with self.stopwatch.of("windows"):
            waiting = [self.ownership.waiting_for_others(*shifts)
                       for shifts in zip(self.before, after, strict=True)]
            live, spared = self.asked(number, after)
            items = sorted(live, key=lambda item: (item[1] in waiting[item[0]], item))
            outputs = [[Canvas.over(block.rect(self.grid, shift, 0), self.channels, self.device)
                        for block in self.ownership.own] for shift in after]
        with self.stopwatch.of("encoder"):
            for slot, condition in enumerate(self.conditions):
                condition.prepare(after[slot], [position for at, position in items if at == slot],
                                  lambda: None)
        self.evaluate(items, t, after, outputs, Arrivals(underway, waiting))
        self.leave(number, spared, after, outputs)
        self.before = after
        return outputs

    def evaluate(self, items: Sequence[Item], t: int, shifts: Sequence[Shift],
                 outputs: Sequence[list[Canvas]], arrivals: "Arrivals") -> None:
        """Fill `outputs` with the network's answers to windows (slot, position)."""
        states = [self.tiled_state(canvases) for canvases in self.images]
        answers = [Tiled(self.grid, self.ownership.own, canvases) for canvases in outputs]

        def tell(slot: int, positions: tuple[int, ...]) -> tuple[Tensor, ...]:
            return (states[slot].cut(shifts[slot], positions),
                    *self.conditions[slot].inputs(shifts[slot], positions))

        def store(part: Sequence[Item], predictions: Tensor) -> None:
            of_images = parted(tuple(part), self.device)
            for slot, positions, where in of_images:
                own = predictions if len(of_images) == 1 else predictions.index_select(0, where)
                answers[slot].put(shifts[slot], positions, own)

        self.work.predictor(items, t, lambda part: of_slots(part, self.device, tell), store,
                            arrivals.before)
        arrivals.complete()

    def asked(self, number: int, shifts: Sequence[Shift]) -> tuple[list[Item], list[list[int]]]:
        """(own windows that the network is asked about, by image those that it is spared)."""
        items, spared = [], []
        for slot, shift in enumerate(shifts):
            live = self.ownership.live(shift)
            asked = live
            if self.process.spares(number):
                asked &= self.process.effort.evaluated(self.conditions[slot].difficulty, self.grid,
                                                       shift)
            items += [(slot, position) for position in asked]
            spared.append(sorted(live - asked))
            self.work.tally.add(len(live), len(asked))
        return items, spared

    def leave(self, number: int, spared: Sequence[Sequence[int]], shifts: Sequence[Shift],
              outputs: Sequence[list[Canvas]]) -> None:
        """Answer for the windows that the network is spared, by image: their x_0 is the base."""
        with self.stopwatch.of("windows"):
            for slot, positions in enumerate(spared):
                if positions:
                    x_t = self.tiled_state(self.images[slot]).cut(shifts[slot], positions)
                    Tiled(self.grid, self.ownership.own, outputs[slot]).put(
                        shifts[slot], positions, x_t * self.process.sampler.base_factor(number))

    def tiled_state(self, canvases: Sequence[Canvas]) -> Tiled:
        """The windows of x_t, without what the sampler keeps."""
        return Tiled(self.grid, self.ownership.own,
                     [Canvas(canvas.values[:self.channels], canvas.top, canvas.left)
                      for canvas in canvases])

    def advance(self, number: int, output: list[list[Canvas]]) -> None:
        for slot, canvases in enumerate(output):
            for block, canvas, answer in zip(self.ownership.own, self.images[slot], canvases,
                                             strict=True):
                for band in self.bands(block):
                    self.advance_band(number, slot, band, canvas, answer)
        with self.stopwatch.of("step"):
            self.check.ask(number)

    def advance_band(self, number: int, slot: int, band: Block, canvas: Canvas,
                     answer: Canvas) -> None:
        """Some rows of windows."""
        sampler, shift = self.process.sampler, self.before[slot]
        stack_index = self.stack_indices[slot]
        rect, noise = band.rect(self.grid, shift, self.group.rank), None
        if sampler.needs_noise(number):
            noise = self.noise(band, stack_index, number, shift)[None]
        with self.stopwatch.of("step"):
            x_t, *kept = canvas.view(rect.rows, rect.cols)[None].split(self.channels, dim=1)
            following, keeping = sampler.step(number, x_t, answer.view(rect.rows, rect.cols)[None],
                                              noise, kept)
            self.check.look(stack_index, following, x_t)
            x_t.copy_(following)
            for room, tensor in zip(kept, keeping, strict=False):
                room.copy_(tensor)

    def finish(self) -> list[list[Tensor]]:
        self.work.pieces.run(
            self.transfers([self.ownership.moves(shift, (0, 0)) for shift in self.before]))
        self.check.read()
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

    def noise(self, band: Block, stack_index: int, number: int, shift: Shift) -> Tensor:
        """N(0, 1) of some rows of windows, (C, h, w); zero where nothing is true."""
        wanted = self.wanted(band, stack_index, number, shift)
        drawn, following = self.source.windows(wanted), number + 1
        if (following < self.process.num_evaluations
                and self.process.sampler.needs_noise(following)):
            after = self.process.shift_at(self.seed, stack_index, following)
            self.source.soon(self.wanted(band, stack_index, following, after))
        with self.stopwatch.of("noise"):
            side = self.grid.window_px
            noise = drawn.new_zeros(self.channels, len(band.rows) * side, len(band.cols) * side)
            if wanted.keys:
                flat = Canvas(noise, band.rows.start * side, band.cols.start * side)
                Tiled(self.grid, [band], [flat]).put(
                    (0, 0), [position for _, position in wanted.keys], drawn)
        return noise

    def wanted(self, band: Block, stack_index: int, number: int, shift: Shift) -> Wanted:
        live = self.ownership.live(shift)
        positions = [row * self.grid.cols + col for row in band.rows for col in band.cols]
        return Wanted(self.seed, number, tuple((stack_index, position) for position in positions
                                               if position in live))

    def transfers(self, plans: Sequence[Moves]) -> list[Transfer]:
        """What moves on the canvases of all images."""
        mine = [self.ownership.mine(canvases) for canvases in self.images]
        return [Transfer(plan, own, own, self.all_channels)
                for own, plan in zip(mine, plans, strict=True)]


class Arrivals:
    """Sees to it that pieces have arrived before the first window that needs them is cut."""

    def __init__(self, underway: Underway, waiting: Sequence[Collection[int]]):
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
