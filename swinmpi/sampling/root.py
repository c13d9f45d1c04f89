"""The reverse process on windows (thesis algorithm 2.2): every step a new frame, every window its own prediction.

Here with `parallel.exchange: root`, where rank 0 keeps the image; torus.py has the other way, which gives the same bits.
"""
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from swinmpi.config import Config, SamplerConfig
from swinmpi.diffusion.noise import X_T_STEP, random_shift, window_noise
from swinmpi.diffusion.samplers import Sampler, initial_std
from swinmpi.errors import SwinmpiError
from swinmpi.families.condition import Shift
from swinmpi.parallel.root import RootExchange, plan_exchange
from swinmpi.sampling.predict import Item, Predictor
from swinmpi.windows.frames import from_frame, to_frame, unpatchify
from swinmpi.windows.grid import WindowGrid, live_positions, row_and_col
from swinmpi.windows.moves import ownership_order
from swinmpi.windows.shift import circular_shift, crop_shift, default_max_shift, uncrop_shift


class Abandoned(Exception):
    """Raised on all ranks of a group that agreed to leave an image unfinished."""


def sampling_grid(config: Config, height_px: int, width_px: int) -> WindowGrid:
    """The grid over an SR image; the crop shifts of the thesis's first attempt move nothing outside."""
    shift = config.sampler.shift
    max_shift_px = 0 if shift.pattern == "none" or shift.edge != "roll" else max_shift(config)
    return WindowGrid(height_px, width_px, config.model.window_px, max_shift_px, shift.border)


def max_shift(config: Config) -> int:
    given = config.sampler.shift.max_px
    return default_max_shift(config.model.window_px) if given is None else given


def shift_of(sampler: SamplerConfig, max_px: int, image_index: int, step: int) -> Shift:
    """The shift of a step, a pure function of (seed, image index, step)."""
    if sampler.shift.pattern == "circular":
        return circular_shift(step, max_px)
    return random_shift(sampler.seed, image_index, step, max_px) if sampler.shift.pattern == "random" else (0, 0)


def check_finite(x_t: Tensor, image_index: int, step: int, num_steps: int) -> None:
    """SwinmpiError where a step's result is not all numbers."""
    # A sum takes one pass over the memory, the exact question five; only a sum of huge numbers needs to be asked again.
    if not torch.isfinite(x_t.sum()) and not torch.isfinite(x_t).all():
        raise SwinmpiError(f"the network's answer is not finite in image {image_index}, step {step + 1} of {num_steps}: "
                           "expected numbers; try parallel.precision=fp32, else the checkpoint is damaged")


class Denoiser:
    """Samples images of one size, a few at a time, on all ranks of a group at once.

    Every rank calls the same methods with the same arguments; x_t lives on the root, a prediction is made where its
    window is owned. `make_conditions` (collective) is called once, or before every step with `encoder_cache: false`.
    """

    def __init__(self, config: Config, grid: WindowGrid, sampler: Sampler, exchange: RootExchange, predictor: Predictor):
        self.config, self.grid, self.sampler, self.exchange = config, grid, sampler, exchange
        self.predictor, self.seconds = predictor, predictor.seconds
        self.max_shift_px, self.edge = max_shift(config), config.sampler.shift.edge

    def sample(self, image_indices: Sequence[int], make_conditions: Callable[[], list], seed: int,
               stopping: Callable[[], bool]) -> Tensor | None:
        """x_0 of the images, (N, C, height, width) in the diffused scale, on the root; None elsewhere. Collective.

        Raises Abandoned when `stopping()` (collective) says so before a step.
        """
        sampler, x_t, history = self.sampler, None, None
        if self.exchange.group.is_root:
            std = initial_std(sampler.schedule) * self.config.sampler.noise_scale
            x_t = std * self.noise(image_indices, seed, X_T_STEP)
        conditions = make_conditions()
        for step, t in enumerate(sampler.timesteps):
            if stopping():
                raise Abandoned
            if step and not self.config.parallel.encoder_cache:
                conditions = make_conditions()
            output = self.predict(x_t, t, [self.shift(i, step) for i in image_indices], conditions)
            if x_t is not None:
                noise = self.noise(image_indices, seed, step) if sampler.needs_noise(step) else None
                with self.seconds.of("step"):
                    x_t, history = sampler.step(step, x_t, output, noise, history)
                    for image_index, x in zip(image_indices, x_t, strict=True):
                        check_finite(x, image_index, step, len(sampler.timesteps))
        return x_t

    def shift(self, image_index: int, step: int) -> Shift:
        return shift_of(self.config.sampler, self.max_shift_px, image_index, step)

    def noise(self, image_indices: Sequence[int], seed: int, step: int) -> Tensor:
        """N(0, 1), (N, C, height, width), keyed by the windows of the step's frame."""
        rolls = step != X_T_STEP and self.edge == "roll"
        with self.seconds.of("noise"):
            return torch.stack([frame_noise(seed, i, step, self.config.model.channels, self.grid,
                                            self.shift(i, step) if rolls else (0, 0)) for i in image_indices])

    def predict(self, x_t: Tensor | None, t: int, shifts: Sequence[Shift], conditions: Sequence) -> Tensor | None:
        """The network's output on whole images, (N, C, height, width), on the root. Collective."""
        grid, group = self.grid, self.exchange.group
        with self.seconds.of("windows"):
            live = [live_positions(grid, shift if self.edge == "roll" else (0, 0)) for shift in shifts]
            plan = plan_exchange(ownership_order(grid), group.size, live)
            frames = None
            if x_t is not None:
                frames = torch.stack([self.frame_of(x, shift) for x, shift in zip(x_t, shifts, strict=True)]).numpy()
        shape = (len(shifts), self.config.model.channels, grid.frame_height_px, grid.frame_width_px)
        frames = torch.from_numpy(self.exchange.broadcast(frames, shape))
        own = self.evaluate(frames, plan.own(group.rank), t, shifts, conditions)
        windows = self.exchange.gather(own.numpy(), plan)
        if windows is None:
            return None
        with self.seconds.of("windows"):
            return self.assemble(torch.from_numpy(windows), plan.items, shifts)

    def evaluate(self, frames: Tensor, own: Sequence[Item], t: int, shifts: Sequence[Shift], conditions: Sequence) -> Tensor:
        """The U-Net on windows (slot, position): (len(own), C, w, w) float32 on the CPU."""
        seen = [shift if self.edge == "roll" else (-shift[0], -shift[1]) for shift in shifts]
        with self.seconds.of("encoder"):
            for slot, condition in enumerate(conditions):
                mine = [position for at, position in own if at == slot]
                condition.prepare(seen[slot], mine, lambda slot=slot: self.image_of(frames[slot], shifts[slot]))
        predictions = torch.empty(len(own), frames.shape[1], self.grid.window_px, self.grid.window_px)
        place = {item: at for at, item in enumerate(own)}

        def inputs(item: Item) -> tuple[Tensor, ...]:
            slot, position = item
            return self.window(frames[slot], position), *conditions[slot].inputs(seen[slot], position)

        def store(items: Sequence[Item], answer: Tensor) -> None:
            predictions[place[items[0]]:place[items[0]] + len(items)] = answer

        self.predictor(own, t, inputs, store)
        return predictions

    def window(self, frame: Tensor, position: int) -> Tensor:
        """(C, w, w), a view."""
        side = self.grid.window_px
        row, col = row_and_col(self.grid, position)
        return frame[:, row * side:(row + 1) * side, col * side:(col + 1) * side]

    def frame_of(self, image: Tensor, shift: Shift) -> Tensor:
        """(C, height, width) -> the step's frame: rolled, or cropped as in the thesis's first attempt."""
        if self.edge == "roll":
            return to_frame(image, self.grid, shift)
        return to_frame(crop_shift(image, shift, self.edge.removeprefix("crop_")), self.grid, (0, 0))

    def image_of(self, frame: Tensor, shift: Shift) -> Tensor:
        """The inverse of `frame_of`."""
        if self.edge == "roll":
            return from_frame(frame, self.grid, shift)
        return uncrop_shift(from_frame(frame, self.grid, (0, 0)), shift, self.edge.removeprefix("crop_"))

    def assemble(self, windows: Tensor, items: Sequence[Item], shifts: Sequence[Shift]) -> Tensor:
        """Windows (len(items), C, w, w) of (slot, position) -> images (N, C, height, width)."""
        grid, per_image = self.grid, self.grid.num_positions
        places = torch.tensor([slot * per_image + position for slot, position in items])
        tiles = windows.new_zeros(len(shifts) * per_image, *windows.shape[1:]).index_copy_(0, places, windows)
        frames = unpatchify(tiles.unflatten(0, (len(shifts), per_image)), grid.rows, grid.cols)
        return torch.stack([self.image_of(frame, shift) for frame, shift in zip(frames, shifts, strict=True)])


def frame_noise(seed: int, image_index: int, step: int, channels: int, grid: WindowGrid, shift: Shift) -> Tensor:
    """N(0, 1) on the image, (C, H, W), drawn window by window of the step's frame."""
    side = grid.window_px
    frame = torch.zeros(channels, grid.frame_height_px, grid.frame_width_px)
    for position in live_positions(grid, shift):
        row, col = row_and_col(grid, position)
        frame[:, row * side:(row + 1) * side, col * side:(col + 1) * side] = window_noise(
            seed, image_index, step, position, (channels, side, side))
    return from_frame(frame, grid, shift)
