"""What `--dry-run` of a sampling run tells, once it has refused what the run would refuse."""
import sys

from swinmpi.families.family import Family
from swinmpi.families.loading import load_family
from swinmpi.sampling.many import ManyPlan, describe_many
from swinmpi.sampling.plan import SamplingPlan, describe
from swinmpi.sampling.ranges import SettledRange
from swinmpi.sampling.rehearsal.estimate import describe_time
from swinmpi.sampling.results import rehearse


def dry_run(plan: SamplingPlan) -> str:
    """The plan with its range and the time it will take. On one process; nothing is written.

    ConfigError, CheckpointError, OutputError, StackError as the run would. The stack is read to
    measure its range, unless it is 8 bit.
    """
    family = model_of(plan)
    told, left = rehearsed(plan, set())
    return f"{describe(plan)}\n{told}\n{describe_time([left], family)}"


def dry_run_many(plan: ManyPlan) -> str:
    """The same for many runs."""
    family = model_of(plan.plans[0]) if plan.plans else None
    said: set[str] = set()
    pairs = [rehearsed(one, said) for one in plan.plans]
    told, left = zip(*pairs, strict=True) if pairs else ((), ())
    return f"{describe_many(plan, told)}\n{describe_time(left, family)}"


def rehearsed(plan: SamplingPlan, said: set[str]) -> tuple[str, SamplingPlan]:
    """(lines on the range, and on what is done before; the plan of what is left). said: remarks
    that were made before; those on the range are made at once."""
    settled, num_done = rehearse(plan)
    for remark in (one for one in settled.remarks if one not in said):
        print(f"swinmpi: {remark}", file=sys.stderr, flush=True)
    said.update(settled.remarks)
    before = f"\nresumed     {num_done} of {plan.num_remaining} images are done before"
    return (f"{range_line(settled)}{before if num_done else ''}",
            plan.continued(plan.num_remaining - num_done))


def model_of(plan: SamplingPlan) -> Family:
    return load_family(plan.request.checkpoint, plan.config.model, plan.takes_steps)


def range_line(settled: SettledRange) -> str:
    values = settled.values
    return f"range       {values.low:g} to {values.high:g} become -1 to 1 ({settled.how})"
