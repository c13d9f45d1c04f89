"""The reverse process of a run: its sampler, its shifts, its noise, each a function of keys."""
from dataclasses import dataclass

from swinmpi.config import DiffusionConfig, SamplerConfig, ShiftConfig
from swinmpi.diffusion.noise import drawn_turn, random_shift
from swinmpi.diffusion.path import path_of
from swinmpi.diffusion.samplers import Sampler, make_sampler
from swinmpi.errors import SwinmpiError
from swinmpi.sampling.effort.tiles import Effort
from swinmpi.windows.grid import WindowGrid, window_over
from swinmpi.windows.shift import circular_shift, max_shift_of

Shift = tuple[int, int]


class Abandoned(Exception):
    """Raised on all ranks of a group that agreed to leave an image unfinished."""


@dataclass(frozen=True, eq=False)
class ReverseProcess:
    """From x_T to x_0, the same on every rank. `window_px` and the shift are in px of x_t.

    window_px: None for one window over the whole image, which is not shifted. coherence: of the
    noise of neighbouring images, see `draw_window`; all images have the same shifts then. effort:
    which windows are evaluated, None for all.
    """

    sampler: Sampler
    noise_scale: float
    shift: ShiftConfig
    window_px: int | None
    coherence: float | None = None
    effort: Effort | None = None

    @property
    def num_evaluations(self) -> int:
        return len(self.sampler.evaluations)

    @property
    def rolls(self) -> bool:
        """Whether frames are rolled, not cropped as in the thesis's first attempt."""
        return self.shift.edge == "roll"

    def shift_at(self, seed: int, stack_index: int, number: int) -> Shift:
        """The shift of evaluation `number`, a pure function of (seed, stack index, number)."""
        if self.shift.pattern == "none" or self.window_px is None:
            return (0, 0)
        max_px = max_shift_of(self.shift, self.window_px)
        stack_index = stack_index if self.coherence is None else 0
        if self.shift.pattern == "circular":
            turn = (self.sampler.turn(number) if self.shift.circular == "turn"
                    else drawn_turn(seed, stack_index, number))
            return circular_shift(turn, max_px)
        return random_shift(seed, stack_index, number, max_px)

    def spares(self, number: int) -> bool:
        """Whether easy windows are left out of an evaluation, see `Effort`."""
        return self.effort is not None and number < self.sampler.spared

    def not_finite(self, stack_index: int, number: int) -> SwinmpiError:
        """What to raise where the result of an evaluation is not all numbers."""
        return SwinmpiError(f"the network's answer is not finite in image {stack_index}, "
                            f"step {number + 1} of {self.num_evaluations}: expected numbers; "
                            "try parallel.precision=fp32, else the checkpoint is damaged")


def make_process(sampler: SamplerConfig, diffusion: DiffusionConfig,
                 window_px: int | None) -> ReverseProcess:
    """The reverse process of a configuration; ValueError for more steps than the path has."""
    effort = None if sampler.adaptive is None else Effort(sampler.adaptive, sampler.adaptive_by)
    return ReverseProcess(make_sampler(sampler, diffusion, path_of(diffusion)),
                          sampler.noise_scale, sampler.shift, window_px, sampler.coherence, effort)


def sampling_grid(shift: ShiftConfig, window_px: int | None, height_px: int,
                  width_px: int) -> WindowGrid:
    """The windows over an image; the crop shifts of the thesis's first attempt move
    nothing outside. window_px: None for one over the whole image."""
    moves = shift.pattern != "none" and shift.edge == "roll" and window_px is not None
    return WindowGrid(height_px, width_px, window_over(height_px, width_px, window_px),
                      max_shift_of(shift, window_px) if moves else 0, shift.border)
