"""swinmpi-sample: super-resolve a stack; without arguments the shipped one, with
the shipped model."""
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from swinmpi.cli.models import HELP, LIST, list_models, weights_of, words_on_models
from swinmpi.cli.options import make_parser, parse, run_command, speaks_for_all
from swinmpi.cli.sweeping import add_options, check_options, sweep_on, sweep_plan
from swinmpi.config import Config
from swinmpi.demo import DEMO_MODEL, DEMO_SCALE, DEMO_STACK, shipped
from swinmpi.errors import ConfigError, SomeImagesFailed, SwinmpiError
from swinmpi.parallel.comm import World
from swinmpi.parallel.launch import StopFlag, launcher_rank, launcher_size, start_mpi
from swinmpi.parallel.shares import Shard

DEMO_FOLDER = Path("swinmpi-out")
SPREAD_IS_NO_ERROR = ("sr_spread is the spread of the samples, no error bar: how far it is from "
                      "the truth is not known until swinmpi-evaluate compares it with one")


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(run, argv)


def run(argv: Sequence[str] | None) -> None:
    options = parse(parser(), argv)
    if options.model == LIST:
        if speaks_for_all():
            print(list_models())
    elif not options.dry_run:
        with start_mpi() as world, StopFlag() as stop:
            sample_on(world, stop, options)
    elif not launcher_rank():
        show_plan(options)


def parser() -> ArgumentParser:
    made = make_parser("sample",
                       "Super-resolve HDF5 stacks or pictures; without INPUT the shipped stack.",
                       "mpirun -n 4 swinmpi-sample scan.h5::/entry/data --output scan_x2.h5 "
                       "--preset faithful", presets=True)
    made.add_argument("inputs", nargs="*", metavar="INPUT",
                      help="LR stack, file.h5 or file.h5::/path; or pictures (PNG, JPEG, WebP, "
                      "TIFF), folders of them, several stacks")
    made.add_argument("--output", metavar="OUT",
                      help="HDF5 file to write (default: INPUT's name with _x2, _x4); for pictures "
                      "and several inputs, or where it ends with /, a folder")
    model = made.add_mutually_exclusive_group()
    model.add_argument("--checkpoint", type=Path, metavar="FILE",
                       help="weights of swinmpi-train (.safetensors)")
    model.add_argument("--model", metavar="NAME", default=DEMO_MODEL,
                       help=f"{HELP} (default: {DEMO_MODEL})")
    made.add_argument("--ranks-per-image", metavar="G",
                      help="split the ranks into groups of G, an image each (or auto, all)")
    made.add_argument("--ensemble", type=int, default=1, metavar="K",
                      help="also write mean and deviation of K samples")
    made.add_argument("--members", metavar="A:B",
                      help="add members A to B - 1 to the ensemble of A that OUT is, made with "
                      "output.members=true and the same settings")
    made.add_argument("--trust", metavar="RISK",
                      help="with --ensemble: mark the pixels of which on average at most this "
                      "share (0.1) is wrong, as sr_trust; the model must be calibrated")
    made.add_argument("--tolerance", metavar="ERROR",
                      help="with --trust: what is wrong is farther from the truth than this, in "
                      "the units of the data, or such as 2%% of their range (default: 3.9%%, 10 "
                      "levels of 8 bit)")
    made.add_argument("--shard", type=shard, metavar="I/N",
                      help="only part I (1..N) of the images, into "
                      "OUT.shard-I-of-N.h5, for N jobs without each other; then swinmpi-merge")
    made.add_argument("--frames", metavar="LIST",
                      help="only these images along the stack's first axis, such as 4: or 0,10,-1")
    made.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    made.add_argument("--allow-external", action="store_true",
                      help="follow links into other HDF5 files")
    add_options(made)
    return made


def shard(text: str) -> Shard:
    """2/4 -> part 2 of 4."""
    number, _, of = text.partition("/")
    try:
        return Shard(int(number), int(of))
    except ValueError:
        raise ArgumentTypeError(f"expected I/N with I of 1..N, such as 2/4, got {text!r}") from None


def sample_on(world: World, stop: StopFlag, options: Namespace) -> None:
    """Validate on rank 0, sample on all ranks, print on rank 0. Collective."""
    if options.sweep:
        sweep_on(world, stop, world.on_root(lambda: plan_sweep_of(options, world.size)))
        return
    checked = world.on_root(lambda: checked_of(options))
    if checked is None:
        plan = world.on_root(lambda: plan_of_many(options, world.size))
        from swinmpi.sampling.many import run_many
        report, failed = run_many(plan, world, stop)
        world.on_root(lambda: conclude_many(plan, report, failed))
        return
    # torch takes seconds to import: on all ranks at once, not on root before it plans.
    from swinmpi.sampling.plan import plan as planned
    from swinmpi.sampling.sample import run
    plan = world.on_root(lambda: planned(*checked, world.size))
    world.on_root(lambda: tell_before(options, plan))
    report = run(plan, world, stop)
    world.on_root(lambda: conclude(options, plan, report))


def plan_of(options: Namespace, num_ranks: int):
    """The plan of a command line, validated: a SamplingPlan, or a ManyPlan for pictures and several
    inputs. On one process."""
    checked = checked_of(options)
    if checked is None:
        return plan_of_many(options, num_ranks)
    from swinmpi.sampling.plan import plan
    return plan(*checked, num_ranks)


def plan_of_many(options: Namespace, num_ranks: int):
    """The ManyPlan of a command line, validated. On one process."""
    if options.members is not None:
        raise ConfigError("--members: expected one HDF5 stack, got pictures or several inputs; "
                          "add members to one output at a time")
    from swinmpi.sampling.many import plan_many
    return plan_many(options.inputs, request_of(options), settings_given(options), num_ranks)


def checked_of(options: Namespace):
    """(request, configuration) of one stack, validated without torch; None for pictures and several
    inputs. On one process."""
    from swinmpi.sampling.validation import validated
    check_options(options)
    if writes_folder(options):
        return None
    request, config = validated(request_of(options), settings_given(options))
    if not options.inputs:
        check_demo(config, request.checkpoint)
    return request, config


def plan_sweep_of(options: Namespace, num_ranks: int):
    """The plan of `--sweep`, validated. On one process."""
    check_options(options)
    request, given = request_of(options), settings_given(options)
    if not options.inputs:
        from swinmpi.evaluation.demo import HR
        options.reference = options.reference or f"{shipped(DEMO_STACK)}::{HR}"
        request = replace(request, output=Path(options.output or DEMO_FOLDER / "sweep"),
                          overwrite=options.overwrite)
    return sweep_plan(options, request, given, num_ranks)


def writes_folder(options: Namespace) -> bool:
    """Whether the output is a folder; ConfigError for an empty name, as of an unset variable."""
    from swinmpi.storage.pictures.listing import are_many
    if options.output == "":
        raise ConfigError("--output: expected a name, got none")
    named = (options.output or "").endswith("/")
    return bool(options.inputs) and (named or are_many(options.inputs))


def request_of(options: Namespace):
    """What the command line asks for, not validated."""
    from swinmpi.sampling.request import SampleRequest, TrustAsked, View
    demo = not options.inputs
    output = None if options.output is None else Path(options.output)
    # Only in its own folder does the demo replace what is there: a forgotten INPUT must not.
    in_own_folder = demo and output is None
    return SampleRequest(str(shipped(DEMO_STACK)) if demo else options.inputs[0],
                         DEMO_FOLDER / "sr.h5" if in_own_folder else output,
                         weights_of(options),
                         options.ensemble,
                         overwrite=options.overwrite or in_own_folder,
                         allow_external=options.allow_external,
                         shard=options.shard, keeps_regression=demo,
                         view=View(frames=options.frames),
                         trust=TrustAsked.parsed(options.trust, options.tolerance),
                         members=members_of(options))


def members_of(options: Namespace):
    """Those to add, None for a new output; ConfigError where --ensemble says how many as well."""
    from swinmpi.storage.outputs.extending import Members
    if options.members is None:
        return None
    if options.ensemble != 1:
        raise ConfigError(f"--members: expected no --ensemble beside it, got {options.ensemble}; "
                          "leave one of them out")
    return Members.parsed(options.members)


def settings_given(options: Namespace):
    """The settings on the command line."""
    from swinmpi.sampling.validation import GivenSettings
    asked = options.ranks_per_image
    more = [] if asked is None else [f"parallel.ranks_per_image={asked}"]
    return GivenSettings(options.config, [*options.overrides, *more], options.preset)


def check_demo(config: Config, checkpoint: Path) -> None:
    if config.model.scale != DEMO_SCALE:
        raise ConfigError(f"{checkpoint}: expected a model of scale {DEMO_SCALE} for the shipped "
                          f"stack, got {config.model.scale}; name an INPUT")


def conclude(options: Namespace, plan, report) -> None:
    """Tell what was made, of the demo with its figures and picture. On one process.
    SomeImagesFailed where some did."""
    request = plan.request
    print_table(report)
    written = [request.output]
    if not options.inputs and options.shard is None:
        from swinmpi.evaluation.demo import PICTURE, REPORT, present
        picture = plan.config.output.picture
        print(present(request.output, str(shipped(DEMO_STACK)), report.entries, picture))
        written += [request.output.with_name(name) for name in [PICTURE] * picture + [REPORT]]
    else:
        from swinmpi.sampling.looks.picture import draw_pictures
        made = report.num_images + len(report.failed)
        goes_on = made < plan.stack.num_images or request.members is not None
        written += draw_pictures([plan], resumed=goes_on)
    print(f"written: {', '.join(map(str, written))}", flush=True)
    if request.ensemble > 1:
        print("\n".join(told_of_ensemble(plan)), flush=True)
    raise_failed(request, report)


def told_of_ensemble(plan) -> list[str]:
    """What its deviation means, and what is promised of the pixels that are marked."""
    from swinmpi.sampling.request import output_plan
    from swinmpi.storage.outputs.result import read_promise
    bars = output_plan(plan.request, plan.config).error_bars
    if bars is None:
        return [SPREAD_IS_NO_ERROR]
    if bars.trust is None:
        return [f"sr_std is {bars}"]
    return [f"sr_std is {bars}", f"sr_trust: {read_promise(plan.request.output)}"]


def is_of_many(plan) -> bool:
    """Whether a plan is of many runs."""
    return hasattr(plan, "plans")


def conclude_many(plan, report, failed: Sequence[str]) -> None:
    """Tell what was made. On one process. SomeImagesFailed where some could not be."""
    from swinmpi.storage.pictures.listing import named
    output = plan.request.output
    if report.share:
        print_table(report)
    from swinmpi.sampling.looks.picture import draw_pictures
    written = [output, *draw_pictures(plan.plans, resumed=False)]
    print(f"written: {SwinmpiError(', '.join(map(str, written)))}", flush=True)
    if failed:
        raise SomeImagesFailed(f"{output}: written, but {len(failed)} could not be made: "
                               f"{named(failed)}")


def tell_before(options: Namespace, plan) -> None:
    """Which images this job does, if not all, and whether a model for them, or a student, ships
    that is not used. On one process."""
    if plan.request.shard is not None:
        from swinmpi.sampling.request import describe_shard
        print(describe_shard(plan.request), flush=True)
    for line in words_on_models(options, plan):
        print(line, flush=True)


def print_table(report) -> None:
    from swinmpi.reports.timing import as_table, describe_spared
    from swinmpi.reports.worst import describe_images, describe_noise, describe_unlike
    print("\n".join([as_table(report), *describe_spared(report), *describe_images(report.figures),
                     *describe_noise(report.figures),
                     *describe_unlike(report.figures)]), flush=True)


def raise_failed(request, report) -> None:
    """SomeImagesFailed naming them, if any."""
    from swinmpi.reports.tables import listed
    if report.failed:
        where = "" if request.shard is None else " of this shard"
        raise SomeImagesFailed(f"{request.output}: written, "
                               f"but images {listed(report.failed)}{where} could not be read")


def show_plan(options: Namespace) -> None:
    num_ranks = launcher_size() or 1
    if options.sweep:
        plan = plan_sweep_of(options, num_ranks)
        from swinmpi.sampling.looks.sweep import describe
        print(describe(plan))
        return
    plan = plan_of(options, num_ranks)
    from swinmpi.sampling.rehearsal.dry_run import dry_run, dry_run_many
    print(dry_run_many(plan) if is_of_many(plan) else dry_run(plan))
    first = plan.plans[0] if is_of_many(plan) else plan
    for line in words_on_models(options, first):
        print(f"model       {line}")
    for line in describe_looks(options, plan):
        print(line)


def describe_looks(options: Namespace, plan) -> list[str]:
    """Lines on the pictures that will be drawn."""
    if not options.inputs and options.shard is None:
        from swinmpi.evaluation.demo import PICTURE
        picture = plan.config.output.picture
        return [f"picture     {plan.request.output.with_name(PICTURE)}"] if picture else []
    from swinmpi.sampling.looks.picture import describe_pictures
    return describe_pictures(plan.plans if is_of_many(plan) else [plan])


if __name__ == "__main__":
    sys.exit(main())
