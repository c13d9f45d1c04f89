"""Which card, precision and compiler a rank computes with."""
import pytest
import torch

from swinmpi.config import ParallelConfig
from swinmpi.parallel import device as device_module
from swinmpi.parallel.cards import Seen, cards_of_node, remarks, take_in_turn
from swinmpi.parallel.device import settled, settled_precision
from tests.support.simulated import on_ranks

FOUR = tuple(f"GPU-{letter}" for letter in "abcd")


def names(everybody):
    return [seen.cards[place] for seen, place in zip(everybody, take_in_turn(everybody),
                                                     strict=True)]


def test_ranks_that_see_all_cards_take_them_in_turn():
    assert names([Seen("n1", FOUR)] * 6) == [*FOUR, "GPU-a", "GPU-b"]


def test_cards_in_another_order_are_not_taken_twice():
    """A batch system that shows each task its own card first."""
    turned = [Seen("n1", FOUR[k:] + FOUR[:k]) for k in range(4)]
    assert sorted(names(turned)) == list(FOUR)


def test_a_card_each_is_taken_and_other_nodes_do_not_count():
    assert names([Seen("n1", ("GPU-b",)), Seen("n1", ("GPU-a",)), Seen("n2", ("GPU-b",))]) == [
        "GPU-b", "GPU-a", "GPU-b"]
    assert take_in_turn([Seen("n1", ()), Seen("n1", FOUR)]) == [None, 0]


def told(everybody):
    return remarks(everybody, take_in_turn(everybody))


def test_ranks_with_cards_of_their_own_are_not_spoken_of():
    assert told([Seen("n1", FOUR, 4)] * 4) == told([Seen("n1", ())] * 4) == []


def test_a_shared_card_costs():
    line, = told([Seen("n1", FOUR[:1], 1)] * 3)
    assert line.startswith("n1: 3 ranks share one GPU (GPU-a): that is allowed, but slower")


def test_all_on_one_card_by_mistake_is_told_as_that():
    line, = told([Seen("n1", FOUR[:1], 4)] * 4)
    assert "though the node has 4" in line and "--gpus-per-task=1" in line and "\n" not in line


def test_cards_of_a_node_are_counted_where_the_driver_lists_them(tmp_path):
    assert cards_of_node(tmp_path / "none") == 0
    for bus in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / bus).mkdir()
    assert cards_of_node(tmp_path) == 2


@pytest.mark.parametrize("num_ranks", [1, 3])
def test_what_every_rank_says_is_known_to_all(num_ranks):
    everybody = on_ranks(num_ranks, lambda group: group.gather_everywhere(
        Seen(f"n{group.rank}", FOUR[:group.rank])))
    assert everybody == [[Seen(f"n{k}", FOUR[:k]) for k in range(num_ranks)]] * num_ranks


@pytest.mark.parametrize(("asked", "got"), [("auto", "fp32"), ("fp32", "fp32"), ("bf16", "bf16")])
def test_a_cpu_computes_as_asked_without_a_word(asked, got, recwarn):
    assert settled_precision(asked, "cpu") == got and not recwarn.list


@pytest.mark.parametrize("asked", ["tf32", "fp16"])
def test_what_is_for_gpus_becomes_fp32_on_a_cpu_in_a_line(asked):
    with pytest.warns(UserWarning, match=f"^parallel.precision: {asked} is .*fp32 instead; set "):
        assert settled_precision(asked, "cpu") == "fp32"


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks about cards that are not here")
def test_a_card_that_is_not_here_is_taken_for_one_of_today():
    assert [settled_precision(asked, "cuda") for asked in ("auto", "tf32", "fp16")] == [
        "tf32", "tf32", "fp16"]


def test_without_a_compiler_a_line_says_so_and_the_run_goes_on(alone, tmp_path):
    finished = alone("-m", "swinmpi.cli.sample", "--dry-run", "--set", "parallel.compile=true",
                     "--set", "parallel.device=cpu", CXX="/nowhere/c++",
                     TORCHINDUCTOR_CACHE_DIR=str(tmp_path))
    lines = [line for line in finished.err.splitlines() if "parallel.compile" in line]
    assert finished.code == 0 and len(lines) == 1, finished
    assert "nothing can be compiled here" in lines[0] and "going on without" in lines[0]
    assert "compiled" not in finished.out


def test_what_is_settled_before_a_run():
    assert settled(ParallelConfig(device="cpu")) == {"device": "cpu", "precision": "fp32",
                                                     "compile": False}


def test_a_line_is_told_once(capsys):
    device_module.tell_once.cache_clear()
    for _ in range(2):
        device_module.tell_once("n1: 2 ranks share one GPU")
    assert capsys.readouterr().err == "swinmpi: n1: 2 ranks share one GPU\n"
