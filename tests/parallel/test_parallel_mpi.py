"""Collectives, failures, waiting and launching under a real mpirun; every program
has a time limit."""
from pathlib import Path

import pytest
import torch.distributed

from swinmpi.errors import LaunchError
from swinmpi.parallel.comm import Node, World
from swinmpi.parallel.device import choose_device, choose_threads
from swinmpi.parallel.launch import (
    init_torch_distributed,
    launcher_rank,
    launcher_size,
    quota_cores,
    start_mpi,
)

PROGRAMS = Path(__file__).parents[1] / "programs" / "mpi"
NO_MPI = {"MPI4PY_LIBMPI": "/nowhere/libmpi.so"}


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 5])
def test_collectives_agree_with_numpy(mpirun, num_ranks):
    finished = mpirun(num_ranks, PROGRAMS / "collectives.py")
    assert (finished.code, finished.out) == (0, f"{num_ranks} ranks agree\n"), finished.err


@pytest.mark.parametrize("environ", [{}, NO_MPI], ids=["alone", "without any MPI"])
def test_collectives_without_a_launcher(alone, environ):
    finished = alone(PROGRAMS / "collectives.py", **environ)
    assert (finished.code, finished.out) == (0, "1 ranks agree\n"), finished.err


@pytest.mark.parametrize("way, num_ranks, code, line", [
    ("expected_error", 2, 2, "swinmpi: rank 1: in.h5: expected images, got none; name the dataset"),
    ("expected_error", 5, 2, "swinmpi: rank 4: in.h5: expected images, got none; name the dataset"),
    ("without_block", 3, 2, "swinmpi: rank 2: in.h5: expected images, got none; name the dataset"),
    ("system_exit", 3, 3, "swinmpi: rank 2: ended with exit code 3"),
    ("stopped_on_root", 5, 75, "swinmpi: saved, requeue me"),
])
def test_ranks_fail_together_with_one_line(mpirun, way, num_ranks, code, line):
    finished = mpirun(num_ranks, PROGRAMS / "failing.py", way)
    assert (finished.code, finished.err) == (code, line + "\n")


def test_ranks_that_stop_together_wait_for_the_slowest(mpirun):
    finished = mpirun(3, PROGRAMS / "failing.py", "stopped_everywhere")
    assert (finished.code, finished.err) == (75, "swinmpi: saved, requeue me\n")
    assert finished.out.count("has saved") == 3


def test_an_unexpected_failure_shows_its_traceback_once(mpirun):
    finished = mpirun(3, PROGRAMS / "failing.py", "unexpected_error")
    assert finished.code == 1
    assert finished.err.startswith("swinmpi: rank 2: unexpected failure\n")
    assert finished.err.count("ZeroDivisionError: a bug") == 1


def test_a_killed_rank_ends_the_others(mpirun):
    assert mpirun(3, PROGRAMS / "failing.py", "killed").code not in (None, 0)


def test_one_rank_fails_like_any_program(mpirun):
    finished = mpirun(1, PROGRAMS / "failing.py", "system_exit")
    assert (finished.code, finished.out, finished.err) == (3, "rank 0 was here\n", "")


def test_waiting_ranks_leave_the_cores_to_those_who_compute(mpirun):
    finished = mpirun(5, PROGRAMS / "waiting.py")
    assert finished.code == 0, finished.err
    assert float(finished.out) < 0.2


def test_a_launcher_of_another_mpi_is_noticed(alone):
    started_by_mpirun = {"PMI_SIZE": "4", "PMI_RANK": "0"}
    for environ, reason in (
            (started_by_mpirun, "each is alone"), (started_by_mpirun | NO_MPI, "no MPI library"),
            ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "0"}, "each is alone"),
            ({"TORCHELASTIC_RUN_ID": "none", "RANK": "0"}, "torchrun is for swinmpi-train only")):
        finished = alone("-c", COMMAND, **environ)
        assert finished.code == 2, finished.err
        assert (finished.err.startswith("swinmpi: ") and reason in finished.err
                and finished.err.count("\n") == 1)


COMMAND = """
import sys
from swinmpi.cli.options import run_command
from swinmpi.parallel.launch import start_mpi
def command(argv):
    with start_mpi():
        pass
sys.exit(run_command(command, []))
"""


def test_torch_distributed_over_mpirun(mpirun):
    finished = mpirun(2, PROGRAMS / "distributed.py")
    assert (finished.code, finished.out) == (0, "2 3\n"), finished.err


def test_torch_distributed_over_torchrun(alone):
    finished = alone("-m", "torch.distributed.run", "--nproc-per-node", "2",
                     PROGRAMS / "distributed.py")
    assert (finished.code, finished.out) == (0, "2 3\n"), finished.err


def test_torch_distributed_alone():
    assert init_torch_distributed("gloo", World()) == (0, 1)
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("environ, size, rank", [
    ({}, None, None),
    ({"PMI_SIZE": "4", "PMI_RANK": "1"}, 4, 1),
    ({"OMPI_COMM_WORLD_SIZE": "3", "OMPI_COMM_WORLD_RANK": "2"}, 3, 2),
    # A batch script is no step; mpirun's daemons are one, and not the ranks.
    ({"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, None, None),
    ({"SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "5", "SLURM_STEP_ID": "0"}, 8, 5),
    ({"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1", "SLURM_STEP_ID": "0", "PMI_SIZE": "6",
      "PMI_RANK": "4"}, 6, 4),
])
def test_what_launchers_say(environ, size, rank):
    assert (launcher_size(environ), launcher_rank(environ)) == (size, rank)


def test_threads_share_the_cores_of_the_node():
    node = Node(rank=0, ranks=3, cores=8)
    assert choose_threads("auto", node, {}) == 2
    assert choose_threads("auto", Node(0, 9, 8), {}) == 1
    assert choose_threads("auto", node, {"OMP_NUM_THREADS": "5,1"}) == 5
    assert choose_threads(4, node, {"OMP_NUM_THREADS": "5"}) == 4


def test_the_quota_is_the_smallest_up_the_control_groups(tmp_path):
    membership, below = tmp_path / "membership", tmp_path / "job" / "step"
    below.mkdir(parents=True)
    membership.write_text("0::/job/step\n")
    assert quota_cores(tmp_path, membership) == float("inf")
    (below / "cpu.max").write_text("max 100000\n")
    (below.parent / "cpu.max").write_text("150000 100000\n")
    assert quota_cores(tmp_path, membership) == 1.5
    membership.write_text("3:cpuset:/\n1:cpu,cpuacct:/job\n")
    (tmp_path / "cpu" / "job").mkdir(parents=True)
    (tmp_path / "cpu" / "job" / "cpu.cfs_quota_us").write_text("400000\n")
    (tmp_path / "cpu" / "job" / "cpu.cfs_period_us").write_text("100000\n")
    assert quota_cores(tmp_path, membership) == 4


def test_a_missing_gpu_is_named():
    if torch.cuda.is_available():
        assert choose_device("cuda",
                             torch.cuda.device_count()) == choose_device("auto", 0) == "cuda:0"
    else:
        assert choose_device("auto", 3) == "cpu"
        with pytest.raises(LaunchError, match="expected a CUDA device"):
            choose_device("cuda", 0)


def test_starting_twice_in_one_process_is_fine():
    for _ in range(2):
        with start_mpi() as world:
            assert (world.rank, world.size, world.polite) == (0, 1, False)
