"""Closed and full standard streams, names that are not UTF-8, serial commands under a launcher,
shells of srun --pty, signals while HDF5 writes."""
import os
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from swinmpi.interruption import Interrupted, Interruptible, raise_waiting, uninterrupted
from swinmpi.parallel import launch
from swinmpi.storage.attributes import escaped
from swinmpi.training.preparation.sources import decoded
from tests.support.sampling import arguments, smooth_stack, write_checkpoint, write_stack

SMALL = ["--set", "data.size_px=8", "--set", "data.crops_per_image=1",
         "--set", "data.flat_reject=0.0"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    write_stack(folder / "in.h5", smooth_stack(2, 24, 28))
    write_checkpoint(folder / "model.safetensors", "model.window_px=32")
    return folder


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-", "> /dev/full"])
def test_closed_and_full_streams_lose_no_run(inputs, tmp_path, closed):
    words = arguments(inputs / "in.h5", tmp_path / "out.h5", inputs / "model.safetensors",
                      "parallel.threads=1")
    code = 'exec "$0" -m swinmpi.cli.sample "$@" ' + closed
    ended = subprocess.run(["sh", "-c", code, sys.executable, *words], timeout=120)
    assert ended.returncode == 0
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["entry/per_image/done"][()].all()


def test_names_that_are_not_utf_8(inputs, tmp_path, alone):
    stack = os.fsdecode(bytes(tmp_path) + b"/Gr\xf6\xdfe.h5")
    Path(stack).write_bytes((inputs / "in.h5").read_bytes())
    out = Path(os.fsdecode(bytes(tmp_path) + b"/o\xf6.h5"))
    ended = alone("-m", "swinmpi.cli.sample", *arguments(
        Path(stack), out, inputs / "model.safetensors", "parallel.threads=1"))
    assert (ended.code, ended.err) == (0, "")
    with h5py.File(out) as file:
        assert file["entry/process/input"].asstr()[()].endswith(r"/Gr\xf6\xdfe.h5::/images")
    folder = tmp_path / "photos"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (20, 20), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    os.rename(tmp_path / "a.png", bytes(folder) + b"/caf\xe9.png")
    ended = alone("-m", "swinmpi.cli.prepare", folder, "--output", tmp_path / "pairs.h5", *SMALL)
    assert ended.code == 0, ended.err
    with h5py.File(tmp_path / "pairs.h5") as file:
        assert set(file["source"].asstr()[()]) == {r"caf\xe9.png"}


def test_what_hdf5_cannot_hold_is_escaped():
    assert escaped("plain Größe") == "plain Größe"
    assert escaped("\udcf6.h5") == r"\xf6.h5" and escaped("\ud800") == r"\ud800"


def test_lists_with_and_without_a_byte_order_mark():
    text = "path\treduce\nGröße.png\t1\n"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        assert decoded(text.encode(encoding)) == text
    assert os.fsencode(decoded(b"caf\xe9.png", "surrogateescape")) == b"caf\xe9.png"


def test_a_serial_command_under_a_launcher_says_so(inputs, tmp_path, mpirun):
    ended = mpirun(3, "-m", "swinmpi.cli.prepare", inputs / "in.h5", "--output",
                   tmp_path / "new/folder/pairs.h5", *SMALL)
    assert ended.code == 0 and (tmp_path / "new/folder/pairs.h5").exists(), ended
    assert ended.err.splitlines()[0] == ("swinmpi: swinmpi-prepare needs one process: rank 0 does "
                                         "it, the other 2 have nothing to do")
    assert ended.out.count("pairs to train") == 1


def test_a_shell_of_srun_is_no_rank(monkeypatch):
    step = {"SLURM_STEP_ID": "0", "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "8",
            "SLURM_PTY_PORT": "40441", "PMI_RANK": "0", "PMI_SIZE": "8"}
    shell = subprocess.Popen(["bash", "--norc"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    script = subprocess.Popen(["bash", "-c", "echo; read x; :"], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE)
    try:
        # A process has no words of its own in the instant of its start.
        shell.stdin.write(b"echo\n")
        shell.stdin.flush()
        assert shell.stdout.readline() == script.stdout.readline() == b"\n"
        inside = step | {"SLURM_TASK_PID": str(shell.pid)}
        assert launch.tasks_of_shell(inside) == 8
        assert launch.launcher_size(inside) is None and launch.launcher_rank(inside) is None
        launch.leave_step(inside)
        assert inside == {}
        for ranks in ({"SLURM_TASK_PID": str(os.getpid())}, {"SLURM_TASK_PID": str(script.pid)},
                      {"SLURM_TASK_PID": str(shell.pid), "MPI_LOCALNRANKS": "8"},
                      {"SLURM_TASK_PID": str(shell.pid), "SLURM_PROCID": "1"}):
            assert launch.tasks_of_shell(step | ranks) is None
            assert launch.launcher_size(step | ranks) == 8
    finally:
        for process in (shell, script):
            process.communicate(b"")


def test_info_in_a_shell_of_srun(alone):
    """This process is not a shell without a script, so the system is asked about one that ended."""
    ended = alone("-m", "swinmpi.cli.info", SLURM_STEP_ID="0", SLURM_PROCID="0",
                  SLURM_STEP_NUM_TASKS="8", SLURM_PTY_PORT="40441", SLURM_TASK_PID="0")
    assert ended.code == 0, ended
    assert ended.err.startswith("swinmpi: this shell is one task of 8 (srun --pty): working as one")


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_waits_until_nothing_is_half_done(number, code):
    came = []

    @uninterrupted
    def work():
        os.kill(os.getpid(), number)
        came.append("to its end")

    with Interruptible(), pytest.raises(Interrupted) as caught:
        work()
        raise_waiting()
    assert came == ["to its end"] and caught.value.exit_code == code
    with Interruptible(), pytest.raises(Interrupted):
        os.kill(os.getpid(), number)
        signal.pause()
