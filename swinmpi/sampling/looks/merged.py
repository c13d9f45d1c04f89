"""The picture of a run in shards, which is drawn when they are merged."""
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swinmpi.config import Config, load_config
from swinmpi.config.strict_yaml import parse_yaml
from swinmpi.errors import StackError
from swinmpi.sampling.looks.picture import describe_pictures, draw_pictures, picture_of
from swinmpi.sampling.merge import MergePlan, common_process
from swinmpi.sampling.request import SampleRequest, open_stack
from swinmpi.sampling.verifying.recorded import Asked, find_input, one_of, without_part
from swinmpi.storage.files import tell
from swinmpi.storage.metadata.frames import View
from swinmpi.storage.pictures.listing import reason_of
from swinmpi.storage.probe import inspect_stacks


@dataclass(frozen=True)
class MergedRun:
    """See `Run` of looks/picture.py."""

    request: SampleRequest
    config: Config
    takes_steps: bool


def draw_merged(plan: MergePlan, output: Path, overwrite: bool) -> list[Path]:
    """Draw the picture of a run whose shards were merged, as of every run; those that were written.
    One process. A picture that cannot be drawn costs a line. output: as the user named it."""
    try:
        run = run_of(plan, output, overwrite)
    except Exception as error:  # noqa: BLE001 - what was asked for is there
        tell(f"{picture_of(output)}: {not_drawn(error)}")
        return []
    return draw_pictures([run], resumed=False, others=[shard.path for shard in plan.shards])


def describe_merged(plan: MergePlan, output: Path, overwrite: bool) -> list[str]:
    """A line of a dry run on it. One process."""
    try:
        run = run_of(plan, output, overwrite)
    except Exception as error:  # noqa: BLE001 - the merging does not need it
        return [f"picture     {picture_of(output)}: {not_drawn(error)}"]
    return describe_pictures([run], [shard.path for shard in plan.shards])


def not_drawn(error: Exception) -> str:
    """Why, without advice on options that a merging does not have."""
    return f"no picture is drawn ({reason_of(error).partition('; ')[0]})"


def run_of(plan: MergePlan, output: Path, overwrite: bool) -> MergedRun:
    """What the shards tell of their run. StackError where its input is not there any more, or is
    another one."""
    process = common_process([shard.process for shard in plan.shards])
    settings = parse_yaml(one_of(process["configuration"]))
    config = load_config(base=settings)
    view = View(config.data.axes, one_of(process.get("frames")), config.data.calibration)
    request = SampleRequest(input_of(process, [output, plan.shards[0].path]), output,
                            Path(one_of(process["checkpoint"])), overwrite=overwrite, view=view,
                            no_data=config.data.no_data_values)
    if config.output.picture:
        inspect_stacks([request.stack], view=view)
        was = json.loads(one_of(process["input_identity"]))
        with open_stack(request) as lr:
            now = json.loads(json.dumps(lr.identity()))
        if without_part(was) != without_part(now):
            raise StackError(f"{request.stack}: holds other images than the shards were made of")
    return MergedRun(request, config, settings["train"]["target"] != "encoder")


def input_of(process: Mapping[str, Any], outputs: Sequence[Path]) -> str:
    """The address of the stack of a run, where it was or beside one of these; StackError."""
    *first, last = outputs
    for output in first:
        with suppress(StackError):
            return find_input(process, Asked(output))
    return find_input(process, Asked(last))
