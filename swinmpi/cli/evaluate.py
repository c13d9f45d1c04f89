"""swinmpi-evaluate: figures of SR stacks against the true HR stack, beside bicubic's, with their
errors."""
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from swinmpi.cli.models import HELP, LIST, list_models, weights_of
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
KEPT, UNKEPT = "sr.h5", ".sr.h5"


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(evaluate_command, argv)


def evaluate_command(argv: Sequence[str] | None) -> None:
    options = parse(parser(), argv)
    if options.model == LIST:
        if speaks_for_all():
            print(list_models())
    elif samples_first(options) and not options.dry_run:
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
    if not (options.sr or samples_first(options)):
        raise ConfigError("expected an SR stack, or an LR stack with --model NAME or --checkpoint "
                          "FILE to sample first, got none; name one")
    if options.keep and not samples_first(options):
        raise ConfigError("--keep: expected --model NAME or --checkpoint FILE, whose SR stack is "
                          "kept, got neither; leave it out")
    if options.reference is None:
        needing = {"--split": options.split,
                   "--lpips-backbone": options.lpips_backbone, "--inception": options.inception}
        for name, value in needing.items():
            if value is not None:
                raise ConfigError(f"{name}: expected the truth beside it, got none; "
                                  "name it with --reference HR")


def samples_first(options: Namespace) -> bool:
    """Whether the SR stack is still to be made."""
    return options.checkpoint is not None or options.model is not None


def parser() -> ArgumentParser:
    made = make_parser("evaluate", __doc__.partition(": ")[2],
                       "swinmpi-evaluate sr.h5 --reference hr.h5 --lr lr.h5\n  "
                       "swinmpi-evaluate one.h5 other.h5 --reference hr.h5 --output both\n  "
                       "swinmpi-evaluate sr.h5 --lr lr.h5\n  "
                       "swinmpi-evaluate --model photos_x2 lr.h5 --reference hr.h5\n  "
                       "mpirun -n 4 swinmpi-evaluate --checkpoint best.safetensors pairs.h5",
                       presets=True)
    made.add_argument("sr", nargs="*", metavar="SR",
                      help="SR stack, file.h5 or file.h5::/path; several of the same images are "
                      "compared with the first, image by image; with --model or --checkpoint the "
                      "LR stack to sample first, or a file of swinmpi-prepare, whose split test "
                      "(without one, validate) is judged")
    made.add_argument("--reference", metavar="HR",
                      help="the true HR stack (without: consistency with --lr, seams, spectrum, "
                      "spread of an ensemble)")
    made.add_argument("--lr", metavar="LR",
                      help="the stack SR was made from (default: HR shrunk by SR's scale)")
    model = made.add_mutually_exclusive_group()
    model.add_argument("--checkpoint", type=Path, metavar="FILE",
                       help="weights to judge: an SR stack is made with them first, and removed in "
                       "the end (of --lr it is kept, in FOLDER/sr.h5)")
    model.add_argument("--model", metavar="NAME",
                       help=f"the same with {HELP}")
    made.add_argument("--keep", action="store_true",
                      help="keep the SR stack that is made first, as FOLDER/sr.h5")
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
    """Sample into the folder, then evaluate on rank 0. Collective."""
    options, request, config = world.on_root(lambda: prepare_sampling(options))
    from swinmpi.sampling.plan import plan
    from swinmpi.sampling.sample import run
    report = run(world.on_root(lambda: plan(request, config, world.size)), world, stop)

    def conclude() -> None:
        print_table(report)
        evaluate_and_print(options, [str(request.output)])
        if request.output.name == UNKEPT:
            request.output.unlink()
        raise_failed(request, report)

    world.on_root(conclude)


def prepare_sampling(options: Namespace):
    """(options with what of them a file of pairs decides, request and configuration of the
    sampling), validated with the reference. On one process."""
    weights = weights_of(options)
    options = with_source(options)
    from swinmpi.sampling.request import SampleRequest, check_reference
    from swinmpi.sampling.validation import GivenSettings, validated
    from swinmpi.storage.metadata.frames import View
    check_given(options)
    request = SampleRequest(options.lr, options.output / (KEPT if options.keep else UNKEPT),
                            weights, overwrite=options.overwrite or not options.keep,
                            keeps_regression=True, view=View(frames=frames_of(options)))
    given = GivenSettings(options.config, options.overrides, options.preset)
    request, config = validated(request, given)
    if options.reference is not None:
        check_reference(request, config, options.reference)
    check_answer(options)
    return options, request, config


def with_source(options: Namespace) -> Namespace:
    """The options with the LR stack to sample; of a file of pairs also with HR and split. On one
    process; ConfigError, StackError."""
    from swinmpi.evaluation.splits import split_to_judge
    from swinmpi.storage.pairs import holds_pairs
    given = [*options.sr, *filter(None, [options.lr])]
    if len(given) != 1:
        raise ConfigError("expected one LR stack to sample first, got "
                          f"{', '.join(given) or 'none'}; name it as INPUT")
    (source,) = given
    if not options.sr:
        return Namespace(**vars(options) | {"keep": True})
    if not (Path(source).is_file() and holds_pairs(source)):
        return Namespace(**vars(options) | {"lr": source})
    reference = options.reference or f"{source}::/hr"
    return Namespace(**vars(options) | {
        "lr": f"{source}::/lr", "reference": reference,
        "split": options.split or split_to_judge(source)})


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
    if not samples_first(options):
        # Imported here: torch takes seconds to import; --help must not.
        from swinmpi.evaluation.evaluate import describe, plan, rehearse
        made = plan(request_for(options, options.sr))
        rehearse(made)
        print(describe(made))
        return
    from swinmpi.sampling.plan import plan as plan_sampling
    from swinmpi.sampling.rehearsal.dry_run import dry_run
    _, request, config = prepare_sampling(options)
    print(dry_run(plan_sampling(request, config, launcher_size() or 1)))


def request_for(options: Namespace, sr: Sequence[str]):
    from swinmpi.evaluation.evaluate import Request
    from swinmpi.storage.metadata.frames import View
    data = config_from(options).data
    return Request(sr, options.reference, options.output, options.lr, options.lpips_backbone,
                   data.no_data_values, View(data.axes, options.frames, data.calibration),
                   options.split, options.inception, options.overwrite)


if __name__ == "__main__":
    sys.exit(main())
