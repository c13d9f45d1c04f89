"""What may happen to a job and must not harm its output: kills, a full disk, files that vanish,
change, or are read-only, two jobs at once, no file locks, a network that fails. The long forms are
commands, see docs/reliability.md."""
import fcntl
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

import h5py
import numpy as np
import pytest
import torch

from swinmpi.cli.sample import main
from swinmpi.errors import OutputError
from swinmpi.storage import locking
from swinmpi.storage.checkpoint import load_weights, save_weights
from swinmpi.storage.locking import open_locked
from swinmpi.storage.outputs.contents import OutputPlan
from swinmpi.storage.outputs.output import StackOutput
from swinmpi.storage.stack import Stack
from tests.machines.faults.kill import KILLS, attempt, make_bench
from tests.machines.fuzz.photos import write_photos
from tests.support.programs import run_program
from tests.support.sampling import arguments, smooth_stack, sr_of, write_checkpoint, write_stack

TESTS = Path(__file__).parents[1]
WITHOUT_LOCKS, UNET_FAILS = (TESTS / "programs" / "without_locks.py",
                             TESTS / "programs" / "mpi" / "sample_unet_fails.py")
COMMAND = ("-m", "swinmpi.cli.sample")
ONE_BY_ONE = ("parallel.images_per_step=1", "parallel.threads=1")
NUM_IMAGES = 5
MIB = 1 << 20


@pytest.fixture(scope="module", autouse=True)
def threads():
    """A run sets the threads of its process: give them back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """in.h5, model.safetensors, and out.h5 of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("inputs")
    write_stack(folder / "in.h5", smooth_stack(NUM_IMAGES, 40, 36))
    write_checkpoint(folder / "model.safetensors", "model.window_px=32")
    assert main(command(folder, folder / "out.h5")) == 0
    return folder


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, 4 MiB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", mount],
                          capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"a small disk needs the right to mount a tmpfs: {made.stderr.strip()}")
    yield mount
    subprocess.run(["umount", "--lazy", mount], check=True)


def command(inputs: Path, output: Path, *settings: str, stack: str = "in.h5",
            checkpoint: Path | None = None) -> list[str]:
    return arguments(inputs / stack, output, checkpoint or inputs / "model.safetensors",
                     *ONE_BY_ONE, *settings)


def after_the_second_image(monkeypatch, act) -> None:
    """Let `act` happen when two images are done."""
    complete, done = StackOutput.complete, []

    def complete_and_act(output, image_index, *rest):
        complete(output, image_index, *rest)
        done.append(image_index)
        if len(done) == 2:
            act()

    monkeypatch.setattr(StackOutput, "complete", complete_and_act)


def ended(arguments: list[str], capsys) -> tuple[int, str]:
    """(exit code, the one line on stderr)."""
    capsys.readouterr()
    code, told = main(arguments), capsys.readouterr().err
    assert told.count("\n") <= 1, told
    return code, told


def num_done(partial: Path) -> int:
    with h5py.File(partial) as file:
        return int(file["entry/per_image/done"][()].sum())


def assert_same(output: Path, inputs: Path) -> None:
    assert np.array_equal(sr_of(output), sr_of(inputs / "out.h5"))


# kills

def test_killed_at_random_moments(tmp_path_factory):
    """The short form of `python tests/machines/faults/kill.py --kills 200`."""
    seed = random.randrange(2**32)
    bench = make_bench(tmp_path_factory.mktemp("kill"),
                       [str(Path(sys.executable).with_name("mpirun"))])
    for number, kind in enumerate(random.sample(KILLS, 2), start=1):
        attempt(bench, number, kind, seed)


# the disk and the folder of the output

def test_a_full_disk_keeps_what_is_done(inputs, small_disk, capsys, monkeypatch):
    output, filler = small_disk / "out.h5", small_disk / "filler"
    with monkeypatch.context() as patched:
        after_the_second_image(patched, lambda: fill(filler))
        code, told = ended(command(inputs, output), capsys)
    assert code == 2 and re.search(
        r"image \d cannot be written \(.*No space left.*\); make room and start again", told), told
    assert num_done(small_disk / "out.h5.partial") == 2
    filler.unlink()
    assert ended(command(inputs, output), capsys) == (0, "")
    assert_same(output, inputs)
    assert [path.name for path in small_disk.iterdir()] == ["out.h5"]


def fill(path: Path) -> None:
    """Use up the disk, the holes of OUT.partial included: they are not there yet."""
    with open(path, "wb", buffering=0) as file:
        for size in (MIB, 1024, 1):
            try:
                while file.write(bytes(size)):
                    pass
            except OSError:
                continue


def test_a_folder_that_vanishes_ends_the_run(inputs, tmp_path, capsys, monkeypatch):
    """Not after a week, when the output cannot be packed."""
    folder, moved = tmp_path / "here", tmp_path / "there"
    folder.mkdir()
    with monkeypatch.context() as patched:
        after_the_second_image(patched, lambda: folder.rename(moved))
        code, told = ended(command(inputs, folder / "out.h5"), capsys)
    assert (code == 2 and "out.h5.partial: was removed, moved or replaced while this run "
            "was writing it" in told), told
    moved.rename(folder)
    assert num_done(folder / "out.h5.partial") == 2
    assert ended(command(inputs, folder / "out.h5"), capsys) == (0, "")
    assert_same(folder / "out.h5", inputs)


# the input

@pytest.mark.parametrize("way", ["truncated", "overwritten"])
def test_an_input_that_changes_ends_the_run(inputs, tmp_path, capsys, monkeypatch, way):
    """What lies behind a new end of the file HDF5 would read as zeros."""
    stack, before = tmp_path / "in.h5", (inputs / "in.h5").read_bytes()
    other = write_stack(tmp_path / "other.h5",
                        smooth_stack(NUM_IMAGES, 40, 36, seed=1)).read_bytes()
    stack.write_bytes(before)
    with monkeypatch.context() as patched:
        after_the_second_image(patched, lambda: os.truncate(stack, 6000) if way == "truncated"
                               else stack.write_bytes(other))
        code, told = ended(command(tmp_path, tmp_path / "out.h5",
                                   checkpoint=inputs / "model.safetensors"), capsys)
    assert (code == 1
            and "in.h5::/images: the file was changed while it was being read" in told), told
    again = command(tmp_path, tmp_path / "out.h5", checkpoint=inputs / "model.safetensors")
    code, told = ended(again, capsys)
    assert code == 2 and ("truncated" if way == "truncated"
                          else "input.sha256_of_some_images") in told, told
    stack.write_bytes(before)
    assert ended(again, capsys) == (0, "")
    assert_same(tmp_path / "out.h5", inputs)


def test_an_input_that_is_replaced_is_read_to_its_end(inputs, tmp_path, capsys, monkeypatch):
    """Another file under the same name: the run has the old one open."""
    stack = tmp_path / "in.h5"
    stack.write_bytes((inputs / "in.h5").read_bytes())
    other = write_stack(tmp_path / "other.h5", smooth_stack(NUM_IMAGES, 40, 36, seed=1))
    after_the_second_image(monkeypatch, lambda: other.rename(stack))
    again = command(tmp_path, tmp_path / "out.h5", checkpoint=inputs / "model.safetensors")
    assert ended(again, capsys) == (0, "")
    assert_same(tmp_path / "out.h5", inputs)


# two jobs on one output

@pytest.mark.parametrize("locks", [True, False])
def test_of_two_jobs_at_the_same_moment_one_goes_on(inputs, tmp_path, locks):
    program = [sys.executable, *([] if locks else [str(WITHOUT_LOCKS)]), *COMMAND,
               *command(inputs, tmp_path / "out.h5")]
    finished = []
    jobs = [Thread(target=lambda: finished.append(run_program(program, 300, {}))) for _ in range(2)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    first, second = sorted(finished, key=lambda job: job.code)
    assert (first.code, first.err) == (0, ""), first
    assert second.code == 2 and second.err.count("\n") == 1, second
    assert "another run is writing it" in second.err or "exists already" in second.err, second.err
    assert_same(tmp_path / "out.h5", inputs)
    assert [path.name for path in tmp_path.iterdir()] == ["out.h5"]


@pytest.fixture
def no_locks(monkeypatch):
    """A file system that answers as NFS does without a lock daemon, in this process;
    and a short patience."""
    def refuse(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    for name, seconds in (("BEAT_S", 0.05), ("PATIENCE_S", 0.5), ("RIVAL_S", 0.1),
                          ("LOOK_S", 0.02)):
        monkeypatch.setattr(locking, name, seconds)


def test_without_locks_the_sign_of_a_killed_run_is_taken_over(tmp_path, no_locks):
    (tmp_path / "out.h5.partial").touch()
    (tmp_path / "out.h5.partial.owner").write_text("on another node, process 1, job 7\nkilled\n")
    started = time.monotonic()
    with open_locked(tmp_path / "out.h5.partial"):
        assert 0.5 < time.monotonic() - started < 20
        assert "process" in (tmp_path / "out.h5.partial.owner").read_text()
        with pytest.raises(OutputError, match=r"another run is writing it \(on .*, "
                           fr"process {os.getpid()}\); wait"):
            open_locked(tmp_path / "out.h5.partial")
    assert [path.name for path in tmp_path.iterdir()] == ["out.h5.partial"]


def test_without_locks_a_run_that_was_taken_for_dead_stops(inputs, tmp_path, no_locks):
    with (Stack.open(str(inputs / "in.h5")) as stack,
          StackOutput.open(tmp_path / "out.h5", stack, OutputPlan(2), {}) as output):
        (tmp_path / "out.h5.partial.owner").write_text("on another node, process 1\nalive\n")
        output._sink.on_close.__self__._beating.join(timeout=20)
        with pytest.raises(OutputError, match="another run has taken over"):
            output.write(0, {"sr": np.zeros((1, 80, 72), np.uint16)}, {})
    assert (tmp_path / "out.h5.partial.owner").read_text() == "on another node, process 1\nalive\n"


# the checkpoint and the network

def test_a_read_only_disk_is_enough_for_input_and_checkpoint(inputs, tmp_path, small_disk, capsys):
    for name in ("in.h5", "model.safetensors"):
        (small_disk / name).write_bytes((inputs / name).read_bytes())
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert ended(command(small_disk, tmp_path / "out.h5"), capsys) == (0, "")
    assert_same(tmp_path / "out.h5", inputs)
    code, told = ended(command(small_disk, small_disk / "out.h5"), capsys)
    assert code == 2 and "disk is not writable; choose another --output" in told, told


def test_weights_that_are_not_numbers_are_noticed(inputs, tmp_path, capsys):
    tensors, header = load_weights(inputs / "model.safetensors")
    tensors[next(name for name in tensors if name.endswith("exit.bias"))][0] = torch.nan
    save_weights(tmp_path / "nan.safetensors", tensors, header)
    code, told = ended(command(inputs, tmp_path / "out.h5",
                               checkpoint=tmp_path / "nan.safetensors"), capsys)
    assert code == 1 and re.search(r"the network's answer is not finite .*step 1", told), told
    assert num_done(tmp_path / "out.h5.partial") == 0 and not (tmp_path / "out.h5").exists()


def test_an_error_in_the_network_of_one_rank_ends_all(mpirun, inputs, tmp_path):
    finished = mpirun(2, UNET_FAILS, "error", *command(inputs, tmp_path / "out.h5"))
    assert finished.code == 1 and finished.seconds < 120, finished
    assert finished.err.startswith("swinmpi: rank 1: unexpected failure\n"), finished.err
    assert finished.err.rstrip().endswith("ArithmeticError: the third call"), finished.err
    assert main(command(inputs, tmp_path / "out.h5")) == 0
    assert_same(tmp_path / "out.h5", inputs)


def test_out_of_memory_halves_the_micro_batch(mpirun, inputs, tmp_path):
    finished = mpirun(2, UNET_FAILS, "memory",
                      *command(inputs, tmp_path / "out.h5", "parallel.micro_batch=4"))
    assert finished.code == 0, finished
    assert (finished.err.count("\n") == 1
            and "out of memory: going on with micro-batches of 2 windows" in finished.err), finished
    assert np.abs(sr_of(tmp_path / "out.h5").astype(int) - sr_of(inputs / "out.h5")).max() <= 1


# folders of pictures

def test_of_two_jobs_on_one_folder_of_pictures_one_goes_on(inputs, tmp_path):
    write_photos(tmp_path / "photos")
    program = [sys.executable, *COMMAND, *arguments(tmp_path / "photos", tmp_path / "sr",
                                                    inputs / "model.safetensors", *ONE_BY_ONE)]
    finished = []
    jobs = [Thread(target=lambda: finished.append(run_program(program, 300, {}))) for _ in range(2)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    first, second = sorted(finished, key=lambda job: job.code)
    assert first.code == 0 and second.code in (0, 2), finished
    assert second.code == 0 or "another run is writing it" in second.err.splitlines()[-1], second
    assert "Traceback" not in first.err + second.err
    alone = arguments(tmp_path / "photos", tmp_path / "alone", inputs / "model.safetensors")
    assert main(alone) == 0
    assert pictures_in(tmp_path / "sr") == pictures_in(tmp_path / "alone")


def pictures_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*")
            if path.is_file() and path.name != "swinmpi.jsonl"}
