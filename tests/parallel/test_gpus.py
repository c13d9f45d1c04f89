"""Which ranks have the same GPU, told by its UUID."""
import pytest
import torch

from swinmpi.parallel.worker import Worker, gpu_uuid, same_gpu
from tests.support.training import ALONE


@pytest.mark.parametrize("uuids", [[""] * 3, ["a"], ["a", "b", "c"], ["", "a", ""], []])
def test_a_gpu_for_every_rank_or_none_at_all(uuids):
    assert same_gpu([("node", uuid) for uuid in uuids]) == ""


@pytest.mark.parametrize(("uuids", "told"), [
    (["a", "a"], "ranks 0 and 1 have one GPU, a on host0"),
    (["a", "b", "b", "c"], "ranks 1 and 2 have one GPU, b on host1"),
    (["a", "b", "a", "a"], "ranks 0 and 2 and 3 have one GPU, a on host0")])
def test_ranks_on_one_gpu_are_named(uuids, told):
    """Also where containers call one machine by several names."""
    said = same_gpu([(f"host{rank}", uuid) for rank, uuid in enumerate(uuids)])
    assert said.startswith(told) and "one rank for each GPU" in said and "\n" not in said


def test_the_cpu_is_no_gpu():
    assert gpu_uuid(torch.device("cpu")) == ""
    ALONE.check_gpus()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_tells_its_uuid():
    device = torch.device("cuda:0")
    assert len(gpu_uuid(device)) >= 16 and Worker(0, 1, device).check_gpus() is None
