"""LR images to SR images, on one process or on all ranks of a group: encoder, reverse process, composition."""
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from swinmpi.config import Config
from swinmpi.diffusion.samplers import make_sampler
from swinmpi.diffusion.schedule import make_schedule
from swinmpi.families.condition import AlignedCondition, ThesisCondition
from swinmpi.families.encode import encode_aligned, lr_blocks, rows_seen, share_of
from swinmpi.families.lr_rows import LrStrip, union
from swinmpi.families.objective import RegressionObjective
from swinmpi.images.imresize import imresize_part, part_needed
from swinmpi.models.diffuser import Diffuser, autocast
from swinmpi.parallel.comm import Group
from swinmpi.parallel.pieces import Job, TorusExchange
from swinmpi.parallel.root import RootExchange
from swinmpi.sampling.predict import Predictor, Seconds
from swinmpi.sampling.root import Denoiser, sampling_grid
from swinmpi.sampling.torus import Territory, TorusDenoiser
from swinmpi.windows.canvas import Canvas
from swinmpi.windows.grid import WindowGrid
from swinmpi.windows.moves import Area, plan_moves

MAX_UNIT = 1.5
BAND_PIXELS = 1 << 18


@dataclass(frozen=True, eq=False)
class Shown:
    """A rectangle of a finished image on the rank that made it, around -1..1.

    slot: which of the images; rows, cols: the SR pixels it stands for; seen: the rows and columns of the tensors, more by
    the border that its figures look at. samples (K, C, h, w), one per seed; base (C, h, w): what they add detail to, the
    encoder's regression for `aligned`, bicubic for `thesis`.
    """

    slot: int
    rows: range
    cols: range
    seen: tuple[range, range]
    samples: Tensor
    base: Tensor


class SuperResolver:
    """A model and everything needed to sample with it, by either exchange; the same arguments on every rank of `group`."""

    def __init__(self, config: Config, model: Diffuser, group: Group, micro_batch: int, device: torch.device):
        self.config, self.model, self.group, self.device = config, model, group, device
        self.root, self.torus = RootExchange(group), TorusExchange(group)
        self.predictor = Predictor(config, model, micro_batch, device, Seconds())
        schedule = make_schedule(config.diffusion.schedule, config.diffusion.steps)
        self.sampler = make_sampler(config.sampler, config.diffusion, schedule)

    @property
    def seconds(self) -> Seconds:
        """Where the time went so far."""
        return self.predictor.seconds

    def lr_rows(self, height: int, width: int, num_images: int) -> list[range]:
        """The rows that this rank needs of each of so many LR images."""
        if not self.keeps_parts or self.config.model.family == "thesis":
            return [range(height)] * num_images
        scale, mine = self.config.model.scale, []
        grid = sampling_grid(self.config, height * scale, width * scale)
        for area in Territory(grid, self.group.size, self.group.rank).at((0, 0)):
            if area.rank == self.group.rank:
                seen = seen_area(inside(area, grid), grid, scale)
                mine += [range(seen.rows.start // scale, -(-seen.rows.stop // scale))]
                mine += [part_needed(height, grid.height_px, seen.rows)] if seen.rows else []
        encoded = share_of(num_images, lr_blocks(height, width), self.group.size, self.group.rank)
        return [union(*mine, *(rows_seen(self.model.encoder, block, height) for at, block in encoded if at == slot))
                for slot in range(num_images)]

    @property
    def keeps_parts(self) -> bool:
        """Whether finished images lie in parts on the ranks that made them, instead of whole on root."""
        return self.config.parallel.exchange == "torus"

    def __call__(self, lr: Sequence[LrStrip], image_indices: Sequence[int], seeds: Sequence[int],
                 stopping: Callable[[], bool] = lambda: False) -> Iterator[Shown]:
        """Super-resolve images of one size, given by the rows `lr_rows` asks for; everything this rank has to show of them.

        Collective, also to be iterated to the end. Raises Abandoned when `stopping()` (collective) says so before a step.
        Values far outside -1..1 (hot pixels) are limited where the network looks, not in the image it adds to.
        """
        scale = self.config.model.scale
        grid = sampling_grid(self.config, lr[0].height * scale, lr[0].width * scale)
        territory = Territory(grid, self.group.size, self.group.rank)
        run = self.by_torus if self.keeps_parts else self.by_root
        return run(lr, grid, territory, image_indices, seeds, stopping)

    @torch.inference_mode()
    def by_root(self, lr: Sequence[LrStrip], grid: WindowGrid, territory: Territory, image_indices: Sequence[int],
                seeds: Sequence[int], stopping: Callable[[], bool]) -> Iterator[Shown]:
        denoiser = Denoiser(self.config, grid, self.sampler, self.root, self.predictor)
        side = (grid.height_px, grid.width_px) if self.group.is_root else (0, 0)
        residuals = [torch.zeros(self.config.model.channels, *side) for _ in lr]
        made = self.conditions(lr, territory, residuals)
        again = self.again(made, lambda: self.conditions(lr, territory, residuals))
        samples = [denoiser.sample(image_indices, again, seed, stopping) for seed in seeds]
        if not self.group.is_root:
            return
        for slot, image in enumerate(lr):
            area = Area(0, range(grid.height_px), range(grid.width_px))
            parts = torch.empty(len(seeds) + 1, *residuals[slot].shape)
            self.finish(parts, image, grid, area, residuals[slot], [x_0[slot] for x_0 in samples])
            yield Shown(slot, area.rows, area.cols, (area.rows, area.cols), parts[:-1], parts[-1])

    @torch.inference_mode()
    def by_torus(self, lr: Sequence[LrStrip], grid: WindowGrid, territory: Territory, image_indices: Sequence[int],
                 seeds: Sequence[int], stopping: Callable[[], bool]) -> Iterator[Shown]:
        denoiser = TorusDenoiser(self.config, territory, self.sampler, self.torus, self.predictor)
        made = self.conditions(lr, territory)
        again = self.again(made, lambda: self.conditions(lr, territory))
        own = [inside(area, grid) for area in territory.at((0, 0)) if area.rank == self.group.rank]
        samples = [denoiser.sample(image_indices, again, seed, stopping) for seed in seeds]
        del again
        for slot, image in enumerate(lr):
            condition, made[slot] = made[slot], None
            parts = [self.joined(image, grid, area, self.residual(condition, k, area), [x_0[slot][k] for x_0 in samples])
                     for k, area in enumerate(own)]
            del condition  # features are most of what a rank holds
            yield from self.with_borders(slot, parts, own, territory, self.config.model.channels * (len(seeds) + 1))

    def joined(self, lr: LrStrip, grid: WindowGrid, area: Area, residual: Tensor, samples: Sequence[Canvas]) -> Tensor:
        """Finished samples and their base over an area, ((K + 1) * C, h, w)."""
        parts = torch.empty(len(samples) + 1, *residual.shape)
        self.finish(parts, lr, grid, area, residual, [x_0.view(area.rows, area.cols) for x_0 in samples])
        return parts.flatten(0, 1)

    def with_borders(self, slot: int, parts: Sequence[Tensor], own: Sequence[Area], territory: Territory,
                     num_channels: int) -> Iterator[Shown]:
        """This rank's rectangles of an image, (samples and base, h, w) each, in bands, with the border that others hold.
        Collective."""
        grid, scale, channels = territory.grid, self.config.model.scale, self.config.model.channels
        held = [inside(area, grid) for area in territory.at((0, 0))]
        needed = [seen_area(area, grid, scale) for area in held]
        sources = [Canvas(part, area.rows.start, area.cols.start) for part, area in zip(parts, own, strict=True)]
        targets = [Canvas.over(seen_area(area, grid, scale), num_channels) for area in own]
        self.torus.run([Job(plan_moves(grid, held, needed, self.group.rank), territory.mine(sources),
                            territory.mine(targets), num_channels)])
        for area, canvas in zip(own, targets, strict=True):
            for band in bands(area, grid.window_px):
                seen = seen_area(band, grid, scale)
                images = canvas.view(seen.rows, seen.cols).unflatten(0, (-1, channels))
                yield Shown(slot, band.rows, band.cols, (seen.rows, seen.cols), images[:-1], images[-1])

    def again(self, made: list, make: Callable[[], list]) -> Callable[[], list]:
        """What makes conditions for a sample: those already made, where they are kept."""
        return (lambda: made) if self.config.parallel.encoder_cache else make

    def conditions(self, lr: Sequence[LrStrip], territory: Territory,
                   residuals: Sequence[Tensor] | None = None) -> list[AlignedCondition] | list[ThesisCondition]:
        """One condition per image, ready to hand out windows. Collective."""
        exchanged = self.group.stats.seconds
        with self.seconds.of("encoder"):
            seen = [LrStrip(image.values.clamp(-MAX_UNIT, MAX_UNIT), image.top, image.height) for image in lr]
            if self.config.model.family == "thesis":
                made = [ThesisCondition(self.config, self.model, image.values.to(self.device), territory.grid,
                                        self.predictor.micro_batch) for image in seen]
            else:
                encoder = self.model.encoder
                num_features = encoder.tail.out_channels // encoder.scale**2
                made = [AlignedCondition(territory.grid, territory.own, num_features, self.device) for _ in seen]
                areas = territory.areas(lambda block, rank: block.canvas(territory.grid, rank))
                encode_aligned(self.model, seen, made, areas, self.torus, self.config.parallel.precision, self.device,
                               residuals)
        self.seconds.encoder -= self.group.stats.seconds - exchanged
        return made

    def residual(self, condition: AlignedCondition | ThesisCondition, block: int, area: Area) -> Tensor:
        channels = self.config.model.channels
        if isinstance(condition, ThesisCondition):
            return torch.zeros(channels, len(area.rows), len(area.cols))
        return condition.residual(block, area, channels)

    def finish(self, parts: Tensor, lr: LrStrip, grid: WindowGrid, area: Area, residual: Tensor,
               samples: Sequence[Tensor]) -> None:
        """Fill `parts`, (K + 1, C, h, w) over an area of the image, with K samples by their x_0 and, last, what they add
        detail to. In place: for large images every copy counts."""
        base = parts[-1].zero_()
        if not self.synthesises:
            for band in bands(area, grid.window_px):
                rows = slice(band.rows.start - area.rows.start, band.rows.stop - area.rows.start)
                base[:, rows] = imresize_part(lr.values, (lr.top, 0), (lr.height, lr.width), (grid.height_px, grid.width_px),
                                              (band.rows, band.cols))
        if self.config.model.family == "aligned":
            base += residual
        for sample, x_0 in zip(parts, samples, strict=False):
            torch.div(x_0, 1.0 if self.synthesises else self.config.model.residual_gain, out=sample).add_(base)

    @property
    def synthesises(self) -> bool:
        """Whether x_0 is the image itself, made from noise alone; the LR images then only give number and size."""
        return self.config.model.family == "thesis" and self.config.model.condition_on == "x_t"


class RegressionResolver:
    """A super-resolver that was trained alone (`train.target: encoder`): one pass, nothing to sample, root only."""

    keeps_parts = False

    def __init__(self, config: Config, objective: RegressionObjective, group: Group, device: torch.device):
        self.config, self.objective, self.group, self.device = config, objective, group, device
        self.seconds = Seconds()

    def lr_rows(self, height: int, width: int, num_images: int) -> list[range]:
        """As SuperResolver's."""
        return [range(height)] * num_images

    @torch.inference_mode()
    def __call__(self, lr: Sequence[LrStrip], image_indices: Sequence[int], seeds: Sequence[int],
                 stopping: Callable[[], bool] = lambda: False) -> Iterator[Shown]:
        """As SuperResolver's; all samples are the regression."""
        return iter([self.one(slot, image, len(seeds)) for slot, image in enumerate(lr)] if self.group.is_root else [])

    def one(self, slot: int, image: LrStrip, num_samples: int) -> Shown:
        with self.seconds.of("encoder"), autocast(self.device, self.config.parallel.precision):
            seen = image.values[None].clamp(-MAX_UNIT, MAX_UNIT).to(self.device)
            residual = self.objective.residual(seen)[0].float().cpu()
        rows, cols = map(range, residual.shape[-2:])
        old, new = (image.height, image.width), (len(rows), len(cols))
        base = imresize_part(image.values, (0, 0), old, new, (rows, cols)) + residual
        return Shown(slot, rows, cols, (rows, cols), base.expand(num_samples, *base.shape), base)


def inside(area: Area, grid: WindowGrid) -> Area:
    """The part of an area that lies in the image, for shift (0, 0)."""
    return Area(area.rank, *(range(min(line.start, size), min(line.stop, size))
                             for line, size in zip((area.rows, area.cols), (grid.height_px, grid.width_px), strict=True)))


def seen_area(area: Area, grid: WindowGrid, scale: int) -> Area:
    """The area with what the figures of its pixels look at: as far as shrinking reaches, in whole LR pixels."""
    reach = 3 * scale
    sides = []
    for line, size in zip((area.rows, area.cols), (grid.height_px, grid.width_px), strict=True):
        start, stop = (line.start - reach) // scale * scale, -(-(line.stop + reach) // scale) * scale
        sides.append(range(max(0, start), min(size, stop)) if line else range(0))
    return Area(area.rank, *sides)


def bands(area: Area, window_px: int) -> Iterator[Area]:
    """The area in rows of windows, a few at a time."""
    if not (area.rows and area.cols):
        return
    height = max(1, BAND_PIXELS // (len(area.cols) * window_px)) * window_px
    for top in range(area.rows.start, area.rows.stop, height):
        yield Area(area.rank, range(top, min(top + height, area.rows.stop)), area.cols)
