"""Several nodes with a network of their own on one machine (nodes.sh), and mpirun over them."""
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PROGRAMS = ("ip", "tc", "unshare", "nsenter", "setpriv")
# Whatever else the library could use between processes of one machine: here there is only TCP.
ONLY_TCP = {"UCX_TLS": "tcp,self", "FI_PROVIDER": "tcp"}


def why_not(rate: str = "1gbit") -> str | None:
    """What this machine lacks for such nodes with a link of that rate; None when it has all."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"no {', '.join(missing)} here; apt-get install iproute2 util-linux"
    if os.geteuid() != 0:
        return "network namespaces need root"
    if "HYDRA" not in subprocess.run([launcher(), "-info"], capture_output=True, text=True).stdout:
        return f"{launcher()} is not MPICH's, whose way to start ranks on other nodes is used here"
    tried = subprocess.run([HERE / "nodes.sh", "1", rate, "true"], capture_output=True, text=True)
    if tried.returncode:
        return f"no network namespaces with tc's tbf here: {tried.stderr.strip()}"
    return None


def launcher() -> str:
    """The mpirun beside this Python, else the first on PATH."""
    beside_python = Path(sys.executable).with_name("mpirun")
    return str(beside_python) if beside_python.exists() else shutil.which("mpirun") or "mpirun"


def mpirun_over_nodes(num_nodes: int, rate: str, *command: object) -> list[str]:
    """The command line that runs a Python program with one rank on each node of a new network."""
    hosts = ",".join(f"n{number}" for number in range(1, num_nodes + 1))
    environ = [f"{name}={value}" for name, value in ONLY_TCP.items()]
    return [str(HERE / "nodes.sh"), str(num_nodes), rate, "env", *environ, "OMP_NUM_THREADS=1",
            launcher(), "-launcher", "ssh", "-launcher-exec", str(HERE / "on_node.sh"),
            "-hosts", hosts, "-ppn", "1", "-n", str(num_nodes), sys.executable,
            *map(str, command)]
