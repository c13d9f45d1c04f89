"""What `--sweep` asks for: settings of the dial, tried in all combinations on a few images. Without
torch, so that a mistake is told within a second."""
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

from swinmpi.config import Config
from swinmpi.config.strict_yaml import YAMLError, one_line, parse_yaml
from swinmpi.errors import ConfigError, StackError
from swinmpi.sampling.request import SampleRequest, check_fit, check_reference
from swinmpi.sampling.settings import takes_steps
from swinmpi.sampling.validation import GivenSettings, resolved, validated
from swinmpi.storage.files import check_by_trying, check_place
from swinmpi.storage.header import read_header
from swinmpi.storage.metadata.frames import spelled
from swinmpi.storage.pictures.listing import are_many
from swinmpi.storage.stack import Stack

PICTURE, TABLE, CSV = "sweep.png", "sweep.md", "sweep.csv"
MOST_IMAGES = 12
OF_OUTPUT = ("output.consistent", "output.value_range")
PLACE = {"no folder": "{folder} is no folder; choose another --output",
         "not writable": "the folder {folder} is not writable; choose another --output",
         "too long": "its name, or that of a folder on the way, is too long; choose a shorter "
                     "--output",
         "is a folder": "a folder lies where a file must; choose another --output",
         "exists": "exists already; choose another --output, or replace it with --overwrite"}


@dataclass(frozen=True)
class Swept:
    """A setting and the values that it is given, at least one, all different."""

    key: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Sweep:
    """A sweep that can be done. settings: value by key, of every combination; configs, requests:
    the same, each with an output that does not stay. folder: for what is written; reference:
    address of the HR stack, if there is one."""

    settings: tuple[dict[str, Any], ...]
    configs: tuple[Config, ...]
    requests: tuple[SampleRequest, ...]
    folder: Path
    reference: str | None

    @property
    def labels(self) -> list[str]:
        """Of the combinations, a line for each setting."""
        return ["\n".join(f"{short(key)} {as_yaml(value)}" for key, value in one.items())
                for one in self.settings]


def short(key: str) -> str:
    """sampler.noise_scale -> noise_scale."""
    return key.partition(".")[2]


def as_json(value: Any) -> str:
    """A value as `--set` takes it; what JSON does not have as text, which no setting is."""
    return json.dumps(value, default=str)


def as_yaml(value: Any) -> str:
    """The same for people."""
    return value if isinstance(value, str) and value.isidentifier() else as_json(value)


def parse_sweep(text: str) -> Swept:
    """`sampler.noise_scale=0,.3,1` -> its key and values, which are YAML; ConfigError."""
    key, equals, words = text.partition("=")
    key = key.strip()
    if not equals or key.count(".") < 1 or not all(key.split(".")):
        raise ConfigError(f"--sweep {text}: expected section.key=value,value, for example --sweep "
                          "sampler.steps=5,10")
    if not (key.startswith("sampler.") or key in OF_OUTPUT):
        raise ConfigError(f"--sweep {key}: expected a setting of the dial, sampler.* or "
                          f"{' or '.join(OF_OUTPUT)}, which leave the network as it is; use --set "
                          "for a run of its own")
    try:
        values = parse_yaml(f"[{words}]")
    except YAMLError as error:
        raise ConfigError(f"--sweep {text}: expected values with commas between them, got what is "
                          f"no YAML ({one_line(error)})") from None
    if not values:
        raise ConfigError(f"--sweep {text}: expected values with commas between them, got none")
    if any(isinstance(value, dict) for value in values):
        raise ConfigError(f"--sweep {text}: expected values, got keys of a section; name one, such "
                          "as sampler.shift.pattern")
    if any(value in values[:number] for number, value in enumerate(values)):
        raise ConfigError(f"--sweep {text}: expected different values, got one twice")
    return Swept(key, tuple(values))


def combinations(texts: Sequence[str], most: int) -> list[dict[str, Any]]:
    """All combinations, at most so many, the last setting changing fastest. ConfigError."""
    sweeps = [parse_sweep(text) for text in texts]
    keys = [one.key for one in sweeps]
    for key in keys:
        if keys.count(key) > 1:
            raise ConfigError(f"--sweep {key}: expected every setting once, got it twice; give all "
                              "of its values together")
    count = prod(len(one.values) for one in sweeps)
    if count > most:
        raise ConfigError(f"--sweep: expected at most {most} combinations, got {count}; give fewer "
                          f"values, or say --most-combinations {count}")
    return [dict(zip(keys, values, strict=True))
            for values in product(*(one.values for one in sweeps))]


def plan_asked(request: SampleRequest, given: GivenSettings, texts: Sequence[str],
               most: int, reference: str | None = None) -> Sweep:
    """Everything that can be validated without torch. On one process; nothing is written.

    request: `output` is the folder, None for the default. ConfigError, StackError,
    CheckpointError, OutputError.
    """
    settings = combinations(texts, most)
    check_possible(request, given, settings[0])
    combined = [combined_with(given, one) for one in settings]
    configs = [told_of(request, one, settings[number]) for number, one in enumerate(combined)]
    check_effect(configs, settings[0])
    folder = request.output or Path(f"{Path(request.stack.partition('::')[0]).stem}_sweep")
    for name in (PICTURE, TABLE, CSV):
        check_place(folder / name, PLACE, request.overwrite)
    check_by_trying(folder / PICTURE)
    begun = replace(request, output=temporary(folder, 0), overwrite=True, keeps_regression=False)
    first, config = validated(begun, combined[0])
    if first.view.frames is None:
        first = replace(first, view=replace(first.view, frames=first_middle_last(first)))
    check_number(first)
    requests = [replace(first, output=temporary(folder, number))
                for number in range(len(settings))]
    for one, own in zip(requests[1:], configs[1:], strict=True):
        check_fit(one, own)
    if reference is not None:
        check_reference(first, config, reference)
    return Sweep(tuple(settings), tuple(configs), tuple(requests), folder, reference)


def check_possible(request: SampleRequest, given: GivenSettings, settings: dict) -> None:
    """ConfigError for what a sweep cannot be of."""
    if are_many([request.stack]):
        raise ConfigError(f"--sweep: expected one HDF5 stack, got {request.stack}; put pictures "
                          "into an HDF5 stack")
    if request.ensemble != 1:
        raise ConfigError(f"--ensemble: expected 1 with --sweep, got {request.ensemble}")
    if request.shard is not None:
        raise ConfigError(f"--shard: expected none with --sweep, got {request.shard}; choose "
                          "images with --frames")
    for name, asked in (("--trust", request.trust), ("--members", request.members)):
        if asked is not None:
            raise ConfigError(f"{name}: expected none with --sweep, which makes one sample of each "
                              f"combination, got {asked}; leave one of them out")
    for text in given.overrides:
        key = text.partition("=")[0].strip()
        if key in settings:
            raise ConfigError(f"--set {text}: is swept as well; leave one of them out")
    of_dial = [key for key in settings if key.startswith("sampler.")]
    if of_dial and not takes_steps(read_header(request.checkpoint)):
        raise ConfigError(f"--sweep {of_dial[0]}: expected a model that takes steps, got "
                          f"{request.checkpoint}, which has no such dial")


def check_effect(configs: Sequence[Config], settings: dict) -> None:
    """ConfigError where no combination draws samples, so that their settings do nothing."""
    idle = [key for key in settings if key.startswith("sampler.") and key != "sampler.method"]
    if idle and not any(config.sampler.diffuses for config in configs):
        raise ConfigError(f"--sweep {idle[0]}: expected a sampler.method that takes steps, got "
                          "regression, which it does not change; leave one of them out")


def combined_with(given: GivenSettings, settings: dict[str, Any]) -> GivenSettings:
    return replace(given, overrides=[*given.overrides, *(
        f"{key}={as_json(value)}" for key, value in settings.items())])


def told_of(request: SampleRequest, given: GivenSettings, settings: dict[str, Any]) -> Config:
    """The configuration of a combination; ConfigError that names --sweep where it is wrong."""
    try:
        return resolved(request, given)
    except ConfigError as error:
        words = ", ".join(f"{key}={as_yaml(value)}" for key, value in settings.items())
        said = str(error)
        for key, value in settings.items():
            said = said.removeprefix(f"--set {key}={as_json(value)}: ")
        raise ConfigError(f"--sweep {words}: {said}") from None


def temporary(folder: Path, number: int) -> Path:
    """Where a combination lies until it was looked at."""
    return folder / f".sweep-{number}.h5"


def first_middle_last(request: SampleRequest) -> str | None:
    """As --frames has them; None for a stack that is one image."""
    with Stack.open(request.stack, request.allow_external, request.view) as stack:
        layout, shape = stack.arrangement.layout, stack.arrangement.shape
        if "N" not in layout:
            return None
        taken = stack.arrangement.frames or range(shape[layout.index("N")])
    return spelled(sorted({taken[0], taken[len(taken) // 2], taken[-1]}))


def check_number(request: SampleRequest) -> None:
    """StackError for more images than can be looked at together."""
    with Stack.open(request.stack, request.allow_external, request.view) as stack:
        if stack.num_images > MOST_IMAGES:
            raise StackError(f"{stack.address}: expected at most {MOST_IMAGES} images to look at, "
                             f"got {stack.words}; choose fewer with --frames, such as 0,10,-1")


def whole_stack(request: SampleRequest) -> Stack:
    """The stack of a request without its choice of frames, open: what a run over all of it would
    measure its range on."""
    return Stack.open(request.stack, request.allow_external, replace(request.view, frames=None),
                      request.no_data)


def chosen_words(request: SampleRequest) -> str:
    """The frames, for people."""
    return "the only image" if request.view.frames is None else f"images {request.view.frames}"
