"""Rank 0 computes for a second while the others wait; prints the largest share of a core
that waiting took."""
import os
import time

import numpy as np

from swinmpi.parallel.launch import start_mpi

os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
with start_mpi() as world:
    assert world.polite == (world.size > world.node.cores), (world.size, world.node)
    world.barrier()
    started, started_cpu = time.perf_counter(), time.process_time()
    while world.is_root and time.perf_counter() - started < 1:
        pass
    world.bcast_array(np.zeros(200_000, np.float32))
    share = (time.process_time() - started_cpu) / (time.perf_counter() - started)
    shares = world.allgather_arrays(np.array([share]), [1] * world.size)
    if world.is_root:
        print(max(shares[1:]))
