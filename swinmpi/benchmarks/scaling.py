"""How sampling scales here: ranks against threads, groups, exchanges, in one run, repeat by repeat
in turn."""
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from swinmpi.benchmarks.machine import MachineRates, convolutions_of, count_flop, running_on
from swinmpi.benchmarks.program import quiet_resolver, whole
from swinmpi.benchmarks.scaling_settings import Setting
from swinmpi.config import Config
from swinmpi.families.family import Family
from swinmpi.models.diffuser import MIXED
from swinmpi.parallel.comm import Group, World
from swinmpi.parallel.launch import allowed_cpus
from swinmpi.parallel.shares import group_of, images_of_group
from swinmpi.parallel.stopwatch import Stopwatch
from swinmpi.reports.memory import forget_peak_memory, peak_memory_mib
from swinmpi.reports.progress import Progress
from swinmpi.sampling.superresolve import SuperResolver

COMPUTED = ("network", "noise", "step", "windows")
PHASES = (*COMPUTED, "exchange")
FIGURES = ("seconds", "cpu_seconds", "conditions", *PHASES, "received", "calls", "peak_mib")
"""Of one rank and one sampling. conditions: seconds before the first step, without x_T's noise;
PHASES: seconds, `exchange` without that before the first step; received: bytes; calls: of the
U-Net."""
MOST_CPUS = 4096
RATE_S = 0.2


@dataclass
class SettingRun:
    """A setting on this rank. images: the image indices of its group, none where it sleeps; once:
    figures of a sample in one step, repeats: of whole ones, (world ranks, len(FIGURES)), the same
    on every rank."""

    setting: Setting
    config: Config
    group: Group
    images: Sequence[int]
    once: np.ndarray | None = None
    repeats: list[np.ndarray] = field(default_factory=list)


class BeforeSteps:
    """What comes before the first step of samples, the noise of x_T left out.

    Passed to a SuperResolver as `stopping`, which is called before every evaluation.
    """

    def __init__(self, stopwatch: Stopwatch):
        self.stopwatch, self.seconds, self.exchange = stopwatch, 0.0, 0.0
        self.start()

    def start(self) -> None:
        """A sample begins now."""
        self.started, self.reading = time.perf_counter(), self.stopwatch.read()
        self.counting = True

    def __call__(self) -> bool:
        if self.counting:
            spent = self.stopwatch.since(self.reading)
            self.seconds += time.perf_counter() - self.started - spent.get("noise", 0.0)
            self.exchange += spent.get("exchange", 0.0)
            self.counting = False
        return False


class CallCounter:
    """Counts the calls of a network and keeps the inputs of the first."""

    def __init__(self, network: nn.Module):
        self.network, self.calls, self.inputs = network, 0, None
        network.register_forward_hook(self.keep)

    def keep(self, network: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self.inputs = self.inputs or inputs

    def count(self, size: int, batch: Sequence[Tensor], t: int) -> None:
        """A call of a predictor, which may play what it recorded and run no module."""
        self.calls += 1

    @property
    def flop_per_call(self) -> int:
        return count_flop(self.network, self.inputs) if self.inputs else 0


class ScalingRun:
    """What all settings share on this rank: one copy of the weights, the images, the ranks."""

    def __init__(self, config: Config, family: Family, images: Sequence[Tensor], device: str,
                 world: World):
        self.config, self.family, self.images, self.device = config, family, images, device
        self.world, self.cpus = world, all_cpus(world)
        self.counter = CallCounter(family.model.unet)
        # Whoever is not measured must not take a core from those who are.
        self.all_ranks = world.split([range(world.size)])
        self.all_ranks.polite = world.size > 1

    def place(self, setting: Setting) -> SettingRun:
        """This rank's part in a setting. Collective."""
        groups, size, rank = setting.groups, self.world.size, self.world.rank
        sleeping = range(setting.num_ranks, size)
        group = self.world.split([*groups, *([sleeping] if sleeping else [])])
        index, images = group_of([*groups, sleeping], rank), []
        if index < len(groups):
            images = images_of_group(range(setting.num_images), len(groups), index)
        config = self.config.replaced(parallel={"exchange": setting.exchange})
        return SettingRun(setting, config, group, images)

    def measure(self, run: SettingRun, num_steps: int) -> np.ndarray:
        """Sample the images of a setting: FIGURES of every rank, (world ranks, len(FIGURES)).

        A rank at work counts until its own images are done; a sleeping one counts what sleeping
        costs. Collective.
        """
        resolver = self.resolver(run, num_steps) if run.images else None
        self.all_ranks.barrier()
        forget_peak_memory()
        received, calls = run.group.stats.received, self.counter.calls
        spent = dict.fromkeys(("conditions", *PHASES), 0.0)
        started, cpu_started = time.perf_counter(), time.process_time()
        if resolver is not None:
            spent = self.sample(run, resolver)
        else:
            self.all_ranks.barrier()
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
        if resolver is not None:
            self.all_ranks.barrier()
        return self.of_all_ranks([seconds, cpu_seconds, *spent.values(),
                                  run.group.stats.received - received, self.counter.calls - calls,
                                  peak_memory_mib()])

    def resolver(self, run: SettingRun, num_steps: int) -> SuperResolver:
        """Collective in the setting's group."""
        config = run.config.replaced(sampler={"steps": num_steps})
        resolver = quiet_resolver(config, self.family, self.device, run.group)
        resolver.predictor.watch, resolver.predictor.waits = self.counter.count, True
        return resolver

    def sample(self, run: SettingRun, resolver: SuperResolver) -> dict[str, float]:
        """Seconds: conditions, PHASES. Collective in the setting's group."""
        width, seed = run.setting.images_per_step, self.config.sampler.seed
        stopwatch = run.group.stopwatch
        before, before_steps = stopwatch.read(), BeforeSteps(stopwatch)
        with running_on(self.cpus, run.setting.threads):
            for first in range(0, len(run.images), width):
                part = run.images[first:first + width]
                lr = whole([self.images[i] for i in part])
                before_steps.start()
                for _ in resolver(lr, part, [seed], before_steps):
                    pass
        spent = stopwatch.since(before)
        in_steps = {phase: spent.get(phase, 0.0) for phase in PHASES}
        in_steps["exchange"] -= before_steps.exchange
        return {"conditions": before_steps.seconds} | in_steps

    def machine_rates(self) -> MachineRates:
        """Of the U-Net's convolutions; of none on a rank that never has a window."""
        network, inputs = self.counter.network, self.counter.inputs
        convolutions = convolutions_of(network, inputs) if inputs else []
        dtype = MIXED.get(self.config.parallel.precision, torch.float32)
        return MachineRates(convolutions, dtype, torch.device(self.device))

    def rates(self, machine: MachineRates, num_ranks: int, threads: int) -> np.ndarray:
        """GFLOP/s of (convolutions, matrix products) of every rank, (world ranks, 2); 0 where it
        sleeps. Collective."""
        own = (0.0, 0.0)
        self.all_ranks.barrier()
        if self.world.rank < num_ranks:
            with running_on(self.cpus, threads):
                own = machine.measure(RATE_S)
        self.all_ranks.barrier()
        return self.of_all_ranks(own)

    def of_all_ranks(self, own: Sequence[float]) -> np.ndarray:
        """Collective; (world ranks, len(own))."""
        own = np.array([own], np.float64)
        return self.all_ranks.allgather_arrays(own, [1] * self.world.size)


@dataclass(frozen=True)
class Measured:
    """The figures of everything, on every rank.

    runs: their figures are of all ranks; rates: for (ranks, threads), one array as of
    `ScalingRun.rates` a repeat; flop_per_call: of the U-Net on one micro-batch.
    """

    runs: Sequence[SettingRun]
    rates: Mapping[tuple[int, int], Sequence[np.ndarray]]
    flop_per_call: int


@torch.inference_mode()
def measure_scaling(scaling: ScalingRun, settings: Sequence[Setting], repeats: int) -> Measured:
    """All settings and the machine's own rates, in turn. Collective."""
    runs = [scaling.place(setting) for setting in settings]
    for run in runs:
        run.once = scaling.measure(run, 1)
    machine = scaling.machine_rates()
    rates: dict = {shape: [] for shape in shapes_on_one_image(settings)}
    with Progress(repeats * len(runs), "passes", enabled=scaling.world.is_root) as progress:
        for _ in range(repeats):
            for run in runs:
                run.repeats.append(scaling.measure(run, scaling.config.sampler.steps))
                progress.advance(note=run.setting.name)
            for shape, measured in rates.items():
                measured.append(scaling.rates(machine, *shape))
    return Measured(runs, rates, scaling.counter.flop_per_call)


def shapes_on_one_image(settings: Sequence[Setting]) -> Iterator[tuple[int, int]]:
    """(ranks, threads) of the settings on one image."""
    for setting in settings:
        if setting.kind == "image":
            yield setting.num_ranks, setting.threads


def all_cpus(world: World) -> set[int]:
    """The CPUs of all ranks together, by number. Collective."""
    own = np.zeros((1, MOST_CPUS), np.uint8)
    own[0, [cpu for cpu in allowed_cpus() if cpu < MOST_CPUS]] = 1
    everyones = world.allgather_arrays(own, [1] * world.size)
    return set(np.flatnonzero(everyones.any(0)).tolist())
