"""torch.distributed over whatever launcher started this: prints `size sum` from rank 0
of an all_reduce of rank + 1."""
import torch
import torch.distributed as dist

from swinmpi.parallel.device import choose_device
from swinmpi.parallel.launch import init_torch_distributed, start_mpi

with start_mpi(allow_torchrun=True) as world:
    assert choose_device("cpu", world.node.rank) == "cpu", "asked for the CPU"
    rank, size = init_torch_distributed("gloo", world)
    total = torch.tensor([rank + 1])
    dist.all_reduce(total)
    if rank == 0:
        print(size, int(total))
    dist.destroy_process_group()
