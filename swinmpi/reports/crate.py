"""The provenance of outputs for other programs: an RO-Crate, JSON-LD of schema.org's words.

A crate is a folder with a file ro-crate-metadata.json, which names its files and the actions that
made them (RO-Crate 1.1, https://w3id.org/ro/crate/1.1; runs as in its section on software used to
create files: instrument, object and result of a CreateAction)."""
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from swinmpi.config.strict_yaml import YAMLError, parse_yaml
from swinmpi.errors import OutputError
from swinmpi.reports.making import Making, flat
from swinmpi.storage.checkpoint import file_sha256
from swinmpi.storage.files import write_atomically

NAME = "ro-crate-metadata.json"
CONTEXT = ["https://w3id.org/ro/crate/1.1/context", {"sha256": "https://schema.org/sha256"}]
CONFORMS_TO = "https://w3id.org/ro/crate/1.1"
ROOT = "./"
SECTIONS = ("model", "diffusion", "sampler", "parallel", "output")  # that decide a run
KINDS = {".h5": "application/x-hdf5", ".hdf5": "application/x-hdf5", ".hdf": "application/x-hdf5",
         ".nxs": "application/x-hdf5", ".nc": "application/x-netcdf", ".png": "image/png",
         ".tif": "image/tiff", ".tiff": "image/tiff"}

Entity = dict[str, Any]


def write_crate(making: Making) -> Path:
    """Describe an output in the crate of its folder, which is made, or kept and added to; its path.
    OutputError where a crate of another program is there, or it cannot be written."""
    path = making.folder / NAME
    run = f"#run-{quote(making.name)}"
    before = [one for one in entities_before(path)
              if one["@id"] not in (NAME, ROOT) and not one["@id"].startswith(f"{run}/")]
    entities = {one["@id"]: one for one in [*before, *entities_of(making, run)]}
    crate = {"@context": CONTEXT,
             "@graph": [*root_of(making.folder, entities.values()), *entities.values()]}
    write_atomically(path, (json.dumps(crate, indent=1) + "\n").encode())
    return path


def entities_before(path: Path) -> list[Entity]:
    """Of a crate of ours; none where there is none."""
    if not os.path.lexists(path):
        return []
    try:
        crate = json.loads(path.read_bytes())
        if crate["@context"] == CONTEXT and all(isinstance(one["@id"], str)
                                                for one in crate["@graph"]):
            return list(crate["@graph"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise OutputError(f"{path}: expected a crate that swinmpi wrote, or none, got another file; "
                      "move it away, or add to it by its own program")


def root_of(folder: Path, entities: Iterable[Entity]) -> list[Entity]:
    """The file itself and its folder: all data that lie below, and all actions."""
    entities = list(entities)
    inside = [one["@id"] for one in entities
              if one["@type"] in ("File", "Dataset") and "://" not in one["@id"]]
    actions = [one["@id"] for one in entities if one["@type"] == "CreateAction"]
    today = datetime.now().astimezone().isoformat(timespec="seconds")
    return [{"@id": NAME, "@type": "CreativeWork", "conformsTo": {"@id": CONFORMS_TO},
             "about": {"@id": ROOT}},
            {"@id": ROOT, "@type": "Dataset", "name": folder.resolve().name or "results",
             "description": "Super-resolved images, and how swinmpi made them",
             "datePublished": today, "hasPart": references(inside),
             "mentions": references(actions)}]


def entities_of(making: Making, run: str) -> Iterator[Entity]:
    """An output, what it was made of, by what, with which settings. run: the name of its action."""
    process = making.process
    results = [file_entity(path, making.folder, file_sha256(path)) for path in making.files]
    software = f"#swinmpi-{process.get('version', 'unknown')}-{process.get('git_revision', '')}"
    sources = [checkpoint_entity(making, run), *input_entities(making, run)]
    settings = list(setting_entities(process, run))
    yield {"@id": run, "@type": "CreateAction", "name": f"Super-resolution into {making.name}",
           "description": text(process.get("command", "swinmpi-sample")),
           "endTime": text(process.get("date") or modified(making.files[0])),
           "instrument": {"@id": software},
           "object": references(one["@id"] for one in (*sources, *settings)),
           "result": references(one["@id"] for one in results)}
    yield {"@id": software, "@type": "SoftwareApplication", "name": "swinmpi",
           **known(softwareVersion=process.get("version"),
                   identifier=process.get("git_revision"))}
    yield from (*results, *sources, *settings)


def checkpoint_entity(making: Making, run: str) -> Entity:
    """The weights, by the digest that the output tells."""
    path = Path(text(making.process.get("checkpoint", "unknown")))
    place = ({"@id": place_of(path, making.folder), "@type": "File"} if path.is_file() else
             {"@id": f"{run}/checkpoint", "@type": "CreativeWork"})
    return {**place, "name": path.name, "description": "weights of the network",
            **known(sha256=making.process.get("checkpoint_sha256"))}


def input_entities(making: Making, run: str) -> Iterator[Entity]:
    """What the images are of: as it was named, its digest where it was not changed since."""
    address = text(making.process.get("input", "unknown"))
    path, _, dataset = address.partition("::")
    of_file = {"name": address, **known(description=dataset and f"its data set {dataset}")}
    if os.path.isfile(path):
        since = os.path.getmtime(path) > os.path.getmtime(making.files[0])
        yield {"@id": place_of(Path(path), making.folder), "@type": "File", **of_file,
               **known(sha256=None if since else file_sha256(path),
                       contentSize=str(os.path.getsize(path)))}
    elif os.path.isdir(path):
        yield {"@id": place_of(Path(path), making.folder) + "/", "@type": "Dataset", **of_file}
    else:
        yield {"@id": f"{run}/input", "@type": "CreativeWork", **of_file}
    for target, digest in making.inputs.items():
        yield {"@id": f"{run}/input/{quote(target)}", "@type": "CreativeWork",
               "name": f"the picture that {target} was made of", "sha256": digest}


def setting_entities(process: Mapping[str, Any], run: str) -> Iterator[Entity]:
    """Every setting, and what else the output tells in a word or a number."""
    try:
        sections = parse_yaml(text(process.get("configuration", "")))
    except YAMLError:
        sections = None
    sections = {section: values for section, values in (sections or {}).items()
                if section in SECTIONS} if isinstance(sections, dict) else {}
    told = {name: process[name] for name in ("seed", "ensemble", "value_range", "frames", "ranks",
                                             "machine", "mpi_library") if name in process}
    for name, value in flat({**sections, **told}):
        yield {"@id": f"{run}/{quote(name)}", "@type": "PropertyValue", "name": name,
               "value": value if isinstance(value, bool | int | float | str) else str(value)}


def file_entity(path: Path, folder: Path, digest: str) -> Entity:
    return {"@id": place_of(path, folder), "@type": "File", "name": path.name, "sha256": digest,
            "contentSize": str(path.stat().st_size), "dateModified": modified(path),
            **known(encodingFormat=KINDS.get(path.suffix.lower()))}


def place_of(path: Path, folder: Path) -> str:
    """As a URI: below the crate, else an absolute one."""
    real, root = Path(os.path.realpath(path)), Path(os.path.realpath(folder))
    if real.is_relative_to(root):
        return quote(os.fsencode(real.relative_to(root).as_posix()))
    return f"file://{quote(os.fsencode(real.as_posix()))}"


def modified(path: Path) -> str:
    return datetime.fromtimestamp(path.stat().st_mtime).astimezone().isoformat(timespec="seconds")


def references(names: Iterable[str]) -> list[dict[str, str]]:
    return [{"@id": name} for name in dict.fromkeys(names)]


def known(**values: Any) -> Entity:
    """Those that are told."""
    return {name: text(value) for name, value in values.items() if value}


def text(told: Any) -> str:
    """Of a merged file, whose shards tell different things, the first."""
    return str(told[0] if isinstance(told, Sequence) and not isinstance(told, str) and told
               else told)
