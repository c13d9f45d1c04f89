"""swinmpi-evaluate: figures of SR stacks against the true HR stack, beside bicubic's, with their
errors."""
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
        check_given(options)
        if options.dry_run:
            show_plan(options)
        else:
            evaluate_and_print(options, options.sr)


def check_given(options: Namespace) -> None:
    """ConfigError where what is asked for does not go together."""
    if bool(options.sr) == (options.checkpoint is not None):
        raise ConfigError("expected either an SR stack, or --checkpoint FILE with --lr LR to "
                          "sample first")
    if options.reference is None:
        needing = {"--split": options.split,
                   "--lpips-backbone": options.lpips_backbone, "--inception": options.inception}
        for name, value in needing.items():
            if value is not None:
                raise ConfigError(f"{name}: expected the truth beside it, got none; "
                                  "name it with --reference HR")


def parser() -> ArgumentParser:
    made = make_parser("evaluate", __doc__.partition(": ")[2],
                       "swinmpi-evaluate sr.h5 --reference hr.h5 --lr lr.h5\n  "
                       "swinmpi-evaluate one.h5 other.h5 --reference hr.h5 --output both\n  "
                       "swinmpi-evaluate sr.h5 --lr lr.h5\n  "
                       "mpirun -n 4 swinmpi-evaluate --checkpoint best.safetensors --lr lr.h5 "
                       "--reference hr.h5", presets=True)
    made.add_argument("sr", nargs="*", metavar="SR",
                      help="SR stack, file.h5 or file.h5::/path; several of the same images are "
                      "compared with the first, image by image")
    made.add_argument("--reference", metavar="HR",
                      help="the true HR stack (without: consistency with --lr, seams, spectrum, "
                      "spread of an ensemble)")
    made.add_argument("--lr", metavar="LR",
                      help="the stack SR was made from (default: HR shrunk by SR's scale)")
    made.add_argument("--checkpoint", type=Path, metavar="FILE",
                      help="instead of SR: sample --lr first, into FOLDER/sr.h5")
    made.add_argument("--output", type=Path, default=Path("swinmpi-out"), metavar="FOLDER",
                      help="for evaluate.json, evaluate.csv, evaluate.png and plots.png (default: "
                      "swinmpi-out)")
    made.add_argument("--overwrite", action="store_true",
                      help="replace what an evaluation before left there")
    made.add_argument("--per-image", action="store_true", help="print the figures of every image")
    made.add_argument("--frames", metavar="LIST",
                      help="only these images along the first axis of the stack that SR was made "
                      "of, such as 4: or 0,10,-1")
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
        evaluate_and_print(options, [str(request.output)])
        raise_failed(request, report)

    world.on_root(conclude)


def prepare_sampling(options: Namespace):
    """(request, configuration) of the sampling, validated with the reference. On one process."""
    if options.sr or options.lr is None:
        raise ConfigError("--checkpoint: expected --lr LR to sample, and no SR stack beside it")
    from swinmpi.sampling.request import SampleRequest, check_reference
    from swinmpi.sampling.validation import GivenSettings, validated
    from swinmpi.storage.metadata.frames import View
    check_given(options)
    request = SampleRequest(options.lr, options.output / "sr.h5", options.checkpoint,
                            overwrite=options.overwrite, keeps_regression=True,
                            view=View(frames=frames_of(options)))
    given = GivenSettings(options.config, options.overrides, options.preset)
    request, config = validated(request, given)
    if options.reference is not None:
        check_reference(request, config, options.reference)
    check_answer(options)
    return request, config


def frames_of(options: Namespace) -> str | None:
    """The images of LR to sample: as asked for, or those of a split."""
    from swinmpi.evaluation.splits import judged
    return (options.frames if options.split is None
            else judged(options.reference, options.split, options.frames).frames)


def check_answer(options: Namespace) -> None:
    """OutputError, CheckpointError where the figures could not be made or written; before hours of
    sampling."""
    from swinmpi.evaluation.files import check_folder
    from swinmpi.images.frechet import load_inception
    from swinmpi.images.perceptual import load_lpips
    check_folder(options.output, options.overwrite)
    if options.lpips_backbone is not None:
        load_lpips(options.lpips_backbone)
    if options.inception is not None:
        load_inception(options.inception)


def evaluate_and_print(options: Namespace, sr: Sequence[str]) -> None:
    """Figures of the SR stacks, printed and written. On one process."""
    from swinmpi.evaluation.evaluate import plan, run
    from swinmpi.evaluation.files import WRITTEN
    from swinmpi.evaluation.report import as_text
    print(as_text(run(plan(request_for(options, sr))), options.per_image))
    written = ", ".join(str(options.output / name) for name in WRITTEN
                        if (options.output / name).exists())
    print(f"written: {written}", flush=True)


def show_plan(options: Namespace) -> None:
    """What the command would do. On one process."""
    if options.checkpoint is None:
        # Imported here: torch takes seconds to import; --help must not.
        from swinmpi.evaluation.evaluate import describe, plan, rehearse
        made = plan(request_for(options, options.sr))
        rehearse(made)
        print(describe(made))
        return
    from swinmpi.sampling.plan import plan as plan_sampling
    from swinmpi.sampling.rehearsal.dry_run import dry_run
    print(dry_run(plan_sampling(*prepare_sampling(options), launcher_size() or 1)))


def request_for(options: Namespace, sr: Sequence[str]):
    from swinmpi.evaluation.evaluate import Request
    from swinmpi.storage.metadata.frames import View
    data = config_from(options).data
    return Request(sr, options.reference, options.output, options.lr, options.lpips_backbone,
                   data.no_data_values, View(data.axes, options.frames, data.calibration),
                   options.split, options.inception, options.overwrite)


if __name__ == "__main__":
    sys.exit(main())
