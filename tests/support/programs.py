"""Programs that end with their test, whatever happens."""
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

LAUNCHER_VARIABLES = ("PMI", "MPI_LOCAL", "OMPI_", "SLURM_")


@dataclass(frozen=True)
class Finished:
    """What became of a program: exit code, or None when it had to be killed; what it wrote;
    how long it took."""

    code: int | None
    out: str
    err: str
    seconds: float


def run_program(command: list[str], timeout_s: float, environ: dict[str, str]) -> Finished:
    inherited = {name: value for name, value in os.environ.items()
                 if not name.startswith(LAUNCHER_VARIABLES)}
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True, start_new_session=True,
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
    """All processes below `pid`, whatever session they moved to (launchers put ranks into
    sessions of their own)."""
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
