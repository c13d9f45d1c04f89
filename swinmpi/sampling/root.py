"""Exchange `root`, the reference: rank 0 holds the image, sends every frame,
gathers predictions."""
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from swinmpi.diffusion.noise import X_T_STEP, window_noise
from swinmpi.families.family import Condition
from swinmpi.parallel.root import RootCollectives, plan_step
from swinmpi.sampling.exchange import FinishedPart, Work, scaled
from swinmpi.sampling.predictor import Item
from swinmpi.sampling.process import Shift
from swinmpi.windows.frames import from_frame, to_frame, unpatchify
from swinmpi.windows.grid import WindowGrid, live_positions, row_and_col, source_index
from swinmpi.windows.moves import Rect, ownership_order
from swinmpi.windows.shift import crop_shift, uncrop_shift


class RootExchange:
    """See sampling/exchange.py. x_t lives on root; a prediction is made where its
    window is owned."""

    in_parts = False

    def __init__(self, work: Work):
        self.work, self.grid, self.process, self.group = work, work.grid, work.process, work.group
        self.stopwatch, self.channels = work.group.stopwatch, work.family.x_channels
        self.collectives = RootCollectives(work.group)
        whole = Rect(0, range(self.grid.height_px), range(self.grid.width_px))
        self.rects = [whole] if self.group.is_root else []
        self.conditions: list[Condition] = []
        self.x_t: Tensor | None = None

    @staticmethod
    def received_pixels(grid: WindowGrid, num_ranks: int,
                        shifts: Sequence[Shift]) -> list[list[int]]:
        """Root gets the windows of the others, they get the whole frame."""
        frame, counted = grid.frame_height_px * grid.frame_width_px, []
        for shift in shifts[1:]:
            plan = plan_step(ownership_order(grid), num_ranks, [live_positions(grid, shift)])
            counted.append([sum(plan.counts[1:]) * grid.window_px**2, *[frame] * (num_ranks - 1)])
        return counted

    def room_for_residuals(self, num_images: int) -> list[Tensor]:
        sr = self.work.sr_grid
        side = (sr.height_px, sr.width_px) if self.group.is_root else (0, 0)
        return [torch.zeros(self.work.family.config.channels, *side) for _ in range(num_images)]

    def start(self, stack_indices: Sequence[int], seed: int) -> None:
        self.stack_indices, self.seed, self.kept = stack_indices, seed, ()
        if self.group.is_root:
            std = self.process.sampler.initial_std * self.process.noise_scale
            self.x_t = std * self.noise(X_T_STEP)

    def predict(self, number: int, t: int) -> Tensor | None:
        """On whole images, (N, C, height, width), on root; None elsewhere."""
        grid, shifts = self.grid, [self.shift(i, number) for i in self.stack_indices]
        with self.stopwatch.of("windows"):
            live = [live_positions(grid, shift if self.process.rolls else (0, 0))
                    for shift in shifts]
            plan = plan_step(ownership_order(grid), self.group.size, live)
            frames = None
            if self.x_t is not None:
                frames = torch.stack([self.frame_of(x, shift)
                                      for x, shift in zip(self.x_t, shifts, strict=True)]).numpy()
        shape = (len(shifts), self.channels, grid.frame_height_px, grid.frame_width_px)
        frames = torch.from_numpy(self.collectives.broadcast(frames, shape))
        own = self.evaluate(frames, plan.own(self.group.rank), t, shifts)
        windows = self.collectives.gather(own.numpy(), plan)
        if windows is None:
            return None
        with self.stopwatch.of("windows"):
            return self.assemble(torch.from_numpy(windows), plan.items, shifts)

    def advance(self, number: int, output: Tensor | None) -> None:
        if self.x_t is None:
            return
        sampler = self.process.sampler
        noise = self.noise(number) if sampler.needs_noise(number) else None
        with self.stopwatch.of("step"):
            self.x_t, self.kept = sampler.step(number, self.x_t, output, noise, self.kept)
            for stack_index, x in zip(self.stack_indices, self.x_t, strict=True):
                self.process.check_finite(x, stack_index, number)

    def finish(self) -> list[list[Tensor]]:
        x_0, self.x_t, self.kept = self.x_t, None, ()
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
        rolls = number != X_T_STEP and self.process.rolls
        with self.stopwatch.of("noise"):
            return torch.stack([frame_noise(self.seed, i, number, self.channels, self.grid,
                                            self.shift(i, number) if rolls else (0, 0),
                                            self.process.coherence)
                                for i in self.stack_indices])

    def evaluate(self, frames: Tensor, own: Sequence[Item], t: int,
                 shifts: Sequence[Shift]) -> Tensor:
        """The network on windows (slot, position): (len(own), C, w, w) float32 on the CPU."""
        seen = [shift if self.process.rolls else (-shift[0], -shift[1]) for shift in shifts]
        with self.stopwatch.of("encoder"):
            for slot, condition in enumerate(self.conditions):
                mine = [position for at, position in own if at == slot]
                condition.prepare(seen[slot], mine, self.state_of(frames[slot], shifts[slot]))
        predictions = torch.empty(len(own), frames.shape[1], self.grid.window_px,
                                  self.grid.window_px)
        place = {item: at for at, item in enumerate(own)}

        def inputs(item: Item) -> tuple[Tensor, ...]:
            slot, position = item
            return (self.window(frames[slot], position),
                    *self.conditions[slot].inputs(seen[slot], position))

        def store(items: Sequence[Item], answer: Tensor) -> None:
            predictions[[place[item] for item in items]] = answer

        self.work.predictor(own, t, inputs, store)
        return predictions

    def window(self, frame: Tensor, position: int) -> Tensor:
        """(C, w, w), a view."""
        side = self.grid.window_px
        row, col = row_and_col(self.grid, position)
        return frame[:, row * side:(row + 1) * side, col * side:(col + 1) * side]

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

    def assemble(self, windows: Tensor, items: Sequence[Item], shifts: Sequence[Shift]) -> Tensor:
        """Windows (len(items), C, w, w) of (slot, position) -> images (N, C, height, width)."""
        grid, per_image = self.grid, self.grid.num_positions
        places = torch.tensor([slot * per_image + position for slot, position in items])
        tiles = windows.new_zeros(len(shifts) * per_image, *windows.shape[1:]).index_copy_(
            0, places, windows)
        frames = unpatchify(tiles.unflatten(0, (len(shifts), per_image)), grid.rows, grid.cols)
        return torch.stack(
            [self.image_of(frame, shift) for frame, shift in zip(frames, shifts, strict=True)])


def frame_noise(seed: int, stack_index: int, number: int, channels: int, grid: WindowGrid,
                shift: Shift, coherence: float | None = None) -> Tensor:
    """N(0, 1) on the image, (C, H, W), drawn window by window of the frame of an evaluation."""
    side = grid.window_px
    frame = torch.zeros(channels, grid.frame_height_px, grid.frame_width_px)
    for position in live_positions(grid, shift):
        row, col = row_and_col(grid, position)
        frame[:, row * side:(row + 1) * side, col * side:(col + 1) * side] = window_noise(
            seed, stack_index, number, position, (channels, side, side), coherence)
    return from_frame(frame, grid, shift)


def grown(image: Tensor, reach_px: int, grid: WindowGrid) -> Tensor:
    """(C, H, W) with what lies `reach_px` around it by the grid's border; itself for 0."""
    if not reach_px:
        return image
    rows, cols = (source_index(-reach_px, size + 2 * reach_px, size, grid.window_px, grid.border)
                  for size in image.shape[-2:])
    return image[:, rows[:, None], cols]
