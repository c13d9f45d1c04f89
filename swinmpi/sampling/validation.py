"""Whether a request can be done with its settings: answered within a second, because
torch is not needed."""
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from swinmpi.config import Config
from swinmpi.config.data_section import MEASURE
from swinmpi.errors import ConfigError
from swinmpi.images.likeness.noise import trained_levels
from swinmpi.sampling.request import (
    SampleRequest,
    check_destination,
    check_fit,
    check_stack,
    default_output,
    error_bars_for,
    shard_path,
)
from swinmpi.sampling.settings import (
    check_consistent,
    check_regression,
    check_settings,
    distilled_steps,
    is_only_shrunk,
    resolve_config,
    takes_steps,
)
from swinmpi.storage.header import read_header
from swinmpi.storage.metadata.frames import check_frames
from swinmpi.storage.outputs.extending import check_extended, kept_beside, kept_exactly
from swinmpi.storage.trust import TrustAsked


@dataclass(frozen=True)
class GivenSettings:
    """What a command line says about the configuration, in the order of `load_config`."""

    files: Sequence[Path | str] = ()
    overrides: Sequence[str] = ()
    preset: str | None = None


def validated(request: SampleRequest, given: GivenSettings) -> tuple[SampleRequest, Config]:
    """The request with its output, and its configuration, before anything is computed or created.

    Raises ConfigError, StackError, CheckpointError or OutputError. On one process.
    """
    data = check_settings(given.files, given.overrides, given.preset).data
    check_frames(request.view.frames)
    request = replace(request, view=replace(request.view, axes=data.axes,
                                            calibration=data.calibration))
    check_stack(request)
    config = resolved(request, given)
    if request.keeps_regression:
        config = config.replaced(output={"regression": config.model.regresses
                                         and config.sampler.diffuses})
    request = replace(with_output(request, config), no_data=config.data.no_data_values)
    if request.members is not None:
        request = replace(request, ensemble=request.members.end)
    check_destination(request)
    if request.members is not None:
        request, config = as_before(request, config)
    check_fit(request, config)
    return request, config


def as_before(request: SampleRequest, config: Config) -> tuple[SampleRequest, Config]:
    """A run that adds members to its output, with all that the output has beside them."""
    told = check_extended(request.output, request.members)
    known, beside = kept_exactly(request.output, request.members), kept_beside(request.output)
    request = replace(request, members=replace(request.members, known=known))
    regresses = config.model.regresses and config.sampler.diffuses
    config = config.replaced(output={
        "members": "exact" if known else config.output.members or True,
        "lr": config.output.lr or "lr" in beside,
        "regression": config.output.regression or regresses and "regression" in beside})
    if request.trust is None and "trust" in told:
        # With settings that have no mask the members are others, which is told where they are seen.
        with suppress(ConfigError):
            marked = replace(request, trust=TrustAsked.recorded(str(told["trust"])))
            error_bars_for(marked, config, None)
            request = marked
    return request, config


def resolved(request: SampleRequest, given: GivenSettings) -> Config:
    """The configuration of a run with the request's checkpoint; ConfigError, CheckpointError."""
    check_settings(given.files, given.overrides, given.preset)
    header = read_header(request.checkpoint)
    config = resolve_config(header, request.checkpoint, given.files, given.overrides, given.preset)
    check_consistent(config)
    check_regression(config, takes_steps(header))
    if config.output.consistent is True and not is_only_shrunk(config, header):
        warnings.warn("output.consistent: the network was trained on LR images that were not only "
                      "shrunk by bicubic imresize; where such images are noisy or blurred, so will "
                      "samples be that agree with them; a weight below 1 keeps less of it",
                      stacklevel=2)
    low, high = trained_levels(header)
    level = config.data.noise
    if config.model.told_noise and level != MEASURE and not low <= level <= high:
        warnings.warn(f"data.noise: the network learned with levels from {low:g} to {high:g}, with "
                      f"{level:g} its results may be worse", stacklevel=2)
    trained_px = header["model"]["window_px"] if "window_px" in header.get("model", {}) else None
    if takes_steps(header) and trained_px not in (None, config.model.window_px):
        warnings.warn(f"model.window_px: the network was trained on windows of {trained_px} px, "
                      f"with {config.model.window_px} px its results may be worse", stacklevel=2)
    steps = distilled_steps(header)
    if steps not in (None, config.sampler.steps):
        warnings.warn(f"sampler.steps: the network was distilled for {steps} "
                      f"step{'s' if steps > 1 else ''}, with {config.sampler.steps} its results "
                      "may be worse", stacklevel=2)
    return config


def with_output(request: SampleRequest, config: Config) -> SampleRequest:
    """The request with the file that it writes: of its shard, by default named after the input."""
    output = request.output or default_output(request.stack, config.model.scale)
    return replace(request,
                   output=output if request.shard is None else shard_path(output, request.shard))
