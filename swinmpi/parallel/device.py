"""Where and how a rank computes: device, threads, precision; the same start for every command."""
import os
import socket
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

from swinmpi.errors import LaunchError
from swinmpi.parallel.comm import Node


@dataclass(frozen=True)
class Computing:
    """How networks are evaluated on this rank. device: `cpu` or `cuda:i`; micro_batch: windows per
    call of the U-Net, or auto; encoder_cache: False encodes again before every evaluation."""

    device: str
    precision: str = "fp32"
    micro_batch: int | str = 4
    encoder_cache: bool = True


def choose_device(device: str, local_rank: int) -> str:
    """`cpu` or `cuda:i` for the setting auto | cpu | cuda; ranks of a node take its
    devices in turn."""
    import torch
    num_devices = torch.cuda.device_count() if device != "cpu" and torch.cuda.is_available() else 0
    if device == "cuda" and not num_devices:
        raise LaunchError(f"parallel.device: expected a CUDA device on {socket.gethostname()}, "
                          "found none; ask the scheduler for one or set parallel.device=cpu")
    return f"cuda:{local_rank % num_devices}" if num_devices else "cpu"


def planned_device(device: str) -> str:
    """`cpu` or `cuda`: what `choose_device` would choose here, or on a node that has what is asked
    for. Nothing is allocated."""
    import torch
    return "cuda" if device == "cuda" or (device == "auto" and torch.cuda.is_available()) else "cpu"


def settled_precision(precision: str, device: str) -> str:
    """The precision to compute with on `cpu` or `cuda`: fp16 on a CPU becomes fp32, with a
    warning."""
    if precision != "fp16" or device != "cpu":
        return precision
    warnings.warn("parallel.precision: fp16 is for GPUs, a CPU is far slower with it: computing "
                  "with fp32 instead; set parallel.precision=fp32, or bf16 where the processor "
                  "has it", stacklevel=2)
    return "fp32"


def choose_threads(setting: int | str, node: Node, environ: Mapping[str, str] = os.environ) -> int:
    """Threads per rank: the setting, else OMP_NUM_THREADS, else the node's cores shared out
    evenly (at least 1)."""
    if setting != "auto":
        return int(setting)
    wish = environ.get("OMP_NUM_THREADS", "").split(",")[0]
    return int(wish) if wish.isdigit() and int(wish) else max(1, node.cores // node.ranks)


def start_computing(device: str, threads: int | str, node: Node) -> str:
    """Choose this process's device and threads and make them current; returns the device."""
    import torch
    chosen = choose_device(device, node.rank)
    torch.set_num_threads(choose_threads(threads, node))
    if chosen != "cpu":
        torch.cuda.set_device(torch.device(chosen))
    return chosen
