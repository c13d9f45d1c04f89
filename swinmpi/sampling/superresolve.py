"""LR images to SR images on the ranks of a group: encoder, reverse process, composition."""
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from swinmpi.config import Config
from swinmpi.diffusion.reverse import nothing, reverse
from swinmpi.families.family import Condition, Encoding, Family
from swinmpi.images.consistency import PROJECTED_LR_PX, cut, lr_needed, projected_part
from swinmpi.images.figures import BORDER_LR_PX
from swinmpi.images.imresize import imresize_part, part_needed
from swinmpi.images.lr_rows import LrRows, union
from swinmpi.models.diffuser import prepare
from swinmpi.parallel.comm import Group
from swinmpi.parallel.device import Computing
from swinmpi.parallel.ownership import Ownership
from swinmpi.parallel.pieces import PieceExchange
from swinmpi.parallel.staging import to_host
from swinmpi.sampling.distribution import calls_of
from swinmpi.sampling.effort.tally import Tally
from swinmpi.sampling.effort.tiles import Effort
from swinmpi.sampling.exchange import Exchange, FinishedPart, Work, scaled
from swinmpi.sampling.predictor import Predictor
from swinmpi.sampling.process import Abandoned, ReverseProcess, make_process, sampling_grid
from swinmpi.sampling.root import RootExchange
from swinmpi.sampling.torus import TorusExchange, row_bands, seen_rect
from swinmpi.windows.moves import Rect
from swinmpi.windows.tiles import forget_indices

MAX_UNIT, BAND_LR_PX = 1.5, 32
EXCHANGES: dict[str, Callable[[Work], Exchange]] = {"root": RootExchange, "torus": TorusExchange}


class SuperResolver:
    """A family and everything needed to sample with it; the same arguments on
    every rank of `group`.

    Its network is ready to be evaluated on `computing.device`.
    """

    def __init__(self, family: Family, process: ReverseProcess, computing: Computing,
                 make_exchange: Callable[[Work], Exchange], group: Group,
                 consistency: float = 0.0):
        """make_exchange: one of EXCHANGES, or another. consistency: weight, 0..1, with which
        finished samples are made to shrink to the LR image."""
        self.family, self.process, self.computing, self.group = family, process, computing, group
        self.make_exchange, self.pieces = make_exchange, PieceExchange(group)
        self.diffuses = family.takes_steps and process.num_evaluations > 0
        self.predictor = Predictor(family, computing, group.stopwatch)
        self.consistency, self.tally = consistency, Tally()
        self._exchange: tuple[tuple[int, int], Exchange] | None = None

    def exchange_for(self, height: int, width: int) -> Exchange:
        """Of LR images of a size; kept while the size stays."""
        if self._exchange is None or self._exchange[0] != (height, width):
            px = self.family.x_px_per_lr_px
            grid = sampling_grid(self.process.shift, self.process.window_px, height * px,
                                 width * px)
            ownership = Ownership(grid, self.group.size, self.group.rank,
                                  weights=self.group.weights)
            device = torch.device(self.computing.device).type
            self.predictor.calls = calls_of(self.computing.micro_batch, self.family.config, grid,
                                            device)
            work = Work(self.family, self.process, ownership, self.pieces, self.predictor,
                        BORDER_LR_PX + (PROJECTED_LR_PX if self.consistency else 0), self.tally)
            self._exchange = (height, width), self.make_exchange(work)
        return self._exchange[1]

    def reads_parts(self, height: int, width: int) -> bool:
        """Whether every rank reads the LR rows that it needs; else root reads for all."""
        return self.exchange_for(height, width).in_parts

    def lr_rows(self, height: int, width: int, num_images: int) -> list[range]:
        """The rows that this rank needs of each of so many LR images."""
        exchange = self.exchange_for(height, width)
        if not exchange.in_parts or self.family.needs_whole_lr:
            return [range(height)] * num_images
        scale, work, mine = self.family.config.scale, exchange.work, []
        for rect in exchange.rects:
            seen = seen_rect(scaled(rect, work.factor), work.sr_grid, scale,
                             work.border_lr_px * scale)
            mine += [range(seen.rows.start // scale, -(-seen.rows.stop // scale)),
                     part_needed(height, work.sr_grid.height_px, seen.rows, work.joins[0])]
        encoded = self.family.lr_rows(height, width, num_images, work.ownership)
        return [union(*mine, rows) for rows in encoded]

    @torch.inference_mode()
    def __call__(self, lr: Sequence[LrRows], stack_indices: Sequence[int], seeds: Sequence[int],
                 stopping: Callable[[], bool] = lambda: False,
                 watch: Callable[[int, object], None] = nothing) -> Iterator[FinishedPart]:
        """Super-resolve images of one size, given by the rows `lr_rows` asks for; everything that
        this rank has of them.

        Collective, also to be iterated to the end. Raises Abandoned when `stopping()` (collective)
        says so before an evaluation; watch(number, output) is called after each. Values far outside
        -1..1 (hot pixels) are limited where the network looks, not in the image it adds to.
        """
        exchange = self.exchange_for(lr[0].height, lr[0].width)
        if self.effort is not None:
            forget_indices()  # which windows go together depends on the image
        residuals = exchange.room_for_residuals(len(lr))
        exchange.conditions = self.conditions(lr, exchange, residuals)

        def before(number: int) -> None:
            if stopping():
                raise Abandoned
            if number and not self.computing.encoder_cache:
                exchange.conditions = self.conditions(lr, exchange, residuals)

        samples = []
        for seed in seeds if self.diffuses else ():
            exchange.start(stack_indices, seed)
            reverse(self.process.sampler.timesteps, exchange, before, watch)
            samples.append(exchange.finish())
        conditions, exchange.conditions = exchange.conditions, []
        for slot, image in enumerate(lr):
            condition, conditions[slot] = conditions[slot], None
            parts = [self.composed(image, scaled(rect, exchange.work.factor), condition,
                                   [x_0[slot][k] for x_0 in samples], len(seeds))
                     for k, rect in enumerate(exchange.rects)]
            del condition  # features are most of what a rank holds
            for part in exchange.shared(slot, parts):
                if self.consistency:
                    yield from self.consistent(part, image)
                else:
                    yield part

    def conditions(self, lr: Sequence[LrRows], exchange: Exchange,
                   residuals: Sequence[Tensor] | None) -> list[Condition]:
        """One condition per image, ready to hand out windows. Collective."""
        work = exchange.work
        encoding = Encoding(work.ownership, self.pieces, torch.device(self.computing.device),
                            self.computing.precision, self.predictor.largest,
                            self.shifts_return, self.predictor.calls_now, exchange.in_turn,
                            self.effort and self.effort.by,
                            self.effort is not None and exchange.in_turn)
        with self.group.stopwatch.of("encoder"):
            return self.family.conditions([image.clamped(MAX_UNIT) for image in lr], encoding,
                                          residuals)

    @property
    def effort(self) -> Effort | None:
        """What decides which windows are evaluated, None for all."""
        return self.process.effort if self.diffuses else None

    @property
    def shifts_return(self) -> bool:
        """Whether there are so few shifts that each comes again."""
        return self.process.shift.pattern != "random"

    def consistent(self, part: FinishedPart, lr: LrRows) -> Iterator[FinishedPart]:
        """A part in bands whose samples agree with the LR image, with the border that figures
        look at. Bands, so that nothing of the size of the image is held beside it."""
        grid, scale = self.exchange_for(lr.height, lr.width).work.sr_grid, self.family.config.scale
        held, sizes = part.seen, ((grid.height_px, grid.width_px), (lr.height, lr.width))
        for band in row_bands(Rect(0, part.rows, part.cols), BAND_LR_PX * scale):
            seen = seen_rect(band, grid, scale, BORDER_LR_PX * scale)
            wanted = seen.rows, seen.cols
            known = [lr_needed(line, size, scale)
                     for line, size in zip(wanted, sizes[1], strict=True)]
            samples = projected_part(part.samples, [line.start for line in held],
                                     cut(lr.values, (lr.top, 0), known).double(), *sizes, wanted,
                                     self.consistency)
            yield FinishedPart(part.slot, band.rows, band.cols, wanted, samples,
                               cut(part.base, [line.start for line in held], wanted),
                               agrees=self.consistency == 1)

    def composed(self, lr: LrRows, rect: Rect, condition: Condition, samples: Sequence[Tensor],
                 num_seeds: int) -> Tensor:
        """Finished samples and, last, their base over a rectangle of the SR image,
        (K + 1, C, h, w) in host memory: here an image leaves the device, once."""
        config, joins = self.family.config, self.exchange_for(lr.height, lr.width).work.joins
        device = self.predictor.device
        parts = torch.empty(num_seeds + 1, config.channels, len(rect.rows), len(rect.cols),
                            device=device)
        base = parts[-1].zero_()
        sr_size = (lr.height * config.scale, lr.width * config.scale)
        if self.family.starts_from_lr:
            values = lr.values.to(device)
            for band in row_bands(rect, config.window_px or len(rect.rows)):
                rows = slice(band.rows.start - rect.rows.start, band.rows.stop - rect.rows.start)
                base[:, rows] = imresize_part(values, (lr.top, 0), (lr.height, lr.width),
                                              sr_size, (band.rows, band.cols), joins=joins)
        residual = condition.residual(rect)
        if residual is not None:
            base += residual
        if not self.diffuses:
            parts[:-1] = base
        # In place: for large images every copy counts.
        for sample, x_0 in zip(parts, samples, strict=False):
            self.family.image(x_0, base, out=sample)
        return to_host(parts)


def make_resolver(config: Config, family: Family, device: str, group: Group) -> SuperResolver:
    """What samples as configured; the family's network is moved to `device`.

    `output.consistent` is settled. Warns as `make_schedule`.
    """
    parallel = config.parallel
    prepare(family.model, torch.device(device), parallel.channels_last, parallel.fused_attention)
    process = make_process(config.sampler, config.diffusion, config.model.window_px)
    computing = Computing(device, parallel.precision, parallel.micro_batch, parallel.encoder_cache,
                          parallel.compile)
    return SuperResolver(family, process, computing, EXCHANGES[parallel.exchange], group,
                         float(config.output.consistent or 0))
