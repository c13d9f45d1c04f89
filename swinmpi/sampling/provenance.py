"""What an output remembers: the fingerprint that decides whether a run may go on, and where its
pixels came from."""
import json
import os
import sys

import swinmpi
from swinmpi.config import Config, dump_yaml
from swinmpi.parallel.device import planned_device, settled_compile, settled_precision
from swinmpi.parallel.launch import library_version
from swinmpi.parallel.shares import Shard
from swinmpi.reports.machine import made_on
from swinmpi.reports.revision import git_revision
from swinmpi.reports.timing import RunReport
from swinmpi.sampling.distribution import Distribution
from swinmpi.sampling.plan import SamplingPlan
from swinmpi.sampling.request import SampleRequest
from swinmpi.sampling.settings import deciding as deciding_settings
from swinmpi.storage.outputs.extending import FINGERPRINT
from swinmpi.storage.stack import Stack
from swinmpi.storage.values import ValueRange

DECIDING = {"device", "precision", "micro_batch", "channels_last", "fused_attention"}


def fingerprint(plan: SamplingPlan, stack: Stack, checkpoint_sha256: str,
                value_range: ValueRange) -> dict:
    """All that decides the pixels, as JSON values: an output begun with another one
    cannot be continued."""
    config = plan.config
    wraps = config.sampler.shift.border == "wrap" and config.model.joins_edges
    edges = {"edges": "joined"} if wraps and any(plan.grid.joins) else {}
    compiled = {"compile": True} if config.parallel.compile else {}
    return {**edges, **compiled, "input": stack.identity(), "checkpoint": checkpoint_sha256,
            "ensemble": plan.request.ensemble, "value_range": [value_range.low, value_range.high],
            **trusted(plan.request),
            **agreement(config), **told_noise(config), **deciding_settings(config),
            **config.parallel.model_dump(include=DECIDING), "micro_batch": plan.calls.told}


def agreement(config: Config) -> dict:
    """How far samples are made to agree with the LR image, where they are."""
    weight = config.output.consistent
    return {"consistent": weight} if weight else {}


def told_noise(config: Config) -> dict:
    """The noise level that the network is told, or how it is found, where it is told one."""
    return {"noise": config.data.noise} if config.model.told_noise else {}


def trusted(request: SampleRequest) -> dict:
    """Which pixels are marked as trusted, where some are."""
    return {"trust": str(request.trust)} if request.trust else {}


def folder_settings(request: SampleRequest, config: Config, checkpoint_sha256: str) -> dict:
    """All that decides the pixels of pictures, whatever their size and range: a folder begun with
    other settings cannot be continued. JSON values."""
    device = planned_device(config.parallel.device)
    deciding = {"checkpoint": checkpoint_sha256, "value_range": config.output.value_range,
                **agreement(config), **told_noise(config), **deciding_settings(config),
                **config.parallel.model_dump(include=DECIDING),
                "device": device,
                "precision": settled_precision(config.parallel.precision, device)}
    if config.parallel.micro_batch == "auto":
        # "auto" is what versions wrote that had one size for all windows
        deciding["micro_batch"] = "by windows"
    if config.model.joins_edges and config.sampler.shift.border == "wrap":
        deciding["edges"] = "joined"
    if settled_compile(config.parallel.compile, device):
        deciding["compile"] = True
    if request.no_data:
        deciding["no_data"] = sorted(request.no_data)
    return json.loads(json.dumps(deciding))


def spared(report: RunReport) -> dict:
    """The share of evaluations that were not needed, where some could be spared."""
    return {} if report.spared is None else {"spared": report.spared}


def provenance(plan: SamplingPlan, stack: Stack, report: RunReport, deciding: dict) -> dict:
    """What the finished file says about its making; `deciding` is its fingerprint."""
    request, config, distribution = plan.request, plan.config, plan.distribution
    failed = [
        f"{stack.stack_index(index)}: {reason}" for index, reason in sorted(report.failed.items())]
    return {"version": swinmpi.__version__, "git_revision": git_revision(),
            "command": " ".join(sys.argv), "input": str(stack.address),
            "frames": request.view.frames, "checkpoint": str(request.checkpoint),
            "checkpoint_sha256": deciding["checkpoint"],
            "input_identity": json.dumps(deciding["input"]),
            "machine": made_on(planned_device(config.parallel.device)),
            "configuration": dump_yaml(config),
            "seed": config.sampler.seed, "ensemble": request.ensemble, **trusted(request),
            FINGERPRINT: json.dumps(deciding, sort_keys=True) if config.output.members else None,
            "value_range": deciding["value_range"], "ranks": distribution.num_ranks,
            "ranks_per_image": len(distribution.groups[0]),
            "images_per_step": distribution.images_per_step,
            **shared_out(distribution),
            "micro_batch": plan.calls.told, "mpi_library": library_version(),
            "job_id": os.environ.get("SLURM_JOB_ID"),
            "timings": {"seconds": report.seconds, "images": report.num_images,
                        "share": dict(report.share)} | spared(report),
            "failed_images": failed or None,
            "shard": request.shard and shard_entries(request.shard, stack, deciding)}


def shared_out(distribution: Distribution) -> dict:
    """By rank the windows of an image, and windows a second, where shares are not equal; as JSON,
    as shards are made by different numbers of ranks."""
    if distribution.weights is None:
        return {}
    told: dict = {"windows_of_ranks": distribution.parts_of_ranks}
    if distribution.speeds is not None:
        told["windows_per_second_of_ranks"] = [round(speed, 1) for speed in distribution.speeds]
    return {name: json.dumps(values) for name, values in told.items()}


def shard_entries(shard: Shard, stack: Stack, deciding: dict) -> dict:
    """What the merging of shards must know; shards of one run have the same
    `fingerprint` (JSON)."""
    whole = {name: value for name, value in deciding["input"].items() if name != "images"}
    return {"number": shard.number, "of": shard.of,
            "first_image": stack.first_image, "total": stack.whole.num_images,
            "fingerprint": json.dumps(deciding | {"input": whole}, sort_keys=True)}
