"""The reverse process without rank 0 (`parallel.exchange: torus`): each rank keeps the windows it owns, steps them by
itself, and between two steps only what the change of shift moves travels. The same bits as denoise.py."""
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from swinmpi.config import Config
from swinmpi.diffusion.noise import X_T_STEP, window_noise
from swinmpi.diffusion.samplers import Sampler, initial_std
from swinmpi.families.condition import Shift
from swinmpi.parallel.pieces import Job, TorusExchange, Transit
from swinmpi.parallel.shares import block_range
from swinmpi.sampling.predict import Item, Predictor
from swinmpi.sampling.root import Abandoned, check_finite, max_shift, shift_of
from swinmpi.windows.canvas import Canvas
from swinmpi.windows.grid import WindowGrid, live_positions, window_span
from swinmpi.windows.moves import Area, Block, Line, Moves, blocks_of, ownership_order, plan_moves

KEPT_PLANS = 16


class Territory:
    """Which blocks of windows each rank of a group owns, and its plans; the same on every rank."""

    def __init__(self, grid: WindowGrid, num_ranks: int, rank: int):
        self.grid, self.rank = grid, rank
        order = ownership_order(grid)
        shares = [[order[k] for k in block_range(len(order), num_ranks, r)] for r in range(num_ranks)]
        self.by_rank = [blocks_of(share, grid) for share in shares]
        self.own = self.by_rank[rank]
        self.first_own = sum(map(len, self.by_rank[:rank]))
        self.positions = frozenset(shares[rank])
        self._moves: dict[tuple[Shift, Shift], Moves] = {}
        self._live: dict[Shift, frozenset[int]] = {}

    def areas(self, of: Callable[[Block, int], Area]) -> list[Area]:
        """`of(block, rank)` for the blocks of all ranks, rank by rank."""
        return [of(block, rank) for rank, blocks in enumerate(self.by_rank) for block in blocks]

    def at(self, shift: Shift) -> list[Area]:
        """What the windows of all blocks show at a shift."""
        return self.areas(lambda block, rank: block.area(self.grid, shift, rank))

    def mine(self, canvases: Sequence[Canvas]) -> dict[int, Canvas]:
        """This rank's canvases by their place in the list of all areas."""
        return {self.first_own + k: canvas for k, canvas in enumerate(canvases)}

    def moves(self, before: Shift, after: Shift) -> Moves:
        """From one frame to the next, on the canvases of all blocks."""
        if (before, after) not in self._moves:
            if len(self._moves) == KEPT_PLANS:
                self._moves.clear()
            self._moves[before, after] = plan_moves(self.grid, self.at(before), self.at(after), self.rank, in_place=True)
        return self._moves[before, after]

    def live(self, shift: Shift) -> frozenset[int]:
        """Own window positions that need a prediction at a shift."""
        if shift not in self._live:
            if len(self._live) == KEPT_PLANS:
                self._live.clear()
            self._live[shift] = frozenset(p for p in live_positions(self.grid, shift) if p in self.positions)
        return self._live[shift]

    def late(self, moves: Moves, shift: Shift) -> set[int]:
        """Own window positions that must wait for other ranks."""
        side, late = self.grid.window_px, set()
        for pieces in moves.receives.values():
            for piece in pieces:
                rows = {(y + shift[0]) // side for y in coordinates(piece.to_rows)}
                cols = {(x + shift[1]) // side for x in coordinates(piece.to_cols)}
                late |= {row * self.grid.cols + col for row in rows for col in cols}
        return late


class TorusDenoiser:
    """Samples images of one size, a few at a time; the same arguments on every rank of the group."""

    def __init__(self, config: Config, territory: Territory, sampler: Sampler, exchange: TorusExchange, predictor: Predictor):
        self.config, self.territory, self.grid, self.sampler = config, territory, territory.grid, sampler
        self.exchange, self.predictor, self.seconds = exchange, predictor, predictor.seconds
        self.channels, self.max_shift_px = config.model.channels, max_shift(config)

    def sample(self, image_indices: Sequence[int], make_conditions: Callable[[], list], seed: int,
               stopping: Callable[[], bool]) -> list[list[Canvas]]:
        """x_0 of the images in the diffused scale, by image and block of this rank, at shift (0, 0). Collective.

        Raises Abandoned when `stopping()` (collective) says so before a step.
        """
        images = [self.start(image_index, seed) for image_index in image_indices]
        conditions, before = make_conditions(), [(0, 0)] * len(images)
        for step in range(len(self.sampler.timesteps)):
            if stopping():
                raise Abandoned
            if step and not self.config.parallel.encoder_cache:
                conditions = make_conditions()
            after = [shift_of(self.config.sampler, self.max_shift_px, i, step) for i in image_indices]
            self.advance(images, image_indices, seed, step, before, after, conditions)
            before = after
        self.exchange.run(self.jobs(images, [self.territory.moves(shift, (0, 0)) for shift in before]))
        return [[Canvas(canvas.values[:self.channels], canvas.top, canvas.left) for canvas in canvases] for canvases in images]

    def advance(self, images: Sequence[list[Canvas]], image_indices: Sequence[int], seed: int, step: int,
                before: Sequence[Shift], after: Sequence[Shift], conditions: Sequence) -> None:
        """One step of all images, from the frames of `before` to those of `after`. Collective."""
        outputs = self.predict(images, self.sampler.timesteps[step], before, after, conditions)
        for canvases, image_index, shift, output in zip(images, image_indices, after, outputs, strict=True):
            for block, canvas, answer in zip(self.territory.own, canvases, output, strict=True):
                self.step(block, canvas, answer, image_index, seed, step, shift)

    def start(self, image_index: int, seed: int) -> list[Canvas]:
        """x_T of this rank's blocks; below it room for the x_0 of the step before, where the sampler looks back."""
        std = initial_std(self.sampler.schedule) * self.config.sampler.noise_scale
        canvases = [Canvas.over(block.canvas(self.grid), self.channels * (1 + self.sampler.looks_back))
                    for block in self.territory.own]
        for block, canvas in zip(self.territory.own, canvases, strict=True):
            for row in block.rows:
                area = Block(range(row, row + 1), block.cols).area(self.grid, (0, 0), self.territory.rank)
                canvas.view(area.rows, area.cols)[:self.channels] = std * self.noise(row, block.cols, area, image_index, seed,
                                                                                     X_T_STEP, (0, 0))
        return canvases

    def predict(self, images: Sequence[list[Canvas]], t: int, before: Sequence[Shift], after: Sequence[Shift],
                conditions: Sequence) -> list[list[Canvas]]:
        """The network's output by image and block, on the frames of the shifts `after`. Collective.

        Windows that need nothing from others come first: their computation hides the transfer.
        """
        plans = [self.territory.moves(*shifts) for shifts in zip(before, after, strict=True)]
        transit = self.exchange.start(self.jobs(images, plans))
        with self.seconds.of("windows"):
            late = [self.territory.late(plan, shift) for plan, shift in zip(plans, after, strict=True)]
            live = [(slot, position) for slot, shift in enumerate(after) for position in self.territory.live(shift)]
            items = sorted(live, key=lambda item: (item[1] in late[item[0]], item))
            outputs = [[Canvas.over(block.area(self.grid, shift, 0), self.channels) for block in self.territory.own]
                       for shift in after]
        with self.seconds.of("encoder"):
            for slot, condition in enumerate(conditions):
                condition.prepare(after[slot], [position for at, position in items if at == slot], lambda: None)
        states, answers = ([self.by_position(canvases) for canvases in which] for which in (images, outputs))

        def inputs(item: Item) -> tuple[Tensor, ...]:
            slot, position = item
            seen = states[slot][position].view(*window_span(self.grid, after[slot], position))[:self.channels]
            return seen, *conditions[slot].inputs(after[slot], position)

        def store(part: Sequence[Item], predictions: Tensor) -> None:
            for (slot, position), prediction in zip(part, predictions, strict=True):
                answers[slot][position].view(*window_span(self.grid, after[slot], position)).copy_(prediction)

        arrival = Arrival(transit, late)
        self.predictor(items, t, inputs, store, arrival.before)
        arrival.complete()
        return outputs

    def step(self, block: Block, canvas: Canvas, output: Canvas, image_index: int, seed: int, step: int, shift: Shift) -> None:
        """The reverse step on one block, a row of windows at a time: what is not in the cache is not worth it."""
        for row in block.rows:
            area = Block(range(row, row + 1), block.cols).area(self.grid, shift, self.territory.rank)
            noise = None
            if self.sampler.needs_noise(step):
                noise = self.noise(row, block.cols, area, image_index, seed, step, shift)[None]
            with self.seconds.of("step"):
                state = canvas.view(area.rows, area.cols)
                x_t, history = state[None, :self.channels], state[None, self.channels:]
                x_prev, x_0 = self.sampler.step(step, x_t, output.view(area.rows, area.cols)[None], noise, history)
                check_finite(x_prev, image_index, step, len(self.sampler.timesteps))
                x_t.copy_(x_prev)
                if x_0 is not None:
                    history.copy_(x_0)

    def noise(self, row: int, cols: range, area: Area, image_index: int, seed: int, step: int, shift: Shift) -> Tensor:
        """N(0, 1) of a row of windows, (C, w, len(cols) * w); zero where nothing is true."""
        side = self.grid.window_px
        with self.seconds.of("noise"):
            drawn, live = torch.zeros(self.channels, side, len(area.cols)), self.territory.live(shift)
            for k, col in enumerate(cols):
                if (position := row * self.grid.cols + col) in live:
                    drawn[:, :, k * side:(k + 1) * side] = window_noise(seed, image_index, step, position,
                                                                        (self.channels, side, side))
        return drawn

    def jobs(self, images: Sequence[list[Canvas]], plans: Sequence[Moves]) -> list[Job]:
        made = []
        for canvases, plan in zip(images, plans, strict=True):
            mine = self.territory.mine(canvases)
            made.append(Job(plan, mine, mine, self.channels * (1 + self.sampler.looks_back)))
        return made

    def by_position(self, canvases: Sequence[Canvas]) -> dict[int, Canvas]:
        return {row * self.grid.cols + col: canvas for block, canvas in zip(self.territory.own, canvases, strict=True)
                for row in block.rows for col in block.cols}


class Arrival:
    """Sees to it that strips have arrived before the first window that needs them is cut."""

    def __init__(self, transit: Transit, late: Sequence[set[int]]):
        self.transit, self.late, self.is_complete = transit, late, False

    def before(self, part: Sequence[Item]) -> None:
        slot, position = part[-1]
        if position in self.late[slot]:
            self.complete()
        elif not self.is_complete:
            self.transit.progress()

    def complete(self) -> None:
        if not self.is_complete:
            self.transit.finish()
            self.is_complete = True


def coordinates(line: Line) -> Sequence[int]:
    return line if isinstance(line, range) else line.tolist()
