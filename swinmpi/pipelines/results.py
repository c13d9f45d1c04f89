"""What becomes of finished images: they travel to rank 0, which writes them and in the end packs the output."""
import sys

import numpy as np

from swinmpi.config import Config
from swinmpi.parallel.comm import World
from swinmpi.parallel.exchange import FinishedImage, ImageRelay
from swinmpi.pipelines.layout import Layout
from swinmpi.pipelines.progress import Progress
from swinmpi.pipelines.provenance import fingerprint, provenance
from swinmpi.pipelines.request import SampleRequest, output_plan
from swinmpi.pipelines.timing import Clock, RunReport
from swinmpi.storage.output import StackOutput, pixel_datasets
from swinmpi.storage.stack import Stack
from swinmpi.storage.values import ValueRange


class Results:
    """The way to the output, on every rank; the file itself is open on rank 0 only. A context manager.

    value_range and remaining (image indices still to do) are the same on every rank.
    """

    def __init__(self, request: SampleRequest, config: Config, world: World, stack: Stack, checkpoint_sha256: str,
                 clock: Clock):
        """Collective; creates or resumes OUT.partial."""
        self.request, self.config, self.world, self.stack = request, config, world, stack
        self.checkpoint_sha256, self.clock = checkpoint_sha256, clock
        self.datasets = pixel_datasets(output_plan(request, config), stack.dtype)
        self.relay = ImageRelay(world)
        self.output: StackOutput | None = None
        self.failed: dict[int, str] = {}
        self.value_range, self.remaining = world.on_root(self._open)
        self.progress = Progress(stack.num_images, "images", stack.num_images - len(self.remaining), world.is_root)

    def _open(self) -> tuple[ValueRange, list[int]]:
        request, config, stack = self.request, self.config, self.stack
        with self.clock.storage():
            if request.new_folder:
                request.output.parent.mkdir(parents=True, exist_ok=True)
            given = config.output.value_range
            value_range = ValueRange(*given) if given else stack.range()
            deciding = fingerprint(request, config, stack, self.checkpoint_sha256, value_range)
            self.output = StackOutput.open(request.output, stack, output_plan(request, config), deciding, request.overwrite)
            return value_range, self.output.remaining()

    def send(self, image_index: int, pixels: np.ndarray, figures: dict[str, float]) -> None:
        """From the root of a group: pixels (k, C, H, W) float32 in the order of `datasets`. Does not wait."""
        self.relay.send(FinishedImage(image_index, pixels, figures))

    def give_up(self, image_index: int, reason: str) -> None:
        """From the root of a group: an image that cannot be made."""
        self.relay.send(FinishedImage(image_index, np.empty(0, np.float32), reason))

    def store(self) -> None:
        """On rank 0: write what has arrived. Does not wait."""
        if self.world.is_root:
            for image in self.relay.arrived():
                self._write(image)

    def drain(self) -> None:
        """Wait for every image on its way, and write it. Collective, once, at the end."""
        coming = self.relay.finish()
        while True:
            with self.clock.waiting():
                image = next(coming, None)
            if image is None:
                return
            self._write(image)

    def finish(self, layout: Layout, report: RunReport) -> None:
        """On rank 0: pack the output."""
        if self.world.is_root:
            with self.clock.storage():
                self.output.finish(provenance(self.request, self.config, self.stack, self.checkpoint_sha256,
                                              self.value_range, layout, report), self.failed)

    def _write(self, image: FinishedImage) -> None:
        if isinstance(image.notes, str):
            self.failed[image.image_index] = image.notes
            print(f"swinmpi: {image.notes}", file=sys.stderr, flush=True)
        else:
            arrays = {name: pixels.astype(self.datasets[name])
                      for name, pixels in zip(self.datasets, image.pixels, strict=True)}
            with self.clock.storage():
                self.output.write(image.image_index, arrays, image.notes)
        self.progress.advance()

    def __enter__(self) -> "Results":
        return self

    def __exit__(self, *error) -> None:
        self.progress.__exit__(*error)
        if self.output is not None:
            self.output.close()
