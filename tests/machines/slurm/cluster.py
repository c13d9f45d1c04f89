"""A real Slurm on this machine for tests: start it, submit job scripts, watch jobs.
Nothing here waits without a limit."""
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.support.programs import LAUNCHER_VARIABLES, kill

HERE = Path(__file__).parent
JOBS = HERE.parents[2] / "jobs"
PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "unshare")
PATIENCE_S, POLL_S = 600, 0.1
# Before that a job is pending, running, completing, or on its way back into the queue.
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"}


def why_not() -> str | None:
    """What this machine lacks to run a Slurm; None when it can."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"no {', '.join(missing)} here; apt-get install slurm-wlm munge libpmix2"
    if os.geteuid() != 0 or subprocess.run(["unshare", "--uts", "--mount", "--ipc", "true"],
                                           capture_output=True).returncode:
        return "a Slurm of several nodes on one machine needs root and namespaces"
    return None


class Cluster:
    """Three nodes u1, u2, u3 of two CPUs; a context manager that ends them and their jobs."""

    def __init__(self, folder: Path):
        self.folder = folder
        clean = {name: value for name, value in os.environ.items()
                 if not name.startswith((*LAUNCHER_VARIABLES, "SBATCH_"))}
        # All nodes have the same two cores: to bind ranks would put those
        # of different nodes on one.
        self.environ = clean | {
            "SLURM_CONF": str(folder / "etc/slurm.conf"), "SWINMPI_BIND": "no",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}

    def __enter__(self) -> "Cluster":
        self.run(HERE / "up.sh", self.folder)
        return self

    def __exit__(self, *_) -> None:
        self.run(HERE / "down.sh", self.folder)

    def run(self, *command, cwd: Path | None = None, **environ: str) -> str:
        """What a command of Slurm prints."""
        answer = subprocess.run([str(word) for word in command], env=self.environ | environ,
                                cwd=cwd, timeout=PATIENCE_S, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True)
        assert answer.returncode == 0, f"{command}: {answer.stdout}"
        return answer.stdout

    def submit(self, folder: Path, *arguments, **environ: str) -> "Job":
        """`sbatch ARGUMENT...` in `folder`; what the job writes goes to `folder`/job.log."""
        told = self.run("sbatch", "--parsable", "--output=job.log", *arguments, cwd=folder,
                        **environ)
        return Job(self, int(told), folder / "job.log")

    def lose(self, node: str) -> None:
        """Every process of a node is gone at once, as when its power fails."""
        daemon = int((self.folder / f"run/slurmd.{node}.pid").read_text())
        its_own = os.readlink(f"/proc/{daemon}/ns/uts")
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if os.readlink(process / "ns/uts") == its_own:
                    kill(int(process.name))
            except OSError:
                continue

    def bring_back(self, node: str) -> None:
        """Start a lost node again."""
        self.run("unshare", "--uts", "--mount", "--ipc", HERE / "node.sh", node,
                 self.folder / "etc/hosts")


@dataclass(frozen=True)
class Job:
    """A submitted job, or an array of them."""

    cluster: Cluster
    number: int
    log: Path

    @property
    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def fields(self, name: str) -> list[str]:
        """A field of `scontrol show job`, of every task of an array."""
        return re.findall(rf"\b{name}=(\S+)",
                          self.cluster.run("scontrol", "-o", "show", "job", self.number))

    def nodes(self) -> list[str]:
        return self.cluster.run("scontrol", "show", "hostnames",
                                self.fields("NodeList")[-1]).split()

    def signal(self) -> None:
        """What Slurm does some time before the limit (`--signal=B:USR2@...`)."""
        self.cluster.run("scancel", "--batch", "--signal=USR2", self.number)

    def wait(self, patience_s: float = PATIENCE_S) -> "Job":
        """Return when it has ended, however."""
        self.until(lambda: set(self.fields("JobState")) <= ENDED, patience_s)
        return self

    def until(self, condition: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
        deadline = time.monotonic() + patience_s
        while not condition():
            assert time.monotonic() < deadline, (
                f"job {self.number} after {patience_s} s: {self.said}")
            time.sleep(POLL_S)

    def until_running(self, restart: int, condition: Callable[[], bool]) -> None:
        """Return when `condition` holds while the job runs for the `restart`-th time
        after the first."""
        def reached() -> bool:
            state = self.fields("JobState")
            assert not set(state) & ENDED, f"{state}: {self.said}"
            return (state == ["RUNNING"] and self.fields("Restarts") == [str(restart)]
                    and condition())

        self.until(reached)

    def assert_completed(self) -> None:
        states, codes = self.fields("JobState"), self.fields("ExitCode")
        assert set(states) == {"COMPLETED"} and set(codes) == {"0:0"}, (
            f"{states} {codes}: {self.said}")
