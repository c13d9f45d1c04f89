"""The short form of `python tests/machines/faults/operations.py`, which lets every file operation
fail: the first, the last ones, at which things were found wrong before, and some between."""
import random
import shutil

import pytest

from tests.machines.faults.jobs import JOBS
from tests.machines.faults.operations import DEEDS, attempt, chosen, make_bench

LAST = {"sample": "eio", "pictures": "edquot-for-ever", "merge": "edquot-for-ever",
        "prepare": "eio", "train": "enospc"}

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    made = make_bench(tmp_path_factory.mktemp("operations"))
    with made.forks:
        yield made


@pytest.mark.parametrize("name", JOBS)
def test_file_operations_that_fail_lose_nothing(bench, name):
    operations, expected = bench.count(name)
    assert len(operations) > 10
    trials = [(len(operations), LAST[name]), (1, "eio")] if name in LAST else []
    trials += [(random.choice(chosen(operations, len(operations))), deed)
               for deed in ("kill", random.choice(list(DEEDS)))]
    for at, deed in trials:
        attempt(bench, name, at, deed, expected)


def test_writes_among_writes_are_chosen_sparsely():
    assert chosen("owwwwwws", 1) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert chosen("owwwwwws", 9) == [1, 2, 3, 7, 8]
