"""swinmpi-info: alone, under mpirun, without an MPI library, and under a launcher
that does not fit."""
import json
import os
import socket
import sys

import h5py
import pytest
import torch

from swinmpi import __version__
from swinmpi.parallel.inquiry import Launcher, MpiLibrary, Place, abi_of, find_job, find_launcher
from swinmpi.reports.info import listed_cpus, mpi_words, rank_table
from swinmpi.storage.library import hdf5_library

STEP = {"SLURM_STEP_ID": "0", "SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "4"}


def test_a_line_for_every_rank_told_once(mpirun):
    finished = mpirun(3, "-m", "swinmpi.cli.info")
    assert (finished.code, finished.err) == (0, "")
    assert finished.out.count(f"swinmpi   {__version__}") == 1
    rows = [line.split() for line in finished.out.partition("----\n")[2].splitlines()]
    assert [row[:3] for row in rows] == [[str(rank), socket.gethostname(), str(rank)]
                                         for rank in range(3)]
    assert ({row[-1] for row in rows} == {"cuda:0" if torch.cuda.is_available() else "cpu"}
            or torch.cuda.device_count() > 1)
    assert {row[-2] for row in rows} == {"1"}, "OMP_NUM_THREADS"
    assert ("MPI " in finished.out and "3 processes" in finished.out
            and "threads multiple" in finished.out)


def test_the_same_for_programs_and_without_launcher(alone):
    finished = alone("-m", "swinmpi.cli.info", "--json")
    assert (finished.code, finished.err) == (0, "")
    told = json.loads(finished.out)
    assert (told["versions"]["swinmpi"] == __version__
            and told["versions"]["torch"] == torch.__version__.partition("+")[0])
    assert (told["mpi"]["abi"] in ("mpich", "openmpi", "standard")
            and told["mpi"]["cuda_aware"] in (True, False, None))
    assert (told["hdf5"]["h5py"] == h5py.__version__
            and {"gzip", "shuffle"} <= set(told["hdf5"]["filters"]))
    assert told["launcher"] is None and told["slurm"] == {} and len(told["ranks"]) == 1
    own = told["ranks"][0]
    assert (own["rank"], own["threads"], own["cpus"]) == (0, 1, sorted(os.sched_getaffinity(0)))


def test_without_an_mpi_library(alone, tmp_path):
    """As where mpi4py is installed and no MPI is: its import fails."""
    (tmp_path / "mpi4py").mkdir()
    (tmp_path / "mpi4py" / "__init__.py").write_text(
        "raise ImportError('cannot load MPI library')\n")
    finished = alone("-m", "swinmpi.cli.info", PYTHONPATH=str(tmp_path))
    assert (finished.code, finished.err) == (0, "")
    assert "MPI       no library loaded" in finished.out and "launcher  none" in finished.out
    assert ("Slurm     not in a job" in finished.out
            and finished.out.splitlines()[-1].startswith("0 "))


def test_a_launcher_that_does_not_fit_is_told_after_what_is_seen(alone):
    """Two processes by the launcher's word, and each is alone."""
    finished = alone("-m", "swinmpi.cli.info", **STEP | {"SLURM_PROCID": "0", "SLURM_JOB_ID": "7"})
    assert finished.code == 2 and finished.err.count("swinmpi: a launcher started 4 processes, "
                                                     "but each is alone") == 1
    assert ("launcher  srun --mpi=none, 4 processes" in finished.out
            and "Slurm     job 7" in finished.out)
    assert (f"python    {sys.version.split()[0]}" in finished.out
            and "local rank" not in finished.out)
    other = alone("-m", "swinmpi.cli.info", **STEP)
    assert (other.code, other.out, other.err) == (2, "", "")


@pytest.mark.parametrize("environ, launcher", [
    ({}, None),
    ({"PMI_SIZE": "2", "PMI_RANK": "0", "MPI_LOCALNRANKS": "2"},
     Launcher("mpirun of MPICH or its kin", 2)),
    ({"OMPI_COMM_WORLD_SIZE": "3", "PMIX_RANK": "0"}, Launcher("mpirun of Open MPI", 3)),
    (STEP | {"OMPI_COMM_WORLD_SIZE": "3"}, Launcher("mpirun of Open MPI", 3)),
    (STEP | {"SLURM_MPI_TYPE": "pmix", "PMIX_RANK": "0"}, Launcher("srun --mpi=pmix", 4)),
    (STEP | {"SLURM_MPI_TYPE": "pmi2", "PMI_RANK": "0", "PMI_SIZE": "4"},
     Launcher("srun --mpi=pmi2", 4)),
    (STEP, Launcher("srun --mpi=none", 4)),
    ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "1"}, None),
    ({"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "WORLD_SIZE": "2"}, Launcher("torchrun", 2)),
    ({"PMI_SIZE": "5", "PMI_RANK": "0"}, Launcher("a launcher with PMI", 5)),
])
def test_launchers_are_known_by_what_they_leave(environ, launcher):
    """Environments as mpich, Open MPI and Slurm 22.05 left them."""
    assert find_launcher(environ) == launcher


def test_the_job_in_slurms_words():
    assert find_job({"SLURM_PROCID": "0"}) == {}
    assert find_job({"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "u[1-2]",
                     "SLURM_RESTART_COUNT": "1"}) == {"job": "7", "nodes": "u[1-2]",
                                                      "restarts": "1"}


@pytest.mark.parametrize("version, file, abi", [
    ("MPICH Version: 5.0.2", "/venv/lib/libmpi.so.12", "mpich"),
    ("Open MPI v4.1.4", "/usr/lib/libmpi.so.40.30.4", "openmpi"),
    ("CRAY MPICH 8.1", "/opt/lib/libmpi_gnu_123.so.12", "mpich"),
    ("MPICH 5.0", "/usr/lib/libmpi_abi.so.0", "standard"), ("Open MPI v6", None, "openmpi"),
    ("Intel(R) MPI Library 2021", "/opt/libmpi.so", "mpich"), ("MPI of nobody", None, "unknown"),
])
def test_the_binary_interface_is_in_the_librarys_name(version, file, abi):
    assert abi_of(version, file) == abi


def test_what_cannot_be_told_is_unknown():
    words = mpi_words(MpiLibrary("MPICH Version: 4", "4.0", "mpich", None, None, None), None)
    assert "threads unknown, CUDA-aware unknown" in words and "file unknown" in words


def test_ranks_that_share_cpus_are_told_from_those_that_do_not():
    places = [Place(0, "a", 0, (0, 1), 2, 1, "cpu"), Place(1, "a", 1, (1, 2), 2, 1, "cpu"),
              Place(2, "b", 0, (0, 1, 4), 3, 1, "cpu")]
    rows = rank_table(places).splitlines()[2:]
    assert [("shared" in row, "own" in row) for row in rows] == [(True, False), (True, False),
                                                                 (False, True)]
    assert "3 (0-1,4)" in rows[2] and listed_cpus(()) == ""


def test_h5py_tells_its_filters_and_whether_it_has_mpi():
    library = hdf5_library()
    assert (library.parallel == h5py.get_config().mpi
            and {"gzip", "shuffle", "lzf"} <= set(library.filters))
