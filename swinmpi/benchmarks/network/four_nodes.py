"""Samples over nodes with slow links, by every exchange.

    python -m swinmpi.benchmarks.network.four_nodes [--rates 1gbit,none]

Each node is a network namespace with one rank, whose link tc limits in both directions (nodes.sh;
needs root). Prints tables and writes all figures as JSON. The nodes share the cores of this
machine, so the U-Net takes longer than on real ones.
"""
import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from tempfile import TemporaryDirectory

from swinmpi.benchmarks.network.model import MIB, Link, Step
from swinmpi.benchmarks.network.nodes import HERE, mpirun_over_nodes, why_not
from swinmpi.reports.machine import cpu_model
from swinmpi.reports.tables import format_table
from swinmpi.sampling.superresolve import EXCHANGES

WINDOW_PX = 48
LAUNCH_LIMIT_S = 3600


def main() -> int:
    options = parser().parse_args()
    if reason := why_not():
        print(f"four_nodes.py: {reason}", file=sys.stderr)
        return 2
    rates = options.rates.split(",")
    rounds = [{rate: launch(rate, options) for rate in rates} for _ in range(options.rounds)]
    machine = {"cpu": cpu_model(), "cores": len(os.sched_getaffinity(0)),
               "load": os.getloadavg()[0]}
    report = {"machine": machine, "nodes": options.nodes, "size_px": options.size,
              "launches": rounds}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=1) + "\n")
    print(describe(report))
    return 0


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    made.add_argument("--nodes", type=int, default=4)
    made.add_argument("--rates", default="1gbit,none",
                      help="links to compare, as tc writes them, or none")
    made.add_argument("--rounds", type=int, default=2, help="all rates take turns this often")
    made.add_argument("--size", type=int, default=1024, metavar="PX")
    made.add_argument("--steps", type=int, default=6)
    made.add_argument("--repeats", type=int, default=3,
                      help="in each round, exchanges take turns this often")
    made.add_argument("--pings", type=int, default=20)
    made.add_argument("--precision", default="fp32")
    made.add_argument("--output", type=Path, default=Path("swinmpi-out/four_nodes.json"),
                      metavar="FILE")
    return made


def launch(rate: str, options: argparse.Namespace) -> dict:
    """What exchanges.py found out over nodes with such links."""
    with TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        names = ("size", "steps", "repeats", "pings", "precision")
        words = [word for name in names for word in (f"--{name}", getattr(options, name))]
        command = mpirun_over_nodes(options.nodes, rate, HERE / "exchanges.py", result, *words)
        subprocess.run(command, check=True, timeout=LAUNCH_LIMIT_S)
        return json.loads(result.read_text())


def describe(report: Mapping) -> str:
    machine, first = report["machine"], next(iter(report["launches"][0].values()))
    digests = {digest for rates in report["launches"] for one in rates.values()
               for digest in one["digests"].values()}
    parts = [
        ("the network, between two nodes while the others sleep", network_table),
        ("a step; waiting is for data and for ranks that others on these cores hold up",
         step_table),
        ("MiB in a step: payload received, as swinmpi counts it; all bytes, as the nodes' devices "
         "do", bytes_table),
        ("ms of a step for the exchange alone; model: alpha x messages + bytes / bandwidth, as "
         "above", alone_table)]
    return "\n\n".join([
        f"{machine['cpu']}, {machine['cores']} cores, load {machine['load']:.1f}; "
        f"{report['nodes']} nodes, each a rank of one thread; {' '.join(first['mpi'].split())}; "
        f"torch {first['torch']}\nimage of {report['size_px']} px, medians of "
        f"{len(report['launches'])} rounds of {first['options']['repeats']} repeats; "
        f"{'the same bytes' if len(digests) == 1 else 'DIFFERENT BYTES'} by all exchanges",
        *(f"{title}\n{table(report)}" for title, table in parts)])


def network_table(report: Mapping) -> str:
    rows = []
    for rate in rates_of(report):
        link = link_of(report, rate)
        pings = all_pings(report, rate)
        rows.append([rate, f"{link.alpha_s * 1e6:.0f}", f"{min(pings['1']) * 1e6:.0f}",
                     f"{link.bytes_per_s / 1e6:.1f}"])
    return format_table(["link", "alpha us, median", "least", "MB/s"], rows)


def step_table(report: Mapping) -> str:
    rows = []
    for rate, exchange, repeats in cases(report):
        root, others = [ranks[:1] for ranks in repeats], [ranks[1:] for ranks in repeats]
        rows.append([rate, exchange, f"{over(repeats, 'seconds', max):.2f}",
                     *(f"{over(repeats, 'exchange_s', how) * 1e3:.0f}" for how in (fmean, max)),
                     *(f"{over(repeats, name, max):.2f}"
                       for name in ("network_s", "network_cpu_s")),
                     *(f"{median(map(besides, part)) * 1e3:.0f}" for part in (root, others))])
    header = ["link", "exchange", "s", "waiting ms, mean", "most", "U-Net s", "its CPU s",
              "rest ms, rank 0", "others"]
    return format_table(header, rows, text_columns=2)


def bytes_table(report: Mapping) -> str:
    rows = []
    for rate, exchange, repeats in cases(report):
        rows.append([rate, exchange, *(f"{over(repeats, name, how) / MIB:.3f}"
                                       for name in ("received", "device_received", "device_sent")
                                       for how in (fmean, max))])
    header = ["link", "exchange", "payload in, mean", "most", "device in, mean", "most",
              "device out, mean", "most"]
    return format_table(header, rows, text_columns=2)


def alone_table(report: Mapping) -> str:
    step, rows = Step.of(report["size_px"], WINDOW_PX, report["nodes"]), []
    for rate, exchange, _ in cases(report):
        seconds = [max(ranks) for one in launches(report, rate)
                   for ranks in zip(*(rank[exchange] for rank in one["bare_by_rank"]), strict=True)]
        model = step.seconds(link_of(report, rate))[exchange]
        values = (median(seconds), min(seconds), max(seconds), model)
        rows.append([rate, exchange, *(f"{value * 1e3:.2f}" for value in values)])
    header = ["link", "exchange", "median", "least", "most", "model"]
    return format_table(header, rows, text_columns=2)


def link_of(report: Mapping, rate: str) -> Link:
    """By the median ping of one byte and of the largest size."""
    pings = all_pings(report, rate)
    largest = max(pings, key=int)
    alpha_s = median(pings["1"])
    return Link(rate, alpha_s, int(largest) / (median(pings[largest]) - alpha_s))


def all_pings(report: Mapping, rate: str) -> dict[str, list[float]]:
    found = launches(report, rate)
    return {size: [seconds for one in found for seconds in one["pings"][size]]
            for size in found[0]["pings"]}


def cases(report: Mapping) -> list[tuple[str, str, list]]:
    """(rate, exchange, figures of all ranks for every repeat)."""
    def repeats(rate: str, exchange: str) -> list:
        return [ranks for one in launches(report, rate)
                for ranks in zip(*(rank[exchange] for rank in one["by_rank"]), strict=True)]

    return [(rate, exchange, repeats(rate, exchange))
            for rate in rates_of(report) for exchange in EXCHANGES]


def rates_of(report: Mapping) -> list[str]:
    return list(report["launches"][0])


def launches(report: Mapping, rate: str) -> list[dict]:
    return [rates[rate] for rates in report["launches"]]


def over(repeats: Sequence[Sequence[Mapping]], name: str, how) -> float:
    """The median over repeats of a figure, taken over ranks by `how`."""
    return median(how([figures[name] for figures in ranks]) for ranks in repeats)


def besides(ranks: Sequence[Mapping]) -> float:
    """Seconds of noise, reverse step and windows; the most of these ranks."""
    return max(figures["noise_s"] + figures["step_s"] + figures["windows_s"] for figures in ranks)


if __name__ == "__main__":
    sys.exit(main())
