"""Training (thesis algorithm 2.1) on the ranks of a torch.distributed group,
resumable at any moment."""
import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from swinmpi import __version__
from swinmpi.config import Config
from swinmpi.errors import Stopped, SwinmpiError
from swinmpi.models.blocks import set_fused_attention
from swinmpi.models.deviations import note_measured
from swinmpi.models.diffuser import autocast
from swinmpi.models.ema import Ema
from swinmpi.parallel.worker import Worker
from swinmpi.reports.progress import Progress
from swinmpi.storage.checkpoint import (
    CheckpointFolder,
    check_shapes,
    load_into,
    load_state,
    load_weights,
    save_weights,
)
from swinmpi.storage.files import tell
from swinmpi.storage.pairs import PairReader
from swinmpi.training.batches import BatchSource, Prefetched, channels_last
from swinmpi.training.compiling import compile_networks
from swinmpi.training.crops import crops_on
from swinmpi.training.degrading import degraded_groups
from swinmpi.training.difficulty import words_beneath
from swinmpi.training.distilling import (
    TEACHER_KEY,
    first_teacher,
    in_round,
    load_teacher,
    make_teacher,
    rounds_of,
    student_path,
    student_words,
    taught,
)
from swinmpi.training.fitting import values_of
from swinmpi.training.latents import scale_latents
from swinmpi.training.log import Averages, Log
from swinmpi.training.objective import make_objective, make_training_module
from swinmpi.training.origin import start_from
from swinmpi.training.plan import TrainingPlan
from swinmpi.training.preparation.values import usual_of_pairs
from swinmpi.training.rate import rate_factor
from swinmpi.training.setup import (
    OPTIMIZERS,
    check_same_run,
    checked_averages,
    checked_progress,
    fitting_state,
    freeze_untrained,
    load_encoder,
    load_moments,
    start_folder,
)
from swinmpi.training.validation import in_words, validate


def run(plan: TrainingPlan, worker: Worker, stop_requested: Callable[[], bool]) -> Path:
    """Run to `train.updates`; returns the folder of checkpoints. Collective over the group.

    stop_requested() is this rank's wish to end; all ranks then save and raise Stopped together.
    A resumed run on the CPU has the losses and weights of one that was never stopped: bit for bit
    on one or two ranks; on more to rounding, because DDP may add their gradients in another order
    until it knows which are ready first.
    """
    config = plan.config
    with CheckpointFolder(Path(config.train.output), config.train.keep_last) as folder:
        newest = worker.on_root(start_folder, folder)
        with PairReader(config.train.data) as pairs:
            trainer = Trainer(config, worker, len(pairs.train_indices), newest)
            if newest is None and config.model.diffuses_code and trainer.family.takes_steps:
                scale_latents(trainer.family, trainer.ema, config, worker, pairs)
            trainer.values = values_of(pairs, config) | usual_of_pairs(
                pairs, config.train.crop_px, degraded_groups(config, pairs))
            if newest is None and plan.origin:
                worker.on_root(tell, plan.origin)
            log = Log(folder.root, config.train.batch_images)
            worker.on_root(log.start, trainer.update)
            with batches(trainer, pairs) as source:
                if config.train.compile and trainer.update < config.train.updates:
                    batch = channels_last(source.batch(trainer.update, 0), worker.device)
                    compile_networks(trainer.module, batch, config.parallel.precision, worker)
                run_updates(trainer, source, pairs, folder, log, stop_requested)
    return folder.root


def run_updates(trainer: "Trainer", source: BatchSource | Prefetched, pairs: PairReader,
                folder: CheckpointFolder, log: Log, stop_requested: Callable[[], bool]) -> None:
    """Update after update; log, validate and save where it is due. Collective."""
    settings, worker = trainer.config.train, trainer.worker
    with Progress(settings.updates, "updates", trainer.update, enabled=worker.is_root) as progress:
        while trainer.update < settings.updates:
            trainer.averages.add(trainer.step(source))
            losses = trainer.averages.means()
            progress.advance(note=f"loss {losses['loss']:.4f}")
            if trainer.is_due(settings.log_every):
                worker.on_root(log.add_losses, trainer.update, trainer.learning_rate, losses)
                trainer.averages = Averages()
            if trainer.is_due(settings.validate_every):
                figures = validate(trainer.config, worker, trainer.ema.tensors, pairs,
                                   trainer.module.objective)
                worker.on_root(keep_figures, figures, trainer, folder, log)
                if figures:
                    progress.say(in_words(trainer.update, figures))
            if trainer.rounds.distils and trainer.rounds.ends_at(trainer.update):
                worker.on_root(trainer.save_student, folder)
            stopping = worker.any(stop_requested())
            if stopping or trainer.is_due(settings.checkpoint_every):
                worker.on_root(trainer.save, folder)
            if stopping and trainer.update < settings.updates:
                raise worker.told_once(Stopped(f"stopped at update {trainer.update}, "
                                               f"saved in {folder.root}; go on with --resume"))


class Trainer:
    """The evolving state: model, optimiser, EMA, and how many updates were made.

    Made collectively: from another checkpoint or with a pre-trained encoder where asked for, or
    from `newest`, an `update-*` folder.
    """

    def __init__(self, config: Config, worker: Worker, images_per_epoch: int,
                 newest: Path | None = None):
        torch.manual_seed(config.train.seed)
        self.config, self.worker, self.images_per_epoch = config, worker, images_per_epoch
        memory_format = (torch.channels_last if config.parallel.channels_last
                         else torch.contiguous_format)
        module = make_training_module(config).to(worker.device, memory_format=memory_format)
        self.family, self.model = module.family, module.model
        self.module, self.losses = module, module
        set_fused_attention(self.model, config.parallel.fused_attention)
        if config.train.encoder_checkpoint is not None and newest is None:
            worker.root_first(load_encoder, self.model.encoder, config.train.encoder_checkpoint)
        if config.train.init is not None and newest is None:
            worker.root_first(start_from, self.model, config)
        self.rounds, self.teacher, self.taught_by = rounds_of(config), None, {}
        if self.rounds.distils:
            self.teacher = make_teacher(config.model, worker.device, memory_format)
            if newest is None:
                worker.root_first(load_teacher, self.teacher, config, 0)
                self.model.load_state_dict(self.teacher.model.state_dict())
                self.taught_by = worker.on_root(first_teacher, config)
        freeze_untrained(self.model, config)
        if worker.size > 1:
            self.losses: nn.Module = DistributedDataParallel(module, gradient_as_bucket_view=True)
        trainable = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        optimizer = OPTIMIZERS[config.train.optimizer]
        self.optimizer = optimizer(trainable, lr=config.train.learning_rate)
        self.ema = Ema(self.model, config.train.ema_decay, config.train.ema_ramp,
                       config.train.ema_start)
        self.scaler = torch.amp.GradScaler(worker.device.type,
                                           enabled=config.parallel.precision == "fp16")
        self.update, self.best, self.values, self.averages = 0, math.inf, {}, Averages()
        self.words = worker.on_root(words_beneath, config) if newest is None else {}
        if newest is not None:
            worker.root_first(self.load, newest)

    def step(self, source: BatchSource | Prefetched) -> dict[str, float]:
        """One update; returns its losses. Collective."""
        if self.rounds.begins_at(self.update):
            self.start_round()
        settings, each = self.config.train, self.rounds.each
        epoch = self.update * settings.batch_images // self.images_per_epoch
        factor = rate_factor(settings, self.update % each, epoch, each)
        for group in self.optimizer.param_groups:
            group["lr"] = settings.learning_rate * factor
        losses = self.gradient(source)
        self.check_finite("loss", losses["loss"])
        self.apply_gradient()
        note_measured(self.model, losses, self.update)
        self.ema.update(self.model, self.update)
        self.update += 1
        return losses

    def start_round(self) -> None:
        """What was the student teaches now; equal on all ranks, as its weights are."""
        self.teacher.model.load_state_dict(self.ema.tensors)
        self.model.load_state_dict(self.ema.tensors)
        self.optimizer.state.clear()
        self.best = math.inf  # losses of other rounds are others
        self.enter_round(self.update // self.rounds.each)

    def enter_round(self, number: int) -> None:
        """Settings and objective of a round."""
        self.config = in_round(self.config, number)
        self.module.objective = taught(make_objective(self.config, self.family), self.config,
                                       self.teacher, self.worker.device)

    def gradient(self, source: BatchSource | Prefetched) -> dict[str, float]:
        """Backpropagate the batch of this update; returns its losses, means over micro steps and
        ranks. Collective."""
        steps, sums = self.config.train.accumulate, {}
        for micro_step in range(steps):
            batch = channels_last(source.batch(self.update, micro_step), self.worker.device)
            with self.averaging(micro_step == steps - 1):
                with autocast(self.worker.device, self.config.parallel.precision):
                    losses = self.losses(batch)
                self.scaler.scale(losses["loss"] / steps).backward()
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value.detach() / steps
        return dict(zip(sums, self.worker.mean(list(sums.values())), strict=True))

    def averaging(self, now: bool) -> AbstractContextManager:
        """Ranks average their gradients in the backward pass of the last micro step only."""
        return nullcontext() if now or self.worker.size == 1 else self.losses.no_sync()

    def apply_gradient(self) -> None:
        """Clip, step, forget. With fp16 the scaler leaves out a step whose gradient overflowed,
        and scales less."""
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(),
                                        self.config.train.clip_norm or math.inf)
        if not self.scaler.is_enabled():
            self.check_finite("gradient", norm.item())
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    def check_finite(self, what: str, value: float) -> None:
        """End before anything is spoilt; equal on all ranks, so that they end together."""
        if not math.isfinite(value):
            raise self.worker.told_once(SwinmpiError(
                f"the {what} is {value} at update {self.update + 1}; resume from the last "
                "checkpoint with a lower train.learning_rate or parallel.precision=fp32"))

    @property
    def learning_rate(self) -> float:
        """Of the last update."""
        return self.optimizer.param_groups[0]["lr"]

    def is_due(self, interval: int) -> bool:
        """Every `interval` updates, and at the end, of a round as well."""
        return self.update % interval == 0 or self.rounds.ends_at(self.update)

    def header(self) -> dict:
        """What a checkpoint says about itself; `swinmpi-sample` starts from these settings."""
        sections = self.config.model_dump(include={"model", "diffusion", "sampler", "train"},
                                          exclude={"train": self.config.train.unsaid,
                                                   "model": self.config.model.unsaid})
        target = "diffuser" if self.config.train.makes_diffuser else "encoder"
        learned = {} if self.words else self.values  # a model that only gets a head keeps its own
        return {"swinmpi": __version__, "update": self.update, "target": target, **learned,
                **student_words(self.config, self.taught_by), **sections, **self.words}

    def save(self, folder: CheckpointFolder) -> None:
        """Not collective: one rank writes."""
        state = {"update": self.update, "best": self.best, "losses": asdict(self.averages),
                 "optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict(),
                 "torch_rng": torch.get_rng_state()}
        folder.save(self.update, self.model.state_dict(), self.ema.tensors, state, self.header())

    def save_student(self, folder: CheckpointFolder) -> None:
        """The student of a round, at its end. Not collective."""
        save_weights(student_path(folder.root, self.config.sampler.steps), self.ema.tensors,
                     self.header())

    def load(self, path: Path) -> None:
        """Go on from one `update-*` folder."""
        weights, header = load_weights(path / "weights.safetensors")
        check_same_run(self.config, header, path)
        self.words = words_beneath(self.config, header)
        load_into(self.model, weights, str(path))
        ema, _ = load_weights(path / "ema.safetensors")
        check_shapes(self.ema.tensors, ema, str(path))
        self.ema.load(ema)
        with fitting_state(path):
            state = load_state(path)
            self.update, self.best = checked_progress(state)
            self.averages = checked_averages(state)
            load_moments(self.optimizer, state["optimizer"]["state"])
            self.scaler.load_state_dict(state["scaler"])
            torch.set_rng_state(state["torch_rng"])
        if self.teacher is not None:
            number, self.taught_by = self.rounds.number(self.update), header[TEACHER_KEY]
            if self.update % self.rounds.each:  # else it is the student just loaded
                load_teacher(self.teacher, self.config, number)
            self.enter_round(number)


def batches(trainer: Trainer,
            pairs: PairReader) -> AbstractContextManager[BatchSource | Prefetched]:
    """This rank's batches; made ahead where the device is not the CPU that makes them."""
    worker = trainer.worker
    crops = crops_on(pairs, worker.device)
    source = BatchSource(trainer.config, trainer.family, pairs, worker.rank, worker.size, crops)
    return (nullcontext(source) if worker.device.type == "cpu"
            else Prefetched(source, crops.num_threads))


def keep_figures(figures: Mapping[str, float], trainer: Trainer, folder: CheckpointFolder,
                 log: Log) -> None:
    """Log a validation, and keep the weights with the lowest loss so far. Not collective.

    The loss, not the PSNR of a sample: that is highest early, when samples are still smooth.
    """
    if not figures:
        return
    log.add_figures(trainer.update, figures)
    if figures["loss_validation"] < trainer.best:
        trainer.best = figures["loss_validation"]
        folder.save_best(trainer.ema.tensors, trainer.header())
