"""Many runs of swinmpi-sample on the ranks of one launch: argv[1] is a JSON list of command lines."""
import json
import sys
from pathlib import Path

from swinmpi.cli.sample import parser, sample_on
from swinmpi.parallel.launch import StopFlag, start_mpi

with start_mpi() as world, StopFlag() as stop:
    for command in json.loads(Path(sys.argv[1]).read_text()):
        sample_on(world, stop, parser().parse_args(command))
