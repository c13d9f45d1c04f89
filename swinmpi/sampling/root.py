"""Exchange `root`, the reference: rank 0 holds the image, sends every frame,
gathers predictions."""
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor

from swinmpi.diffusion.noise import X_T_STEP
from swinmpi.families.family import Condition
from swinmpi.parallel.ownership import Ownership
from swinmpi.parallel.root import RootCollectives, StepPlan, deal_out, plan_step
from swinmpi.parallel.shares import Weights
from swinmpi.sampling.exchange import FinishedPart, Work, scaled
from swinmpi.sampling.on_device.finiteness import FiniteCheck
from swinmpi.sampling.on_device.noise import NoiseSource, Wanted, noise_source
from swinmpi.sampling.process import Shift
from swinmpi.windows.frames import from_frame, to_frame
from swinmpi.windows.grid import WindowGrid, live_positions, source_index
from swinmpi.windows.moves import Rect, ownership_order
from swinmpi.windows.shift import crop_shift, uncrop_shift
from swinmpi.windows.tiles import Item, index_of, of_slots, places, tiles

KEPT_PLANS = 64


class RootExchange:
    """See sampling/exchange.py. x_t lives on root; a prediction is made where its
    window is owned."""

    in_parts, in_turn, shares_parts = False, True, True

    def __init__(self, work: Work):
        self.num_parts, self.channels = work.family.num_parts, work.family.x_channels
        self.work = replace(work, ownership=Ownership(
            work.grid, work.group.size, work.group.rank, weights=work.group.weights,
            num_parts=self.num_parts))
        self.grid, self.process, self.group = work.grid, work.process, work.group
        self.stopwatch = work.group.stopwatch
        self.device = work.device
        self.collectives = RootCollectives(work.group, self.device)
        self.source = noise_source(work)
        self.check = FiniteCheck(self.process)
        whole = Rect(0, range(self.grid.height_px), range(self.grid.width_px))
        self.rects = [whole] if self.group.is_root else []
        self.conditions: list[Condition] = []
        self.x_t: Tensor | None = None

    @staticmethod
    def received_pixels(grid: WindowGrid, num_ranks: int, shifts: Sequence[Shift],
                        weights: Weights | None = None) -> list[list[int]]:
        """Root gets the windows of the others, they get the whole frame."""
        frame, counted = grid.frame_height_px * grid.frame_width_px, []
        for shift in shifts[1:]:
            plan = step_plan(grid, num_ranks, (shift,), weights)
            counted.append([sum(plan.counts[1:]) * grid.window_px**2, *[frame] * (num_ranks - 1)])
        return counted

    def room_for_residuals(self, num_images: int) -> list[Tensor]:
        sr = self.work.sr_grid
        side = (sr.height_px, sr.width_px) if self.group.is_root else (0, 0)
        return [torch.zeros(self.work.family.config.channels, *side, device=self.device)
                for _ in range(num_images)]

    def start(self, stack_indices: Sequence[int], seed: int) -> None:
        self.stack_indices, self.seed, self.kept = stack_indices, seed, ()
        self.source.drop()
        self.check.drop()
        if self.group.is_root:
            std = self.process.sampler.initial_std * self.process.noise_scale
            self.x_t = std * self.noise(X_T_STEP)

    def predict(self, number: int, t: int) -> Tensor | None:
        """On whole images, (N, C, height, width), on root; None elsewhere."""
        grid, shifts = self.grid, [self.shift(i, number) for i in self.stack_indices]
        with self.stopwatch.of("windows"):
            plan, answers = self.planned(number, shifts), None
            frames = None
            if self.x_t is not None:
                frames = together([self.frame_of(x, shift)
                                   for x, shift in zip(self.x_t, shifts, strict=True)])
                answers = self.unasked(number, frames)
        if plan.items:
            shape = (len(shifts), self.channels, grid.frame_height_px, grid.frame_width_px)
            frames = self.collectives.broadcast(frames, shape)
            own = self.evaluate(frames, plan.own(self.group.rank), t, shifts)
            windows = self.collectives.gather(own, plan)
            if windows is not None:
                with self.stopwatch.of("windows"):
                    parts = parts_of(answers, self.num_parts)
                    places(plan.items, grid.cols, self.device).put(tiles(parts, grid.window_px),
                                                                   windows)
        if answers is None:
            return None
        with self.stopwatch.of("windows"):
            return together([self.image_of(frame, shift)
                             for frame, shift in zip(answers, shifts, strict=True)])

    def planned(self, number: int, shifts: Sequence[Shift]) -> StepPlan:
        """Who predicts what; where some windows are spared, the others are dealt out anew."""
        process, grid = self.process, self.grid
        live_at = tuple(shift if process.rolls else (0, 0) for shift in shifts)
        plan = whole = step_plan(grid, self.group.size, live_at, self.group.weights,
                                 self.num_parts)
        if process.spares(number):
            needed = [process.effort.evaluated(condition.difficulty, grid, shift)
                      for shift, condition in zip(shifts, self.conditions, strict=True)]
            plan = deal_out([(slot, position) for slot, of_image in enumerate(needed)
                             for position in ownership_order(grid) if position in of_image],
                            self.group.size, self.group.weights)
        if self.group.is_root:
            self.work.tally.add(len(whole.items), len(plan.items))
        return plan

    def unasked(self, number: int, frames: Tensor) -> Tensor:
        """What stands for the network's answer in the windows that it is not asked about: zero
        where nothing is true, else, where windows are spared, that x_0 is the base."""
        if self.process.spares(number):
            return frames * self.process.sampler.base_factor(number)
        return torch.zeros_like(frames)

    def advance(self, number: int, output: Tensor | None) -> None:
        if self.x_t is None:
            return
        sampler = self.process.sampler
        noise = self.noise(number) if sampler.needs_noise(number) else None
        with self.stopwatch.of("step"):
            self.x_t, self.kept = sampler.step(number, self.x_t, output, noise, self.kept)
            for stack_index, x_t in zip(self.stack_indices, self.x_t, strict=True):
                self.check.look(stack_index, x_t, x_t)
            self.check.ask(number)

    def finish(self) -> list[list[Tensor]]:
        x_0, self.x_t, self.kept = self.x_t, None, ()
        self.check.read()
        if x_0 is None:
            return [[] for _ in self.stack_indices]
        return [[grown(image, self.work.family.reach_px, self.grid)] for image in x_0]

    def shared(self, slot: int, parts: Sequence[Tensor]) -> Iterator[FinishedPart]:
        for rect, part in zip(self.rects, parts, strict=True):
            whole = scaled(rect, self.work.factor)
            yield FinishedPart(slot, whole.rows, whole.cols, (whole.rows, whole.cols), part[:-1],
                               part[-1])

    def shift(self, stack_index: int, number: int) -> Shift:
        return self.process.shift_at(self.seed, stack_index, number)

    def noise(self, number: int) -> Tensor:
        """N(0, 1), (N, C, height, width), keyed by the windows of the evaluation's frame."""
        wanted, shifts = self.wanted(number)
        images, following = framed(self.source, wanted, self.grid, shifts), number + 1
        if (following < self.process.num_evaluations
                and self.process.sampler.needs_noise(following)):
            self.source.soon(self.wanted(following)[0])
        return images

    def wanted(self, number: int) -> tuple[Wanted, list[Shift]]:
        """The noise of an evaluation's frames, and their shifts."""
        rolls = number != X_T_STEP and self.process.rolls
        shifts = [self.shift(i, number) if rolls else (0, 0) for i in self.stack_indices]
        keys = [(i, position) for i, shift in zip(self.stack_indices, shifts, strict=True)
                for position in live_positions(self.grid, shift)]
        return Wanted(self.seed, number, tuple(keys)), shifts

    def evaluate(self, frames: Tensor, own: Sequence[Item], t: int,
                 shifts: Sequence[Shift]) -> Tensor:
        """The network on windows (slot, position), or parts of windows as of `step_plan`:
        (len(own), C, w, w) float32."""
        seen = [shift if self.process.rolls else (-shift[0], -shift[1]) for shift in shifts]
        side, cols, device, num_parts = (self.grid.window_px, self.grid.cols, self.device,
                                         self.num_parts)
        with self.stopwatch.of("encoder"):
            for slot, condition in enumerate(self.conditions):
                mine = list(dict.fromkeys(position for at, position in own
                                          if at // num_parts == slot))
                condition.prepare(seen[slot], mine, self.state_of(frames[slot], shifts[slot]))
        parts = parts_of(frames, num_parts)
        answers = parts.new_empty(len(own), parts.shape[1], side, side)
        cut, place = tiles(parts, side), {item: at for at, item in enumerate(own)}

        def tell(slot: int, positions: Sequence[int]) -> tuple[Tensor, ...]:
            slot, part = divmod(slot, num_parts)
            told = self.conditions[slot].inputs(seen[slot], positions)
            return told if num_parts == 1 else (
                *told, torch.full((len(positions),), part, device=device))

        def inputs(items: Sequence[Item]) -> tuple[Tensor, ...]:
            told = of_slots(items, device, tell)
            return places(tuple(items), cols, device).take(cut), *told

        def store(items: Sequence[Item], answer: Tensor) -> None:
            answers.index_copy_(0, index_of(tuple(place[item] for item in items), device), answer)

        self.work.predictor(own, t, inputs, store)
        return answers

    def state_of(self, frame: Tensor, shift: Shift) -> Callable[[], Tensor]:
        """What gives the whole x_t out of its frame."""
        return lambda: self.image_of(frame, shift)

    def frame_of(self, image: Tensor, shift: Shift) -> Tensor:
        """(C, height, width) -> the frame: rolled, or cropped as in the thesis's first attempt."""
        if self.process.rolls:
            return to_frame(image, self.grid, shift)
        return to_frame(crop_shift(image, shift, self.edge), self.grid, (0, 0))

    def image_of(self, frame: Tensor, shift: Shift) -> Tensor:
        """The inverse of `frame_of`."""
        if self.process.rolls:
            return from_frame(frame, self.grid, shift)
        return uncrop_shift(from_frame(frame, self.grid, (0, 0)), shift, self.edge)

    @property
    def edge(self) -> str:
        return self.process.shift.edge.removeprefix("crop_")


@lru_cache(maxsize=KEPT_PLANS)
def step_plan(grid: WindowGrid, num_ranks: int, shifts: tuple[Shift, ...],
              weights: Weights | None, num_parts: int = 1) -> StepPlan:
    """Who predicts which windows of images at these shifts, or which parts of them: those of a
    window follow each other. Then an item is (image slot * num_parts + part, window position).
    Pure arithmetic, the same on every rank."""
    parts = range(num_parts)
    plan = plan_step([position * num_parts + part for position in ownership_order(grid)
                      for part in parts], num_ranks,
                     [[position * num_parts + part for position in live_positions(grid, shift)
                       for part in parts] for shift in shifts], in_turn=True,
                     weights=weights)
    return replace(plan, items=tuple((slot * num_parts + place % num_parts, place // num_parts)
                                     for slot, place in plan.items))


def parts_of(frames: Tensor, num_parts: int) -> Tensor:
    """(N, C, h, w) -> (N * num_parts, C / num_parts, h, w), a view."""
    return frames.unflatten(1, (num_parts, -1)).flatten(0, 1)


def framed(source: NoiseSource, wanted: Wanted, grid: WindowGrid,
           shifts: Sequence[Shift]) -> Tensor:
    """Noise of the live windows of frames on their images, (N, C, height, width)."""
    counts = [len(live_positions(grid, shift)) for shift in shifts]
    slots = [slot for slot, count in enumerate(counts) for _ in range(count)]
    items = tuple((slot, position) for slot, (_, position) in zip(slots, wanted.keys, strict=True))
    drawn = source.windows(wanted)
    with source.stopwatch.of("noise"):
        frames = drawn.new_zeros(len(shifts), drawn.shape[1], grid.frame_height_px,
                                 grid.frame_width_px)
        places(items, grid.cols, drawn.device).put(tiles(frames, grid.window_px), drawn)
        return together([from_frame(frame, grid, shift)
                         for frame, shift in zip(frames, shifts, strict=True)])


def together(images: Sequence[Tensor]) -> Tensor:
    """(N, C, h, w); one image is not copied."""
    return images[0][None] if len(images) == 1 else torch.stack(images)


def grown(image: Tensor, reach_px: int, grid: WindowGrid) -> Tensor:
    """(C, H, W) with what lies `reach_px` around it by the grid's border; itself for 0."""
    if not reach_px:
        return image
    rows, cols = (source_index(-reach_px, size + 2 * reach_px, size, grid.window_px, grid.border,
                               image.device) for size in image.shape[-2:])
    return image[:, rows[:, None], cols]
