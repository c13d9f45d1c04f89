"""What an experiment will do: its arms resolved and checked before anything is computed."""
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from swinmpi.config import Config, DataConfig
from swinmpi.config.loading import merge, validate
from swinmpi.demo import DEMO_STACK, MODELS, shipped
from swinmpi.errors import ConfigError
from swinmpi.evaluation.demo import HR
from swinmpi.evaluation.files import check_folder
from swinmpi.experiments.definition import (
    Arm,
    Budget,
    Experiment,
    Settings,
    fingerprint,
    resolved,
)
from swinmpi.families.loading import check_size
from swinmpi.images.frechet import load_inception
from swinmpi.images.perceptual import load_lpips
from swinmpi.parallel.shares import Shard
from swinmpi.sampling.settings import (
    check_consistent,
    check_regression,
    resolve_config,
    takes_steps,
)
from swinmpi.storage.header import read_header
from swinmpi.training.prepare import PrepareRequest
from swinmpi.training.prepare import plan as plan_preparing
from swinmpi.training.setup import check_drawing, check_encoder

LOGGED = 200
"""Lines of a training's log, at most about."""


@dataclass(frozen=True)
class Request:
    """What the command line asks for. data: photographs, none for the shipped stack; given:
    settings of every arm, after all others; shard: of the arms, that this job does."""

    name: str
    output: Path
    budget: str
    data: tuple[str, ...] = ()
    root: Path | None = None
    given: Settings = field(default_factory=dict)
    shard: Shard | None = None
    lpips_backbone: Path | None = None
    inception: Path | None = None


@dataclass(frozen=True)
class ArmRun:
    """One arm with one seed. config: with its budget, of data, training and sampling; encoder: of
    the encoder trained before it; folder: where it is trained, shared by arms that differ in
    sampling only; None where nothing is trained."""

    arm: Arm
    seed: int
    config: Config
    encoder: Config | None
    folder: Path | None
    output: Path

    @property
    def name(self) -> str:
        return f"{self.arm.name}, seed {self.seed}"

    @property
    def result(self) -> Path:
        return self.output / "result.json"

    @property
    def sampled(self) -> Config:
        """The configuration with what the arm sets of sampling alone."""
        return validate(merge(self.config.model_dump(), self.arm.sampling), f"arm {self.arm.name}")


@dataclass(frozen=True)
class ExperimentPlan:
    """An experiment that can be done."""

    request: Request
    experiment: Experiment
    runs: tuple[ArmRun, ...]

    @property
    def budget(self) -> Budget:
        return self.experiment.budgets[self.request.budget]

    @property
    def sources(self) -> tuple[str, ...]:
        """What images are cut from."""
        return self.request.data or (f"{shipped(DEMO_STACK)}::{HR}",)

    @cached_property
    def mine(self) -> tuple[ArmRun, ...]:
        """The runs of this job. Those that share a training stay together."""
        shard = self.request.shard
        if shard is None:
            return self.runs
        homes = list(dict.fromkeys(run.folder or run.output for run in self.runs))
        chosen = homes[shard.number - 1::shard.of]
        return tuple(run for run in self.runs if (run.folder or run.output) in chosen)

    @cached_property
    def fingerprint(self) -> str:
        """Of everything that decides the results."""
        places = {"parallel": True, "output": True}
        said = [run.config.model_dump(
            exclude=places | {"train": {"output", "data"} | run.config.train.unsaid,
                              "model": run.config.model.unsaid})
            for run in self.runs]
        # Versions before `auto` wrote its word as fp32.
        runs = [[run.name, config, run.config.parallel.precision.replace("auto", "fp32"),
                 run.arm.sampling, run.arm.pretrain, run.arm.checkpoint]
                for run, config in zip(self.runs, said, strict=True)]
        given = [str(Path(text).absolute()) for text in self.request.data]
        budget = self.budget.model_dump(include={"updates", "seconds", "pretrain", "test_images"})
        if self.budget.pretrain_within:
            budget["pretrain_within"] = True
        return fingerprint([self.experiment.kind, budget, runs, given])


def plan(request: Request, experiment: Experiment, num_ranks: int) -> ExperimentPlan:
    """Validate every arm; writes nothing. One process.

    Raises ConfigError, StackError, CheckpointError or OutputError.
    """
    if request.budget not in experiment.budgets:
        raise ConfigError(f"--budget: expected one of {', '.join(experiment.budgets)}, "
                          f"got {request.budget}")
    if not request.data and request.budget != "smoke" and experiment.kind != "time":
        raise ConfigError("--data: expected photographs (a folder, a list .tsv or an HDF5 stack) "
                          f"with --budget {request.budget}, got none; only smoke takes the "
                          "shipped stack")
    check_folder(request.output)
    runs = tuple(run for arm in experiment.arms
                 for run in runs_of(request, experiment, arm))
    made = ExperimentPlan(request, experiment, shared_trainings(runs))
    homes = len({run.folder or run.output for run in made.runs})
    if request.shard is not None and request.shard.of > homes:
        raise ConfigError(f"--arm: expected at most {homes} parts, as many as there are arms that "
                          f"share no training, got {request.shard.of}")
    for run in made.runs:
        try:
            check_run(run, experiment, num_ranks)
        except ConfigError as error:
            raise ConfigError(f"arm {run.arm.name}: {error}") from None
    for model in {run.config.model.model_dump_json(): run.config.model
                  for run in made.runs}.values():
        check_size(model)
    if request.lpips_backbone is not None:
        load_lpips(request.lpips_backbone)
    if request.inception is not None:
        load_inception(request.inception)
    for config in () if experiment.kind == "time" else data_configs(made.runs):
        plan_preparing(prepare_request(made, made.request.output / "data" / "pairs.h5"), config)
    return made


def runs_of(request: Request, experiment: Experiment, arm: Arm) -> list[ArmRun]:
    """The arm with every seed."""
    budget = experiment.budgets[request.budget]
    made = []
    for seed in budget.seeds:
        name = f"{arm.name.replace(' ', '_')}-seed{seed}"
        folder = request.output / "trainings" / name
        seeded = {"train": {"seed": seed, "output": str(folder), "data": "pairs.h5"},
                  "sampler": {"seed": seed}}
        if budget.updates is not None:
            seeded["train"]["updates"] = budget.updates
        output = request.output / "arms" / name
        if arm.checkpoint is not None:
            config = given_model(request, experiment, arm, seeded)
            made.append(ArmRun(arm, seed, config, None, None, output))
            continue
        encoder = None
        if arm.pretrain is not None:
            encoder = encoder_config(request, experiment, arm, seeded)
            seeded["train"]["encoder_checkpoint"] = "of the encoder trained before"
        config = logged(resolved(experiment, arm, request.budget, request.given, seeded))
        trains = experiment.kind == "quality"
        made.append(ArmRun(arm, seed, config, encoder, folder if trains else None, output))
    return made


def encoder_config(request: Request, experiment: Experiment, arm: Arm, seeded: Settings) -> Config:
    """Of the encoder that an arm trains first."""
    alone = {"train": {"target": "encoder", "freeze_encoder": False, "encoder_checkpoint": None,
                       "output": f"{seeded['train']['output']}-encoder"}}
    config = resolved(experiment, arm, request.budget, request.given,
                      merge(merge(seeded, arm.pretrain), alone))
    share = experiment.budgets[request.budget].pretrain
    updates = max(1, round(share * config.train.updates))
    return logged(config.replaced(train={"updates": updates}), ENCODER_IMAGES)


def given_model(request: Request, experiment: Experiment, arm: Arm, seeded: Settings) -> Config:
    """Of an arm whose weights are there: their own settings, with the experiment's data."""
    checkpoint = checkpoint_of(arm)
    config = resolve_config(read_header(checkpoint), checkpoint, (), (), None)
    data = resolved(experiment, arm, request.budget, request.given).data
    parallel = {key: value for key, value in request.given.items() if key == "parallel"}
    made = merge(config.model_dump(), parallel | {"sampler": seeded["sampler"]})
    return validate(made, f"arm {arm.name}").model_copy(update={"data": data})


def checkpoint_of(arm: Arm) -> Path:
    """The weights of an arm that is not trained."""
    return shipped(MODELS[arm.checkpoint]) if arm.checkpoint in MODELS else Path(arm.checkpoint)


def logged(config: Config, validate_images: int = 1) -> Config:
    """As often logged as a curve needs, validated at the end only: samples cost."""
    updates = config.train.updates
    return config.replaced(train={
        "log_every": max(1, updates // LOGGED), "validate_every": MOST_UPDATES,
        "validate_images": validate_images, "keep_last": 1,
        "checkpoint_every": min(config.train.checkpoint_every, updates)})


MOST_UPDATES = 1 << 30
ENCODER_IMAGES = 32  # without steps they cost little


def shared_trainings(runs: Sequence[ArmRun]) -> tuple[ArmRun, ...]:
    """Arms that train the same in the same way do so once, in the folder of the first."""
    homes: dict[str, Path] = {}
    made = []
    for run in runs:
        if run.folder is not None:
            settings = run.config.model_dump(exclude={"output": True, "train": {"output"}})
            before = run.encoder and run.encoder.model_dump(exclude={"train": {"output"}})
            folder = homes.setdefault(fingerprint([settings, before]), run.folder)
            run = replace(run, folder=folder)
        made.append(run)
    return tuple(made)


def check_run(run: ArmRun, experiment: Experiment, num_ranks: int) -> None:
    """ConfigError where an arm contradicts itself, its data or the ranks."""
    config = run.config
    data, model, train = config.data, config.model, config.train
    sampled = run.sampled
    if experiment.kind == "pictures":
        return
    if run.arm.checkpoint is not None:
        if not takes_steps(read_header(checkpoint_of(run.arm))):
            raise ConfigError("checkpoint: expected a diffuser, got an encoder trained alone")
    else:
        check_encoder(config)
        check_drawing(config)
    check_consistent(sampled)
    check_regression(sampled, train.target == "diffuser")
    if experiment.kind == "quality" and (data.scale, data.channels) != (model.scale,
                                                                        model.channels):
        raise ConfigError(f"data.scale, data.channels: expected {model.scale} and "
                          f"{model.channels} as in `model`, got {data.scale:g} and "
                          f"{data.channels}")
    if run.folder is None:
        return
    if train.crop_px > data.size_px:
        raise ConfigError(f"train.crop_px: expected at most data.size_px = {data.size_px}, "
                          f"got {train.crop_px}")
    for one in filter(None, (config, run.encoder)):
        total, parts = one.train.batch_images, num_ranks * one.train.accumulate
        if total % parts:
            raise ConfigError("train.batch_images: expected a multiple of ranks x "
                              f"train.accumulate = {num_ranks} x {one.train.accumulate}, "
                              f"got {total}")


def data_configs(runs: Sequence[ArmRun]) -> list[DataConfig]:
    """What has to be prepared."""
    return list({data_name(run.config.data): run.config.data for run in runs}.values())


def data_name(config: DataConfig) -> str:
    """Of a prepared file."""
    return f"pairs-{fingerprint(config.model_dump())[:8]}.h5"


def prepare_request(plan: ExperimentPlan, output: Path, cores: int = 1) -> PrepareRequest:
    """The preparation of one file, which is not there, by as many processes as `cores`."""
    return PrepareRequest(plan.sources, output, plan.request.root, cores=cores)


def same_settings(written: Mapping, plan: ExperimentPlan) -> None:
    """ConfigError unless an output folder was begun by the same experiment."""
    if written.get("fingerprint") != plan.fingerprint:
        raise ConfigError(
            f"{plan.request.output}: holds the experiment {written.get('experiment')} with budget "
            f"{written.get('budget')}, begun with other settings or data; give those to go on "
            "with it, or choose another --output")
