"""swinmpi-sample whose U-Net fails on the last rank only: argv is `error` or `memory`
and the command line.

error: the third call raises. memory: every window takes 32 MiB more, and there is memory for
a little over half of the micro-batch that it is called with first, by the limit that a batch
system sets (RLIMIT_AS).
"""
import os
import resource
import sys
from pathlib import Path

import torch

from swinmpi.cli.sample import main
from swinmpi.models.aligned_unet import AlignedUNet
from swinmpi.parallel.launch import launcher_rank, launcher_size

WINDOW_BYTES = 32 << 20
fault, forward, calls = sys.argv[1], AlignedUNet.forward, []


def failing(unet, x_t, *told):
    calls.append(len(x_t))
    if fault == "error" and len(calls) == 3:
        raise ArithmeticError("the third call")
    if fault == "memory":
        take(len(x_t), room=int(0.6 * calls[0] * WINDOW_BYTES))
    return forward(unet, x_t, *told)


def take(num_windows: int, room: int) -> None:
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")
    resource.setrlimit(resource.RLIMIT_AS, (in_use + room, resource.RLIM_INFINITY))
    try:
        torch.empty(num_windows * WINDOW_BYTES, dtype=torch.uint8)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


if launcher_rank() == launcher_size() - 1:
    AlignedUNet.forward = failing
sys.exit(main(sys.argv[2:]))
