"""What an experiment is: a YAML file of arms that differ in one thing, and of budgets."""
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from swinmpi.config import Config
from swinmpi.config.base import MOST_COUNT, MOST_SEED, Section
from swinmpi.config.families import DEFAULT_FAMILY, FAMILIES
from swinmpi.config.loading import merge, validate
from swinmpi.config.strict_yaml import read_yaml
from swinmpi.errors import ConfigError

BUDGETS = ("smoke", "short", "full")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 .,+_=-]*")
MOST_ARMS = 64
BESIDE_PACKAGE = Path(__file__).parents[2] / "configs"
INSIDE_PACKAGE = Path(__file__).parent / "configs"

Settings = dict[str, Any]
Count = Annotated[int, Field(ge=1, le=MOST_COUNT)]


class Arm(Section):
    """One line of a table.

    base: files of configs/ instead of the experiment's; settings: of training and sampling; at:
    more of them, by budget; pretrain: settings of an encoder that is trained first, by itself;
    sampling: settings of sampling alone; checkpoint: weights instead of a training, a file or the
    name of a shipped model; published: the thesis's own figures, by name.
    """

    name: str = Field(max_length=60)
    base: list[str] | None = None
    settings: Settings = {}
    at: dict[Literal["smoke", "short", "full"], Settings] = {}
    pretrain: Settings | None = None
    sampling: Settings = {}
    checkpoint: str | None = None
    published: dict[str, float] = {}

    @field_validator("name")
    @classmethod
    def can_be_a_folder(cls, name: str) -> str:
        if not NAME.fullmatch(name) or name != name.strip():
            raise ValueError("a name of letters, digits, spaces and . , + _ = -")
        return name

    @model_validator(mode="after")
    def is_trained_or_given(self):
        if self.checkpoint is not None and (self.pretrain is not None or self.settings or self.at):
            raise ValueError("`sampling` alone beside `checkpoint`, whose weights are trained")
        return self


class Budget(Section):
    """What every arm gets: updates, or seconds of training on the machine it runs on (neither: as
    many updates as the configuration says); test images; seeds. pretrain: updates or seconds of a
    pre-trained encoder over those of its arm; pretrain_within: whether such seconds are part of the
    arm's, not on top; repeats: of an arm that is timed; models: settings of
    the network, by family."""

    updates: Count | None = None
    seconds: float | None = Field(None, gt=0, le=1e7)
    pretrain: float = Field(0.5, gt=0, le=10)
    pretrain_within: bool = False
    test_images: Count
    seeds: list[Annotated[int, Field(ge=0, lt=MOST_SEED)]] = Field([0], min_length=1, max_length=32)
    repeats: Count = 3
    settings: Settings = {}
    models: dict[str, Settings] = {}

    def share(self, *, pretrains: bool) -> float:
        """Of the seconds, for an arm itself. pretrains: whether an encoder is trained before."""
        return 1 - self.pretrain if pretrains and self.pretrain_within else 1.0

    @field_validator("models")
    @classmethod
    def families_are_known(cls, models: dict[str, Settings]) -> dict[str, Settings]:
        if unknown := set(models) - set(FAMILIES):
            raise ValueError(f"families of {', '.join(FAMILIES)}, not {sorted(unknown)[0]}")
        return models

    @model_validator(mode="after")
    def is_one_budget(self):
        if self.updates is not None and self.seconds is not None:
            raise ValueError("either updates or seconds, not both")
        if self.pretrain_within and (self.seconds is None or self.pretrain >= 1):
            raise ValueError("seconds, and a pretrain below 1, with pretrain_within")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds that differ")
        return self


class Published(Section):
    """Where the numbers beside ours come from."""

    table: str = ""
    setting: str = ""


class Experiment(Section):
    """Arms that are compared. kind: quality, trained, sampled and judged; time, sampling with
    random weights on 1, 2, 4 ... ranks; pictures, drawn without a network. reference: the arm
    whose difference to the others is told; bands: whether errors in Haar bands are told as well;
    expects: what the thesis found, in words."""

    title: str
    section: str
    kind: Literal["quality", "time", "pictures"] = "quality"
    expects: str = ""
    published: Published = Published()
    base: list[str] = []
    settings: Settings = {}
    arms: list[Arm] = Field(min_length=1, max_length=MOST_ARMS)
    reference: str | None = None
    bands: bool = False
    budgets: dict[Literal["smoke", "short", "full"], Budget]

    @model_validator(mode="after")
    def names_are_known(self):
        names = [arm.name for arm in self.arms]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"arms of different names, not two of {sorted(twice)[0]!r}")
        if self.reference is not None and self.reference not in names:
            raise ValueError(f"a reference among the arms {', '.join(names)}, "
                             f"not {self.reference!r}")
        return self


def configs() -> Path:
    """The folder of configurations: of the checkout, or installed beside this module."""
    return BESIDE_PACKAGE if (BESIDE_PACKAGE / "experiments").is_dir() else INSIDE_PACKAGE


def names() -> list[str]:
    """Of the experiments that ship."""
    return sorted(path.stem for path in (configs() / "experiments").glob("*.yaml"))


def load_experiment(name: str) -> Experiment:
    """By the name of one that ships, or from a YAML file. ConfigError in one line."""
    is_file = name.endswith((".yaml", ".yml"))
    if not is_file and name not in names():
        raise ConfigError(f"{name}: expected an experiment, one of {', '.join(names())}, or a "
                          "file .yaml")
    path = Path(name) if is_file else configs() / "experiments" / f"{name}.yaml"
    try:
        return Experiment.model_validate(read_yaml(path))
    except ValidationError as error:
        raise ConfigError(f"{path}: {in_words(error)}") from None


def in_words(error: ValidationError) -> str:
    """The first problem of an experiment, in one line."""
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"]) or "experiment"
    if problem["type"] == "extra_forbidden":
        return f"unknown key {where}"
    message = problem["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    came = problem.get("input")
    got = "" if isinstance(came, Mapping) else f", got {came!r}"
    return f"{where}: expected {message[0].lower()}{message[1:]}{got}"


def resolved(experiment: Experiment, arm: Arm, budget: str, given: Settings,
             more: Settings | None = None) -> Config:
    """The configuration of an arm; later ones win: base files, the experiment's settings, those of
    the budget, the arm's, the budget's for its family of models, the arm's at this budget, `given`
    on the command line, `more`.

    ConfigError that names the arm.
    """
    merged: Settings = {}
    allowed = experiment.budgets[budget]
    files = experiment.base if arm.base is None else arm.base
    for part in (*(read_yaml(configs() / name) for name in files), experiment.settings,
                 allowed.settings, arm.settings):
        merged = merge(merged, part)
    family = merged.get("model", {}).get("family", DEFAULT_FAMILY)
    for part in ({"model": allowed.models.get(family, {})}, arm.at.get(budget, {}), given,
                 more or {}):
        merged = merge(merged, part)
    return validate(merged, f"arm {arm.name}")


def fingerprint(value: object) -> str:
    """Of anything that JSON can write; 16 hexadecimal digits."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
