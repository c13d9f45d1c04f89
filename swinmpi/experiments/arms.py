"""One arm of an experiment: trained, sampled, judged; each step is left out where it is done."""
import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from swinmpi.config import Config
from swinmpi.evaluation.evaluate import Request as EvaluationRequest
from swinmpi.evaluation.evaluate import measure
from swinmpi.evaluation.evaluate import plan as plan_evaluation
from swinmpi.evaluation.report import Evaluation, plain
from swinmpi.experiments.band_figures import BAND_FIGURES
from swinmpi.experiments.data import prepared, test_stack
from swinmpi.experiments.definition import Settings
from swinmpi.experiments.edges import FIGURES_AND_EDGE
from swinmpi.experiments.plan import ArmRun, ExperimentPlan, checkpoint_of, logged
from swinmpi.parallel.comm import World
from swinmpi.parallel.launch import StopFlag, allowed_cpus, cores_of
from swinmpi.parallel.worker import Worker
from swinmpi.sampling.plan import plan as plan_sampling
from swinmpi.sampling.request import SampleRequest
from swinmpi.sampling.sample import run as run_sampling
from swinmpi.sampling.settings import takes_steps
from swinmpi.sampling.validation import GivenSettings, validated
from swinmpi.storage.checkpoint import CheckpointFolder
from swinmpi.storage.files import write_atomically
from swinmpi.storage.header import read_header
from swinmpi.training.log import read_records
from swinmpi.training.plan import plan as plan_training
from swinmpi.training.train import run as run_training

PROBE_UPDATES = 24
"""Updates by which the speed of a training is measured; the first half of them warms up."""


@dataclass(frozen=True)
class Job:
    """What the arms of this job are done with: the plan, the ranks, and the wish to stop."""

    plan: ExperimentPlan
    world: World
    worker: Worker
    stop: StopFlag


def run_arm(run: ArmRun, job: Job) -> None:
    """Train, sample and judge; result.json is written last. Collective.

    Raises Stopped when a signal asks for an end; the same command then goes on.
    """
    world = job.world
    # Not beside other ranks: they wait busily, and MPI over some networks forbids to fork.
    cores = cores_of(allowed_cpus()) if world.size == 1 else 1
    pairs, test = world.on_root(lambda: data_of(run, job.plan, cores))
    told: dict = {}
    if run.folder is None:
        checkpoint = checkpoint_of(run.arm)
    else:
        checkpoint, told = trained(run, job, pairs)
    sampling = sampled(run, job, checkpoint, test)
    world.on_root(lambda: judge(run, job, test, told | sampling))


def data_of(run: ArmRun, plan: ExperimentPlan, cores: int) -> tuple[Path, Path]:
    """(pairs, test images), prepared where they are not there. One process; see `prepared`."""
    pairs = prepared(plan, run.config.data, cores)
    return pairs, test_stack(plan, pairs)


def trained(run: ArmRun, job: Job, pairs: Path) -> tuple[Path, dict]:
    """(averaged weights after the last update, what the training took). Collective.

    What an encoder before it took is told beside it, and is part of an arm's budget where that
    says so.
    """
    told, config = {}, run.config.replaced(
        train={"output": str(run.folder), "data": str(pairs), "encoder_checkpoint": None})
    if run.encoder is not None:
        encoder = run.encoder.replaced(train={"data": str(pairs)})
        weights, took = train(encoder, job, job.plan.budget.pretrain)
        told["pretraining"] = took
        config = config.replaced(train={"encoder_checkpoint": str(weights)})
    elif run.config.train.encoder_checkpoint is not None:
        config = config.replaced(
            train={"encoder_checkpoint": run.config.train.encoder_checkpoint})
    share = job.plan.budget.share(pretrains=run.encoder is not None)
    weights, took = train(config, job, share)
    return weights, told | {"training": took}


def train(config: Config, job: Job, share: float) -> tuple[Path, dict]:
    """Train for the budget, from where it was stopped. Collective. share: of the seconds."""
    world, folder, seconds = job.world, Path(config.train.output), job.plan.budget.seconds
    if seconds is not None:
        config = logged(config.replaced(
            train={"updates": updates_within(share * seconds, config, job)}))
    run_plan = world.on_root(lambda: plan_training(config, world.size, resume=True))
    run_training(run_plan, job.worker, lambda: job.stop.is_set)

    def account() -> tuple[Path, dict]:
        everything = read_records(folder / "log.jsonl")
        records = [one for one in everything if "seconds" in one]
        judged = [one for one in everything if "loss_validation" in one]
        newest = CheckpointFolder(folder, 1).latest()
        return newest / "ema.safetensors", {
            "updates": config.train.updates, "parameters": run_plan.num_parameters,
            "images_per_update": config.train.batch_images,
            "seconds": max((one["seconds"] for one in records), default=0.0),
            "validation": {name: finite(value) for name, value in (judged or [{}])[-1].items()},
            "log": [{"update": one["update"], **losses_of(one)} for one in records]}

    return world.on_root(account)


def losses_of(record: Mapping) -> Settings:
    """The losses in a line of a training's log."""
    return {key: value for key, value in record.items()
            if key in ("loss", "diffusion", "regression")}


def updates_within(seconds: float, config: Config, job: Job) -> int:
    """How many updates fit into `seconds` on these ranks, by a few made first; the number is
    kept, so that a run that goes on has the same. Collective."""
    folder = Path(config.train.output)
    kept = folder.with_name(f"{folder.name}.budget.json")
    known = job.world.on_root(
        lambda: json.loads(kept.read_text())["updates"] if kept.exists() else None)
    if known is not None:
        return known
    probe = folder.with_name(f"{folder.name}.probe-{time.time_ns()}")
    probe = Path(job.world.on_root(lambda: str(probe)))
    short = config.replaced(train={
        "updates": PROBE_UPDATES, "log_every": PROBE_UPDATES // 2, "output": str(probe),
        "checkpoint_every": PROBE_UPDATES, "validate_every": 1 << 30})
    run_plan = job.world.on_root(lambda: plan_training(short, job.world.size, resume=False))
    run_training(run_plan, job.worker, lambda: job.stop.is_set)

    def decide() -> int:
        rate = [one for one in read_records(probe / "log.jsonl") if "images_per_second" in one]
        per_second = rate[-1]["images_per_second"] / config.train.batch_images
        updates = max(1, round(seconds * per_second))
        text = json.dumps({"updates": updates, "seconds": seconds, "per_second": per_second})
        write_atomically(kept, text.encode())
        for path in sorted(probe.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        probe.rmdir()
        return updates

    return job.world.on_root(decide)


def sampled(run: ArmRun, job: Job, checkpoint: Path, test: Path) -> dict:
    """Super-resolve the test images into sr.h5; what it took. Collective."""
    world, sr, timed = job.world, run.output / "sr.h5", run.output / "sampling.json"
    done = world.on_root(
        lambda: json.loads(timed.read_text()) if sr.exists() and timed.exists() else None)
    if done is not None:
        return done

    def ready():
        run.output.mkdir(parents=True, exist_ok=True)
        request = SampleRequest(f"{test}::/lr", sr, checkpoint, overwrite=True,
                                keeps_regression=takes_steps(read_header(checkpoint)))
        request, config = validated(request, GivenSettings((), sampling_words(run)))
        return plan_sampling(request, config, world.size)

    report = run_sampling(world.on_root(ready), world, job.stop)
    took = {"ranks": world.size, "device": str(job.worker.device), "images": report.num_images,
            "seconds_per_image": report.seconds / max(1, report.num_images)}
    world.on_root(lambda: write_atomically(timed, json.dumps({"sampling": took}).encode()))
    return {"sampling": took}


def sampling_words(run: ArmRun) -> list[str]:
    """What an arm sets for swinmpi-sample, as `section.key=value`."""
    config = run.sampled.model_dump(include={"sampler", "parallel"})
    return [f"{section}.{key}={json.dumps(value)}" for section, values in config.items()
            for key, value in values.items()]


def judge(run: ArmRun, job: Job, test: Path, told: Mapping) -> None:
    """Figures of every test image, and result.json. One process."""
    request = EvaluationRequest(str(run.output / "sr.h5"), f"{test}::/hr", run.output,
                                f"{test}::/lr", job.plan.request.lpips_backbone,
                                inception=job.plan.request.inception)
    bands = BAND_FIGURES if job.plan.experiment.bands else ()
    evaluation, _ = measure(plan_evaluation(request, (*FIGURES_AND_EDGE, *bands)))
    result = {"arm": run.arm.name, "seed": run.seed, **told, "test": test.name,
              "figures": by_version(evaluation), "remarks": list(evaluation.remarks),
              "mean": plain(evaluation.mean),
              "configuration": run.sampled.model_dump()}
    write_atomically(run.result, (json.dumps(result, indent=1) + "\n").encode())


def by_version(evaluation: Evaluation) -> dict[str, dict[str, list]]:
    """Of sr, bicubic and regression: every figure, image by image; null where there is none."""
    images = list(evaluation.images.values())
    return {version: {name: [finite(image[version][name]) for image in images]
                      for name in images[0][version]} for version in images[0]}


def finite(value: float) -> float | None:
    """As JSON has it."""
    return float(value) if math.isfinite(value) else None


def per_image(result: Mapping, version: str, name: str) -> np.ndarray:
    """A figure of every test image, NaN where there is none."""
    values = result["figures"].get(version, {}).get(name, [])
    return np.array([np.nan if value is None else value for value in values], float)
