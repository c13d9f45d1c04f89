"""Checkpoint files: round trips, damage told in one line, and nothing half-written
under a final name."""
import os
import pickle
import random
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from swinmpi.errors import CheckpointError, OutputError
from swinmpi.storage.checkpoint import (
    CheckpointFolder,
    file_sha256,
    load_into,
    load_state,
    load_weights,
    save_weights,
    write_atomically,
)

TENSORS = {"weight": torch.arange(12.0).view(3, 4), "count": torch.tensor(7),
           "half": torch.ones(5, dtype=torch.bfloat16)}
HEADER = {"model": {"family": "aligned"}, "update": 9, "text": "ä"}


@pytest.fixture
def written(tmp_path):
    save_weights(tmp_path / "w.safetensors", TENSORS, HEADER)
    return tmp_path / "w.safetensors"


def saved(folder: CheckpointFolder, update: int, size: int = 4) -> None:
    tensors = {"a": torch.full((size,), float(update))}
    folder.save(update, tensors, tensors, {"update": update, "rng": torch.get_rng_state()},
                {"update": update})


def test_weights_come_back_with_their_header(written):
    tensors, header = load_weights(written)
    assert header == HEADER and tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], value) and tensors[name].dtype == value.dtype
               for name, value in TENSORS.items())
    assert [path.name for path in written.parent.iterdir()] == ["w.safetensors"]
    assert len(file_sha256(written)) == 64


def test_damaged_weights_are_one_line(written, tmp_path):
    content = written.read_bytes()
    for kept in (0, 4, 8, 60, len(content) // 2, len(content) - 1):
        (tmp_path / "cut.safetensors").write_bytes(content[:kept])
        with pytest.raises(CheckpointError,
                           match="cut.safetensors: not a readable safetensors file"):
            load_weights(tmp_path / "cut.safetensors")
    rng = random.Random(1)
    for number in range(300):
        mutated = bytearray(content)
        for _ in range(rng.randint(1, 4)):
            mutated[rng.randrange(min(len(mutated), 400))] = rng.randrange(256)
        (tmp_path / "mutated.safetensors").write_bytes(mutated)
        try:
            load_weights(tmp_path / "mutated.safetensors")
        except CheckpointError as error:
            assert "\n" not in str(error), number


def test_files_of_others_are_refused(tmp_path):
    save_file({"a": torch.zeros(3)}, tmp_path / "other.safetensors")
    save_file({"a": torch.zeros(3)}, tmp_path / "no_header.safetensors",
              metadata={"format": "swinmpi-1"})
    save_file({"a": torch.zeros(3)}, tmp_path / "list.safetensors",
              metadata={"format": "swinmpi-1", "header": "[1]"})
    (tmp_path / "folder.safetensors").mkdir()
    for name, told in (("missing", "found nothing there"), ("folder", "got a folder without any"),
                       ("other", "swinmpi-train"), ("no_header", "header is damaged"),
                       ("list", "header is damaged")):
        with pytest.raises(CheckpointError, match=told):
            load_weights(tmp_path / f"{name}.safetensors")


def test_a_strict_load_names_the_first_difference():
    module = torch.nn.Linear(2, 3)
    for tensors, told in (({"weight": torch.zeros(3, 2)}, "bias should be \\(3,\\), is absent"),
                          ({**module.state_dict(), "z": torch.zeros(1)},
                           "z should be absent, is \\(1,\\)"),
                          ({**module.state_dict(), "bias": torch.zeros(4)},
                           "bias should be \\(3,\\), is \\(4,\\)")):
        with pytest.raises(CheckpointError, match=told):
            load_into(module, tensors, "file")


def test_states_are_kept_in_order(tmp_path):
    folder = CheckpointFolder(tmp_path / "deep" / "run", keep_last=2)
    assert folder.latest() is None
    folder.create()
    assert folder.latest() is None
    for update in (2, 900, 100000):
        saved(folder, update)
    assert [state.name for state in folder.states()] == ["update-00000900", "update-00100000"]
    state = load_state(folder.latest())
    assert state["update"] == 100000 and torch.equal(state["rng"], torch.get_rng_state())
    saved(folder, 100000, size=9)
    assert load_weights(folder.latest() / "ema.safetensors")[0]["a"].shape == (9,)
    assert {path.name for path in folder.root.iterdir()} == {".lock", "update-00000900",
                                                             "update-00100000"}


def test_what_a_kill_left_is_removed(tmp_path):
    for leftover in (".filling-00000004", ".emptying-update-00000001"):
        (tmp_path / leftover).mkdir()
        (tmp_path / leftover / "weights.safetensors").write_bytes(b"half")
    (tmp_path / ".best.safetensors.123").write_bytes(b"half")
    folder = CheckpointFolder(tmp_path, keep_last=1)
    assert folder.latest() is None
    folder.create()
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


@pytest.mark.parametrize("content", [b"", b"text", pickle.dumps({"update": 1}, protocol=2)])
def test_a_damaged_state_is_one_line(tmp_path, content):
    (tmp_path / "state.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match="not a readable training state .*remove this folder"):
        load_state(tmp_path)


def test_a_state_cannot_run_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    torch.save({"update": Evil()}, tmp_path / "state.pt")
    with pytest.raises(CheckpointError):
        load_state(tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.fixture
def small_files():
    """Files may grow to 64 KiB only: what a full disk does to a write, anywhere."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_one_line_and_keeps_what_was_there(tmp_path, small_files):
    folder = CheckpointFolder(tmp_path, keep_last=1)
    saved(folder, 1)
    folder.save_best({"a": torch.zeros(3)}, {"update": 1})
    with pytest.raises(OutputError, match="cannot write: File too large; make room"):
        saved(folder, 2, size=1 << 16)
    with pytest.raises(OutputError, match="best.safetensors: cannot write"):
        folder.save_best({"a": torch.zeros(1 << 16)}, {"update": 2})
    assert {path.name for path in tmp_path.iterdir()} == {"update-00000001", "best.safetensors"}
    assert load_weights(tmp_path / "best.safetensors")[1] == {"update": 1}


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write: Not a directory; choose"):
        CheckpointFolder(tmp_path / "file" / "run", 1).create()
    with pytest.raises(OutputError, match="cannot write"):
        write_atomically(tmp_path / "nowhere" / "file", b"")


@pytest.mark.parametrize("attempt", range(3))
def test_a_kill_while_saving_leaves_a_whole_newest_state(tmp_path, attempt):
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    program = Path(__file__).parents[1] / "programs" / "saving.py"
    with subprocess.Popen([sys.executable, program, tmp_path], stdout=subprocess.PIPE, text=True,
                          env=os.environ | {"OMP_NUM_THREADS": "1"}) as process:
        for _ in range(rng.randint(2, 20)):
            told = int(process.stdout.readline())
        # A random moment of what follows: work without a clock, a few microseconds
        # to about one save.
        sum(range(rng.randrange(1_000_000)))
        os.kill(process.pid, signal.SIGKILL)
        told = max(told, *map(int, process.stdout.read().split()), 0)
    folder = CheckpointFolder(tmp_path, keep_last=2)
    update = load_state(folder.latest())["update"]
    assert update in (told, told + 1), (seed, told, update)
    assert len(folder.states()) in (2, 3), seed
    for state in folder.states():
        number = int(state.name.removeprefix("update-"))
        for name in ("weights", "ema"):
            tensors, header = load_weights(state / f"{name}.safetensors")
            assert (header == {"update": number}
                    and all((value == number).all() for value in tensors.values())), seed
        assert (load_state(state)["moments"]["a"] == number).all(), seed
    best, header = load_weights(tmp_path / "best.safetensors")
    assert header["update"] in (told, told + 1) and (best["a"] == header["update"]).all(), seed
    folder.create()
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "best.safetensors",
                                                          *(s.name for s in folder.states())}


def test_a_name_that_is_not_utf8(tmp_path):
    save_weights(tmp_path / "x", {"w": torch.ones(2)}, {"a": 1})
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.safetensors"))
    (tmp_path / "x").rename(path)
    tensors, header = load_weights(path)
    assert tensors["w"].tolist() == [1, 1] and header == {"a": 1}
