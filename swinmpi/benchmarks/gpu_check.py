"""Everything a GPU that is lent for minutes should be asked, in one run: rates of the network and
of whole runs, what precisions cost, equal bytes on more ranks, the rate of training, memory.

A CPU is asked the same, smaller. A question that fails says why and leaves the others alone.
"""
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from swinmpi.benchmarks.candidates import sample_candidates
from swinmpi.benchmarks.comparison import Candidate, largest_difference, measure, resolve, summary
from swinmpi.benchmarks.program import smooth_images
from swinmpi.config import Config
from swinmpi.demo import DEMO_STACK, shipped
from swinmpi.errors import SwinmpiError
from swinmpi.evaluation.demo import HR
from swinmpi.parallel.comm import Group
from swinmpi.parallel.device import has_tf32
from swinmpi.reports.tables import format_table
from swinmpi.sampling.superresolve import EXCHANGES
from swinmpi.storage.stack import Stack
from swinmpi.training.log import read_records

SMALL_PX = 128
RANKS = (1, 2, 4)
LIMIT_S = 300
"""For all questions to a GPU, which may be lent by the minute."""
LAUNCHERS_OWN = ("PMI", "OMPI_", "MPI_", "HYDRA_", "PRTE_")
"""What an MPI library in this process may have left in the environment."""


@dataclass(frozen=True)
class GpuCheck:
    """What to ask. config: settled; device: `cpu` or `cuda:i`; size_px: of SR images."""

    config: Config
    checkpoint: Path
    device: str
    size_px: int
    num_images: int
    repeats: int
    began: float = field(default_factory=time.monotonic)

    @property
    def left_s(self) -> float | None:
        """What is left of LIMIT_S; None on a CPU, which is slow and nobody's loan."""
        return LIMIT_S - (time.monotonic() - self.began) if self.on_gpu else None

    @property
    def on_gpu(self) -> bool:
        return self.device != "cpu"

    @property
    def precisions(self) -> tuple[str, ...]:
        """Those that the device computes with."""
        if not self.on_gpu:
            return ("fp32",)
        return ("fp32", "tf32", "bf16") if has_tf32(self.device) else ("fp32", "bf16")


def check_gpu(check: GpuCheck) -> dict:
    """The answers by question, each with the seconds it took. On one process."""
    questions: dict[str, Callable[[GpuCheck], object]] = {
        "card": card, "settings": settings, "small_image": small_image,
        "against_cpu": against_cpu, "ranks": ranks, "training": training, "compiled": compiled}
    report: dict[str, object] = {"asked_s": {}}
    for name, ask in questions.items():
        started = time.perf_counter()
        try:
            if check.left_s is not None and check.left_s <= 0:
                raise SwinmpiError(f"no time left of {LIMIT_S} s")
            report[name] = ask(check)
        except (SwinmpiError, RuntimeError, OSError, subprocess.SubprocessError) as error:
            report[name] = {"failed": f"{type(error).__name__}: {error}"}
        report["asked_s"][name] = round(time.perf_counter() - started, 1)
    return report


def card(check: GpuCheck) -> dict:
    """What the device is."""
    if not check.on_gpu:
        return {"name": "cpu"}
    facts = torch.cuda.get_device_properties(check.device)
    return {"name": facts.name, "memory_mib": facts.total_memory / 2**20,
            "compute_capability": f"{facts.major}.{facts.minor}",
            "multiprocessors": facts.multi_processor_count, "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version()}


def settings(check: GpuCheck) -> list[dict]:
    """Runs of every precision: seconds, the U-Net alone, memory."""
    return runs(check, check.config, check.precisions)


def compiled(check: GpuCheck) -> list[dict]:
    """As `settings`, in the precision of a run, beside the same not compiled. None on a CPU, where
    compiling takes too long."""
    if not check.on_gpu:
        return []
    both = [check.config.replaced(parallel={"compile": on}) for on in (False, True)]
    return [{**one, "compiled": config.parallel.compile} for config in both
            for one in runs(check, config, (config.parallel.precision,))]


def runs(check: GpuCheck, config: Config, precisions: Sequence[str]) -> list[dict]:
    """One setting after the other, for the memory of each; differences are to the first."""
    images = smooth_images(config.model, check.size_px, check.num_images)
    made = candidates(check, config, precisions)
    answers = []
    for one in made:
        forget_peak(check.device)
        measure([one], images, 1, check.repeats)
        answers.append({**summary(one, made[0], check.num_images),
                        "calls": dict(one.calls.counts), "memory_mib": peak_mib(check.device)})
    return answers


def small_image(check: GpuCheck) -> list[dict]:
    """One image of 128 px, where the time between the network's kernels shows most."""
    images = smooth_images(check.config.model, min(SMALL_PX, check.size_px), 1)
    made = candidates(check, check.config, check.precisions)
    measure(made, images, 1, 2 * check.repeats + 1)
    return [summary(one, made[0], 1) for one in made]


def against_cpu(check: GpuCheck) -> list[dict]:
    """How far samples lie from those of a CPU in fp32 with the same calls of the network."""
    image = smooth_images(check.config.model, min(SMALL_PX, check.size_px), 1)
    plain = check.config.replaced(parallel={"compile": False})
    made = candidates(check, plain, check.precisions)
    calls = made[0].resolver.exchange_for(*image[0].shape[-2:]).work.predictor.calls
    on_cpu = plain.replaced(parallel={"device": "cpu", "micro_batch": calls.all_sizes[0]})
    truth, = sample_candidates(on_cpu, check.checkpoint, "cpu", Group(), ("fp32",), ())
    expected, = resolve(truth, image, 0)
    return [{"precision": one.values["precision"], **difference(resolve(one, image, 0)[0],
                                                                expected)} for one in made]


def ranks(check: GpuCheck) -> list[dict]:
    """The shipped stack by 1, 2 and 4 ranks and every exchange: seconds, and whether all of them
    made the same bytes."""
    launcher, made = find_launcher(), []
    with TemporaryDirectory() as folder:
        for exchange in EXCHANGES:
            for num_ranks in RANKS[:3 if check.on_gpu else 2] if launcher else RANKS[:1]:
                output = Path(folder) / f"{exchange}_{num_ranks}.h5"
                words = [str(shipped(DEMO_STACK)), "--frames", "0:2", "--output", str(output),
                         "--checkpoint", str(check.checkpoint), *setting(
                             exchange=exchange, device=check.config.parallel.device, threads=1)]
                start = [] if num_ranks == 1 else [launcher, "-n", str(num_ranks)]
                seconds = launched("sample", words, start, check.left_s)
                made.append({"exchange": exchange, "ranks": num_ranks, "seconds": seconds,
                             "sha256": digest(output)})
    return [one | {"same_bytes": one["sha256"] == made[0]["sha256"]} for one in made]


def training(check: GpuCheck) -> dict:
    """Images and windows per second of a short training on the shipped images."""
    batch, updates = (64, 150) if check.on_gpu else (2, 3)
    precision = "bf16" if check.on_gpu else "fp32"
    with TemporaryDirectory() as folder:
        pairs, output = Path(folder) / "pairs.h5", Path(folder) / "run"
        launched("prepare", [f"{shipped(DEMO_STACK)}::{HR}", "--output", str(pairs)],
                 limit_s=check.left_s)
        words = setting("train", data=pairs, output=output, updates=updates, batch_images=batch,
                        log_every=max(1, updates // 5), checkpoint_every=updates,
                        validate_every=updates, validate_images=1, warmup_updates=1)
        words += setting(device=check.config.parallel.device, precision=precision)
        seconds = launched("train", words, limit_s=check.left_s)
        rates = [record["images_per_second"] for record in read_records(output / "log.jsonl")
                 if "images_per_second" in record]
    rate = max(rates[1:] or rates)
    return {"batch_images": batch, "updates": updates, "precision": precision, "seconds": seconds,
            "images_per_second": rate,
            "windows_per_second": rate * check.config.train.windows_per_image}


def candidates(check: GpuCheck, config: Config, precisions: Sequence[str]) -> list[Candidate]:
    return sample_candidates(config, check.checkpoint, check.device, Group(), precisions, ())


def difference(made: Tensor, expected: Tensor) -> dict[str, float]:
    """Of images around -1..1; in 8 bits the share of values that differ, and by how much."""
    levels = [((image.clamp(-1, 1) + 1) * 127.5).round() for image in (made, expected)]
    apart = (levels[0] - levels[1]).abs()
    return {"largest_difference": largest_difference(made, expected),
            "levels_that_differ": (apart > 0).float().mean().item(),
            "most_levels": apart.max().item()}


def launched(command: str, words: Sequence[str], launcher: Sequence[str] = (),
             limit_s: float | None = None) -> float:
    """Run swinmpi-`command`; the seconds it took. SwinmpiError with its last line if it fails."""
    environ = {name: value for name, value in os.environ.items()
               if not name.startswith(LAUNCHERS_OWN)}
    started = time.perf_counter()
    finished = subprocess.run([*launcher, sys.executable, "-m", f"swinmpi.cli.{command}", *words],
                              env=environ, capture_output=True, text=True, timeout=limit_s)
    if finished.returncode:
        last = (finished.stderr.strip().splitlines() or ["no message"])[-1]
        raise SwinmpiError(f"swinmpi-{command} ended with {finished.returncode}: {last}")
    return time.perf_counter() - started


def find_launcher() -> str | None:
    """mpirun of this environment, or of the system."""
    beside = Path(sys.executable).with_name("mpirun")
    return str(beside) if beside.exists() else shutil.which("mpirun")


def setting(section: str = "parallel", **values: object) -> list[str]:
    """Words of a command line."""
    return [word for key, value in values.items() for word in ("--set", f"{section}.{key}={value}")]


def digest(output: Path) -> str:
    with Stack.open(f"{output}::/entry/data/sr") as stack:
        images = [stack.read(index).tobytes() for index in range(stack.num_images)]
    return sha256(b"".join(images)).hexdigest()


def forget_peak(device: str) -> None:
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats(device)


def peak_mib(device: str) -> float | None:
    """Of the GPU's memory, since `forget_peak`; None on a CPU."""
    return None if device == "cpu" else torch.cuda.max_memory_allocated(device) / 2**20


def check_tables(report: Mapping) -> str:
    """For people."""
    parts = []
    for name, header, line in TABLES:
        answer = report[name]
        if isinstance(answer, Mapping) and "failed" in answer:
            parts.append(f"{name}: failed: {answer['failed']}")
            continue
        rows = [line(one) for one in (answer if isinstance(answer, list) else [answer])]
        if not rows:
            continue
        parts.append(f"{name.replace('_', ' ')}\n{format_table(header, rows)}")
    return "\n\n".join(parts)


def run_line(one: Mapping) -> list[str]:
    bare, memory = one["over_bare_network"], one.get("memory_mib")
    return [one["name"] + (", compiled" if one.get("compiled") else ""),
            f"{one['seconds_per_image']['median']:.4g}",
            "-" if bare is None else f"{bare['median']:.2f}",
            f"{one['bare_windows_per_second']:.0f}", f"{one['largest_difference']:.1e}",
            "-" if memory is None else f"{memory:.0f}"]


RUNS = ["setting", "s/image", "/ U-Net", "U-Net alone, windows/s", "differs", "GPU MiB"]
TABLES = (
    ("settings", RUNS, run_line), ("small_image", RUNS, run_line),
    ("against_cpu", ["precision", "largest difference", "8-bit values that differ", "by at most"],
     lambda one: [one["precision"], f"{one['largest_difference']:.1e}",
                  f"{100 * one['levels_that_differ']:.2f} %", f"{one['most_levels']:.0f}"]),
    ("ranks", ["exchange", "ranks", "seconds, start included", "same bytes"],
     lambda one: [one["exchange"], str(one["ranks"]), f"{one['seconds']:.1f}",
                  "yes" if one["same_bytes"] else "NO"]),
    ("training", ["precision", "images per update", "images/s", "windows/s"],
     lambda one: [one["precision"], str(one["batch_images"]), f"{one['images_per_second']:.0f}",
                  f"{one['windows_per_second']:.0f}"]),
    ("compiled", RUNS, run_line))
