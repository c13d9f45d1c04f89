"""The tables of `swinmpi-benchmark scaling`, out of its report."""
from collections.abc import Iterator, Mapping
from statistics import fmean

from swinmpi.reports.tables import format_table

PHASE_TITLES = {"network": "U-Net", "exchange": "exchange", "noise": "noise",
                "step": "reverse step", "windows": "windows", "other": "other"}
SPREAD = ("median", "min", "max")


def scaling_tables(report: Mapping) -> str:
    """All tables, each under a line that says what it shows."""
    parts = [("one image; speed-up against the first line, within each repeat", image_table),
             ("where the time of a step goes on rank 0 (all but the encoder)", share_table),
             ("what travels: payload received in a step, counted", exchange_table),
             ("the same, worked out from the plans for sizes not run here", computed_table),
             ("many images: how they are laid over the ranks", stack_table),
             ("GFLOP/s of all ranks together: the bare machine, and the U-Net in the runs above",
              rate_table),
             ("peak memory by rank, MiB", memory_table)]
    return "\n\n".join(f"{title}\n{table(report)}" for title, table in parts)


def image_table(report: Mapping) -> str:
    rows = []
    for one in report["image"]:
        rows.append([one["name"], *(f"{one['seconds'][key]:.3g}" for key in SPREAD),
                     f"{one['step_ms']:.1f}", *(f"{one['speed_up'][key]:.2f}" for key in SPREAD),
                     f"{one['speed_up_by_cpu']['median']:.2f}", f"{one['possible']:.2f}",
                     percent(one["efficiency"], 0), f"{one['cores_used']:.2f}",
                     f"{one['cores_used_asleep']:.2f}"])
    return format_table(["setting", "s/image", "min", "max", "ms/step", "speed-up", "min", "max",
                         "by CPU", "possible", "efficiency", "cores used", "asleep"], rows)


def share_table(report: Mapping) -> str:
    rows = [[one["name"], *(percent(one["share_of_rank"][phase][0]) for phase in PHASE_TITLES),
             percent(one["not_network"])] for one in report["image"]]
    return format_table(["setting", *PHASE_TITLES.values(), "not network"], rows)


def exchange_table(report: Mapping) -> str:
    rows = []
    for one in report["image"]:
        if one["ranks"] > 1:
            received = one["received_mib_per_step_of_rank"]
            rows.append([one["name"], one["exchange"], f"{max(received):.3f}",
                         f"{fmean(received):.3f}", f"{one['step_ms']:.1f}"])
    header = ["setting", "exchange", "MiB, most", "MiB, mean", "ms/step"]
    return format_table(header, rows, text_columns=2)


def computed_table(report: Mapping) -> str:
    """The ratio is of the first exchange to the last."""
    exchanges = list(report["computed"][0]["received_mib_per_step"])
    header = ["image", *(f"{name}, {which}" for which, name in columns(exchanges)),
              "ratio, most", "ratio, mean"]
    rows = []
    for case in report["computed"]:
        received = case["received_mib_per_step"]
        first, last = received[exchanges[0]], received[exchanges[-1]]
        rows.append([f"{case['size_px']} px, window {case['window_px']}, {case['ranks']} ranks, "
                     f"{case['border']}",
                     *(f"{received[name][which]:.2f}" for which, name in columns(exchanges)),
                     *(f"{first[which] / last[which]:.0f}" for which in ("most", "mean"))])
    return format_table(header, rows)


def columns(exchanges: list[str]) -> Iterator[tuple[str, str]]:
    """(figure, exchange) in the order of the table."""
    return ((which, name) for which in ("most", "mean") for name in exchanges)


def stack_table(report: Mapping) -> str:
    rows = [[one["name"], str(one["num_images"]), str(one["images_per_step"]),
             *(f"{one['images_per_second'][key]:.3g}" for key in SPREAD),
             f"{one['ratio']['median']:.2f}", f"{one['ratio_by_cpu']['median']:.2f}"]
            for one in report["stack"]]
    return format_table(["setting", "images", "per step", "images/s", "min", "max", "ratio",
                         "by CPU"], rows)


def rate_table(report: Mapping) -> str:
    rates = {(rate["ranks"], rate["threads"]): rate for rate in report["rates"]}
    rows = []
    for one in report["image"]:
        rate = rates[one["ranks"], one["threads"]]
        convolution, matrix = (rate[name]["median"] for name in ("convolution", "matrix"))
        rows.append([one["name"], f"{convolution:.1f}", f"{matrix:.1f}", f"{one['gflops']:.1f}",
                     percent(one["gflops"] / convolution, 0)])
    return format_table(["setting", "3x3 convolutions", "matrix product", "U-Net",
                         "of convolutions"], rows)


def memory_table(report: Mapping) -> str:
    rows = [[one["name"], " ".join(f"{mib:.0f}" for mib in one["peak_memory_mib_of_rank"])]
            for one in (*report["image"], *report["stack"])]
    return format_table(["setting", "ranks 0, 1, ..."], rows)


def percent(share: float, digits: int = 2) -> str:
    return f"{100 * share:.{digits}f} %"
