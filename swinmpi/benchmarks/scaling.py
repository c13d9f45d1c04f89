"""How sampling scales here: ranks against threads, groups, exchanges, all in one run, repeat by repeat in turn."""
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn

from swinmpi.benchmarks.machine import Yardstick, convolutions_of, count_flop, running_on
from swinmpi.config import Config
from swinmpi.families.lr_rows import LrStrip
from swinmpi.models.diffuser import Diffuser
from swinmpi.parallel.comm import Group, World
from swinmpi.parallel.launch import allowed_cpus
from swinmpi.parallel.shares import group_of, images_of_group
from swinmpi.reports.memory import forget_peak_memory, peak_memory_mib
from swinmpi.reports.progress import Progress
from swinmpi.sampling.distribution import ImageSize, plan_layout
from swinmpi.sampling.superresolve import SuperResolver

EXCHANGES = ("root", "torus")
COMPUTED = ("network", "noise", "step", "windows")
PHASES = (*COMPUTED, "exchange")
FIGURES = ("seconds", "cpu_seconds", "conditions", *PHASES, "received", "calls", "peak_mib")
MOST_CPUS = 4096
RATE_S = 0.2


@dataclass(frozen=True)
class Setting:
    """Groups of the first ranks of the world, each on its share of the images, while all other ranks sleep.

    threads: of every rank; kind: `image`, all on one image, or `stack`, what many images take.
    """

    name: str
    kind: str
    groups: tuple[range, ...]
    threads: int
    exchange: str
    num_images: int = 1
    images_per_step: int = 1

    @property
    def num_ranks(self) -> int:
        return sum(map(len, self.groups))


@dataclass
class Entrant:
    """A setting on this rank. images: the image indices of its group, none where it sleeps; once: figures of a sample in
    one step, repeats: of whole ones, (world ranks, len(FIGURES)), the same on every rank."""

    setting: Setting
    config: Config
    group: Group
    images: Sequence[int]
    once: np.ndarray | None = None
    repeats: list[np.ndarray] = field(default_factory=list)


class WatchedResolver(SuperResolver):
    """What swinmpi-sample samples with; counts apart what happens before the first step."""

    conditions_s = conditions_exchanged_s = 0.0

    def conditions(self, *arguments) -> list:
        """Collective."""
        started, exchanged = time.perf_counter(), self.group.stats.seconds
        made = super().conditions(*arguments)
        self.conditions_s += time.perf_counter() - started
        self.conditions_exchanged_s += self.group.stats.seconds - exchanged
        return made


class Course:
    """What all settings share on this rank: one copy of the weights, the images, and how calls of the U-Net are counted."""

    def __init__(self, config: Config, model: Diffuser, images: Sequence[Tensor], micro_batch: int, device: torch.device,
                 world: World):
        self.config, self.model, self.images, self.micro_batch, self.device = config, model, images, micro_batch, device
        self.world, self.cpus, self.calls, self.inputs = world, all_cpus(world), 0, None
        # Whoever is not measured must not take a core from those who are.
        self.meeting = world.split([range(world.size)])
        self.meeting.polite = world.size > 1
        model.unet.register_forward_hook(self.count_call)

    def count_call(self, unet: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self.calls += 1
        self.inputs = self.inputs or inputs

    def enter(self, setting: Setting) -> Entrant:
        """Collective."""
        sleeping = range(setting.num_ranks, self.world.size)
        group = self.world.split([*setting.groups, *([sleeping] if sleeping else [])])
        index = group_of([*setting.groups, sleeping], self.world.rank)
        images = images_of_group(range(setting.num_images), len(setting.groups), index) if index < len(setting.groups) else []
        config = self.config.model_copy(update={"parallel": self.config.parallel.model_copy(
            update={"exchange": setting.exchange, "threads": setting.threads})})
        return Entrant(setting, config, group, images)

    def run(self, entrant: Entrant, num_steps: int) -> np.ndarray:
        """Sample the entrant's images: FIGURES of every rank, (world ranks, len(FIGURES)). Collective.

        A rank at work counts until its own images are done; a sleeping one counts what sleeping costs.
        """
        resolver = self.resolver(entrant, num_steps) if entrant.images else None
        stats, calls = replace(entrant.group.stats), self.calls
        self.meeting.barrier()
        forget_peak_memory()
        started, cpu_started = time.perf_counter(), time.process_time()
        if resolver is not None:
            self.sample(entrant, resolver)
        else:
            self.meeting.barrier()
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
        spent = dict.fromkeys(("conditions", *PHASES), 0.0)
        if resolver is not None:
            self.meeting.barrier()
            spent = {"conditions": resolver.conditions_s} | {phase: getattr(resolver.seconds, phase) for phase in COMPUTED}
            spent["exchange"] = entrant.group.stats.seconds - stats.seconds - resolver.conditions_exchanged_s
        return self.everyones([seconds, cpu_seconds, *spent.values(), entrant.group.stats.received - stats.received,
                               self.calls - calls, peak_memory_mib()])

    def resolver(self, entrant: Entrant, num_steps: int) -> "WatchedResolver":
        """Collective in the entrant's group."""
        sampler = entrant.config.sampler.model_copy(update={"steps": num_steps})
        config = entrant.config.model_copy(update={"sampler": sampler})
        return WatchedResolver(config, self.model, entrant.group, self.micro_batch, self.device)

    def sample(self, entrant: Entrant, resolver: SuperResolver) -> None:
        """Collective in the entrant's group."""
        width, seed = entrant.setting.images_per_step, self.config.sampler.seed
        with running_on(self.cpus, entrant.setting.threads):
            for first in range(0, len(entrant.images), width):
                part = entrant.images[first:first + width]
                for _ in resolver([LrStrip.whole(self.images[i]) for i in part], part, [seed]):
                    pass

    def yardstick(self) -> Yardstick:
        """What the U-Net's convolutions could take; nothing to measure on a rank that never has a window."""
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[self.config.parallel.precision]
        return Yardstick(convolutions_of(self.model.unet, self.inputs) if self.inputs else [], dtype, self.device)

    def rates(self, yardstick: Yardstick, num_ranks: int, threads: int) -> np.ndarray:
        """GFLOP/s of (convolutions, matrix products) of every rank, (world ranks, 2); 0 where it sleeps. Collective."""
        own = (0.0, 0.0)
        self.meeting.barrier()
        if self.world.rank < num_ranks:
            with running_on(self.cpus, threads):
                own = yardstick.rates(RATE_S)
        self.meeting.barrier()
        return self.everyones(own)

    def everyones(self, own: Sequence[float]) -> np.ndarray:
        return self.meeting.allgather_arrays(np.array([own], np.float64), [1] * self.world.size)


@dataclass(frozen=True)
class Measured:
    """The figures of everything, on every rank.

    entrants: their figures are of all ranks; rates: for (ranks, threads), one array as of `Course.rates` a repeat;
    flop_per_call: of the U-Net on one micro-batch.
    """

    entrants: Sequence[Entrant]
    rates: Mapping[tuple[int, int], Sequence[np.ndarray]]
    flop_per_call: int


@torch.inference_mode()
def measure_scaling(course: Course, settings: Sequence[Setting], repeats: int) -> Measured:
    """All settings and the machine's own rates, in turn. Collective."""
    entrants = [course.enter(setting) for setting in settings]
    for one in entrants:
        one.once = course.run(one, 1)
    yardstick = course.yardstick()
    rates: dict = {(one.setting.num_ranks, one.setting.threads): [] for one in entrants if one.setting.kind == "image"}
    with Progress(repeats * len(entrants), "passes", enabled=course.world.is_root) as progress:
        for _ in range(repeats):
            for one in entrants:
                one.repeats.append(course.run(one, course.config.sampler.steps))
                progress.advance(note=one.setting.name)
            for shape, measured in rates.items():
                measured.append(course.rates(yardstick, *shape))
    flop = count_flop(course.model.unet, course.inputs) if course.inputs else 0
    return Measured(entrants, rates, flop)


def plan_settings(config: Config, size: ImageSize, world: World, threads: int, images_per_rank: int,
                  device: torch.device) -> list[Setting]:
    """What is compared on these ranks: the first is what the others are measured by."""
    ranks, exchange = world.size, config.parallel.exchange
    made = [Setting(named(n, threads), "image", (range(n),), threads, exchange) for n in rank_counts(ranks)]
    if device.type == "cpu" and 1 < ranks * threads <= world.node.cores and ranks > 1:
        made.append(Setting(named(1, ranks * threads), "image", (range(1),), ranks * threads, exchange))
    if ranks > 1:
        made += [Setting(f"{named(ranks, threads)}, {other}", "image", (range(ranks),), threads, other)
                 for other in EXCHANGES if other != exchange]
    for ranks_per_image in sorted({1, ranks}):
        chosen = config.model_copy(update={"parallel": config.parallel.model_copy(update={"ranks_per_image": ranks_per_image})})
        num_images = images_per_rank * ranks
        layout = plan_layout(chosen, size, num_images, ranks, device)
        name = f"{plural(len(layout.groups), 'group')} of {plural(ranks_per_image, 'rank')}"
        made.append(Setting(name, "stack", layout.groups, threads, exchange, num_images, layout.images_per_step))
    return made


def rank_counts(num_ranks: int) -> list[int]:
    """1, 2, 4 and so on, and all of them."""
    return sorted({2**power for power in range(num_ranks.bit_length())} | {num_ranks})


def named(ranks: int, threads: int) -> str:
    return f"{plural(ranks, 'rank')} x {plural(threads, 'thread')}"


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def all_cpus(world: World) -> set[int]:
    """The CPUs of all ranks together, by number. Collective."""
    own = np.zeros((1, MOST_CPUS), np.uint8)
    own[0, [cpu for cpu in allowed_cpus() if cpu < MOST_CPUS]] = 1
    return set(np.flatnonzero(world.allgather_arrays(own, [1] * world.size).any(0)).tolist())

