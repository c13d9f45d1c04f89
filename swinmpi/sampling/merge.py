"""Shards in, one stack out: are they all there, are they of one run, and what the whole says
about its making."""
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import swinmpi
from swinmpi.errors import OutputError, StackError
from swinmpi.parallel.shares import Shard
from swinmpi.storage.files import beside, check_by_trying, existing_folder
from swinmpi.storage.locking import check_unlocked
from swinmpi.storage.outputs.merging import ShardFile, difference, merge_files, read_shard
from swinmpi.storage.outputs.output import check_output
from swinmpi.storage.probe import inspect_shards

MIB = 2**20
NAMED_SHARDS = 12


@dataclass(frozen=True)
class MergePlan:
    """What will be merged: every shard of one run, in order. `output`: symbolic links resolved."""

    shards: tuple[ShardFile, ...]
    output: Path
    virtual: bool

    @property
    def failed(self) -> list[int]:
        """Image indices of the whole stack that the run gave up."""
        return [image_index for shard in self.shards for image_index in shard.failed]

    @property
    def bytes(self) -> int:
        """Of the files to copy, or to refer to."""
        return sum(shard.path.stat().st_size for shard in self.shards)


def plan(paths: Sequence[Path], output: Path, virtual: bool = False,
         overwrite: bool = False) -> MergePlan:
    """Validate shards (in any order) and output, without reading pixels. StackError,
    OutputError. One process."""
    inspect_shards(paths)
    shards = sorted(map(read_shard, paths), key=lambda shard: shard.number)
    check_complete(shards)
    for shard in shards:
        path = check_output(output, shard.path, overwrite)
    check_by_trying(path)
    check_unlocked(beside(path, ".packing"))
    made = MergePlan(tuple(shards), path, virtual)
    try:
        common_process([shard.process for shard in shards])
    except (KeyError, TypeError, AttributeError, ZeroDivisionError):
        raise StackError(f"{shards[0].path}: its /entry/process, or that of another shard, is not "
                         "what swinmpi-sample writes; make the shards again") from None
    free = shutil.disk_usage(existing_folder(path)).free
    if not virtual and made.bytes > free:
        raise OutputError(f"{output}: needs about {made.bytes / MIB:.0f} MiB, "
                          f"the disk has {free / MIB:.0f} MiB free; make room, "
                          "choose another --output, or only refer to the shards with --virtual")
    return made


def run(plan: MergePlan) -> None:
    """Write the merged file, whole or not at all. OutputError. One process."""
    process = common_process([shard.process for shard in plan.shards])
    merged_by = {"command": " ".join(sys.argv),
                 "version": swinmpi.__version__, "shards": plan.shards[0].of,
                 "array_job_id": os.environ.get("SLURM_ARRAY_JOB_ID"),
                 "date": datetime.now().astimezone().isoformat(timespec="seconds")}
    merge_files(plan.shards, plan.output, process | {"merge": merged_by}, plan.virtual)


def describe(plan: MergePlan) -> str:
    """What a merge would do, in a few lines."""
    first, size = plan.shards[0], f"{plan.bytes / MIB:.1f} MiB"
    datasets = [f"{name} {' x '.join(map(str, shape))} {dtype}"
                for name, (shape, dtype, _) in first.pixels.items()]
    done = (f"{size} in the shards, which it refers to" if plan.virtual
            else f"about {size}, chunks copied as they are")
    return "\n".join([f"shards      all {first.of}, {first.total} images, "
                      f"{len(plan.failed)} of them could not be read",
                      f"datasets    {', '.join(datasets)}", f"output      {plan.output}: {done}"])


def check_complete(shards: Sequence[ShardFile]) -> None:
    """StackError unless the shards are of one run and each is there once; those without images
    may be left out."""
    first = shards[0]
    for before, shard in zip(shards, shards[1:], strict=False):
        differing = difference(first, shard)
        if differing is not None:
            raise StackError(f"{shard.path}: is of another run than {first.path} ({differing} "
                             "differ); give the shards of one run")
        if shard.number == before.number:
            raise StackError(f"{shard.path}: shard {shard.number} of {shard.of} is given twice, "
                             f"also as {before.path}; leave one out")
    given = {shard.number for shard in shards}
    missing = [number for number in range(1, first.of + 1)
               if number not in given and Shard(number, first.of).images(first.total)]
    if missing:
        more = f" and {len(missing) - NAMED_SHARDS} more" if len(missing) > NAMED_SHARDS else ""
        raise StackError(f"shards missing of {first.of}: "
                         f"{', '.join(map(str, missing[:NAMED_SHARDS]))}{more}; give them too, "
                         f"or make them with swinmpi-sample --shard {missing[0]}/{first.of}")
    for shard in shards:
        if shard.images != Shard(shard.number, shard.of).images(shard.total):
            raise StackError(f"{shard.path}: holds other images than shard {shard.number} of "
                             f"{shard.of}; make it again")


def common_process(processes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One entry where all shards say the same, else a list in their order; failed images joined,
    timings added up, the date is the latest."""
    names = dict.fromkeys(name for process in processes for name in process)
    common = {name: same_or_list([process.get(name) for process in processes]) for name in names}
    failed = [line for process in processes for line in process.get("failed_images", [])]
    return common | {"failed_images": failed or None,
                     "date": max(process["date"] for process in processes),
                     "timings": added_up([process["timings"] for process in processes])}


def same_or_list(values: Sequence[Any]) -> Any:
    if all(value == values[0] for value in values):
        return values[0]
    if any(value is None or isinstance(value, str | Mapping) for value in values):
        return ["" if value is None else str(value) for value in values]
    return list(values)


def added_up(timings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Seconds and images of all shards together; shares weighted by the seconds of each, what was
    spared by its images."""
    seconds = sum(timing["seconds"] for timing in timings)
    share = {name: sum(timing["share"][name] * timing["seconds"] for timing in timings) / seconds
             for name in timings[0]["share"]}
    images = sum(timing["images"] for timing in timings)
    added = {"seconds": seconds, "images": images, "share": share}
    if images and all("spared" in timing for timing in timings):
        added["spared"] = sum(timing["spared"] * timing["images"] for timing in timings) / images
    return added
