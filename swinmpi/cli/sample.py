"""swinmpi-sample: super-resolve a stack; without arguments the shipped one, with the shipped model."""
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from swinmpi.cli.options import make_parser, parse, run_command
from swinmpi.config import Config, load_config
from swinmpi.errors import ConfigError, OutputError
from swinmpi.parallel.comm import World
from swinmpi.parallel.launch import launcher_rank, start_mpi

DEMO_FOLDER = Path("swinmpi-out")
MODELS = {"photos_x2": "photos_x2.safetensors"}
DEMO_MODEL, DEMO_STACK = "photos_x2", "demo_x2.h5"


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(run, argv)


def run(argv: Sequence[str] | None) -> None:
    options = parse(parser(), argv)
    if options.dry_run and not launcher_rank():
        show_plan(options)
    if not options.dry_run:
        with start_mpi() as world:
            sample_on(world, options)


def parser() -> ArgumentParser:
    made = make_parser("sample", "Super-resolve an HDF5 stack; without INPUT the shipped one.",
                       "mpirun -n 4 swinmpi-sample scan.h5::/entry/data --output scan_x2.h5 --preset faithful", presets=True)
    made.add_argument("input", nargs="?", metavar="INPUT", help="LR stack, file.h5 or file.h5::/path")
    made.add_argument("--output", type=Path, metavar="OUT", help="HDF5 file to write (default: INPUT's name with _x2, _x4)")
    model = made.add_mutually_exclusive_group()
    model.add_argument("--checkpoint", type=Path, metavar="FILE", help="weights of swinmpi-train (.safetensors)")
    model.add_argument("--model", choices=sorted(MODELS), default=DEMO_MODEL, help="a shipped model")
    made.add_argument("--ranks-per-image", metavar="G", help="split the ranks into groups of G, an image each (or auto, all)")
    made.add_argument("--ensemble", type=int, default=1, metavar="K", help="also write mean and deviation of K samples")
    made.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    made.add_argument("--allow-external", action="store_true", help="follow links into other HDF5 files")
    return made


def prepare(options: Namespace):
    """(request, configuration) of a command line, validated as far as possible without computing. On one process."""
    from swinmpi.pipelines.model import resolve_config
    from swinmpi.pipelines.sample import SampleRequest, check_request
    from swinmpi.storage.checkpoint import load_weights
    if options.ensemble < 1:
        raise ConfigError(f"--ensemble: expected at least 1 sample, got {options.ensemble}")
    demo = options.input is None
    checkpoint = options.checkpoint or Path(str(files("swinmpi.demo") / MODELS[options.model]))
    overrides = list(options.overrides)
    if options.ranks_per_image is not None:
        overrides.append(f"parallel.ranks_per_image={options.ranks_per_image}")
    if demo:
        overrides.append("output.regression=true")
    load_config(options.config, overrides, options.preset)
    config = resolve_config(load_weights(checkpoint)[1], checkpoint, options.config, overrides, options.preset)
    stack = str(files("swinmpi.demo") / DEMO_STACK) if demo else options.input
    output = options.output or (DEMO_FOLDER / "sr.h5" if demo else default_output(options.input, config.model.scale))
    request = SampleRequest(stack, output, checkpoint, options.ensemble, options.overwrite or demo, options.allow_external)
    check_request(request, config)
    return request, config


def sample_on(world: World, options: Namespace) -> None:
    """Validate on rank 0, then sample on all ranks. Collective."""
    request, values = world.on_root(lambda: as_plain(*prepare(options)))
    from swinmpi.pipelines.sample import describe, sample
    config = Config.model_validate(values)
    if options.input is None:
        world.on_root(make_demo_folder)
    report = sample(request, config, world)
    if not world.is_root:
        return
    print(describe(report))
    if options.input is None:
        from swinmpi.pipelines.demo import present
        print(present(request.output, str(files("swinmpi.demo") / DEMO_STACK), DEMO_FOLDER, report))
    print(f"written: {request.output}", flush=True)


def as_plain(request, config: Config):
    """What on_root can send to the other ranks."""
    return request, config.model_dump()


def show_plan(options: Namespace) -> None:
    from swinmpi.pipelines.sample import describe_plan
    print(describe_plan(*prepare(options)))


def default_output(address: str, scale: int) -> Path:
    """scan.h5::/entry/data -> scan_x2.h5 in the current folder."""
    return Path(f"{Path(address.partition('::')[0]).stem}_x{scale}.h5")


def make_demo_folder() -> None:
    try:
        DEMO_FOLDER.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"{DEMO_FOLDER}: cannot be made here ({error.strerror}); change to a folder you may write") from None


if __name__ == "__main__":
    sys.exit(main())
