"""Shared by all tests: programs under a real mpirun, which end with their test whatever happens."""
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes says more about the machine's other work than about the code.
settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")

LAUNCHER_VARIABLES = ("PMI", "MPI_LOCAL", "OMPI_", "SLURM_")


@dataclass(frozen=True)
class Finished:
    """What became of a program: exit code, or None when it had to be killed; what it wrote; how long it took."""

    code: int | None
    out: str
    err: str
    seconds: float


@pytest.fixture(scope="session")
def mpirun():
    """`mpirun(ranks, script_or_-m, *arguments, timeout_s=180, **environ) -> Finished`, one thread per rank."""
    beside_python = Path(sys.executable).with_name("mpirun")
    launcher = str(beside_python) if beside_python.exists() else shutil.which("mpirun")
    if launcher is None:
        pytest.fail(f"no mpirun beside {sys.executable} or on PATH; pip install 'swinmpi[test]'")

    def run(ranks: int, *command, timeout_s: float = 180, **environ) -> Finished:
        return run_program([launcher, "-n", str(ranks), sys.executable, *map(str, command)], timeout_s, environ)

    return run


@pytest.fixture(scope="session")
def alone():
    """`alone(script_or_-m, *arguments, timeout_s=180, **environ) -> Finished`: the same program without launcher."""
    def run(*command, timeout_s: float = 180, **environ) -> Finished:
        return run_program([sys.executable, *map(str, command)], timeout_s, environ)

    return run


def run_program(command: list[str], timeout_s: float, environ: dict[str, str]) -> Finished:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(LAUNCHER_VARIABLES)}
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
                               env=inherited | {"OMP_NUM_THREADS": "1"} | environ)
    try:
        out, err = process.communicate(timeout=timeout_s)
        code = process.returncode
    except subprocess.TimeoutExpired:
        for pid in [*descendants(process.pid), process.pid]:
            kill(pid)
        out, err = process.communicate()
        code = None
    return Finished(code, out, err, time.monotonic() - started)


def descendants(pid: int) -> list[int]:
    """All processes below `pid`, whatever session they moved to (launchers put ranks into sessions of their own)."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    below = []
    for child in children.get(pid, []):
        below += [child, *descendants(child)]
    return below


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
