"""swinmpi-info OUT: how an output was made, also as an RO-Crate that keeps RO-Crate's own rules."""
import json
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from urllib.parse import unquote

import pytest
from PIL import Image

from swinmpi import __version__
from swinmpi.cli import info, sample
from tests.support.sampling import arguments, smooth_stack, write_checkpoint, write_stack


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("model") / "model.safetensors")


@pytest.fixture(autouse=True)
def made(checkpoint, tmp_path, monkeypatch) -> Path:
    """out put.h5, of in.h5 in another folder."""
    (tmp_path / "data").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    write_stack(tmp_path / "data/in.h5", smooth_stack(2, 16, 16, 3))
    assert sample.main(arguments(Path("../data/in.h5"), Path("out put.h5"), checkpoint,
                                 "sampler.seed=5")) == 0
    return Path("out put.h5")


def graph_of(folder: Path) -> dict[str, dict]:
    """By @id, checked by the rules of RO-Crate 1.1 (root data entity, data entities, and nothing
    referred to that is not there)."""
    crate = json.loads((folder / "ro-crate-metadata.json").read_text())
    assert crate["@context"][0] == "https://w3id.org/ro/crate/1.1/context"
    entities = {one["@id"]: one for one in crate["@graph"]}
    assert len(entities) == len(crate["@graph"]), "every @id once"
    assert all(one["@type"] for one in entities.values())
    about = entities["ro-crate-metadata.json"]
    assert about == {"@id": "ro-crate-metadata.json", "@type": "CreativeWork",
                     "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"}, "about": {"@id": "./"}}
    root = entities["./"]
    assert root["@type"] == "Dataset" and root["name"] and root["description"]
    assert datetime.fromisoformat(root["datePublished"])
    for entity in (one for one in entities.values() if one is not about):
        for value in entity.values():
            for reference in value if isinstance(value, list) else [value]:
                if isinstance(reference, dict):
                    assert set(reference) == {"@id"} and reference["@id"] in entities
                else:
                    assert isinstance(reference, str | int | float | bool)
    data = {one["@id"] for one in entities.values() if one["@type"] in ("File", "Dataset")}
    inside = {name for name in data if "://" not in name} - {"./"}
    assert {one["@id"] for one in root["hasPart"]} == inside
    for name in inside:
        path = folder / unquote(name)
        assert path.is_file() or path.is_dir() and name.endswith("/")
        digest = entities[name].get("sha256")
        assert digest in (None, sha256(path.read_bytes()).hexdigest() if path.is_file() else None)
    return entities


def objects_of(entities: dict[str, dict], action: str) -> list[dict]:
    return [entities[one["@id"]] for one in entities[action]["object"]]


def test_a_crate_tells_what_was_made_of_what_by_what(made, checkpoint):
    assert info.main([str(made), "--crate"]) == 0
    entities = graph_of(Path())
    action = entities["#run-out%20put.h5"]
    assert action["@type"] == "CreateAction" and datetime.fromisoformat(action["endTime"])
    assert action["result"] == [{"@id": "out%20put.h5"}]
    assert entities[action["instrument"]["@id"]]["softwareVersion"] == __version__
    weights, source, *settings = objects_of(entities, "#run-out%20put.h5")
    assert weights["sha256"] == sha256(checkpoint.read_bytes()).hexdigest()
    assert source["@id"].startswith("file:///") and source["@id"].endswith("/data/in.h5")
    assert source["sha256"] == sha256(Path("../data/in.h5").read_bytes()).hexdigest()
    values = {one["name"]: one["value"] for one in settings}
    assert values["sampler.seed"] == 5 and "machine.torch" in values
    assert {one["@type"] for one in settings} == {"PropertyValue"}


def test_a_second_output_is_added_and_the_same_one_replaced(made, checkpoint):
    assert info.main([str(made), "--crate"]) == 0
    before = graph_of(Path())
    assert sample.main(arguments(Path("../data/in.h5"), Path("more.h5"), checkpoint)) == 0
    for name in ("more.h5", str(made), "more.h5"):
        assert info.main([name, "--crate"]) == 0
    after = graph_of(Path())
    assert {"#run-more.h5", "#run-out%20put.h5"} == {one["@id"] for one in after["./"]["mentions"]}
    assert before.keys() < after.keys()


def test_what_is_gone_or_was_changed_has_no_digest(made):
    write_stack(Path("../data/in.h5"), smooth_stack(3, 16, 16, 3))
    assert info.main([str(made), "--crate"]) == 0
    assert "sha256" not in objects_of(graph_of(Path()), "#run-out%20put.h5")[1]
    Path("../data/in.h5").unlink()
    assert info.main([str(made), "--crate"]) == 0
    assert objects_of(graph_of(Path()), "#run-out%20put.h5")[1]["@type"] == "CreativeWork"


def test_a_folder_of_pictures_is_its_own_crate(checkpoint):
    Path("photos").mkdir()
    for name in ("a.png", "b ä.jpg"):
        Image.fromarray(smooth_stack(1, 16, 16, 3, "uint8")[0]).save(f"photos/{name}")
    assert sample.main(arguments(Path("photos"), Path("sr"), checkpoint)) == 0
    assert info.main(["sr/", "--crate"]) == 0
    entities = graph_of(Path("sr"))
    results = [unquote(one["@id"]) for one in entities["#run-sr"]["result"]]
    assert results == ["a.png", "b ä.png"]
    digests = {one.get("sha256") for one in objects_of(entities, "#run-sr")}
    assert {sha256(path.read_bytes()).hexdigest() for path in Path("photos").iterdir()} <= digests


@pytest.mark.parametrize("content", ["{}", "not JSON", '{"@context": "x", "@graph": []}'])
def test_a_crate_of_others_is_left_alone(made, content, capsys):
    Path("ro-crate-metadata.json").write_text(content)
    capsys.readouterr()
    assert info.main([str(made), "--crate"]) == 2
    error = capsys.readouterr().err
    assert "move it away" in error and error.count("\n") == 1
    assert Path("ro-crate-metadata.json").read_text() == content


def test_an_output_is_told_in_words_and_for_programs(made, capsys):
    capsys.readouterr()
    assert info.main([str(made)]) == 0
    said = capsys.readouterr().out
    assert "checkpoint_sha256" in said and "noise_scale" in said and "../data/in.h5" in said
    assert info.main([str(made), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["seed"] == 5


@pytest.mark.parametrize("arguments", [["../data/in.h5"], ["absent.h5"], ["--crate"], [".."]])
def test_what_is_no_output_is_one_line(arguments, capsys):
    capsys.readouterr()
    assert info.main(arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1
