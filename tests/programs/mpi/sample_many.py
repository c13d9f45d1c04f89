"""Many runs of swinmpi-sample on the ranks of one launch: argv[1] is a JSON list of command lines.

With argv[2] every rank leaves its peak memory in MiB in the file argv[2].RANK.
"""
import json
import sys
import warnings
from pathlib import Path

from swinmpi.cli.sample import parser, sample_on
from swinmpi.parallel.launch import StopFlag, start_mpi

# Some runs are told on purpose to use other windows than the network was trained on.
warnings.filterwarnings("ignore", "model.window_px")
with start_mpi() as world, StopFlag() as stop:
    for command in json.loads(Path(sys.argv[1]).read_text()):
        sample_on(world, stop, parser().parse_args(command))
    if len(sys.argv) > 2:
        peak = next(line for line in Path("/proc/self/status").read_text().splitlines()
                    if line.startswith("VmHWM"))
        Path(f"{sys.argv[2]}.{world.rank}").write_text(str(int(peak.split()[1]) / 1024))
