"""Every collective of parallel/ against numpy, with blocking and with sleeping waits.
Prints one line and ends with 0."""
import os
import signal

import numpy as np
import torch

from swinmpi.errors import LaunchError, StackError
from swinmpi.parallel import relay as relay_module
from swinmpi.parallel.comm import Group
from swinmpi.parallel.inquiry import cuda_aware, library_file, takes_device_memory
from swinmpi.parallel.launch import StopFlag, library_version, start_mpi
from swinmpi.parallel.relay import Ending, Part, Relay, chunk_rows
from swinmpi.parallel.root import RootCollectives, plan_step
from swinmpi.parallel.shares import group_of, images_of_group, split_groups

relay_module.CHUNK_BYTES, relay_module.IN_FLIGHT_BYTES = 100_000, 250_000


def moves_arrays(group):
    whole = np.arange(240, dtype=np.float32).reshape(10, 2, 3, 4)
    received = group.bcast_array(whole.copy() if group.is_root else np.empty_like(whole))
    np.testing.assert_array_equal(received, whole)
    counts = [max(0, 10 - 3 * rank) for rank in range(group.size)]
    start = sum(counts[:group.rank])
    everything = np.arange(sum(counts) * 6, dtype=np.float32).reshape(-1, 2, 3)
    own = everything[start:start + counts[group.rank]]
    gathered = group.gather_arrays(own, counts)
    if group.is_root:
        np.testing.assert_array_equal(gathered, everything)
    else:
        assert gathered is None, "only root gets what is gathered"
    np.testing.assert_array_equal(group.allgather_arrays(own, counts), everything)
    assert (group.size == 1 or group.stats.bytes > whole.nbytes
            and group.stopwatch.seconds["exchange"] > 0), group.stats


def shares_results_and_failures(group):
    assert group.bcast_object({"rank": 0} if group.is_root else None) == {"rank": 0}, (
        "root's object")
    assert group.on_root(lambda: (group.rank, "x" * 100_000)) == (0, "x" * 100_000), "root's result"
    for failure, kind in ((StackError("in.h5: damaged"), StackError),
                          (Unpicklable(1, 2), (Unpicklable, RuntimeError))):
        try:
            group.on_root(raiser(failure))
        except kind as error:
            assert str(failure) in str(error), error
            assert getattr(error, "echo", False) != group.is_root, "only root tells it"
        else:
            raise AssertionError("the failure was not shared")
    assert [group.any(False), group.any(group.rank == group.size - 1)] == [False, True], "any rank"


class Unpicklable(Exception):
    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


def raiser(error):
    def action():
        raise error
    return action


def exchanges_windows(group):
    """Windows of several images and shifts, fewer than ranks too; the prediction is a known
    function of frame and item."""
    exchange = RootCollectives(group, torch.device("cpu"))
    for num_positions, live in ((6, [range(6)]), (6, [[0, 1, 2, 4], [1, 2, 3, 4, 5]]), (2, [[1]]),
                                (1, [[0], [0], [0]])):
        plan = plan_step(range(num_positions), group.size, live)
        shape = (len(live), 3, 8, 12)
        frames = torch.randn(shape, generator=torch.Generator().manual_seed(len(live)))
        received = exchange.broadcast(frames if group.is_root else None, shape)
        own = torch.stack(
            [received[slot, :, :4, :4] * position for slot, position in plan.own(group.rank)]
            or [torch.empty(3, 4, 4)])[:plan.counts[group.rank]]
        gathered = exchange.gather(own, plan)
        if group.is_root:
            for window, (slot, position) in zip(gathered, plan.items, strict=True):
                assert torch.equal(window, frames[slot, :, :4, :4] * position), (slot, position)


def relays_parts(world):
    """Groups of two ranks; every group's root sends its images, the larger ones in chunks;
    rank 0 gets each row once."""
    groups = split_groups(world.size, 2)
    group, relay = world.split(groups), Relay(world)
    assert group.size == len(groups[group_of(groups, world.rank)]), "the group's ranks"
    shape, taken = (2, 3, 700, 30), []
    for shard_index in images_of_group(range(11), len(groups), group_of(groups, world.rank)):
        if group.is_root:
            pixels = (np.full(shape, shard_index, np.float32)
                      + np.arange(700, dtype=np.float32)[:, None] / 1000)
            relay.send(Part(shard_index, 5, 7, pixels))
            relay.send(Ending(shard_index, {"seam": 0.5}))
        while world.is_root and (item := relay.receive(lambda: True)) is not None:
            taken.append(item)
        assert relay.held_bytes <= relay_module.IN_FLIGHT_BYTES, "more than there is room for"
    relay.close()
    while world.is_root and (item := relay.receive(lambda: relay.is_over)) is not None:
        taken.append(item)
    endings = [item for item in taken if isinstance(item, Ending)]
    assert sorted(ending.shard_index for ending in endings) == (list(range(11)) if world.is_root
                                                                else []), "each once"
    assert len(taken) - len(endings) == 11 * len(chunk_rows(shape)) * world.is_root, (
        "cut into chunks")
    rows = np.zeros((11, 700), int)
    for chunk in (item for item in taken if isinstance(item, Part)):
        first = chunk.top - 5
        expected = chunk.shard_index + np.arange(first, first + chunk.pixels.shape[2],
                                                 dtype=np.float32)[:, None] / 1000
        assert ((chunk.left, chunk.pixels.shape[:2]) == (7, shape[:2])
                and (chunk.pixels == expected).all()), "pixels"
        rows[chunk.shard_index, first:first + chunk.pixels.shape[2]] += 1
    assert (rows == world.is_root).all(), "each row once"


def asks_the_library():
    assert [takes_device_memory(staging, "cpu") for staging in ("auto", "host", "device")] == [
        False, False, True]
    assert not takes_device_memory("host", "cuda:0")
    aware = cuda_aware(library_file())
    assert takes_device_memory("auto", "cuda:0") == bool(aware)
    try:
        assert takes_device_memory("device", "cuda:0") and aware
    except LaunchError as error:
        assert not aware and library_version() in str(error), error


def stops_together(world):
    with StopFlag() as stop:
        assert not stop.agreed(world), "nobody was told to stop yet"
        if world.rank == world.size - 1:
            os.kill(os.getpid(), signal.SIGUSR2)
        assert stop.agreed(world), "one rank was told to stop"
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.is_set, "TERM counts as well"


with start_mpi() as world:
    for polite in (False, True):
        group = Group(world.comm, polite)
        moves_arrays(group)
        shares_results_and_failures(group)
        for group.direct in (False, True):
            exchanges_windows(group)
    relays_parts(world)
    if world.size > 1:
        asks_the_library()
    stops_together(world)
    assert (0 <= world.node.rank < world.node.ranks <= world.size
            and world.node.cores >= 1), world.node
    if world.is_root:
        print(f"{world.size} ranks agree")
