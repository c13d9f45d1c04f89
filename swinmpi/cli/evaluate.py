"""swinmpi-evaluate: figures of an SR stack against the true HR stack, beside bicubic's."""
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from swinmpi.cli.options import (
    config_from,
    make_parser,
    parse,
    run_command,
    speaks_for_all,
    works_alone,
)
from swinmpi.cli.sample import print_table, raise_failed
from swinmpi.errors import ConfigError
from swinmpi.parallel.comm import World
from swinmpi.parallel.launch import StopFlag, launcher_size, start_mpi

SPLITS = ("train", "validate", "test")


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(evaluate_command, argv)


def evaluate_command(argv: Sequence[str] | None) -> None:
    options = parse(parser(), argv)
    if options.checkpoint is not None and not options.dry_run:
        with start_mpi() as world, StopFlag() as stop:
            sample_first(world, stop, options)
    elif speaks_for_all() if options.dry_run else works_alone("evaluate"):
        config_from(options)
        if (options.sr is None) == (options.checkpoint is None):
            raise ConfigError("expected either an SR stack, or --checkpoint FILE with --lr LR to "
                              "sample first")
        if options.dry_run:
            show_plan(options)
        else:
            evaluate_and_print(options, options.sr)


def parser() -> ArgumentParser:
    made = make_parser("evaluate", __doc__.partition(": ")[2],
                       "swinmpi-evaluate sr.h5 --reference hr.h5 --lr lr.h5\n  "
                       "mpirun -n 4 swinmpi-evaluate --checkpoint best.safetensors --lr lr.h5 "
                       "--reference hr.h5", presets=True)
    made.add_argument("sr", nargs="?", metavar="SR", help="SR stack, file.h5 or file.h5::/path")
    made.add_argument("--reference", required=True, metavar="HR", help="the true HR stack")
    made.add_argument("--lr", metavar="LR",
                      help="the stack SR was made from (default: HR shrunk by SR's scale)")
    made.add_argument("--checkpoint", type=Path, metavar="FILE",
                      help="instead of SR: sample --lr first, into FOLDER/sr.h5")
    made.add_argument("--output", type=Path, default=Path("swinmpi-out"), metavar="FOLDER",
                      help="for evaluate.json and evaluate.png (default: swinmpi-out)")
    made.add_argument("--split", choices=SPLITS,
                      help="judge these images of HR alone, the file of swinmpi-prepare: "
                      "pairs.h5::/hr (with --checkpoint, only they are sampled)")
    made.add_argument("--lpips-backbone", type=Path, metavar="FILE",
                      help="AlexNet's weights for LPIPS (default: the copy in TORCH_HOME; "
                      "never downloaded)")
    made.add_argument("--inception", type=Path, metavar="FILE",
                      help="Inception's weights for FID, of torch-fidelity (default: the copy in "
                      "TORCH_HOME; never downloaded)")
    return made


def sample_first(world: World, stop: StopFlag, options: Namespace) -> None:
    """Sample `--lr` with `--checkpoint` into the folder, then evaluate on rank 0. Collective."""
    request, config = world.on_root(lambda: prepare_sampling(options))
    from swinmpi.sampling.plan import plan
    from swinmpi.sampling.sample import run
    report = run(world.on_root(lambda: plan(request, config, world.size)), world, stop)

    def conclude() -> None:
        print_table(report)
        evaluate_and_print(options, str(request.output))
        raise_failed(request, report)

    world.on_root(conclude)


def prepare_sampling(options: Namespace):
    """(request, configuration) of the sampling, validated with the reference. On one process."""
    if options.sr is not None or options.lr is None:
        raise ConfigError("--checkpoint: expected --lr LR to sample, and no SR stack beside it")
    from swinmpi.sampling.request import SampleRequest, check_reference
    from swinmpi.sampling.validation import GivenSettings, validated
    request = SampleRequest(options.lr, options.output / "sr.h5", options.checkpoint,
                            overwrite=True, keeps_regression=True, view=view_of(options))
    given = GivenSettings(options.config, options.overrides, options.preset)
    request, config = validated(request, given)
    check_reference(request, config, options.reference)
    return request, config


def view_of(options: Namespace):
    """The images of LR to sample: all, or those of a split."""
    from swinmpi.evaluation.splits import AS_STORED, judged
    if options.split is None:
        return AS_STORED
    from swinmpi.storage.probe import inspect_stacks
    inspect_stacks([options.reference])
    return judged(options.reference, options.split).view


def evaluate_and_print(options: Namespace, sr: str) -> None:
    """Figures of the SR stack, printed and written. On one process."""
    from swinmpi.evaluation.evaluate import plan, run
    from swinmpi.evaluation.report import as_text
    print(as_text(run(plan(request_for(options, sr)))))
    written = ", ".join(str(options.output / name) for name in ("evaluate.json", "evaluate.png"))
    print(f"written: {written}", flush=True)


def show_plan(options: Namespace) -> None:
    """What the command would do. On one process."""
    if options.checkpoint is None:
        # Imported here: torch takes seconds to import; --help must not.
        from swinmpi.evaluation.evaluate import describe, plan
        print(describe(plan(request_for(options, options.sr))))
        return
    from swinmpi.sampling.plan import describe
    from swinmpi.sampling.plan import plan as plan_sampling
    print(describe(plan_sampling(*prepare_sampling(options), launcher_size() or 1)))


def request_for(options: Namespace, sr: str):
    from swinmpi.evaluation.evaluate import Request
    return Request(sr, options.reference, options.output, options.lr, options.lpips_backbone,
                   config_from(options).data.no_data_values, options.inception, options.split)


if __name__ == "__main__":
    sys.exit(main())
