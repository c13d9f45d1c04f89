"""The reverse process on windows (thesis algorithm 2.2): every step a new frame, every window its own prediction."""
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from swinmpi.config import Config, SamplerConfig
from swinmpi.diffusion.noise import X_T_STEP, random_shift, window_noise
from swinmpi.diffusion.samplers import Sampler, initial_std
from swinmpi.models.diffuser import Diffuser
from swinmpi.pipelines.condition import Shift
from swinmpi.pipelines.exchange import Exchange
from swinmpi.windows.grid import WindowGrid, live_positions
from swinmpi.windows.patchify import from_frame, to_frame
from swinmpi.windows.shift import circular_shift, default_max_shift


@dataclass
class Seconds:
    """Where the time went, summed over the run."""

    network: float = 0.0
    encoder: float = 0.0
    exchange: float = 0.0
    storage: float = 0.0
    started: float = field(default_factory=time.perf_counter)


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


def frame_noise(seed: int, image_index: int, step: int, channels: int, grid: WindowGrid, shift: Shift) -> Tensor:
    """N(0, 1) on the image, (C, H, W), drawn window by window of the step's frame."""
    side = grid.window_px
    frame = torch.zeros(channels, grid.frame_height_px, grid.frame_width_px)
    for position in live_positions(grid, shift):
        row, col = divmod(position, grid.cols)
        frame[:, row * side:(row + 1) * side, col * side:(col + 1) * side] = window_noise(
            seed, image_index, step, position, (channels, side, side))
    return from_frame(frame, grid, shift)


class Denoiser:
    """Samples images of one size, a few at a time, on all ranks of a group at once.

    Every rank calls the same methods with the same arguments; x_t lives on the root, the predictions of a window
    where the window is owned. The U-Net always sees micro-batches of one size, the last one padded: a prediction then
    does not depend on how many windows a rank owns.
    """

    def __init__(self, config: Config, model: Diffuser, grid: WindowGrid, sampler: Sampler, exchange: Exchange,
                 micro_batch: int, device: torch.device, seconds: Seconds):
        self.config, self.model, self.grid, self.sampler, self.exchange = config, model, grid, sampler, exchange
        self.micro_batch, self.device, self.seconds = micro_batch, device, seconds
        self.max_shift_px, self.owned = max_shift(config), exchange.owned(grid.num_positions)

    def sample(self, image_indices: Sequence[int], conditions: Sequence, seed: int) -> Tensor | None:
        """x_0 of the images, (N, C, height, width) in the diffused scale, on the root; None elsewhere. Collective."""
        channels, settings, sampler = self.config.model.channels, self.config.sampler, self.sampler
        x_t, history = None, None
        if self.exchange.rank == 0:
            std = initial_std(sampler.schedule) * settings.noise_scale
            x_t = std * self.noise(image_indices, seed, X_T_STEP, channels)
        for step, t in enumerate(sampler.timesteps):
            output = self.predict(x_t, t, step, image_indices, conditions)
            if x_t is not None:
                noise = self.noise(image_indices, seed, step, channels) if sampler.needs_noise(step) else None
                x_t, history = sampler.step(step, x_t, output, noise, history)
        return x_t

    def noise(self, image_indices: Sequence[int], seed: int, step: int, channels: int) -> Tensor:
        shifts = [(0, 0) if step == X_T_STEP else self.shift(i, step) for i in image_indices]
        return torch.stack([frame_noise(seed, i, step, channels, self.grid, shift)
                            for i, shift in zip(image_indices, shifts, strict=True)])

    def shift(self, image_index: int, step: int) -> Shift:
        return shift_of(self.config.sampler, self.max_shift_px, image_index, step)

    def predict(self, x_t: Tensor | None, t: int, step: int, image_indices: Sequence[int],
                conditions: Sequence) -> Tensor | None:
        """The network's output on whole images, (N, C, height, width), on the root. Collective."""
        grid, channels = self.grid, self.config.model.channels
        shifts = [self.shift(i, step) for i in image_indices]
        live = [live_positions(grid, shift) for shift in shifts]
        frames = None if x_t is None else torch.stack([to_frame(x, grid, shift) for x, shift in zip(x_t, shifts, strict=True)])
        frames = self.exchange.broadcast(frames, (len(shifts), channels, grid.frame_height_px, grid.frame_width_px))
        own = [(slot, k) for slot, positions in enumerate(live) for k in positions if k in self.owned]
        windows = self.evaluate(frames, own, t, shifts, conditions)
        gathered = self.exchange.gather(windows, live)
        if gathered is None:
            return None
        return torch.stack([from_frame(self.assemble(gathered[slot], live[slot]), grid, shifts[slot])
                            for slot in range(len(shifts))])

    def evaluate(self, frames: Tensor, own: list[tuple[int, int]], t: int, shifts: Sequence[Shift],
                 conditions: Sequence) -> Tensor:
        """The U-Net on windows (slot, position) of the frames: (len(own), C, w, w) on the CPU, micro-batch by micro-batch."""
        started = time.perf_counter()
        side = self.grid.window_px
        predictions = torch.empty(len(own), frames.shape[1], side, side)
        for first in range(0, len(own), self.micro_batch):
            part = own[first:first + self.micro_batch]
            padded = part + [part[-1]] * (self.micro_batch - len(part))
            inputs = [self.window(frames, slot, k, shifts[slot], conditions[slot]) for slot, k in padded]
            x_t, *told = (torch.stack(parts).to(self.device) for parts in zip(*inputs, strict=True))
            times = torch.full((self.micro_batch,), t, device=self.device)
            predictions[first:first + len(part)] = self.model.unet(x_t, times, *told)[:len(part)].float().cpu()
        self.seconds.network += time.perf_counter() - started
        return predictions

    def window(self, frames: Tensor, slot: int, position: int, shift: Shift, condition) -> tuple[Tensor, ...]:
        side = self.grid.window_px
        row, col = divmod(position, self.grid.cols)
        x_t = frames[slot, :, row * side:(row + 1) * side, col * side:(col + 1) * side]
        return x_t, *condition.inputs(shift, position)

    def assemble(self, windows: Tensor, positions: Sequence[int]) -> Tensor:
        """(len(positions), C, w, w) -> a frame (C, frame height, frame width); dead windows stay zero."""
        grid, side = self.grid, self.grid.window_px
        frame = windows.new_zeros(windows.shape[1], grid.frame_height_px, grid.frame_width_px)
        for window, position in zip(windows, positions, strict=True):
            row, col = divmod(position, grid.cols)
            frame[:, row * side:(row + 1) * side, col * side:(col + 1) * side] = window
        return frame
