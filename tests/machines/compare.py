"""Does this checkout compute what another commit computed? For developers, before and after
a change that should not show:

    python tests/machines/compare.py COMMIT [--cache FILE] [--only WORD]

Runs both versions on this machine, because bits differ between processors: every job
of the invariance test on one and two ranks, three trainings of 20 updates on one and two ranks,
and the memory that a rank takes at most in a torus run. Prints a line for each difference and ends
with 1 where there is one. --cache keeps the other version's figures between calls.
"""
import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from hashlib import sha256
from pathlib import Path

import h5py
from safetensors import safe_open

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.commands.test_sample_mpi import JOBS, command, write_inputs  # noqa: E402
from tests.support.sampling import NO_PICTURE, smooth_stack, write_stack  # noqa: E402
from tests.support.training import ALIGNED, SHORT, THESIS, as_arguments, write_pairs  # noqa: E402

RUNNER = ROOT / "tests/programs/mpi/sample_many.py"
RANKS = (1, 2)
LONGER = ["train.updates=20", "train.checkpoint_every=10", "train.validate_every=10"]
TRAININGS = {"aligned": ALIGNED,
             "thesis": [*THESIS, "train.batch=image", "diffusion.prediction=eps"],
             "encoder": [*ALIGNED, "train.target=encoder"]}
MEMORY_TOLERANCE = 1.03
"""Peaks of the same program differ by as much from run to run."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("commit")
    parser.add_argument("--cache", type=Path,
                        help="figures of COMMIT, read if there and written else")
    parser.add_argument("--only", default="", help="only jobs whose name contains this")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        inputs = Path(name) / "inputs"
        inputs.mkdir()
        write_inputs(inputs)
        write_stack(inputs / "large.h5", smooth_stack(1, 512, 512, channels=3, dtype="uint8"))
        write_pairs(inputs / "pairs.h5")
        if options.cache and options.cache.exists():
            before = json.loads(options.cache.read_text())
        else:
            before = figures_of(checked_out(options.commit, Path(name) / "before"), inputs,
                                Path(name), options.only)
            if options.cache:
                options.cache.write_text(json.dumps(before, indent=1))
        after = figures_of(ROOT, inputs, Path(name), options.only)
    return report(before, after)


def report(before: dict, after: dict) -> int:
    """Print what differs; 1 where something does."""
    differing = [name for name in after if name in before and name != "peak_mib"
                 and before[name] != after[name]]
    for name in differing:
        print(f"differs: {name}")
    peaks = {name: (before["peak_mib"].get(name), mib) for name, mib in after["peak_mib"].items()}
    grown = [name for name, (old, new) in peaks.items() if old and new > MEMORY_TOLERANCE * old]
    for name, (old, new) in peaks.items():
        print(f"peak memory of a rank, {name}: {old:.0f} MiB before, {new:.0f} MiB now" if old
              else f"{name}: {new:.0f} MiB")
    print(f"{len(after) - 1} results, {len(differing)} differ, {len(grown)} take more memory")
    return 1 if differing or grown else 0


def checked_out(commit: str, folder: Path) -> Path:
    """The files of a commit."""
    archive = subprocess.run(["git", "-C", str(ROOT), "archive", commit], capture_output=True,
                             check=True).stdout
    tarfile.open(fileobj=io.BytesIO(archive)).extractall(folder, filter="data")
    return folder


def figures_of(tree: Path, inputs: Path, work: Path, only: str) -> dict:
    """Digests of results by the name of the job and the number of ranks, and `peak_mib` by
    number of ranks."""
    made: dict = {"peak_mib": {}}
    with tempfile.TemporaryDirectory(dir=work) as folder:
        for ranks in RANKS:
            made |= samples(tree, inputs, Path(folder), ranks, only)
            made |= trainings(tree, inputs, Path(folder), ranks, only)
        if not only:
            made["peak_mib"] = peaks(tree, inputs, Path(folder))
    return made


def samples(tree: Path, inputs: Path, folder: Path, ranks: int, only: str) -> dict:
    known = (tree / "tests/commands/test_sample_mpi.py").read_text()
    names = [name for name in JOBS
             if only in name and f'"{name.removesuffix(", torus")}": (' in known]
    outputs = {name: folder / f"{number}-{ranks}.h5" for number, name in enumerate(names)}
    if names:
        # Older versions draw no pictures, and do not know how to leave them out.
        commands = [[word for at, word in enumerate(words) if NO_PICTURE[1] not in words[at:at + 2]]
                    for words in (command(inputs, name, outputs[name]) for name in names)]
        run_many(tree, ranks, commands, folder)
    return {f"{name}, {ranks} ranks": digest(output) for name, output in outputs.items()}


def trainings(tree: Path, inputs: Path, folder: Path, ranks: int, only: str) -> dict:
    made = {}
    for name, model in TRAININGS.items():
        if only in f"training {name}":
            output = folder / f"{name}-{ranks}"
            settings = [*model, *SHORT, *LONGER, f"train.data={inputs / 'pairs.h5'}",
                        f"train.output={output}"]
            launch(tree, ranks, "-m", "swinmpi.cli.train",
                   *as_arguments([*settings, "parallel.threads=1"]))
            for file in ("weights", "ema"):
                made[f"training {name}, {file}, {ranks} ranks"] = digest_of_weights(
                    output / "update-00000020" / f"{file}.safetensors")
    return made


def peaks(tree: Path, inputs: Path, folder: Path) -> dict:
    """Largest resident size of any rank, MiB, by exchange, on two ranks and an image of 1024 px."""
    made = {}
    for exchange in ("root", "torus"):
        words = [str(inputs / "large.h5"), "--output", str(folder / f"{exchange}.h5"),
                 "--set", "sampler.steps=2",
                 "--set", f"parallel.exchange={exchange}", "--set", "parallel.threads=1"]
        made[exchange] = max(run_many(tree, 2, [words], folder))
    return made


def run_many(tree: Path, ranks: int, commands: list[list[str]], folder: Path) -> list[float]:
    """Command lines of swinmpi-sample in one launch; the peak memory of every rank, MiB."""
    listed, peaks_file = folder / "commands.json", folder / "peaks"
    listed.write_text(json.dumps(commands))
    launch(tree, ranks, RUNNER, listed, peaks_file)
    return [float(path.read_text()) for path in sorted(folder.glob("peaks.*"))]


def launch(tree: Path, ranks: int, *words) -> None:
    launcher = Path(sys.executable).with_name("mpirun")
    environ = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([launcher, "-n", str(ranks), sys.executable, *map(str, words)],
                          env=environ, cwd=tree, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{tree}: {' '.join(map(str, words))} ended with "
                         f"{done.returncode}\n{done.stderr}")


def digest(path: Path) -> str:
    """Of every dataset of images in an output."""
    total = sha256()
    with h5py.File(path) as file:
        for name, item in sorted(file["entry/data"].items()):
            total.update(name.encode() + item[()].tobytes())
    return total.hexdigest()


def digest_of_weights(path: Path) -> str:
    total = sha256()
    with safe_open(path, framework="np") as file:
        for name in sorted(file.keys()):
            total.update(name.encode() + file.get_tensor(name).tobytes())
    return total.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
