"""Fuzzing in short; `python tests/machines/fuzz/fuzz.py` is the long form."""
import base64
import random
import subprocess
import sys
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import settings as hypothesis_settings

from swinmpi.cli import merge
from swinmpi.config import Config, dump_yaml, load_config
from swinmpi.config.loading import validate
from swinmpi.config.strict_yaml import read_yaml
from swinmpi.errors import ConfigError, StackError
from swinmpi.sampling.settings import check_consistent
from swinmpi.storage import probe
from tests.machines.fuzz import mutate, strategies

FUZZ = Path(__file__).with_name("fuzz")
# A damaged file of 5836 bytes in which HDF5 2.0 runs into a segmentation fault, found by fuzz.py;
# packed by zlib and b85.
CRASH = ("c-rlh!43g25Qb;kU1=5x7ZE3q;1wiR_JrWz$U(%x$;Bh^CLYDXJE83~S(`<|(f{@E=btt+Z8PmD8w~47Cn1Y56j6"
         "in+=OfE*@yWhy@%Z(YKw15{-gM_@;aZUDY=#9b$XFkL*O6D(*DHiLVW1bi+WzS-K{q3eZG@^gQ?<kaqyYf$Ol6CM"
         "6@QVML*5!$4OYu!?_NRA8NhQ%7v>mah`R^Yvg4W_gfy<g?Ak=)b;Z!KExq~E$_Fgsc@CE(RjeFil?j5o8MsnJErL"
         "6fA{Y&t^fc4000000000b+yRcDFE#")

some = hypothesis_settings(max_examples=100)


def told_in_one_line(action):
    """The action's result, None where it raised a ConfigError that a person can read."""
    try:
        return action()
    except ConfigError as error:
        assert str(error).isprintable() and 0 < len(str(error)) <= 2100
        return None


@some
@given(strategies.yaml_texts)
def test_any_yaml_is_a_mapping_or_one_line(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(text, encoding="utf-8", errors="replace")
    read = told_in_one_line(lambda: read_yaml(path))
    assert read is None or isinstance(read, dict)
    told_in_one_line(lambda: load_config([path]))


@some
@given(strategies.set_words)
def test_any_set_is_a_configuration_or_one_line(word):
    told_in_one_line(lambda: load_config(overrides=[word]))


@some
@given(strategies.settings())
def test_any_settings_are_a_configuration_or_one_line(values):
    config = told_in_one_line(lambda: validate(values, "test"))
    if config is not None:
        assert Config.model_validate(yaml.safe_load(dump_yaml(config))) == config
        told_in_one_line(lambda: check_consistent(config))


def test_mutations_are_repeatable_and_change_something(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", data=np.arange(600, dtype="u2").reshape(2, 15, 20),
                            chunks=(1, 8, 8))
    content = (tmp_path / "a.h5").read_bytes()
    twice = [[mutate.damage_hdf5(content, random.Random(seed)) for seed in range(60)]
             for _ in range(2)]
    assert twice[0] == twice[1] and sum(damaged != content for damaged in twice[0]) > 50


@pytest.mark.parametrize("deed, told",
                         [("import os; os.kill(os.getpid(), 11)", "crashed"),
                          ("import os; os.abort()", "crashed"), ("while True: pass", "hung")])
def test_a_child_that_dies_is_a_damaged_file(tmp_path, monkeypatch, deed, told):
    """A real child, in which only the look at the file is replaced by the worst
    that HDF5 can do."""
    start = ("import sys; sys.path[:] = {path!r}; from swinmpi.storage import probe; "
             "probe.CPU_S = 1\n")
    start += f"def look(*_, **__):\n    {deed}\n"
    start += "probe.look_at_stack = look; probe.child(*sys.argv[1:])"
    monkeypatch.setattr(probe, "START", start)
    with pytest.raises(StackError, match=r"x\.h5: the HDF5 file is damaged \(the HDF5 library "
                       fr"{told} reading it\); write"):
        probe.inspect_stacks([str(tmp_path / "x.h5")])


def test_a_file_that_crashes_hdf5_harms_no_rank(tmp_path, mpirun):
    (tmp_path / "crash.h5").write_bytes(zlib.decompress(base64.b85decode(CRASH)))
    for name, *options in (("sample", "--output", tmp_path / "out.h5"),
                           ("evaluate", "--reference", tmp_path / "crash.h5",
                            "--output", tmp_path / "out")):
        done = mpirun(2, "-m", f"swinmpi.cli.{name}", tmp_path / "crash.h5", *options)
        *before, last = done.err.splitlines()
        assert done.code == 2 and "crash.h5: the HDF5 file is damaged" in last, done
        # A command that needs one process says so first.
        assert len(before) == (name == "evaluate"), done
    assert merge.main([str(tmp_path / "crash.h5"), "--output", str(tmp_path / "out.h5")]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["crash.h5"]


def test_a_few_damaged_files_of_every_kind():
    done = subprocess.run([sys.executable, FUZZ / "fuzz.py", "--cases", "12", "--seed", "7",
                           "--verbose"], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
