"""A tiny exchange that only tests know: every rank holds x_t, and all send their
predictions to all."""
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from swinmpi.diffusion.noise import X_T_STEP
from swinmpi.families.family import Condition
from swinmpi.parallel.root import plan_step
from swinmpi.parallel.shares import Weights
from swinmpi.sampling.exchange import FinishedPart, Work, scaled
from swinmpi.sampling.on_device.noise import Wanted, noise_source
from swinmpi.sampling.process import Shift
from swinmpi.sampling.root import framed, grown
from swinmpi.windows.frames import from_frame, to_frame
from swinmpi.windows.grid import WindowGrid, live_positions, row_and_col
from swinmpi.windows.moves import Rect, ownership_order
from tests.support.windows import unpatchify


class EverywhereExchange:
    """See sampling/exchange.py; for frames that are rolled."""

    in_parts, in_turn, shares_parts = False, False, False

    def __init__(self, work: Work):
        self.work, self.grid, self.process, self.group = work, work.grid, work.process, work.group
        whole = Rect(0, range(self.grid.height_px), range(self.grid.width_px))
        self.rects = [whole] if self.group.is_root else []
        self.conditions: list[Condition] = []
        self.source = noise_source(work)

    @staticmethod
    def received_pixels(grid: WindowGrid, num_ranks: int, shifts: Sequence[Shift],
                        weights: Weights | None = None) -> list[list[int]]:
        counted = []
        for shift in shifts[1:]:
            plan = plan_step(ownership_order(grid), num_ranks, [live_positions(grid, shift)],
                             weights=weights)
            counted.append([(len(plan.items) - count) * grid.window_px**2 for count in plan.counts])
        return counted

    def room_for_residuals(self, num_images: int) -> list[Tensor]:
        side = [len(line) * self.work.factor for rect in self.rects
                for line in (rect.rows, rect.cols)]
        return [torch.zeros(self.work.family.config.channels, *(side or (0, 0)))
                for _ in range(num_images)]

    def start(self, stack_indices: Sequence[int], seed: int) -> None:
        self.stack_indices, self.seed, self.kept = stack_indices, seed, ()
        std = self.process.sampler.initial_std * self.process.noise_scale
        self.x_t = std * torch.stack([self.noise(i, X_T_STEP, (0, 0)) for i in stack_indices])

    def noise(self, stack_index: int, number: int, shift: Shift) -> Tensor:
        keys = tuple((stack_index, position) for position in live_positions(self.grid, shift))
        wanted = Wanted(self.seed, number, keys)
        return framed(self.source, wanted, self.grid, [shift])[0]

    def predict(self, number: int, t: int) -> Tensor:
        shifts = [self.process.shift_at(self.seed, i, number) for i in self.stack_indices]
        plan = plan_step(ownership_order(self.grid), self.group.size,
                         [live_positions(self.grid, shift) for shift in shifts],
                         weights=self.group.weights)
        frames, side = ([to_frame(x, self.grid, s) for x, s in zip(self.x_t, shifts, strict=True)],
                        self.grid.window_px)
        mine = plan.own(self.group.rank)
        for slot, condition in enumerate(self.conditions):
            condition.prepare(shifts[slot], [position for at, position in mine if at == slot],
                              lambda slot=slot: self.x_t[slot])
        own = torch.zeros(len(mine), len(frames[0]), side, side)

        def inputs(items):
            windows, told = [], []
            for slot, position in items:
                row, col = row_and_col(self.grid, position)
                windows.append(frames[slot][:, row * side:(row + 1) * side,
                                            col * side:(col + 1) * side])
                told.append(self.conditions[slot].inputs(shifts[slot], [position]))
            return torch.stack(windows), *map(torch.cat, zip(*told, strict=True))

        def store(items, answer):
            for item, one in zip(items, answer, strict=True):
                own[mine.index(item)] = one

        self.work.predictor(mine, t, inputs, store)
        windows = torch.from_numpy(self.group.allgather_arrays(own.numpy(), plan.counts))
        tiles = torch.zeros(len(frames), self.grid.num_positions, *windows.shape[1:])
        for (slot, position), window in zip(plan.items, windows, strict=True):
            tiles[slot, position] = window
        joined = unpatchify(tiles, self.grid.rows, self.grid.cols)
        return torch.stack(
            [from_frame(x, self.grid, s) for x, s in zip(joined, shifts, strict=True)])

    def advance(self, number: int, output: Tensor) -> None:
        sampler, noise = self.process.sampler, None
        if sampler.needs_noise(number):
            noise = torch.stack([self.noise(i, number, self.process.shift_at(self.seed, i, number))
                                 for i in self.stack_indices])
        self.x_t, self.kept = sampler.step(number, self.x_t, output, noise, self.kept)

    def finish(self) -> list[list[Tensor]]:
        reach = self.work.family.reach_px
        return [[grown(x_0, reach, self.grid) for _ in self.rects] for x_0 in self.x_t]

    def shared(self, slot: int, parts: Sequence[Tensor]) -> Iterator[FinishedPart]:
        for rect, part in zip(self.rects, parts, strict=True):
            whole = scaled(rect, self.work.factor)
            yield FinishedPart(slot, whole.rows, whole.cols, (whole.rows, whole.cols), part[:-1],
                               part[-1])
