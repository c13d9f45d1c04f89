"""--model: shipped models by name, and `--model list`, a table of them; without torch."""
import os
from argparse import Namespace
from collections.abc import Iterable, Mapping
from pathlib import Path

from swinmpi.config import Config, ModelConfig, load_config
from swinmpi.demo import DEFAULT_PRESET, SHIPPED, Shipped, shipped
from swinmpi.errors import ConfigError

LIST = "list"
HELP = f"a shipped model; {LIST}: print which there are"
TITLES = ("model", "scale", "images", "MB", "trained on", "licence", "steps", "dB over bicubic")


def model_file(name: str, preset: str | None = None,
               models: Mapping[str, Shipped] = SHIPPED) -> Path:
    """The checkpoint of a shipped model, or of a preset of it that has its own; ConfigError."""
    if name not in models:
        raise ConfigError(f"--model: expected one of {', '.join(sorted(models))}, or {LIST}, got "
                          f"{name}; weights of your own are given as --checkpoint FILE")
    return shipped(models[name].file_of(preset))


def weights_of(options: Namespace) -> Path:
    """The checkpoint that a command line samples with: of --checkpoint, or of --model and --preset.

    Without a preset it is the one of DEFAULT_PRESET, unless steps are asked for: some presets have
    networks that take no other number of them. ConfigError.
    """
    return options.checkpoint or model_file(
        options.model, options.preset or (None if chooses_steps(options) else DEFAULT_PRESET))


def chooses_steps(options: Namespace) -> bool:
    """Whether a file, --set or --sweep says by which method, or in how many steps; or that easy
    parts take fewer, of which a student's one step has none to spare."""
    from swinmpi.sampling.settings import check_settings
    sampler = check_settings(options.config, options.overrides, None).sampler
    given = sampler.model_fields_set & {"method", "steps"}
    swept = {text.partition("=")[0] for text in getattr(options, "sweep", ())}
    return bool(given or sampler.adaptive is not None
                or swept & {"sampler.method", "sampler.steps", "sampler.adaptive"})


def list_models(models: Mapping[str, Shipped] = SHIPPED) -> str:
    """A row for each: what its file says, and what the table of shipped models adds."""
    from swinmpi.reports.tables import format_table
    rows = [row_of(name, model) for name, model in models.items()]
    judged = ", ".join(sorted({model.judged_on for model in models.values() if model.judged_on}))
    return (format_table(TITLES, rows, text_columns=len(TITLES))
            + f"\nsteps, dB over bicubic: by --preset, the first without one; on {judged}; "
            "swinmpi/demo/PROVENANCE.md tells where all of it comes from")


def row_of(name: str, model: Shipped) -> list[str]:
    trained = model_of(model)
    images = ("grey" if trained.channels == 1 else "RGB") + ", noise told" * trained.told_noise
    size_mb = sum(os.path.getsize(shipped(file)) for file in model.files)
    gains = [f"{preset} {gain:+.2f}" for preset, gain in model.gains.items()]
    return [name, f"{trained.scale}x", images if trained.learns else "any", f"{size_mb / 1e6:.1f}",
            model.trained_on, model.licence, in_words(steps_of(model)), in_words(gains)]


def steps_of(model: Shipped) -> list[str]:
    """Of the sampler: without a preset, then by preset."""
    from swinmpi.sampling.settings import presets_of, settings_of, takes_steps
    from swinmpi.storage.header import read_header
    header = read_header(shipped(model.file_of(DEFAULT_PRESET)))
    if not takes_steps(header):
        return []
    trained = load_config(base=settings_of(header))
    told = [str(trained.sampler.steps)]
    for preset in presets_of(header, trained):
        header = read_header(shipped(model.file_of(preset)))
        sampler = presets_of(header, load_config(base=settings_of(header)))[preset]["sampler"]
        told.append(f"{preset} {sampler.get('steps', 0)}")
    return told


def words_on_models(options: Namespace, plan) -> list[str]:
    """Lines on shipped models that may suit better than the one that is used."""
    return [*words_on_grey(plan.request.checkpoint, plan.stack.channels),
            *words_on_students(options, plan.config)]


def words_on_grey(checkpoint: Path, channels: int,
                  models: Mapping[str, Shipped] = SHIPPED) -> list[str]:
    """A line where images of one channel go to a shipped model for colour, though one for grey
    images of that scale ships as well. Nobody's choice is changed."""
    own = next((model for model in models.values()
                if checkpoint in map(shipped, model.files)), None)
    if channels > 1 or own is None:
        return []
    wanted = (model_of(own).scale, 1)
    if model_of(own).channels == 1 or not model_of(own).learns:
        return []
    grey = [name for name, model in models.items() if model_of(model).learns
            and (model_of(model).scale, model_of(model).channels) == wanted]
    return [f"a model for grey images ships as well: --model {name}" for name in grey[:1]]


def words_on_students(options: Namespace, config: Config,
                      models: Mapping[str, Shipped] = SHIPPED) -> list[str]:
    """A line where steps that are set, as in the recorded configuration of a run, are those of a
    student that ships, but are taken by the model's own network. Nobody's choice is changed."""
    from swinmpi.sampling.settings import distilled_steps
    from swinmpi.storage.header import read_header
    if options.checkpoint or options.preset or not config.sampler.diffuses:
        return []
    own, steps = models[options.model], config.sampler.steps
    students = [preset for preset, file in own.presets.items()
                if distilled_steps(read_header(shipped(file))) == steps]
    if not students or not chooses_steps(options):
        return []
    return [f"sampler.steps is set, so {own.file} takes {steps}; the student that was taught to "
            f"take so few is used with --preset {' or '.join(students)}"]


def model_of(model: Shipped) -> ModelConfig:
    """The settings of its network."""
    from swinmpi.sampling.settings import settings_of
    from swinmpi.storage.header import read_header
    return load_config(base=settings_of(read_header(shipped(model.file)))).model


def in_words(values: Iterable[str]) -> str:
    return ", ".join(values) or "-"
