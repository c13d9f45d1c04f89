"""A file that was found sound is not inspected again, unless it, or what it shows, may have
changed."""
import os
import time

import h5py
import numpy as np
import pytest

from swinmpi.errors import StackError, SwinmpiError
from swinmpi.storage import inspected, probe
from swinmpi.storage.inspected import stands_alone
from swinmpi.storage.metadata.frames import View
from swinmpi.storage.probe import inspect_pairs, inspect_stacks
from tests.support.training import write_pairs

IMAGES = np.zeros((2, 8, 8), np.uint8)
NO_CHILD = "raise SystemExit('a child was started')"


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Files are remembered as soon as they are written."""
    monkeypatch.setattr(inspected, "TICK_S", -10.0)


@pytest.fixture
def starts_child(monkeypatch):
    """`starts_child(look, *arguments)`: whether looking needs a child, which then fails."""
    def ask(look, *arguments, **options) -> bool:
        with monkeypatch.context() as patched:
            patched.setattr(probe, "START", NO_CHILD)
            try:
                look(*arguments, **options)
            except SwinmpiError as error:
                assert "a child was started" in str(error)
                return True
        return False
    return ask


def write(path, **datasets):
    with h5py.File(path, "w") as file:
        for name, values in datasets.items():
            file[name] = values
    return str(path)


def test_a_sound_file_is_inspected_once(tmp_path, starts_child, monkeypatch):
    path = write(tmp_path / "in.h5", x=IMAGES)
    assert starts_child(inspect_stacks, [path])
    inspect_stacks([path])
    assert not starts_child(inspect_stacks, [path])
    assert not starts_child(inspect_stacks, [path], allow_external=True)
    monkeypatch.chdir(tmp_path)
    assert not starts_child(inspect_stacks, ["in.h5"])
    os.symlink(path, tmp_path / "link.h5")
    assert not starts_child(inspect_stacks, ["link.h5"])


def test_pairs_are_inspected_once(tmp_path, starts_child):
    path = str(write_pairs(tmp_path / "pairs.h5"))
    inspect_pairs(path)
    assert not starts_child(inspect_pairs, path)
    assert starts_child(inspect_stacks, [f"{path}::/hr"]), "looked at in another way"


def test_another_dataset_or_view_is_another_question(tmp_path, starts_child):
    path = write(tmp_path / "in.h5", x=IMAGES, y=IMAGES)
    inspect_stacks([f"{path}::/x"])
    assert not starts_child(inspect_stacks, [f"{path}::/x"])
    assert starts_child(inspect_stacks, [f"{path}::/y"])
    assert starts_child(inspect_stacks, [f"{path}::/x"], view=View(frames="0"))
    assert starts_child(inspect_stacks, [f"{path}::/x", f"{path}::/y"]), "one of them is new"


@pytest.mark.parametrize("keeps_times", [False, True])
def test_a_changed_file_is_inspected_again(tmp_path, starts_child, keeps_times):
    path = write(tmp_path / "in.h5", x=IMAGES)
    inspect_stacks([path])
    before = os.stat(path)
    with h5py.File(path, "r+") as file:
        file["x"][0, 0, 0] = 1
    if keeps_times:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert os.stat(path).st_size == before.st_size
    assert starts_child(inspect_stacks, [path])
    inspect_stacks([path])
    content = open(path, "rb").read()
    open(path, "wb").write(content[:600])
    with pytest.raises(StackError, match="truncated|damaged"):
        inspect_stacks([path])
    with pytest.raises(StackError, match="truncated|damaged"):
        inspect_stacks([path])


def test_a_file_just_written_is_not_remembered(tmp_path, starts_child, monkeypatch):
    monkeypatch.setattr(inspected, "TICK_S", 3600.0)
    path = write(tmp_path / "in.h5", x=IMAGES)
    inspect_stacks([path])
    assert starts_child(inspect_stacks, [path])


def test_a_clock_that_ticks_slowly_is_given_time(monkeypatch):
    monkeypatch.setattr(inspected, "TICK_S", 60.0)
    monkeypatch.setattr(inspected, "SLOW_TICK_S", 120.0)
    second = time.time_ns() // 10**9
    for age_s, more_ns, known in ((90, 7, True), (30, 7, False), (90, 0, False), (150, 0, True)):
        mark = "stack", (second - age_s) * 10**9 + more_ns
        inspected.remember_sound(mark)
        assert inspected.is_known_sound(mark) == known, (age_s, more_ns)
    assert not inspected.is_known_sound(None)


def virtual(folder):
    source = h5py.VirtualSource(str(folder / "other.h5"), "x", IMAGES.shape)
    layout = h5py.VirtualLayout(IMAGES.shape, np.uint8)
    layout[:] = source
    with h5py.File(folder / "in.h5", "w") as file:
        file.create_virtual_dataset("x", layout)


def linked(folder):
    with h5py.File(folder / "in.h5", "w") as file:
        file["x"] = h5py.ExternalLink("other.h5", "/x")


def raw(folder):
    IMAGES.tofile(folder / "raw")
    with h5py.File(folder / "in.h5", "w") as file:
        file.create_dataset("x", IMAGES.shape, IMAGES.dtype,
                            external=[(str(folder / "raw"), 0, IMAGES.nbytes)])


def beside(folder):
    write(folder / "in.h5", x=IMAGES)
    with h5py.File(folder / "in.h5", "r+") as file:
        file["entry/other"] = h5py.ExternalLink("other.h5", "/x")


@pytest.mark.parametrize("make", [virtual, linked, raw, beside])
def test_what_leads_to_other_files_is_inspected_every_time(tmp_path, starts_child, make):
    write(tmp_path / "other.h5", x=IMAGES)
    make(tmp_path)
    inspect_stacks([str(tmp_path / "in.h5::/x")], allow_external=True)
    assert starts_child(inspect_stacks, [str(tmp_path / "in.h5::/x")], allow_external=True)
    assert not stands_alone(tmp_path / "in.h5") and stands_alone(tmp_path / "other.h5")


def test_a_file_of_very_many_objects_is_inspected_every_time(tmp_path, monkeypatch):
    path = tmp_path / "in.h5"
    write(path, **{f"x{number}": number for number in range(20)})
    assert stands_alone(path)
    monkeypatch.setattr(inspected, "MOST_OBJECTS", 10)
    assert not stands_alone(path)
