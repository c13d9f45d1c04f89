"""What a training run will cost: operations, counted without computing them; memory; roughly the
time."""
from dataclasses import dataclass

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from swinmpi.config import Config
from swinmpi.families.family import Batch
from swinmpi.families.loading import make_family
from swinmpi.parallel.comm import Node
from swinmpi.parallel.device import choose_threads, planned_device
from swinmpi.parallel.launch import allowed_cpus, cores_of
from swinmpi.randomness import generator
from swinmpi.reports.timing import about
from swinmpi.training.distilling import taught
from swinmpi.training.objective import TrainingModule, make_drawing, make_objective
from swinmpi.training.setup import freeze_untrained

# What small convolutions reach, a part of what a machine could: of a core with 256-bit vectors, of
# a data-centre GPU in float32 (True) and in 16 bit. Orders of magnitude, not measurements.
FLOP_PER_S = {("cpu", True): 2e10, ("cpu", False): 2e10,
              ("cuda", True): 5e12, ("cuda", False): 1e13}
FLOAT_BYTES = 4
STATES = 5  # of every weight: itself, its gradient, Adam's two moments, its average


@dataclass(frozen=True)
class Cost:
    """Of one image in one update: operations, forwards and backwards, and bytes that wait for the
    way back."""

    flop: int
    saved_bytes: int


def cost_of(config: Config) -> Cost:
    """Counted on tensors without content."""
    with torch.device("meta"):
        family = make_family(config.model, config.train.makes_diffuser)
    if config.train.keeps_model:
        freeze_untrained(family.model, config)
    objective = make_objective(config, family)
    if config.train.distils:
        objective = taught(objective, config, family, "meta")
    module = TrainingModule(family, objective)
    batch = empty_batch(config, module, "meta")
    own = {storage_key(value) for value in (*module.parameters(), *module.buffers())}
    saved: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if storage_key(tensor) not in own:
            saved[storage_key(tensor)] = tensor.untyped_storage().nbytes()
        return tensor

    with FlopCounterMode(display=False) as counter, saved_tensors_hooks(note, lambda kept: kept):
        module(batch)["loss"].backward()
    return Cost(counter.get_total_flops(), sum(saved.values()))


def empty_batch(config: Config, module: TrainingModule, device: str) -> Batch:
    """One image of zeros, its windows drawn as in training."""
    drawing = make_drawing(config, module.family)
    windows = module.family.draw(drawing, generator((config.train.seed, 0)))
    channels, side = config.model.channels, config.train.crop_px

    def empty(*shape: int, **kind) -> torch.Tensor:
        return torch.zeros(*shape, device=device, **kind)

    lr_px = side // config.model.scale
    return Batch(empty(1, channels, lr_px, lr_px), empty(1, channels, side, side),
                 empty(1, module.family.x_channels, drawing.grid.height_px, drawing.grid.width_px),
                 [windows], empty(len(windows), dtype=torch.int64),
                 noise=empty(1) if config.model.told_noise else None)


def storage_key(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


def describe_cost(config: Config, num_ranks: int, num_parameters: int) -> list[str]:
    """Device, memory and time of a run, in a line each."""
    cost, settings, parallel = cost_of(config), config.train, config.parallel
    at_once = settings.batch_images // (num_ranks * settings.accumulate)
    num_bytes = STATES * FLOAT_BYTES * num_parameters + at_once * cost.saved_bytes
    total = cost.flop * settings.batch_images * settings.updates
    device, threads = planned_device(parallel.device), 1
    where = device
    if device == "cpu":
        threads = choose_threads(parallel.threads, Node(0, num_ranks, cores_of(allowed_cpus())))
        where = f"cpu, {threads} thread{'s' * (threads > 1)} a rank"
    elif not torch.cuda.is_available():
        where = "cuda, which this machine does not have"
    rate = FLOP_PER_S[device, parallel.precision == "fp32"] * threads * num_ranks
    return [
        f"device  {where}; {num_ranks} rank{'s' * (num_ranks > 1)}, {parallel.precision}; "
        f"memory about {num_bytes / 2**20:.0f} MiB a rank beside the libraries",
        f"time    very roughly, {about(total / rate)} beside validations: "
        f"{total / 1e12:.3g} TFLOP, {rate / 1e9:.3g} GFLOP/s assumed, not measured"]
