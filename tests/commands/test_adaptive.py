"""Easy tiles in few steps under a real mpirun: the same bytes for any number of ranks, either
exchange, an ensemble of several images at a time, and after a kill."""
import json
from pathlib import Path

import h5py
import pytest
import torch

from swinmpi.cli.sample import main
from tests.commands.test_sample_mpi import LAUNCH_TIMEOUT_S, PROGRAMS, pixels
from tests.support.sampling import arguments, smooth_stack, write_checkpoint, write_stack

SETTINGS = ("sampler.adaptive=0.7", "sampler.adaptive_by=detail", "parallel.threads=1")
JOBS = {"root": ("--ensemble=2", "parallel.images_per_step=2"),
        "torus": ("--ensemble=2", "parallel.exchange=torus"),
        "plain": ("--ensemble=2", "sampler.adaptive=0")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images whose lower half is flat, and so easy: 150 x 20 px are two blocks of the encoder."""
    made = tmp_path_factory.mktemp("adaptive")
    images = smooth_stack(3, 150, 20, channels=3, dtype="uint8")
    images[:, 70:] = 90
    write_stack(made / "in.h5", images)
    write_checkpoint(made / "model.safetensors", "model.window_px=32")
    threads = torch.get_num_threads()
    for name in JOBS:
        assert main(command(made, name, made / f"{name}.h5")) == 0
    torch.set_num_threads(threads)
    return made


def command(folder: Path, name: str, output: Path) -> list[str]:
    return arguments(folder / "in.h5", output, folder / "model.safetensors", *SETTINGS, *JOBS[name])


def spared(path: Path) -> float:
    with h5py.File(path) as file:
        return float(file["entry/process/timings/spared"][()])


def test_neither_exchange_nor_images_at_a_time_can_be_seen(folder):
    assert pixels(folder / "root.h5") == pixels(folder / "torus.h5") != pixels(folder / "plain.h5")
    assert 0.3 < spared(folder / "root.h5") == spared(folder / "torus.h5") < 0.6
    assert spared(folder / "plain.h5") == 0


@pytest.mark.slow
@pytest.mark.parametrize("num_ranks", [3, 5])
def test_the_number_of_ranks_cannot_be_seen(mpirun, folder, tmp_path, num_ranks):
    names = ["root", "torus"]
    (tmp_path / "commands.json").write_text(json.dumps(
        [command(folder, name, tmp_path / f"{name}.h5") for name in names]))
    finished = mpirun(num_ranks, PROGRAMS / "sample_many.py", tmp_path / "commands.json",
                      timeout_s=LAUNCH_TIMEOUT_S)
    assert (finished.code, finished.err) == (0, ""), finished.err
    for name in names:
        assert pixels(tmp_path / f"{name}.h5") == pixels(folder / "root.h5"), name
        assert spared(tmp_path / f"{name}.h5") == spared(folder / "root.h5"), name


@pytest.mark.slow
def test_killed_and_finished_alone(mpirun, folder, tmp_path):
    killed = [*command(folder, "root", tmp_path / "out.h5"), "--set", "parallel.images_per_step=1"]
    finished = mpirun(2, PROGRAMS / "sample_killed.py", "SIGKILL", 1, *killed,
                      timeout_s=LAUNCH_TIMEOUT_S)
    assert finished.code not in (0, None) and not (tmp_path / "out.h5").exists(), finished.err
    assert main(command(folder, "torus", tmp_path / "out.h5")) == 0
    assert pixels(tmp_path / "out.h5") == pixels(folder / "root.h5")
