"""Where and how a rank computes: device, threads, precision; the same start for every command."""
import os
import socket
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from swinmpi.config import ParallelConfig
from swinmpi.errors import LaunchError
from swinmpi.parallel.cards import Seen, cards_of_node, remarks, take_in_turn
from swinmpi.parallel.comm import Group, Node


@dataclass(frozen=True)
class Computing:
    """How networks are evaluated on this rank. device: `cpu` or `cuda:i`; micro_batch: windows per
    call of the U-Net, or auto; encoder_cache: False encodes again before every evaluation; compile:
    the U-Net, see `settled_compile`."""

    device: str
    precision: str = "fp32"
    micro_batch: int | str = 4
    encoder_cache: bool = True
    compile: bool = False


def choose_device(device: str, local_rank: int) -> str:
    """`cpu` or `cuda:i` for the setting auto | cpu | cuda; ranks of a node take its
    devices in turn."""
    num_devices = count_devices(device)
    return f"cuda:{local_rank % num_devices}" if num_devices else "cpu"


def count_devices(device: str) -> int:
    """GPUs that this process may use; none for `cpu`. LaunchError where one is asked for."""
    import torch
    found = torch.cuda.device_count() if device != "cpu" and torch.cuda.is_available() else 0
    if device == "cuda" and not found:
        raise LaunchError(f"parallel.device: expected a CUDA device on {socket.gethostname()}, "
                          "found none; ask the scheduler for one or set parallel.device=cpu")
    return found


def shared_out(device: str, world: Group) -> str:
    """`cpu` or `cuda:i` of this rank, so that ranks of a node have different cards as far as those
    that they see go. Collective; rank 0 tells what is worth knowing."""
    import torch
    names = [card_name(number) for number in range(count_devices(device))]
    everybody = world.gather_everywhere(Seen(socket.gethostname(), tuple(names), cards_of_node()))
    chosen = take_in_turn(everybody)
    if world.is_root:
        for line in remarks(everybody, chosen):
            tell_once(line)
    own = chosen[world.rank]
    return "cpu" if own is None else str(torch.device("cuda", own))


@lru_cache(maxsize=64)
def tell_once(line: str) -> None:
    """A command of many runs would say it for each."""
    print(f"swinmpi: {line}", file=sys.stderr, flush=True)


def card_name(number: int) -> str:
    """What no other card is called: its UUID, or where torch does not tell it its place here."""
    import torch
    return str(getattr(torch.cuda.get_device_properties(number), "uuid", f"GPU {number}"))


def planned_device(device: str) -> str:
    """`cpu` or `cuda`: what `choose_device` would choose here, or on a node that has what is asked
    for. Nothing is allocated."""
    import torch
    return "cuda" if device == "cuda" or (device == "auto" and torch.cuda.is_available()) else "cpu"


def settled_precision(precision: str, device: str) -> str:
    """The precision to compute with on `cpu` or `cuda`: auto becomes tf32 where there is one, else
    fp32; so do, with a warning, fp16 on a CPU and tf32 where there is none."""
    if precision == "auto":
        return "tf32" if has_tf32(device) else "fp32"
    if precision == "fp16" and device == "cpu":
        warnings.warn("parallel.precision: fp16 is for GPUs, a CPU is far slower with it: "
                      "computing with fp32 instead; set parallel.precision=fp32, or bf16 where "
                      "the processor has it", stacklevel=2)
        return "fp32"
    if precision == "tf32" and not has_tf32(device):
        where = "a CPU" if device == "cpu" else "this one (compute capability below 8)"
        warnings.warn("parallel.precision: tf32 is arithmetic of newer GPUs, which "
                      f"{where} does not have: computing with fp32 instead; set "
                      "parallel.precision=fp32 or auto", stacklevel=2)
        return "fp32"
    return precision


def has_tf32(device: str) -> bool:
    """Whether `cuda` here, or where no GPU is to be seen any one of today, computes in TF32: from
    compute capability 8.0 on (NVIDIA, CUDA C++ programming guide, arithmetic of tensor cores)."""
    if device == "cpu":
        return False
    import torch
    return not torch.cuda.is_available() or torch.cuda.get_device_capability()[0] >= 8


def settled_compile(asked: bool, device: str) -> bool:
    """Whether the U-Net is compiled on `cpu` or `cuda`: as asked, but not, with a warning, where
    nothing can be compiled. A small function is, to see; a few seconds."""
    if not asked:
        return False
    import torch
    if device == "cuda" and not torch.cuda.is_available():
        return True
    try:
        twice = torch.compile(lambda x: x * 2 + 1, dynamic=False)
        with torch.inference_mode():
            twice(torch.ones(8, device=device))
    except Exception as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        warnings.warn(f"parallel.compile: nothing can be compiled here ({reason}): going on "
                      "without; install a C++ compiler, on a GPU Triton, or set "
                      "parallel.compile=false", stacklevel=2)
        return False
    return True


def settled(parallel: ParallelConfig) -> dict[str, object]:
    """What of the settings is decided before a run: device (`cpu` or `cuda`), precision, compile.
    On one process, for all ranks."""
    device = planned_device(parallel.device)
    return {"device": device, "precision": settled_precision(parallel.precision, device),
            "compile": settled_compile(parallel.compile, device)}


def choose_threads(setting: int | str, node: Node, environ: Mapping[str, str] = os.environ) -> int:
    """Threads per rank: the setting, else OMP_NUM_THREADS, else the node's cores shared out
    evenly (at least 1)."""
    if setting != "auto":
        return int(setting)
    wish = environ.get("OMP_NUM_THREADS", "").split(",")[0]
    return int(wish) if wish.isdigit() and int(wish) else max(1, node.cores // node.ranks)


def start_computing(device: str, threads: int | str, node: Node,
                    world: Group | None = None) -> str:
    """Choose this process's device and threads and make them current; returns the device.

    world: the ranks of the run, where all of them call this with the same `device`: those on one
    node then share out its cards by name, and rank 0 says where several have one.
    """
    import torch
    torch.set_num_threads(choose_threads(threads, node))
    alone = world is None or world.size == 1 or device == "cpu"
    chosen = choose_device(device, node.rank) if alone else shared_out(device, world)
    if chosen != "cpu":
        torch.cuda.set_device(torch.device(chosen))
    return chosen
