"""What share of an image each rank gets: as large as that of the others, as told, or by how fast
it is, which is measured before a run."""
import math
from dataclasses import replace

from swinmpi.families.family import Family
from swinmpi.parallel.comm import Group, World
from swinmpi.parallel.shares import Weights
from swinmpi.sampling.distribution import Distribution, in_words
from swinmpi.sampling.plan import SamplingPlan
from swinmpi.sampling.rehearsal.estimate import MEASURE_S, once
from swinmpi.sampling.superresolve import make_resolver

NOT_NOTICED = 0.95
"""Of the fastest: what is measured between it and 1 counts as as fast, as two measurements of one
machine differ as well."""


def with_shares(plan: SamplingPlan, family: Family, device: str, world: World) -> SamplingPlan:
    """The plan, with the speeds of the ranks where shares go by them. Collective.

    They are measured once for all runs of a command, in about a second. Where ranks do not work
    on an image together, or no network is called step by step, there is nothing to measure.
    """
    if not (plan.measures_shares and plan.num_remaining):
        return plan
    if world.speeds is None:
        world.barrier()  # who shares a machine with others is as slow as it will be
        world.speeds = tuple(world.gather_everywhere(windows_per_second(plan, family, device)))
    return replace(plan, distribution=replace(plan.distribution, weights=weights_of(world.speeds),
                                              speeds=world.speeds))


def weights_of(speeds: Weights) -> Weights:
    """What ranks should get that are so fast."""
    fastest = max(speeds)
    return tuple(1.0 if speed >= NOT_NOTICED * fastest else speed / fastest for speed in speeds)


def windows_per_second(plan: SamplingPlan, family: Family, device: str) -> float:
    """Of this rank: windows of a call of the network over the median seconds of some."""
    config = plan.config.replaced(parallel={"exchange": "root", "compile": False})
    resolver, size = make_resolver(config, family, device, Group()), plan.calls.all_sizes[0]
    if once(resolver, plan, 1).network * size > MEASURE_S:
        size = 1
    return size / max(once(resolver, plan, size, MEASURE_S).network, math.ulp(1.0))


def describe_shares(distribution: Distribution) -> str | None:
    """A line on what each rank gets; None where that is as ever."""
    if distribution.weights is None or not distribution.are_shared:
        return None
    told = f"windows of an image by rank: {in_words(distribution.parts_of_ranks)}"
    if distribution.speeds is None:
        return told
    return f"{told}, as they compute {in_words(distribution.speeds)} windows a second"
