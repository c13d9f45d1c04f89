"""The part of swinmpi-sample's command line that is `--sweep`."""
from argparse import ArgumentParser, Namespace

from swinmpi.errors import ConfigError
from swinmpi.parallel.comm import World
from swinmpi.parallel.launch import StopFlag

MOST_COMBINATIONS = 24


def add_options(parser: ArgumentParser) -> None:
    made = parser.add_argument_group("choosing settings on a few images, before the long run")
    made.add_argument("--sweep", action="append", default=[], metavar="KEY=V1,V2",
                      help="try values of sampler.* or output.consistent, in all combinations "
                      "(repeatable), on --frames (default: the first, the middle, the last): "
                      "sweep.png, sweep.md and sweep.csv in the folder --output")
    made.add_argument("--reference", metavar="HR", help="with --sweep: the true HR stack")
    made.add_argument("--most-combinations", type=int, metavar="N",
                      default=MOST_COMBINATIONS, help="with --sweep: more than 24")


def check_options(options: Namespace) -> None:
    """ConfigError for what means nothing without --sweep, or cannot be meant with it."""
    if not options.sweep:
        for name, is_given in (("--reference", options.reference is not None),
                               ("--most-combinations",
                                options.most_combinations != MOST_COMBINATIONS)):
            if is_given:
                raise ConfigError(f"{name}: expected --sweep beside it, got it alone; leave it "
                                  "out, or compare with swinmpi-evaluate")
    elif len(options.inputs) > 1:
        raise ConfigError(f"--sweep: expected one HDF5 stack, got {len(options.inputs)} inputs")
    elif options.output == "":
        raise ConfigError("--output: expected a name, got none")


def sweep_plan(options: Namespace, request, given, num_ranks: int):
    """The SweepPlan of a SampleRequest and GivenSettings, validated. On one process."""
    from swinmpi.sampling.looks.asked import plan_asked
    asked = plan_asked(request, given, options.sweep, options.most_combinations,
                       options.reference)
    from swinmpi.sampling.looks.sweep import plan_sweep
    return plan_sweep(asked, num_ranks)


def sweep_on(world: World, stop: StopFlag, plan) -> None:
    """Carry it out on all ranks, print on rank 0. Collective."""
    from swinmpi.sampling.looks.sweep import run
    from swinmpi.sampling.looks.tables import as_text
    rows = run(plan, world, stop)
    if world.is_root:
        print(f"{as_text(rows)}\nwritten: {', '.join(map(str, plan.written))}", flush=True)
