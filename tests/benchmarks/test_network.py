"""Nodes with a network of their own (swinmpi/benchmarks/network): what is exchanged crosses it, and
the model of its cost fits the plans."""
import json
import subprocess
import sys
from pathlib import Path

import pytest

import swinmpi
from swinmpi.benchmarks.network.model import Demand, Link, Step, root_demand
from swinmpi.benchmarks.network.nodes import why_not
from swinmpi.sampling.traffic import traffic
from swinmpi.windows.grid import WindowGrid
from tests.support.programs import run_program

pytestmark = pytest.mark.slow

NETWORK = Path(swinmpi.__file__).parent / "benchmarks" / "network"
NODES = 3
SIZE_PX = 96


@pytest.fixture(scope="module")
def nodes() -> None:
    if reason := why_not():
        pytest.skip(reason)


def test_ranks_on_nodes_of_their_own_exchange_over_the_network(nodes, tmp_path):
    """The short form of `python -m swinmpi.benchmarks.network.four_nodes`."""
    output = tmp_path / "four_nodes.json"
    options = {"--nodes": NODES, "--rates": "1gbit", "--rounds": 1, "--repeats": 1, "--pings": 2,
               "--size": SIZE_PX, "--output": output}
    words = [str(word) for option in options.items() for word in option]
    program = [sys.executable, "-m", "swinmpi.benchmarks.network.four_nodes"]
    finished = run_program([*program, *words], timeout_s=180, environ={})
    assert finished.code == 0, finished.err
    assert "the same bytes by all exchanges" in finished.out
    result = json.loads(output.read_text())["launches"][0]["1gbit"]
    assert result["ranks_per_node"] == [1] * NODES, "MPI must not take them for one machine"
    assert result["digests"]["root"] == result["digests"]["torus"]
    for exchange, expected in traffic(SIZE_PX, 48, NODES).items():
        ranks = [figures[exchange][0] for figures in result["by_rank"]]
        received = sum(rank["received"] for rank in ranks)
        assert received / NODES == pytest.approx(expected.mean), "worked out from the plans"
        for rank in ranks:
            assert rank["device_received"] >= rank["received"], "all came in by the node's device"
            assert rank["device_sent"] > 0


def test_a_program_ends_with_its_nodes_and_its_exit_code(nodes):
    script = "ip -brief address show eth0; exit 7"
    ended = subprocess.run([NETWORK / "nodes.sh", "2", "none", "bash", "-c", script],
                           capture_output=True, text=True)
    assert ended.returncode == 7 and "10.77.0.1/24" in ended.stdout, ended.stderr
    beside = subprocess.run(["ip", "netns", "exec", "n1", "true"], capture_output=True,
                            text=True)
    assert beside.returncode != 0, "nothing is left of them"


@pytest.mark.parametrize("case", [(512, 64, 8, 3, "reflect"), (512, 64, 8, 1, "wrap"),
                                  (500, 32, 5, 3, "reflect")])
def test_the_model_receives_what_the_plans_say(case):
    step, expected = Step.of(*case), traffic(*case)["torus"]
    assert step.torus_bytes() == (expected.most, expected.mean)
    for ranks in step.torus:
        received, sent = [one.received for one in ranks], [one.sent for one in ranks]
        assert sum(one.num_bytes for one in received) == sum(one.num_bytes for one in sent)
        assert sum(one.messages for one in received) == sum(one.messages for one in sent)


def test_the_model_of_root_by_hand():
    """Four windows of 16 px: 3 KiB of float32 RGB each."""
    grid, window = WindowGrid(32, 32, 16, border="wrap"), 3 * 16 * 16 * 4
    assert root_demand(grid, 1, (0, 0), 3) == Demand(0, 0)
    along_tree = root_demand(grid, 4, (0, 0), 3)
    assert along_tree == Demand(2 + 3, (2 * 4 + 3) * window), "the frame twice out, 3 windows in"
    parted = root_demand(grid, 8, (0, 0), 3)
    expected = Demand(3 + 7 + 7, (2 * 7 / 8 * 4 + 3) * window)
    assert parted == expected, "in parts from 8 ranks on; four of them have no window"
    assert Link("", 1e-3, window).seconds(parted) == pytest.approx(0.017 + 10)
