"""What an SR file says of its making, for the report."""
from collections.abc import Mapping
from typing import Any

from swinmpi.config.strict_yaml import YAMLError, parse_yaml
from swinmpi.evaluation.compared import Comparison

TOLD = ("program", "version", "git_revision", "date", "command", "input", "frames", "checkpoint",
        "checkpoint_sha256", "seed", "ensemble", "value_range", "ranks", "micro_batch",
        "mpi_library", "job_id", "merge")


def made_by(comparison: Comparison) -> dict[str, Any]:
    """Program, checkpoint with its digest, seed, settings by section; empty for a stack of another
    program."""
    process: Mapping[str, Any] = comparison.process
    told = {name: process[name] for name in TOLD if name in process}
    try:
        settings = parse_yaml(process["configuration"])
    except (KeyError, TypeError, YAMLError):
        settings = process.get("configuration")
    return told | ({} if settings is None else {"settings": settings})
