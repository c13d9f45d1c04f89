"""swinmpi-experiment: an experiment of the thesis, on the ranks it is started on."""
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence
from pathlib import Path

from swinmpi.cli.options import make_parser, parse, run_command, speaks_for_all
from swinmpi.errors import ConfigError
from swinmpi.parallel.comm import World
from swinmpi.parallel.launch import (
    StopFlag,
    init_torch_distributed,
    launcher_size,
    start_mpi,
)
from swinmpi.parallel.shares import Shard

BUDGETS = ("smoke", "short", "full")


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(run, argv)


def run(argv: Sequence[str] | None) -> None:
    options = parse(parser(), argv)
    if options.dry_run or options.report:
        if speaks_for_all():
            (show_plan if options.dry_run else join)(options)
        return
    with start_mpi() as world, StopFlag() as stop:
        experiment_on(world, stop, options)


def parser() -> ArgumentParser:
    made = make_parser(
        "experiment", "Repeat an experiment of the thesis: train, sample and judge its arms with "
        "equal budgets.",
        "swinmpi-experiment step_size --budget smoke --output runs/step_size\n  "
        "mpirun -n 2 swinmpi-experiment step_size --budget short --data photographs/ "
        "--output runs/step_size")
    made.add_argument("name", metavar="NAME", help="one of configs/experiments, or a file .yaml")
    made.add_argument("--budget", choices=BUDGETS, default="smoke",
                      help="smoke: seconds, on the shipped stack; short: about an hour on two "
                      "cores; full: the thesis's own setting (default: smoke)")
    made.add_argument("--data", action="append", default=[], metavar="INPUT",
                      help="photographs: a folder, a list .tsv or an HDF5 stack (repeatable)")
    made.add_argument("--root", type=Path, metavar="DIR",
                      help="where the paths of a list start (its own folder)")
    made.add_argument("--output", type=Path, metavar="FOLDER",
                      help="for data, weights, samples and the report "
                      "(default: swinmpi-out/experiments/NAME-BUDGET)")
    made.add_argument("--arm", type=part, metavar="I/N",
                      help="only part I (1..N) of the arms, for N jobs without each other; "
                      "whichever is last writes the report")
    made.add_argument("--report", action="store_true",
                      help="only write the report of arms that are done")
    made.add_argument("--lpips-backbone", type=Path, metavar="FILE",
                      help="AlexNet's weights for LPIPS (default: the copy in TORCH_HOME; "
                      "never downloaded)")
    made.add_argument("--inception", type=Path, metavar="FILE",
                      help="Inception's weights for FID, of torch-fidelity (default: the copy in "
                      "TORCH_HOME; never downloaded)")
    return made


def part(text: str) -> Shard:
    """2/4 -> part 2 of 4."""
    number, _, of = text.partition("/")
    try:
        return Shard(int(number), int(of))
    except ValueError:
        raise ArgumentTypeError(f"expected I/N with I of 1..N, such as 2/4, got {text!r}") from None


def output_of(options: Namespace) -> Path:
    """The folder of a command line."""
    default = Path("swinmpi-out") / "experiments" / f"{Path(options.name).stem}-{options.budget}"
    return options.output or default


def plan_of(options: Namespace, num_ranks: int):
    """The plan of a command line, validated. On one process."""
    from swinmpi.config.loading import merge
    from swinmpi.config.strict_yaml import parse_override, read_yaml
    from swinmpi.experiments.definition import load_experiment
    from swinmpi.experiments.plan import Request, plan
    if options.root is not None and not options.data:
        raise ConfigError("--root: expected --data LIST.tsv beside it, got none")
    given: dict = {}
    for values in (*map(read_yaml, options.config), *map(parse_override, options.overrides)):
        given = merge(given, values)
    request = Request(options.name, output_of(options), options.budget, tuple(options.data),
                      options.root, given, options.arm, options.lpips_backbone, options.inception)
    return plan(request, load_experiment(options.name), num_ranks)


def experiment_on(world: World, stop: StopFlag, options: Namespace) -> None:
    """Validate on rank 0, do the arms on all ranks. Collective."""
    plan = world.on_root(lambda: plan_of(options, world.size))
    import torch

    from swinmpi.experiments.experiment import run as run_experiment
    from swinmpi.parallel.device import start_computing
    from swinmpi.parallel.worker import Worker, leave_torch_distributed
    parallel = plan.runs[0].config.parallel
    device = torch.device(start_computing(parallel.device, parallel.threads, world.node))
    if world.size > 1:
        init_torch_distributed("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", world)
    written = run_experiment(plan, world, Worker(world.rank, world.size, device), stop)
    world.on_root(lambda: tell(written, options))
    if world.size > 1:
        # Only here: ranks that leave by an error do not wait for each other.
        leave_torch_distributed()


def tell(written: Sequence[Path], options: Namespace) -> None:
    """What there is now. On one process."""
    if written:
        print(f"written: {', '.join(map(str, written))}", flush=True)
    else:
        print(f"{output_of(options)}: arms of other jobs are not done; the last one, or --report, "
              "writes the report", flush=True)


def join(options: Namespace) -> None:
    """The report alone. On one process."""
    from swinmpi.experiments.experiment import report
    tell(report(plan_of(options, 1)), options)


def show_plan(options: Namespace) -> None:
    """What a run would do and cost. On one process."""
    from swinmpi.experiments.cost import describe
    print(describe(plan_of(options, launcher_size() or 1), launcher_size() or 1))


if __name__ == "__main__":
    sys.exit(main())
