"""Fixtures of all tests: programs under a real mpirun, or alone."""
import os
import shutil
import sys
from pathlib import Path

# Before torch is imported: its threads would wait for those of the tests beside.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

from tests.support.programs import Finished, run_program  # noqa: E402

# How long an example takes says more about the machine's other work than about the code.
settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")


LAUNCHERS = {"mpirun", "alone"}


def pytest_collection_modifyitems(items):
    """Tests that launch programs of their own, or need a machine around them, are slow."""
    for item in items:
        if LAUNCHERS.intersection(item.fixturenames) or "machines" in item.path.parts:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def mpirun():
    """`mpirun(ranks, script_or_-m, *arguments, timeout_s=180, **environ) -> Finished`,
    one thread per rank."""
    beside_python = Path(sys.executable).with_name("mpirun")
    launcher = str(beside_python) if beside_python.exists() else shutil.which("mpirun")
    if launcher is None:
        pytest.fail(f"no mpirun beside {sys.executable} or on PATH; pip install 'swinmpi[test]'")

    def run(ranks: int, *command, timeout_s: float = 180, **environ) -> Finished:
        return run_program([launcher, "-n", str(ranks), sys.executable, *map(str, command)],
                           timeout_s, environ)

    return run


@pytest.fixture(scope="session")
def alone():
    """`alone(script_or_-m, *arguments, timeout_s=180, **environ) -> Finished`: the same program
    without launcher."""
    def run(*command, timeout_s: float = 180, **environ) -> Finished:
        return run_program([sys.executable, *map(str, command)], timeout_s, environ)

    return run
