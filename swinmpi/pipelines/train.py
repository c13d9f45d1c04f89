"""Training (thesis algorithm 2.1) on the ranks of a torch.distributed group, resumable at any moment."""
import json
import math
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from swinmpi import __version__
from swinmpi.config import Config, TrainConfig
from swinmpi.errors import ConfigError, Stopped, SwinmpiError
from swinmpi.models.blocks import set_fused_attention
from swinmpi.models.diffuser import autocast
from swinmpi.models.ema import Ema
from swinmpi.models.encoders import RRDBEncoder
from swinmpi.pipelines.batches import BatchSource, to_device
from swinmpi.pipelines.objective import make_objective
from swinmpi.pipelines.progress import Progress
from swinmpi.pipelines.validate import validate
from swinmpi.storage.checkpoint import CheckpointFolder, load_into, load_state, load_weights
from swinmpi.storage.pairs import PairReader


@dataclass(frozen=True)
class Worker:
    """This process's place in the training group."""

    rank: int
    size: int
    device: torch.device


def train(config: Config, worker: Worker, resume: bool, stop_requested) -> Path:
    """Run to `train.updates`; returns the folder of checkpoints. Collective over the group.

    stop_requested() -> bool is this rank's wish to end; all ranks then save and raise Stopped together.
    """
    folder = CheckpointFolder(Path(config.train.output), config.train.keep_last)
    with PairReader(config.train.data) as pairs:
        source = BatchSource(config, pairs, worker.rank, worker.size)
        trainer = Trainer(config, worker, source.updates_per_epoch)
        together(worker, lambda: prepare_folder(folder, resume))
        if resume and folder.latest() is not None:
            trainer.load(folder.latest())
        log = Log(folder.root / "log.jsonl", trainer.update) if worker.rank == 0 else None
        with Progress(config.train.updates, "updates", trainer.update, enabled=worker.rank == 0) as progress:
            while trainer.update < config.train.updates:
                losses = trainer.step(source)
                progress.advance(note=f"loss {losses['loss']:.4f}")
                finished = trainer.update == config.train.updates
                record(log, trainer, losses, finished)
                if finished or trainer.update % config.train.validate_every == 0:
                    assess(trainer, pairs, folder, log)
                stopping = agreed(worker, stop_requested())
                if finished or stopping or trainer.update % config.train.checkpoint_every == 0:
                    together(worker, lambda: trainer.save(folder))
                if stopping and not finished:
                    raise Stopped(f"stopped at update {trainer.update}, saved in {folder.root}; go on with --resume")
    return folder.root


class Trainer:
    """The evolving state: model, optimiser, EMA, and how many updates were made."""

    def __init__(self, config: Config, worker: Worker, updates_per_epoch: int):
        torch.manual_seed(config.train.seed)
        self.config, self.worker, self.updates_per_epoch = config, worker, updates_per_epoch
        objective = make_objective(config).to(worker.device, memory_format=torch.channels_last)
        self.model: nn.Module = objective.model
        set_fused_attention(self.model, config.parallel.fused_attention)
        start_encoder(self.model, config.train)
        self.objective = objective
        if worker.size > 1:
            self.objective = DistributedDataParallel(objective, gradient_as_bucket_view=True)
        trainable = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(trainable, lr=config.train.learning_rate)
        self.ema = Ema(self.model, config.train.ema_decay, config.train.ema_ramp)
        self.scaler = torch.amp.GradScaler(worker.device.type, enabled=config.parallel.precision == "fp16")
        self.update, self.best = 0, -math.inf

    def step(self, source: BatchSource) -> dict[str, float]:
        """One update; returns the losses averaged over its micro steps on this rank. Collective."""
        settings = self.config.train
        for group in self.optimizer.param_groups:
            group["lr"] = settings.learning_rate * rate_factor(settings, self.update, self.updates_per_epoch)
        sums: dict[str, float] = {}
        for micro_step in range(settings.accumulate):
            last = micro_step == settings.accumulate - 1
            quiet = nullcontext() if last or self.worker.size == 1 else self.objective.no_sync()
            batch = to_device(source.batch(self.update, micro_step), self.worker.device)
            with quiet:
                with autocast(self.worker.device, self.config.parallel.precision):
                    losses = self.objective(batch)
                self.scaler.scale(losses["loss"] / settings.accumulate).backward()
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value.item() / settings.accumulate
        self.apply_gradient(settings.clip_norm)
        if not math.isfinite(sums["loss"]):
            raise SwinmpiError(f"the loss is {sums['loss']} at update {self.update}; lower train.learning_rate, or resume "
                               "with parallel.precision=fp32")
        return sums

    def apply_gradient(self, clip_norm: float | None) -> None:
        self.scaler.unscale_(self.optimizer)
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.update(self.model, self.update)
        self.update += 1

    def header(self) -> dict:
        """What a checkpoint says about itself; `swinmpi-sample` starts from these settings."""
        sections = self.config.model_dump(include={"model", "diffusion", "sampler", "train"})
        return {"swinmpi": __version__, "update": self.update, "target": self.config.train.target, **sections}

    def save(self, folder: CheckpointFolder) -> None:
        """Not collective: one rank writes."""
        state = {"update": self.update, "best": self.best, "optimizer": self.optimizer.state_dict(),
                 "scaler": self.scaler.state_dict(), "torch_rng": torch.get_rng_state()}
        folder.save(self.update, self.model.state_dict(), self.ema.tensors, state, self.header())

    def load(self, path: Path) -> None:
        """Continue from one `update-*` folder."""
        weights, header = load_weights(path / "weights.safetensors")
        if header["model"] != self.config.model.model_dump():
            raise ConfigError(f"{path}: was trained with other `model` settings; resume with the same --config and --set")
        load_into(self.model, weights, str(path))
        self.ema.load(load_weights(path / "ema.safetensors")[0])
        state = load_state(path)
        self.update, self.best = state["update"], state["best"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["torch_rng"])


def rate_factor(settings: TrainConfig, update: int, updates_per_epoch: int) -> float:
    """Learning rate over its peak: linear warm-up, then constant, cosine tail, or the thesis's cosine per epoch."""
    if update < settings.warmup_updates:
        return (update + 1) / settings.warmup_updates
    if settings.annealing == "tail":
        start = settings.updates * (1 - settings.annealing_share)
        progress = max(0.0, (update - start) / (settings.updates - start))
    elif settings.annealing == "epoch":
        progress = (update // updates_per_epoch) / settings.annealing_epochs
    else:
        progress = 0.0
    return 0.5 * (1 + math.cos(math.pi * progress))


def start_encoder(model: nn.Module, settings: TrainConfig) -> None:
    """Load a pre-trained encoder and freeze it, where asked for; of an RRDB encoder that is the trunk."""
    encoder = getattr(model, "encoder", None)
    if settings.encoder_checkpoint is not None:
        weights, _ = load_weights(settings.encoder_checkpoint)
        if isinstance(encoder, RRDBEncoder):
            encoder.load_trunk(weights)
        else:
            load_into(encoder, weights, settings.encoder_checkpoint)
    if settings.freeze_encoder:
        (encoder.trunk if isinstance(encoder, RRDBEncoder) else encoder).requires_grad_(False)


class Log:
    """log.jsonl: one JSON object per interval; lines beyond the resumed update are dropped."""

    def __init__(self, path: Path, update: int):
        self.path, self.began = path, time.monotonic()
        self.records = [r for r in read_records(path) if r["update"] <= update]
        path.write_text("".join(json.dumps(r) + "\n" for r in self.records))

    def add(self, values: dict) -> None:
        self.records.append(values)
        with open(self.path, "a") as file:
            file.write(json.dumps(values) + "\n")


def read_records(path: Path) -> list[dict]:
    """Complete lines only: a kill may have cut the last one."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def record(log: Log | None, trainer: Trainer, losses: dict[str, float], finished: bool) -> None:
    if log is not None and (finished or trainer.update % trainer.config.train.log_every == 0):
        log.add({"update": trainer.update, "learning_rate": trainer.optimizer.param_groups[0]["lr"],
                 "seconds": round(time.monotonic() - log.began, 1), **losses})


def assess(trainer: Trainer, pairs: PairReader, folder: CheckpointFolder, log: Log | None) -> None:
    """Validate the EMA weights, log it, draw the curves, keep the best. Collective."""
    figures = validate(trainer.config, trainer.worker, trainer.ema.tensors, pairs)
    if log is None or not figures:
        return
    log.add({"update": trainer.update, **figures})
    score = figures.get("psnr_sample", figures.get("psnr_regression", -math.inf))
    if score > trainer.best:
        trainer.best = score
        folder.save_best(trainer.ema.tensors, trainer.header())
    draw_curves(log, folder.root / "curves.png")


def draw_curves(log: Log, path: Path) -> None:
    """The curves are a convenience: without matplotlib training goes on."""
    from swinmpi.images.picture import plot_curves
    try:
        plot_curves(log.records, path)
    except SwinmpiError:
        return


def prepare_folder(folder: CheckpointFolder, resume: bool) -> None:
    folder.create()
    if folder.latest() is not None and not resume:
        raise ConfigError(f"{folder.root}: holds a training run already; go on with --resume, or choose another "
                          "--set train.output=FOLDER")


def agreed(worker: Worker, wish: bool) -> bool:
    """True on all ranks when any rank wishes. Collective."""
    if worker.size == 1:
        return wish
    flag = torch.tensor([int(wish)], device=worker.device)
    dist.all_reduce(flag, op=dist.ReduceOp.MAX)
    return bool(flag.item())


def together(worker: Worker, action) -> None:
    """Rank 0 acts; if it fails all ranks raise the same error. Collective."""
    failure: list = [None]
    if worker.rank == 0:
        try:
            action()
        except SwinmpiError as error:
            failure[0] = error
    if worker.size > 1:
        dist.broadcast_object_list(failure, src=0)
    if failure[0] is not None:
        raise failure[0]


