"""The short form of `python tests/machines/faults/operations.py`, which lets every file operation
fail: the first, some between, and the last ones, at which things were found wrong before."""
import random
import shutil

import pytest

from tests.machines.faults.operations import COMMANDS, DEEDS, attempt, make_bench

LAST = {"sample": "eio", "merge": "edquot-for-ever", "prepare": "eio", "train": "enospc"}

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return make_bench(tmp_path_factory.mktemp("operations"))


@pytest.mark.parametrize("name", COMMANDS)
def test_file_operations_that_fail_lose_nothing(bench, name):
    number, expected = bench.count(name)
    assert number > 10
    trials = [(number, LAST[name]), (1, "eio")]
    for _ in range(2):
        trials.append((random.randint(1, number), random.choice(list(DEEDS))))
    for at, deed in trials:
        attempt(bench, name, at, deed, expected)
