"""The last rank ends in the way named by the argument while the others wait for it."""
import os
import signal
import sys
import time

from swinmpi.errors import StackError, Stopped
from swinmpi.parallel.launch import start_mpi


def expected_error(world):
    raise StackError("in.h5: expected images, got none; name the dataset")


def unexpected_error(world):
    raise ZeroDivisionError("a bug")


def system_exit(world):
    raise SystemExit(3)


def killed(world):
    os.kill(os.getpid(), signal.SIGKILL)


def stopped():
    raise Stopped("saved, requeue me")


way = sys.argv[1]
if way == "without_block":
    world = start_mpi()
    if world.rank == world.size - 1:
        expected_error(world)
    world.barrier()
with start_mpi() as world:
    print(f"rank {world.rank} was here")
    if way == "stopped_on_root":
        world.on_root(stopped)
    if way == "stopped_everywhere":
        until = time.monotonic() + (1.0 if world.is_root else 0.0)
        while time.monotonic() < until:
            pass
        print(f"rank {world.rank} has saved")
        stopped()
    if world.rank == world.size - 1:
        globals()[way](world)
    world.barrier()
