"""swinmpi-train: train a model on pairs from swinmpi-prepare, started by mpirun, srun, torchrun or alone."""
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

from swinmpi.cli.options import config_from, make_parser, parse, run_command
from swinmpi.config import Config
from swinmpi.errors import ConfigError
from swinmpi.parallel.launch import StopFlag, choose_device, choose_threads, init_torch_distributed, launcher_rank, start_mpi


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(run, argv)


def run(argv: Sequence[str] | None) -> None:
    options = parse(parser(), argv)
    if options.dry_run:
        if not launcher_rank():
            show_plan(configured(options))
        return
    with start_mpi(allow_torchrun=True) as world:
        config = Config.model_validate(world.on_root(lambda: configured(options).model_dump()))
        train_on(world, config, options.resume)


def parser() -> ArgumentParser:
    made = make_parser("train", "Train a model on pairs from swinmpi-prepare.",
                       "mpirun -n 2 swinmpi-train --config configs/train/photos_x2.yaml --set train.data=pairs.h5")
    made.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in train.output, if any")
    return made


def configured(options: Namespace) -> Config:
    config = config_from(options)
    if config.train.data is None:
        raise ConfigError("train.data: expected the HDF5 file of swinmpi-prepare, got nothing; add --set train.data=FILE")
    return config


def train_on(world, config: Config, resume: bool) -> None:
    """Connect torch.distributed and train. Collective."""
    import torch
    from torch import distributed as dist

    from swinmpi.pipelines.train import Worker, train
    device = torch.device(choose_device(config.parallel.device, world.node.rank))
    torch.set_num_threads(choose_threads(config.parallel.threads, world.node))
    rank, size = init_torch_distributed("nccl" if device.type == "cuda" else "gloo", world)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        with StopFlag() as stop:
            folder = train(config, Worker(rank, size, device), resume, lambda: stop.is_set)
        if rank == 0:
            print(f"trained {config.train.updates} updates; checkpoints, log and curves in {folder}", flush=True)
    finally:
        dist.destroy_process_group()


def show_plan(config: Config) -> None:
    """Validate data and model, print their sizes."""
    from swinmpi.models.blocks import count_parameters
    from swinmpi.pipelines.batches import BatchSource
    from swinmpi.pipelines.objective import make_objective
    from swinmpi.storage.pairs import PairReader
    with PairReader(config.train.data) as pairs:
        source = BatchSource(config, pairs, 0, 1)
        print(f"data    {config.train.data}: {len(pairs.train_indices)} images to train, {len(pairs.validate_indices)} to "
              f"validate, {pairs.size_px} px, scale {pairs.scale:g}")
        print(f"model   {config.model.family}, {count_parameters(make_objective(config).model) / 1e6:.2f} M parameters")
        print(f"run     {config.train.updates} updates of {config.train.batch_images} images "
              f"({config.train.updates / source.updates_per_epoch:.1f} epochs) into {config.train.output}")


if __name__ == "__main__":
    sys.exit(main())
