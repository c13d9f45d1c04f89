"""swinmpi-train with a fault that one rank alone meets, named by the first argument;
its own arguments follow."""
import os
import resource
import sys

from swinmpi.cli.train import main
from swinmpi.errors import StackError
from swinmpi.parallel.launch import launcher_rank
from swinmpi.training import train
from swinmpi.training.batches import BatchSource

rank = launcher_rank() if launcher_rank() is not None else int(os.environ["RANK"])
whole_batch, start_folder = BatchSource.batch, train.start_folder


def nan_on_rank_1(source, update, micro_step):
    batch = whole_batch(source, update, micro_step)
    if rank == 1 and update == 2:
        batch.hr[0, 0, 0, 0] = float("nan")
    return batch


def damaged_on_rank_1(source, update, micro_step):
    if rank == 1 and update == 2:
        raise StackError("pairs.h5: hr[3] is damaged")
    return whole_batch(source, update, micro_step)


def small_disk(folder):
    """From here on no file of this process may grow beyond 4 KiB."""
    newest = start_folder(folder)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    return newest


fault = sys.argv[1]
if fault == "small_disk":
    train.start_folder = small_disk
else:
    BatchSource.batch = globals()[fault]
sys.exit(main(sys.argv[2:]))
