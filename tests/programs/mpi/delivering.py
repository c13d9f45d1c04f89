"""Series of calls of Results whose finished files are known: argv is BACKEND FOLDER SERIES...

SERIES `killed`: one rank is killed when the pixels of some images are safe and their flags are not
set; `resumed` goes on.
"""
import os
import signal
import sys
from pathlib import Path

import numpy as np

from swinmpi.config import load_config
from swinmpi.demo import DEMO_MODEL, MODELS, shipped
from swinmpi.errors import OutputError
from swinmpi.parallel import relay
from swinmpi.parallel.launch import start_mpi
from swinmpi.parallel.relay import Part

SCALE, NUM_IMAGES, SIDES = 2, 7, (52, 38)  # of an SR image
GIVEN_UP = 3
STACKS = {"grey": ((NUM_IMAGES, 26, 19), "u2"), "last": ((NUM_IMAGES, 26, 19, 3), ">u2"),
          "first": ((NUM_IMAGES, 3, 26, 19), "f4")}
CUT_OFF = "last"  # the stack whose run is killed
SERIES = ("whole", "parts", "uneven", "given up")
DATASETS = ("sr", "regression", "sr_mean", "sr_spread")


def expected_pixels(shard_index: int, channels: int) -> np.ndarray:
    """(k, C, H, W) float32 that any of the dtypes can hold, every value another one in its
    image and dataset."""
    size = channels * SIDES[0] * SIDES[1]
    images = np.arange(size) + 100 * shard_index + np.arange(len(DATASETS))[:, None]
    return images.reshape(len(DATASETS), channels, *SIDES).astype(np.float32)


def figures_of(shard_index: int) -> dict[str, float]:
    return {"lr_psnr": 40.0 + shard_index, "seam_score": 1.0 / (1 + shard_index)}


def tiles(shard_index: int, channels: int) -> list[Part]:
    """An image in 11 parts of unequal sizes, one of them empty."""
    pixels, rows, columns = expected_pixels(shard_index, channels), (0, 1, 20, 52), (0, 17, 18, 38)
    parts = [Part(shard_index, top, left, pixels[..., top:bottom, left:right])
             for top, bottom in zip(rows, rows[1:], strict=False)
             for left, right in zip(columns, columns[1:], strict=False)]
    last = parts.pop()
    return [*parts, *(Part(shard_index, last.top + first, last.left, last.pixels[..., first:end, :])
                      for first, end in ((30, 32), (0, 30), (30, 30)))]


def send_whole(results, world, shard_index, channels):
    """One rank has the image."""
    if shard_index % world.size == world.rank:
        results.send([Part(shard_index, 0, 0, expected_pixels(shard_index, channels))])
        results.complete(shard_index, figures_of(shard_index))


def send_parts(results, world, shard_index, channels):
    """Every rank has some tiles, in an order of its own; the figures come from any of the ranks,
    before its tiles."""
    parts = tiles(shard_index, channels)
    order = np.random.default_rng(shard_index).permutation(len(parts))
    if world.rank == shard_index % world.size:
        results.complete(shard_index, figures_of(shard_index))
    results.send([parts[number] for number in order if number % world.size == world.rank])


def deliver(results, world, series, channels):
    """Rounds of two images; `uneven`: the ranks leave after different numbers of rounds,
    and some send nothing."""
    send = send_whole if series in ("whole", "uneven") else send_parts
    for position, shard_index in enumerate(results.remaining):
        if series == "given up" and shard_index == GIVEN_UP:
            results.send(tiles(shard_index, channels)[world.rank:2 * world.size:world.size])
            if world.is_root:
                results.give_up(shard_index, f"image {GIVEN_UP} cannot be made")
        else:
            send(results, world, shard_index, channels)
        if position % 2 and (series != "uneven" or position < 2 + 2 * world.rank):
            results.store()
    results.drain()


def kill_between_pixels_and_flag(backend, world):
    """After the third image: with gather rank 0, the only one that writes;
    with mpio the last rank."""
    from swinmpi.storage.outputs.mpio import SharedPartial
    from swinmpi.storage.outputs.output import StackOutput
    kind, calls = (StackOutput, 5) if backend == "gather" else (SharedPartial, 3)
    flush, doomed = kind._flush, 0 if backend == "gather" else world.size - 1
    flushed = []

    def flush_and_die(output):
        flush(output)
        flushed.append(output)
        if len(flushed) == calls and world.rank == doomed:
            os.kill(os.getpid(), signal.SIGKILL)

    kind._flush = flush_and_die


def run(backend, folder, series, stack_name, world):
    from swinmpi.reports.timing import RunReport
    from swinmpi.sampling.distribution import Distribution
    from swinmpi.sampling.plan import SamplingPlan
    from swinmpi.sampling.process import sampling_grid
    from swinmpi.sampling.request import SampleRequest, output_plan
    from swinmpi.sampling.results import Results
    from swinmpi.storage.outputs.output import StackOutput
    from swinmpi.storage.stack import Stack
    config = load_config(overrides=["output.regression=true", "output.value_range=[0,60000]"])
    config = config.replaced(output={"backend": backend})
    output = folder / f"{'resumed' if series == 'killed' else series}-{stack_name}.h5"
    request = SampleRequest(str(folder / f"{stack_name}.h5"), output,
                            shipped(MODELS[DEMO_MODEL]), ensemble=2)
    grid = sampling_grid(config.sampler.shift, config.model.window_px, *SIDES)
    distribution = Distribution((range(world.size),), "all", 2, 1)
    with Stack.open(request.stack) as stack:
        plan = SamplingPlan(request, config, stack, True, grid, NUM_IMAGES, distribution)
    with Stack.open(request.stack) as stack, Results(plan, world, stack) as results:
        if world.is_root:
            assert_refused(lambda: StackOutput.open(output, stack, output_plan(request, config),
                                                    results.fingerprint))
            if series == "resumed":
                print(f"{stack_name}: {len(results.remaining)} to go", flush=True)
        deliver(results, world, series, stack.channels)
        assert sorted(results.failed) == ([GIVEN_UP] if series == "given up" and world.is_root
                                          else []), results.failed
        results.finish(plan, RunReport(NUM_IMAGES, 1.0, {}, results.failed))


def assert_refused(opening):
    try:
        opening()
    except OutputError as error:
        assert "another run is writing it" in str(error), error
    else:
        raise AssertionError("a second run could open the output")


if __name__ == "__main__":
    with start_mpi() as world:
        backend, folder, *wanted = sys.argv[1:]
        relay.CHUNK_BYTES, relay.IN_FLIGHT_BYTES = 20_000, 45_000
        if wanted == ["killed"]:
            kill_between_pixels_and_flag(backend, world)
        for series in wanted:
            for stack_name in [CUT_OFF] if series in ("killed", "resumed") else STACKS:
                run(backend, Path(folder), series, stack_name, world)
        if world.is_root:
            print("delivered")
