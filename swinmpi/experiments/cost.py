"""What an experiment will take on this machine, by trying one image of every kind of network."""
import time
from collections.abc import Callable

import torch

from swinmpi.benchmarks.program import quiet_resolver, smooth_images, whole
from swinmpi.config import Config
from swinmpi.experiments.definition import fingerprint
from swinmpi.experiments.plan import ArmRun, ExperimentPlan, checkpoint_of
from swinmpi.families.loading import make_family
from swinmpi.parallel.comm import Group, Node
from swinmpi.parallel.device import start_computing
from swinmpi.parallel.launch import allowed_cpus, cores_of
from swinmpi.reports.progress import clock
from swinmpi.reports.tables import format_table
from swinmpi.reports.timing import about
from swinmpi.sampling.settings import takes_steps
from swinmpi.storage.header import read_header
from swinmpi.training.estimate import empty_batch
from swinmpi.training.objective import make_training_module

TRIED_STEPS = (2, 6)
NO_COST = {"output", "data", "seed", "updates", "log_every", "checkpoint_every"}
Action = Callable[[Config, str], float]


def describe(plan: ExperimentPlan, num_ranks: int) -> str:
    """Arms, updates and seconds, of this job's part. Computes a few steps of one image for every
    kind of network; writes nothing. One process."""
    experiment, request = plan.experiment, plan.request
    lines = [f"{experiment.title} (thesis {experiment.section}), budget {request.budget}",
             *([] if experiment.kind == "time" else [f"data    {' '.join(plan.sources)}"]),
             f"output  {request.output}"]
    if experiment.kind == "pictures":
        return "\n".join([*lines, f"draws   {len(plan.mine)} pictures, without a network"])
    kept = [run for run in plan.mine if run.result.exists()]
    rows, total, seen = [], 0.0, set()
    for run, costs in zip(plan.mine, costs_of(plan), strict=True):
        done = run in kept
        trained = 0.0 if run.folder in seen or done else costs[0]
        seen.add(run.folder)
        judged = 0.0 if done else costs[1]
        total += trained + judged
        updates = str(run.config.train.updates) if run.folder else "-"
        if plan.budget.seconds is not None and run.folder:
            updates = f"{plan.budget.seconds:g} s"
        rows.append([run.name, "-" if experiment.kind == "time" else updates, clock(trained),
                     clock(judged), "done" if done else ""])
    what = ("samples are timed" if experiment.kind == "time" else
            f"{plan.budget.test_images} test images")
    ranks = "1 rank" if num_ranks == 1 else f"{num_ranks} ranks, if they share the work evenly and"
    told = (f"{about(total / num_ranks)} on {ranks} if the machine is free"
            if experiment.kind == "quality" else about(total))
    return "\n".join([*lines, f"arms    {len(plan.mine)} of {len(plan.runs)}, {what}", "",
                      format_table(["arm", "updates", "training", "sampling", ""], rows), "",
                      told])


def costs_of(plan: ExperimentPlan) -> list[tuple[float, float]]:
    """Seconds of (training, sampling) of every arm of this job on one rank. Networks of one kind
    are tried once."""
    parallel, known = plan.mine[0].config.parallel, {}
    device = start_computing(parallel.device, parallel.threads,
                             Node(0, 1, cores_of(allowed_cpus())))

    def once(action: Action, config: Config, *sections: str) -> float:
        key = fingerprint([action.__name__, config.model_dump(
            include={*sections, "model", "diffusion", "parallel", "train"},
            exclude={"train": NO_COST})])
        if key not in known:
            known[key] = action(config, device)
        return known[key]

    return [cost_of(run, plan, once) for run in plan.mine]


def cost_of(run: ArmRun, plan: ExperimentPlan, once: Callable[..., float]) -> tuple[float, float]:
    """Seconds of (training, sampling) of one arm."""
    training = 0.0
    if run.folder is not None:
        for config in filter(None, (run.config, run.encoder)):
            share = (plan.budget.pretrain if config is run.encoder
                     else plan.budget.share(pretrains=run.encoder is not None))
            training += (share * plan.budget.seconds if plan.budget.seconds is not None else
                         config.train.updates * config.train.batch_images
                         * once(seconds_per_trained_image, config))
    sampled = run.sampled
    steps = (sampled.train.target == "diffuser" if run.arm.checkpoint is None
             else takes_steps(read_header(checkpoint_of(run.arm))))
    seconds = once(seconds_per_sample, sampled, "sampler") if steps else 0.0
    images = (plan.budget.test_images if plan.experiment.kind == "quality"
              else plan.budget.repeats * 2)
    return training, images * seconds


def seconds_per_trained_image(config: Config, device: str) -> float:
    """Of an update, for one of its images."""
    module = make_training_module(config).to(device)
    batch = empty_batch(config, module, device)
    spent = []
    for _ in range(2):
        started = time.perf_counter()
        module(batch)["loss"].backward()
        settle(device)
        spent.append(time.perf_counter() - started)
    return min(spent)


def seconds_per_sample(config: Config, device: str) -> float:
    """Of one image of a training crop's size, by a few of its steps."""
    few = [min(steps, config.sampler.steps) for steps in TRIED_STEPS]
    images = smooth_images(config.model, config.train.crop_px, 1)
    family = make_family(config.model)
    spent = []
    for steps in few:
        resolver = quiet_resolver(config.replaced(sampler={"steps": steps}), family, device,
                                  Group())
        started = time.perf_counter()
        with torch.inference_mode():
            list(resolver(whole(images), [0], [0]))
        settle(device)
        spent.append(time.perf_counter() - started)
    if few[1] == few[0]:
        return spent[1]
    per_step = max(0.0, spent[1] - spent[0]) / (few[1] - few[0])
    return spent[1] + per_step * (config.sampler.steps - few[1])


def settle(device: str) -> None:
    """Wait for a GPU."""
    if device != "cpu":
        torch.cuda.synchronize(device)
