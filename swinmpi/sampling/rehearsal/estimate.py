"""How long a run will take, by one micro-batch of its network, measured on this machine."""
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from statistics import median

import torch

from swinmpi.families.family import Family
from swinmpi.images.lr_rows import LrRows
from swinmpi.parallel.calls import Calls
from swinmpi.parallel.comm import Group, Node
from swinmpi.parallel.device import choose_device, choose_threads
from swinmpi.parallel.launch import allowed_cpus, cores_of
from swinmpi.parallel.staging import wait_for
from swinmpi.reports.timing import about
from swinmpi.sampling.plan import SamplingPlan
from swinmpi.sampling.superresolve import SuperResolver, make_resolver

MEASURE_S, MEASURED_LR_PX = 0.7, 64
NOT_COUNTED = "reading, writing and exchange not counted"


@dataclass(frozen=True)
class Costs:
    """Seconds: of the encoder for an LR pixel; of what a micro-batch is told once per shift; of the
    network for a micro-batch."""

    lr_pixel: float
    told: float
    network: float


def describe_time(plans: Sequence[SamplingPlan], family: Family | None) -> str:
    """A line on how long the images still to do in these plans, of one model, will take."""
    plans = [plan for plan in plans if plan.num_remaining]
    if not plans or family is None:
        return "time        nothing is left to compute"
    if plans[0].config.parallel.device == "cuda" and not torch.cuda.is_available():
        return "time        not known: no CUDA device here to measure on"
    costs: dict[int, Costs] = {}
    seconds = 0.0
    for plan in plans:
        for size in plan.calls.all_sizes:
            costs[size] = costs.get(size) or measure(plan, family, size)
        seconds += seconds_of(plan, costs) * crowding(plan)
    ranks = plans[0].distribution.num_ranks
    most = "at most " if plans[0].config.sampler.adaptive else ""
    return (f"time        {most}{about(seconds)} on {ranks} rank{'s' if ranks > 1 else ''} "
            f"(measured on one micro-batch; {NOT_COUNTED})")


def seconds_of(plan: SamplingPlan, costs: Mapping[int, Costs]) -> float:
    """Of a rank that has most to do. costs: by the size of a micro-batch. Arithmetic."""
    config, distribution, stack = plan.config, plan.distribution, plan.stack
    num_groups, ranks = len(distribution.groups), distribution.equal_ranks
    images = math.ceil(plan.num_remaining / num_groups)
    sizes = plan.calls.all_sizes
    encoder = costs[sizes[0]].lr_pixel * images * stack.height * stack.width / ranks
    if not plan.diffuses:
        return encoder
    full, rest = divmod(images, distribution.images_per_step)
    steps = [*[distribution.images_per_step] * full, rest]
    windows = {size: math.ceil(plan.calls.sizes.count(size) / ranks) for size in sizes}
    batches = {size: sum(math.ceil(width * windows[size] / size) for width in steps)
               for size in sizes}
    told, network = (sum(getattr(costs[size], name) * batches[size] for size in sizes)
                     for name in ("told", "network"))
    evaluations = config.sampler.steps * (2 if config.sampler.method == "heun" else 1)
    evaluations += config.sampler.overlap - 1
    members = plan.request.ensemble - plan.request.first_sampled
    shift = config.sampler.shift.pattern
    shifts = {"none": 1, "circular": min(4, evaluations)}.get(shift, evaluations * members)
    again = 1 if config.parallel.encoder_cache else evaluations * members
    return encoder * again + told * max(shifts, again) + network * evaluations * members


def measure(plan: SamplingPlan, family: Family, size: int) -> Costs:
    """In about a second; a large network by one window instead of a micro-batch of `size`."""
    config = plan.config.replaced(parallel={"exchange": "root", "compile": False})
    device = choose_device(config.parallel.device, 0)
    threads = torch.get_num_threads()
    torch.set_num_threads(choose_threads(config.parallel.threads, node_of(plan)))
    try:
        resolver = make_resolver(config, family, device, Group())
        made = once(resolver, plan, 1)
        if sum(astuple(made)[1:]) * size > MEASURE_S:
            return Costs(made.lr_pixel, made.told * size, made.network * size)
        once(resolver, plan, size)  # whatever is made once for this size
        return once(resolver, plan, size)
    finally:
        torch.set_num_threads(threads)


@torch.inference_mode()
def once(resolver: SuperResolver, plan: SamplingPlan, size: int, for_s: float = 0.0) -> Costs:
    """Of micro-batches of `size` windows, on an image without content. for_s: the network is called
    again until so many seconds have passed; its median counts."""
    family = resolver.family
    height, width = (min(side, MEASURED_LR_PX) for side in (plan.stack.height, plan.stack.width))
    lr = LrRows.whole(torch.zeros(family.config.channels, height, width))
    exchange = resolver.exchange_for(height, width)
    grid = exchange.work.grid
    resolver.predictor.calls = Calls((size,) * grid.num_positions)
    device = resolver.predictor.device
    x_t = torch.zeros(family.x_channels, grid.frame_height_px, grid.frame_width_px, device=device)
    wait_for(device)
    began = time.perf_counter()
    condition, = resolver.conditions([lr], exchange, exchange.room_for_residuals(1))
    wait_for(device)
    encoded = time.perf_counter()
    encoder = (encoded - began) / (height * width)
    if not family.takes_steps:
        return Costs(encoder, 0.0, 0.0)
    condition.prepare((0, 0), [0], lambda: x_t[:, :grid.height_px, :grid.width_px])
    wait_for(device)
    told = time.perf_counter()
    window = x_t[None, :, :grid.window_px, :grid.window_px].expand(size, -1, -1, -1)
    calls: list[float] = []
    while not calls or sum(calls) < for_s:
        began = time.perf_counter()
        resolver.predictor([(0, 0)] * size, 0, lambda items: (
            window, *condition.inputs((0, 0), [at for _, at in items])),
            lambda items, answer: wait_for(device))
        calls.append(time.perf_counter() - began)
    return Costs(encoder, told - encoded, median(calls))


def node_of(plan: SamplingPlan, environ: Mapping[str, str] = os.environ) -> Node:
    """This machine as one of those of the run: ranks are shared out evenly over Slurm's nodes, else
    all are here."""
    nodes = environ.get("SLURM_JOB_NUM_NODES", "1")
    num_nodes = max(1, int(nodes)) if nodes.isdigit() else 1
    return Node(0, math.ceil(plan.distribution.num_ranks / num_nodes), cores_of(allowed_cpus()))


def crowding(plan: SamplingPlan) -> float:
    """How many threads of ranks share a core, at least 1; on the CPU only."""
    if plan.config.parallel.device != "cpu":
        return 1.0
    node = node_of(plan)
    return max(1.0, node.ranks * choose_threads(plan.config.parallel.threads, node) / node.cores)
