"""torch.compile for the networks of a training run, tried before the first update."""
import logging

import torch
from torch import nn

from swinmpi.families.family import Batch
from swinmpi.models.diffuser import autocast
from swinmpi.parallel.worker import Worker
from swinmpi.storage.files import tell
from swinmpi.training.objective import TrainingModule

LONGEST_REASON = 200


def compile_networks(module: TrainingModule, batch: Batch, precision: str, worker: Worker) -> None:
    """From now on the networks of a module run with kernels made for them. Collective.

    Weights and their names stay. Tried forwards and backwards on a batch; where that fails on one
    rank, all go on without, and a line says why.
    """
    logging.getLogger("torch").setLevel(logging.ERROR)  # what it says meanwhile is not for users
    networks = [*module.model.children()]
    for network in networks:
        network.forward = torch.compile(network.forward)
    reason = why_not(module, batch, precision, worker.device)
    if not worker.any(bool(reason)):
        torch._dynamo.config.suppress_errors = True  # other shapes, later, may go on without
        return
    for network in networks:
        del network.forward  # the class's own is there again
    reasons = [one for one in worker.gather([reason]) if one]
    if worker.is_root:
        tell(f"train.compile: the networks cannot be compiled here ({reasons[0]}); "
             "going on without")


def why_not(module: nn.Module, batch: Batch, precision: str, device: torch.device) -> str:
    """Empty where a loss and its gradients could be computed; no generator moves on."""
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            with autocast(device, precision):
                loss = module(batch)["loss"]
            loss.backward()
    except Exception as error:  # whatever compilers, drivers and torch raise
        said, *_ = str(error).strip().split("\n\n")  # what follows is for developers of torch
        return " ".join(f"{type(error).__name__}: {said}".split())[:LONGEST_REASON]
    finally:
        module.zero_grad(set_to_none=True)
    return ""
