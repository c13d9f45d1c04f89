"""From a plan to tables: arm after arm on all ranks, then the report when all of them are there."""
import json
from pathlib import Path

from swinmpi.errors import ConfigError, Stopped
from swinmpi.experiments.arms import Job, run_arm
from swinmpi.experiments.pictures import picture_arm
from swinmpi.experiments.plan import ArmRun, ExperimentPlan, same_settings
from swinmpi.experiments.report import write_report
from swinmpi.experiments.timing import time_arm
from swinmpi.parallel.comm import World
from swinmpi.parallel.launch import StopFlag
from swinmpi.parallel.worker import Worker
from swinmpi.storage.files import write_atomically

BEGUN = "experiment.json"


def run(plan: ExperimentPlan, world: World, worker: Worker, stop: StopFlag) -> list[Path]:
    """Do the arms of this job that are not done; the files of the report, none while arms of other
    jobs are missing. Collective.

    Raises Stopped when a signal asks for an end; what is finished is kept.
    """
    world.on_root(lambda: begin(plan))
    job = Job(plan, world, worker, stop)
    for arm in plan.mine:
        if world.on_root(arm.result.exists):
            continue
        if stop.agreed(world):
            raise Stopped(f"stopped by a signal before {arm.name}; start again to go on in "
                          f"{plan.request.output}")
        world.on_root(lambda arm=arm: print(f"== {arm.name}", flush=True))
        RUNS[plan.experiment.kind](arm, job)
    return world.on_root(lambda: [] if missing(plan) else write_report(plan))


def report(plan: ExperimentPlan) -> list[Path]:
    """The report of arms that other jobs have done. One process; ConfigError where some are
    missing."""
    check_begun(plan)
    if left := missing(plan):
        names = ", ".join(arm.name for arm in left[:4])
        more = f" and {len(left) - 4} more" if left[4:] else ""
        raise ConfigError(f"{plan.request.output}: expected every arm done, missing {names}{more}; "
                          "run the same command without --report first")
    return write_report(plan)


def missing(plan: ExperimentPlan) -> list[ArmRun]:
    """The arms without a result."""
    return [arm for arm in plan.runs if not arm.result.exists()]


def begin(plan: ExperimentPlan) -> None:
    """Make the folder, or find that it is of this experiment. One process."""
    plan.request.output.mkdir(parents=True, exist_ok=True)
    path = plan.request.output / BEGUN
    if path.exists():
        check_begun(plan)
        return
    begun = {"experiment": plan.request.name, "budget": plan.request.budget,
             "data": list(plan.sources), "fingerprint": plan.fingerprint}
    write_atomically(path, (json.dumps(begun, indent=1) + "\n").encode())


def check_begun(plan: ExperimentPlan) -> None:
    """ConfigError where the folder was begun with other settings. One process."""
    path = plan.request.output / BEGUN
    if not path.exists():
        return
    try:
        written = json.loads(path.read_text())
    except ValueError:
        raise ConfigError(f"{path}: is damaged; choose another --output") from None
    same_settings(written if isinstance(written, dict) else {}, plan)


RUNS = {"quality": run_arm, "time": time_arm, "pictures": picture_arm}
