"""Every collective of parallel/ against numpy, with blocking and with sleeping waits. Prints one line and ends with 0."""
import os
import signal

import numpy as np

from swinmpi.errors import StackError
from swinmpi.parallel.comm import Group
from swinmpi.parallel.exchange import FinishedImage, ImageRelay, RootExchange, plan_exchange
from swinmpi.parallel.launch import StopFlag, start_mpi
from swinmpi.parallel.ownership import group_of, images_of_group, split_groups


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
    assert group.size == 1 or group.stats.bytes > whole.nbytes and group.stats.seconds > 0, group.stats


def shares_results_and_failures(group):
    assert group.bcast_object({"rank": 0} if group.is_root else None) == {"rank": 0}, "root's object"
    assert group.on_root(lambda: (group.rank, "x" * 100_000)) == (0, "x" * 100_000), "root's result"
    for failure, kind in ((StackError("in.h5: damaged"), StackError), (Unpicklable(1, 2), (Unpicklable, RuntimeError))):
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
    """Windows of several images and shifts, fewer than ranks too; the prediction is a known function of frame and item."""
    exchange = RootExchange(group)
    for num_positions, live in ((6, [range(6)]), (6, [[0, 1, 2, 4], [1, 2, 3, 4, 5]]), (2, [[1]]), (1, [[0], [0], [0]])):
        plan = plan_exchange(num_positions, group.size, live)
        shape = (len(live), 3, 8, 12)
        frames = np.random.default_rng(len(live)).standard_normal(shape, np.float32)
        received = exchange.broadcast(frames if group.is_root else None, shape)
        own = np.stack([received[slot, :, :4, :4] * position for slot, position in plan.own(group.rank)]
                       or [np.empty((3, 4, 4), np.float32)])[:plan.counts[group.rank]]
        gathered = exchange.gather(own.astype(np.float32), plan)
        if group.is_root:
            for window, (slot, position) in zip(gathered, plan.items, strict=True):
                np.testing.assert_array_equal(window, frames[slot, :, :4, :4] * np.float32(position))


def relays_images(world):
    """Groups of two ranks; every group's root sends its images, world rank 0 gets each exactly once."""
    groups = split_groups(world.size, 2)
    group, relay = world.split(groups), ImageRelay(world)
    assert group.size == len(groups[group_of(groups, world.rank)]), "the group's ranks"
    received = []
    for image_index in images_of_group(range(11), len(groups), group_of(groups, world.rank)):
        if group.is_root:
            relay.send(FinishedImage(image_index, np.full((3, 300, 300), image_index, np.uint16), {"seam": 0.5}))
        received += relay.arrived() if world.is_root else []
    received += relay.finish()
    assert sorted(image.image_index for image in received) == (list(range(11)) if world.is_root else []), "each once"
    for image in received:
        assert image.pixels.dtype == np.uint16 and image.notes == {"seam": 0.5}, image.notes
        assert (image.pixels == image.image_index).all(), f"pixels of image {image.image_index}"


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
        exchanges_windows(group)
    relays_images(world)
    stops_together(world)
    assert 0 <= world.node.rank < world.node.ranks <= world.size and world.node.cores >= 1, world.node
    if world.is_root:
        print(f"{world.size} ranks agree")
