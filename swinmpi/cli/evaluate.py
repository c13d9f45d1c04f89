"""swinmpi-evaluate: figures of an SR stack against the true HR stack, beside bicubic's."""
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from swinmpi.cli.options import config_from, make_parser, run_command
from swinmpi.config import Config
from swinmpi.errors import ConfigError


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(evaluate_command, argv)


def evaluate_command(argv: Sequence[str] | None) -> None:
    options = parser().parse_args(argv)
    config = config_from(options)
    if (options.sr is None) == (options.checkpoint is None):
        raise ConfigError("expected either an SR stack, or --checkpoint FILE with --lr LR to sample first")

    from swinmpi.pipelines.evaluate import Request, evaluate, plan  # torch takes seconds to import; --help must not
    from swinmpi.pipelines.evaluation import as_text
    sr = options.sr or sample_first(options, config)
    request = Request(sr, options.reference, options.output, options.lr, options.lpips_backbone)
    if options.dry_run:
        print(plan(request))
        return
    print(as_text(evaluate(request)))
    print(f"written: {options.output / 'evaluate.json'}, {options.output / 'evaluate.png'}")


def parser() -> ArgumentParser:
    made = make_parser("evaluate", __doc__.partition(": ")[2], "swinmpi-evaluate sr.h5 --reference hr.h5 --lr lr.h5",
                       presets=True)
    made.add_argument("sr", nargs="?", metavar="SR", help="SR stack, file.h5 or file.h5::/path")
    made.add_argument("--reference", required=True, metavar="HR", help="the true HR stack")
    made.add_argument("--lr", metavar="LR", help="the stack SR was made from (default: HR shrunk by SR's scale)")
    made.add_argument("--checkpoint", type=Path, metavar="FILE", help="instead of SR: sample --lr first")
    made.add_argument("--output", type=Path, default=Path("swinmpi-out"), metavar="FOLDER",
                      help="for evaluate.json and evaluate.png (default: swinmpi-out)")
    made.add_argument("--lpips-backbone", type=Path, metavar="FILE",
                      help="AlexNet's weights for LPIPS (default: the copy in TORCH_HOME; never downloaded)")
    return made


def sample_first(options: Namespace, config: Config) -> str:
    """Address of the SR stack sampled from `--lr` with `--checkpoint` into the output folder."""
    raise ConfigError("--checkpoint: sampling from here is not connected yet; run swinmpi-sample, evaluate its output")
