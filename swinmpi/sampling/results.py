"""What becomes of finished images: part by part they get into OUT.partial, which rank 0
packs in the end."""
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from swinmpi.images.likeness.usual import FEWEST_TOGETHER, usual_in
from swinmpi.parallel.comm import World
from swinmpi.parallel.failure import raised_by_all
from swinmpi.parallel.relay import Ending, Part
from swinmpi.reports.progress import Progress
from swinmpi.reports.timing import RunReport
from swinmpi.sampling.delivery import Delivery, GatherDelivery, SharedDelivery
from swinmpi.sampling.plan import SamplingPlan
from swinmpi.sampling.provenance import fingerprint, provenance
from swinmpi.sampling.ranges import (
    SettledRange,
    TrainedRange,
    how_unlike,
    settle_range,
    trained_range,
)
from swinmpi.sampling.request import open_stack, output_plan
from swinmpi.storage.checkpoint import file_sha256
from swinmpi.storage.header import read_header
from swinmpi.storage.locking import check_unlocked
from swinmpi.storage.outputs.contents import pixel_datasets
from swinmpi.storage.outputs.extending import ExactMembers, check_extended, check_same_settings
from swinmpi.storage.outputs.mpio import SharedPartial
from swinmpi.storage.outputs.output import StackOutput, check_resuming, measured_before
from swinmpi.storage.pictures.done import count_done, range_before
from swinmpi.storage.pictures.journal import NAME
from swinmpi.storage.pictures.source import PictureStack
from swinmpi.storage.pictures.store import PictureStore
from swinmpi.storage.stack import Stack
from swinmpi.storage.values import ValueRange


class Results:
    """The way to the output, on every rank. A context manager.

    datasets: names and dtypes of what is stored of every image. members_before: of an ensemble
    that grows, where they are known. error_bars: of an ensemble, where they are known. usual: the
    images that the checkpoint knows, if it tells. value_range and remaining (image indices still to
    do) are the same on every rank. The file is open on rank 0, with `output.backend: mpio` on all
    until `drain`.
    """

    def __init__(self, plan: SamplingPlan, world: World, stack: Stack | PictureStack):
        """Collective; creates or resumes OUT.partial."""
        self.plan, self.world, self.stack = plan, world, stack
        stored = output_plan(plan.request, plan.config)
        self.datasets = pixel_datasets(stored, stack.dtype)
        self.usual = stored.usual
        self.output: StackOutput | PictureStore | None = None
        self.failed: dict[int, str] = {}
        # On rank 0, by image made in this run; of others how unlike they are, alone.
        self.figures: dict[str, Mapping[str, float]] = {}
        self.range_in_words = ""  # on rank 0
        self.value_range, self.remaining, partial = world.on_root(self._open)
        if world.is_root and self.usual is not None:
            self.figures |= {stack.short_name_of(index): scores
                             for index, scores in self.output.scores_before().items()}
        self.members_before = (ExactMembers(plan.request.output, plan.request.members.first, stack)
                               if plan.request.first_sampled else None)
        self.error_bars = output_plan(plan.request, plan.config, self.value_range.span).error_bars
        self.delivery = self._delivery(partial)
        self.progress = Progress(stack.num_images, "images", stack.num_images - len(self.remaining),
                                 world.is_root)

    def _open(self) -> tuple[ValueRange, list[int], Path]:
        request, config, stack = self.plan.request, self.plan.config, self.stack
        with self.world.stopwatch.of("storage"):
            if request.pictures is not None:
                return self._open_pictures()
            settled, self.fingerprint = identify(self.plan, stack, FEWEST_TOGETHER)
            stored = output_plan(request, config, settled.values.span)
            self.output = StackOutput.open(request.output, stack, stored,
                                           self.fingerprint, request.overwrite,
                                           range_is_measured=settled.is_measured)
            self._tell(settled)
            return settled.values, self.output.remaining(), self.output.partial

    def _open_pictures(self) -> tuple[ValueRange, list[int], Path]:
        request, config, job = self.plan.request, self.plan.config, self.plan.request.pictures
        self.output = PictureStore(request.output, self.stack, config.model.scale, job.settings,
                                   request.overwrite)
        settled = settle(self.plan, self.stack, self.output.range_before(), FEWEST_TOGETHER)
        if settled.is_measured:
            self.output.keep_range(settled.values)
        self._tell(settled)
        self.fingerprint = fingerprint(self.plan, self.stack, job.settings["checkpoint"],
                                       settled.values)
        return settled.values, self.output.remaining(), request.output

    def _tell(self, settled: SettledRange) -> None:
        for remark in settled.remarks:
            print(f"swinmpi: {remark}", file=sys.stderr, flush=True)
        self.range_in_words = f"values {settled.values} become -1 to 1 ({settled.how})"

    def _delivery(self, partial: Path) -> Delivery:
        stack, scale = self.stack, self.plan.config.model.scale
        to_output = self.world, self.output, self.datasets, stack.height * stack.width * scale**2
        if self.plan.config.output.backend == "gather":
            return GatherDelivery(*to_output)
        if self.world.is_root:
            self.output.hand_over()
        return SharedDelivery(*to_output, SharedPartial(partial, stack.layout, list(self.datasets),
                                                        self.world.comm))

    def send(self, parts: Sequence[Part]) -> None:
        """From any rank, pixels (k, C, h, w) in the order of `datasets`; they must not change any
        more. Does not wait."""
        for part in parts:
            self.delivery.send(part)

    def complete(self, shard_index: int, figures: Mapping[str, float]) -> None:
        """From one rank of a group: the figures of an image whose parts its ranks send, none where
        the network does not make it. Does not wait."""
        self.delivery.send(Ending(shard_index, figures))

    def give_up(self, shard_index: int, reason: str) -> None:
        """From one rank of a group: an image that cannot be made. Does not wait."""
        self.delivery.send(Ending(shard_index, reason))

    def store(self) -> None:
        """On every rank, once per round: write what is here. Collective with `output.backend:
        mpio`; with `gather` only rank 0 ever waits, and only for what was sent a round before."""
        self._conclude(self.delivery.store())

    def drain(self) -> None:
        """Wait for everything on its way, and write it. Collective, once, at the end."""
        self._conclude(self.delivery.drain())

    def finish(self, plan: SamplingPlan, report: RunReport) -> None:
        """On rank 0: pack the output, with the plan as it was carried out."""
        if self.world.is_root:
            with self.world.stopwatch.of("storage"):
                self.output.finish(provenance(plan, self.stack, report, self.fingerprint),
                                   self.failed)

    def _conclude(self, endings: Iterator[Ending]) -> None:
        for ending in endings:
            if ending.given_up:
                self.failed[ending.shard_index] = ending.notes
                print(f"swinmpi: {ending.notes}", file=sys.stderr, flush=True)
            else:
                name = self.stack.short_name_of(ending.shard_index)
                self.figures[name] = dict(ending.notes)
            self.progress.advance()

    def __enter__(self) -> "Results":
        return self

    def __exit__(self, kind, error: BaseException | None, trace) -> None:
        self.progress.__exit__(kind, error, trace)
        if error is None or raised_by_all(error):
            self.delivery.close()
        if self.members_before is not None:
            self.members_before.close()
        if self.output is not None:
            self.output.close()


def rehearse(plan: SamplingPlan) -> tuple[SettledRange, int]:
    """(the value range of a run, as it will be; how many images are done before). Reads
    the whole stack for it. On one process.

    OutputError where an OUT.partial is there that the run would not go on from, or where another
    run writes. Writes nothing.
    """
    request = plan.request
    with open_stack(request) as stack:
        if request.pictures is not None:
            check_unlocked(request.output / NAME)
            before = None if request.overwrite else range_before(request.output, stack)
            num_done = count_done(request.output, stack, request.pictures.settings,
                                  request.overwrite)
            return settle(plan, stack, before), num_done
        settled, deciding = identify(plan, stack)
        stored = output_plan(request, plan.config, settled.values.span)
        return settled, check_resuming(request.output, stack, stored, deciding, request.overwrite)


def settle(plan: SamplingPlan, stack: Stack | PictureStack, before: ValueRange | None,
           fewest: int = 1) -> SettledRange:
    """The value range of a stack; a run that begins says as well how unlike the trained images it
    looks, where it has `fewest` of them: few are told one by one in the end."""
    settled = settle_range(plan.config.output.value_range, stack, trained_of(plan), before)
    usual = usual_in(read_header(plan.request.checkpoint)) if before is None else None
    unlike = how_unlike(stack, usual, settled.values, fewest)
    return replace(settled, remarks=(*settled.remarks, *filter(None, [unlike])))


def trained_of(plan: SamplingPlan) -> TrainedRange | None:
    """The range that the plan's checkpoint was trained on, where it matters."""
    if plan.config.output.value_range is not None:
        return None
    return trained_range(read_header(plan.request.checkpoint), plan.request.checkpoint)


def identify(plan: SamplingPlan, stack: Stack, fewest: int = 1) -> tuple[SettledRange, dict]:
    """(the value range, the fingerprint) of a run; OutputError where it would add members to
    others. fewest: see `settle`."""
    request, checkpoint = plan.request, file_sha256(plan.request.checkpoint)
    # To measure it is to read the whole stack: not once more after every interruption.
    before = measured_before(request.output, stack.identity(), checkpoint)
    settled = settle(plan, stack, before, fewest)
    deciding = fingerprint(plan, stack, checkpoint, settled.values)
    if request.members is not None:
        made_with = check_extended(request.output, request.members)
        check_same_settings(request.output, made_with, deciding)
    return settled, deciding
