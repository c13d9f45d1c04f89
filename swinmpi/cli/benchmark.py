"""swinmpi-benchmark: what sampling costs on this machine, with the ranks it is started on."""
import json
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence
from pathlib import Path

from swinmpi.cli.options import make_parser, parse, run_command
from swinmpi.config import load_config
from swinmpi.demo import DEMO_MODEL, MODELS, shipped
from swinmpi.errors import ConfigError, SwinmpiError
from swinmpi.parallel.comm import World
from swinmpi.parallel.launch import launcher_rank, start_mpi

PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
IMAGES = {"thesis": 1, "sample": 8, "scaling": 1, "gpu-check": 2}
SIZE_PX = {"thesis": 64, "sample": 128, "scaling": 512, "gpu-check": 1024}


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(run, argv)


def run(argv: Sequence[str] | None) -> None:
    options = parse(parser(), argv)
    if options.dry_run:
        if not launcher_rank():
            show_plan(options)
        return
    with start_mpi() as world:
        benchmark_on(world, options)


def parser() -> ArgumentParser:
    made = make_parser(
        "benchmark", "Seconds per image, where they go, and memory; a table and benchmark.json.",
        "swinmpi-benchmark thesis\n  mpirun -n 2 swinmpi-benchmark sample --micro-batches 1,2,4,8 "
        "--precisions fp32,bf16\n  mpirun -n 2 swinmpi-benchmark scaling", presets=True)
    made.add_argument(
        "what", choices=list(IMAGES), help="thesis: the published setting with random weights, all "
        "that makes it fast against none of it; sample: a trained model; scaling: the same on 1, "
        "2, 4 ... of the ranks it is started on, on one rank with as many threads, by every "
        "exchange; gpu-check: all that a GPU should be asked, in minutes, without mpirun")
    made.add_argument("--images", type=int, metavar="N", help="images per repeat (1; sample: 8; "
                      "scaling: for each rank, 1; gpu-check: 2)")
    made.add_argument("--size", type=int, metavar="PX", help="side of the SR images (64; sample: "
                      "128; scaling: 512; gpu-check: 1024)")
    made.add_argument("--steps", type=int, metavar="N", help="sampler steps (100; sample and "
                      "scaling: the checkpoint's); with few, the encoder cache of `thesis` saves "
                      "little")
    made.add_argument("--repeats", type=int, default=3, metavar="N",
                      help="settings take turns this often (3)")
    made.add_argument("--output", type=Path, default=Path("swinmpi-out/benchmark"),
                      metavar="FOLDER",
                      help="for benchmark.json (default: swinmpi-out/benchmark)")
    made.add_argument("--checkpoint", type=Path, default=shipped(MODELS[DEMO_MODEL]),
                      metavar="FILE", help="weights of swinmpi-train (default: the shipped model); "
                      "not for thesis")
    only = made.add_argument_group("sample only")
    only.add_argument("--micro-batches", type=sizes, default=(), metavar="N,N,...",
                      help="sizes to compare")
    only.add_argument("--precisions", type=precisions, default=(), metavar="P,P,...",
                      help=f"precisions to compare, of {', '.join(PRECISIONS)}")
    return made


def sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ArgumentTypeError(f"expected whole numbers such as 1,2,4, got {text!r}") from None


def precisions(text: str) -> tuple[str, ...]:
    if unknown := set(text.split(",")) - set(PRECISIONS):
        raise ArgumentTypeError(f"expected some of {','.join(PRECISIONS)}, got "
                                f"{','.join(sorted(unknown))!r}")
    return tuple(text.split(","))


def plan_of(options: Namespace):
    """The plan of a command line, validated. On one process."""
    from swinmpi.benchmarks.benchmark import THESIS, BenchmarkRequest, plan
    from swinmpi.sampling.settings import resolve_config
    from swinmpi.storage.header import read_header
    steps = [] if options.steps is None else [f"sampler.steps={options.steps}"]
    overrides = [*options.overrides, *steps]
    if options.what == "thesis":
        config = load_config(options.config, overrides, options.preset, THESIS)
    else:
        config = resolve_config(read_header(options.checkpoint), options.checkpoint,
                                options.config, overrides, options.preset)
    request = BenchmarkRequest(
        options.what, IMAGES[options.what] if options.images is None else options.images,
        SIZE_PX[options.what] if options.size is None else options.size, options.repeats,
        options.checkpoint, options.micro_batches, options.precisions)
    return plan(request, config)


def benchmark_on(world: World, options: Namespace) -> None:
    """Validate on rank 0, measure on all ranks, print on rank 0. Collective."""
    plan = world.on_root(lambda: ready(options, world.size))
    from swinmpi.benchmarks.benchmark import as_text, run
    from swinmpi.storage.files import write_atomically
    report = run(plan, world)
    if world.is_root:
        path = options.output / "benchmark.json"
        write_atomically(path, (json.dumps(report, indent=1) + "\n").encode())
        print(f"{as_text(report)}\n{draw(report, options.output)}written: {path}", flush=True)


def draw(report: dict, folder: Path) -> str:
    """A line on the picture of `scaling`, or why there is none. On one process."""
    if report["what"] != "scaling":
        return ""
    from swinmpi.benchmarks.scaling_report import draw_scaling
    path = folder / "scaling.png"
    try:
        draw_scaling(report, path)
    except SwinmpiError as error:
        return f"{error}\n"
    return f"written: {path}\n"


def ready(options: Namespace, num_ranks: int = 1):
    """The plan; the output folder exists. On one process."""
    from swinmpi.evaluation.files import make_folder
    if options.what == "gpu-check" and num_ranks > 1:
        raise ConfigError(f"gpu-check: expected one rank, got {num_ranks}; start it without "
                          "mpirun, it starts 2 and 4 ranks itself")
    plan = plan_of(options)
    make_folder(options.output)
    return plan


def show_plan(options: Namespace) -> None:
    from swinmpi.benchmarks.benchmark import describe
    print(describe(plan_of(options)))


if __name__ == "__main__":
    sys.exit(main())
