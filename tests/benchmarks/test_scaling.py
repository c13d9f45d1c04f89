"""swinmpi-benchmark scaling: who works, who sleeps, what its figures mean, the tables it prints."""
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from swinmpi.benchmarks.machine import (
    Convolution,
    MachineRates,
    convolutions_of,
    count_flop,
    running_on,
)
from swinmpi.benchmarks.scaling import FIGURES, BeforeSteps, Measured, SettingRun
from swinmpi.benchmarks.scaling_report import draw_scaling, scaling_report
from swinmpi.benchmarks.scaling_settings import Available, Setting, plan_settings, rank_counts
from swinmpi.benchmarks.scaling_tables import scaling_tables
from swinmpi.cli.benchmark import draw, main, parser, plan_of
from swinmpi.config import Config
from swinmpi.parallel.comm import Group
from swinmpi.parallel.stopwatch import Stopwatch
from swinmpi.reports.memory import forget_peak_memory, peak_memory_mib
from swinmpi.sampling.traffic import traffic

pytestmark = pytest.mark.slow

SMALL = ["scaling", "--size", "96", "--steps", "5", "--repeats", "1"]
MIB = 2**20


def settings_on(ranks: int, cores: int, threads: int = 1,
                device: str = "cpu") -> dict[str, Setting]:
    parallel = Config().replaced(parallel={"device": device, "micro_batch": 4}).parallel
    made = plan_settings(parallel, Available(ranks, threads, cores), 9, 1)
    return {one.name: one for one in made}


def test_ranks_grow_by_twos_up_to_all():
    assert [rank_counts(n) for n in (1, 2, 6, 8)] == [[1], [1, 2], [1, 2, 4, 6], [1, 2, 4, 8]]


def test_two_ranks_are_compared_with_one_and_with_two_threads():
    made = settings_on(2, cores=2)
    assert list(made) == ["1 rank x 1 thread", "2 ranks x 1 thread", "1 rank x 2 threads",
                          "2 ranks x 1 thread, torus", "2 groups of 1 rank", "1 group of 2 ranks"]
    assert (made["1 rank x 2 threads"].num_ranks, made["1 rank x 2 threads"].threads) == (1, 2)
    assert made["2 ranks x 1 thread, torus"].exchange == "torus"
    apart, together = made["2 groups of 1 rank"], made["1 group of 2 ranks"]
    assert apart.groups == (range(1), range(1, 2)) and together.groups == (range(2),)
    assert apart.num_images == together.num_images == 2


def test_no_more_threads_than_cores_and_none_on_a_gpu():
    assert "1 rank x 4 threads" not in settings_on(4, cores=2)
    assert "1 rank x 8 threads" in settings_on(4, cores=8, threads=2)
    assert not [name for name in settings_on(2, cores=2, device="cuda") if "2 threads" in name]
    assert list(settings_on(1, cores=1)) == ["1 rank x 1 thread", "1 group of 1 rank"]


def setting_run(name: str, ranks: int, threads: int, kind: str = "image", **figures) -> SettingRun:
    """Three repeats of the same figures of two world ranks; a list gives them rank by rank."""
    repeat = np.zeros((2, len(FIGURES)))
    for figure, values in figures.items():
        repeat[:, FIGURES.index(figure)] = values
    once = repeat.copy()
    once[:, FIGURES.index("received")] /= 4
    setting = Setting(name, kind, (range(ranks),), threads, "root", num_images=4)
    return SettingRun(setting, Config(), Group(), [0], once, [repeat] * 3)


@pytest.fixture
def report():
    one = setting_run("one", 1, 1, seconds=[10, 0], cpu_seconds=[9, 0.1], conditions=[2, 0],
                      network=[7.6, 0], step=[0.2, 0], calls=[32, 0], peak_mib=[500, 400])
    two = setting_run("two", 2, 1, seconds=[5, 4], cpu_seconds=[5, 4], conditions=[1, 1],
                      network=[3.8, 3], exchange=[0.1, 0.0], calls=[16, 16],
                      received=[8 * MIB, 12 * MIB], peak_mib=[500, 450])
    threads = setting_run("threads", 1, 2, seconds=[6, 0], cpu_seconds=[12, 0.1],
                          conditions=[1, 0], network=[4.5, 0], calls=[32, 0])
    stack = setting_run("stack", 2, 1, kind="stack", seconds=[8, 7], cpu_seconds=[8, 7])
    rates = {(1, 1): [np.array([[100.0, 90], [0, 0]])] * 3,
             (2, 1): [np.array([[80.0, 70], [70, 60]])] * 3,
             (1, 2): [np.array([[150.0, 140], [0, 0]])] * 3}
    measured = Measured([one, two, threads, stack], rates, flop_per_call=10**9)
    return scaling_report(measured, num_steps=4)


def test_ratios_are_of_the_slowest_rank(report):
    one, two, threads = report["image"]
    assert two["speed_up"] == {"median": 2, "min": 2, "max": 2}
    assert threads["speed_up"]["median"] == pytest.approx(10 / 6)
    assert two["speed_up_by_cpu"]["median"] == pytest.approx(9 / 5), "the busiest rank's seconds"
    assert threads["speed_up_by_cpu"]["median"] == pytest.approx(9 / 6), "shared out over threads"
    assert (two["efficiency"], two["possible"], threads["possible"]) == (1, 2, 2)
    assert one["cores_used"] == pytest.approx(0.9)
    assert one["cores_used_asleep"] == pytest.approx(0.01)
    assert two["step_ms"] == 1000, "all but the encoder, over 4 steps"


def test_shares_are_of_a_step_and_add_up(report):
    one, two, _ = report["image"]
    for summary in (one, two):
        parts = np.array(list(summary["share_of_rank"].values()))
        assert parts.sum(axis=0) == pytest.approx(np.ones(summary["ranks"]))
    assert one["not_network"] == pytest.approx(0.05)
    assert one["share_of_rank"]["step"] == pytest.approx([0.025])
    assert two["share_of_rank"]["exchange"] == pytest.approx([0.025, 0])


def test_bytes_are_of_a_step_without_what_comes_once(report):
    assert report["image"][1]["received_mib_per_step_of_rank"] == pytest.approx([2, 3])


def test_rates_are_of_all_ranks_together(report):
    assert report["image"][1]["gflops"] == pytest.approx(16 / 3.8 + 16 / 3)
    assert [rate["convolution"]["median"] for rate in report["rates"]] == [100, 150, 150]
    assert report["stack"][0]["images_per_second"]["median"] == 0.5


def test_the_tables_name_every_setting_and_the_report_is_json(report):
    text = scaling_tables(report)
    assert json.loads(json.dumps(report)) == report
    for word in ("possible", "by CPU", "not network", "MiB, most", "images/s", "of convolutions",
                 "peak memory", "torus, most"):
        assert word in text
    assert text.count("\ntwo ") == 5 and text.count("\nstack ") == 2


def test_the_picture_is_drawn(report, tmp_path):
    pytest.importorskip("matplotlib")
    draw_scaling(report, tmp_path / "scaling.png")
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_one_line_says_what_to_install(report, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    said = draw({"what": "scaling", **report}, Path("out"))
    assert said == ("out/scaling.png: drawing scaling needs matplotlib; "
                    "pip install 'swinmpi[plot]'\n")


def test_convolutions_of_a_network_are_found_and_counted():
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1),
                        nn.Conv2d(4, 2, 3, padding=1))
    inputs = [torch.zeros(2, 3, 6, 5)]
    found = convolutions_of(net, inputs)
    assert found == [Convolution(2, 3, 8, 6, 5), Convolution(2, 4, 2, 6, 5)]
    assert count_flop(net, inputs) == sum(one.flop for one in found) + 2 * 2 * 8 * 4 * 6 * 5
    assert not any(part._forward_hooks for part in net), "nothing is left behind"
    machine = MachineRates(found, torch.float32, torch.device("cpu"))
    assert all(rate > 0 for rate in machine.measure(0.001))


def test_what_comes_before_the_steps_is_counted_apart():
    """Once per sample; the noise of x_T belongs to the noise."""
    stopwatch = Stopwatch()
    before = BeforeSteps(stopwatch)
    for _ in range(2):
        before.start()
        stopwatch.seconds["exchange"] += 3
        stopwatch.seconds["noise"] += 0.001
        assert before() is False
        stopwatch.seconds["exchange"] += 5
        assert before() is False, "the second evaluation: nothing is counted"
    assert before.exchange == 6 and before.seconds < 1


def test_threads_are_as_before_afterwards():
    before = torch.get_num_threads()
    with running_on({0}, before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forgets a peak")
def test_the_peak_of_memory_is_of_what_came_last():
    block = torch.ones(64 << 20)
    peak = peak_memory_mib()
    del block
    forget_peak_memory()
    assert 10 < peak_memory_mib() < peak - 200, "256 MiB were given back"


def test_freed_memory_is_kept(alone):
    """What a network does: take 64 MiB piece by piece, free all of it, and again. Else its 16384
    pages come anew each time."""
    program = ("import resource, sys, torch\n"
               "from swinmpi.reports.memory import keep_freed_memory\n"
               "kept = keep_freed_memory()\n"
               "def call(): pieces = [torch.ones(1 << 20) for _ in range(16)]\n"
               "def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
               "for _ in range(5): call()\n"
               "before = faults()\nfor _ in range(10): call()\n"
               "print(kept, faults() - before)")
    kept, faults = alone("-c", program).out.split()
    if kept != "True":
        pytest.skip("the C library is not glibc")
    assert int(faults) < 16384


def test_two_ranks_measure_all_of_it(mpirun, tmp_path):
    finished = mpirun(2, "-m", "swinmpi.cli.benchmark", *SMALL, "--output", tmp_path,
                      OMP_WAIT_POLICY="passive")
    assert finished.code == 0, finished.err
    report = json.loads((tmp_path / "benchmark.json").read_text())
    one, two, *others = report["image"]
    torus = next(other for other in others if other["exchange"] == "torus")
    for summary in (one, two, torus):
        assert 0 < summary["not_network"] < 1 and summary["gflops"] > 0
    # As many windows as a shift leaves live, 4, 6, 9, 6 and 4 in the five steps, in micro-batches
    # of 4.
    assert one["repeats"][0]["calls"] == [1 + 2 + 3 + 2 + 1, 0], "rank 1 sleeps meanwhile"
    for summary in (two, torus):
        received = summary["received_mib_per_step_of_rank"]
        expected = traffic(96, 48, 2)[summary["exchange"]]
        assert sum(received) / 2 * MIB == pytest.approx(expected.mean), "as worked out from plans"
    assert [rate["ranks"] for rate in report["rates"]][:2] == [1, 2]
    assert (tmp_path / "scaling.png").exists()
    assert finished.out.count("speed-up against the first line") == 1


def test_on_one_rank_there_is_nothing_to_exchange(tmp_path, capsys):
    threads = torch.get_num_threads()
    try:
        assert main([*SMALL, "--set", "parallel.threads=1", "--output", str(tmp_path)]) == 0
    finally:
        torch.set_num_threads(threads)
    out = capsys.readouterr().out
    assert "1 rank x 1 thread" in out and "1 group of 1 rank" in out and "torus, most" in out


@pytest.mark.parametrize("words, line", [
    (["--steps", "1"], "--steps: expected at least 2"),
    (["--precisions", "bf16"], "--micro-batches, --precisions: expected with `sample` only"),
    (["--size", "513"], "--size: expected a multiple of the scale 2, got 513"),
])
def test_what_cannot_be_measured_is_said_in_one_line(words, line, capsys):
    assert main(["scaling", *words, "--dry-run"]) == 2
    err = capsys.readouterr().err
    assert line in err and err.count("\n") == 1


def test_a_dry_run_names_the_default_model_and_size(capsys):
    plan = plan_of(parser().parse_args(["scaling"]))
    assert (plan.config.model.family, plan.config.sampler.steps) == ("aligned", 10)
    assert plan.request.size_px == plan.grid.height_px == 512
    assert main(["scaling", "--dry-run"]) == 0
    assert capsys.readouterr().out == ("scaling: 1 image, then 1 for each rank, of 512 px, "
                                       "3 repeats, 121 windows of 48 px, 10 steps (ddim)\n")
