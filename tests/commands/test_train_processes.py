"""Training as users start it: real launchers, real kills, real signals; everything compared with
one undisturbed run."""
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from swinmpi.storage.checkpoint import CheckpointFolder, load_state, load_weights
from tests.support.programs import LAUNCHER_VARIABLES, descendants, kill
from tests.support.training import as_arguments, log_of, losses_of, settings, write_pairs

PROGRAMS = Path(__file__).parents[1] / "programs" / "mpi"
COMMAND = ["-m", "swinmpi.cli.train"]
LONG = ["train.updates=30", "train.checkpoint_every=4", "train.validate_every=18"]
PATIENCE_S = 600


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("pairs") / "pairs.h5")


@pytest.fixture(scope="module")
def undisturbed(mpirun, pairs, tmp_path_factory):
    """The folder of a run on two ranks from beginning to end."""
    folder = tmp_path_factory.mktemp("undisturbed")
    finished = mpirun(2, *COMMAND, *arguments(pairs, folder), timeout_s=PATIENCE_S)
    assert finished.code == 0 and finished.err == "", finished
    assert finished.out.endswith(f"trained 30 updates; checkpoints, log and curves in {folder}\n")
    return folder


def arguments(pairs, folder, *overrides):
    return as_arguments(settings(pairs, folder, *LONG, *overrides))


def newest(folder):
    return CheckpointFolder(folder, 1).latest()


def assert_same_run(folder, undisturbed):
    """Every loss and figure, and the final weights, average and moments, to the bit."""
    assert log_of(folder) == log_of(undisturbed)
    for name in ("weights", "ema"):
        mine, others = (load_weights(newest(place) / f"{name}.safetensors")[0]
                        for place in (folder, undisturbed))
        assert all(torch.equal(mine[key], others[key]) for key in mine | others)
    mine, others = (load_state(newest(place))["optimizer"]["state"]
                    for place in (folder, undisturbed))
    assert all(torch.equal(mine[key][name], others[key][name]) for key in others
               for name in others[key])


@contextmanager
def started(pairs, folder, *options):
    """A run under mpirun that nobody waits for; whatever is left of it at the end is killed."""
    mpirun = Path(sys.executable).with_name("mpirun")
    inherited = {name: value for name, value in os.environ.items()
                 if not name.startswith(LAUNCHER_VARIABLES)}
    command = [mpirun, "-n", "2", sys.executable, *COMMAND, *arguments(pairs, folder), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, start_new_session=True,
                          env=inherited | {"OMP_NUM_THREADS": "1"}) as process:
        try:
            yield process
        finally:
            for pid in [*descendants(process.pid), process.pid]:
                kill(pid)


def wait_for_update(process, folder, update):
    """Return as soon as the log holds `update`."""
    deadline = time.monotonic() + PATIENCE_S
    while not any(record["update"] >= update for record in log_of(folder)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"no update {update} within {PATIENCE_S} s"
        time.sleep(0.002)


def ranks_of(process):
    return [pid for pid in descendants(process.pid)
            if "swinmpi.cli.train" in Path(f"/proc/{pid}/cmdline").read_text()]


def test_a_short_run_lowers_the_loss(undisturbed):
    losses = losses_of(undisturbed)
    assert len(losses) == 30 and sum(losses[-6:]) < 0.9 * sum(losses[:6])


def test_torchrun_gives_the_same_run(alone, pairs, undisturbed, tmp_path):
    finished = alone("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
                     *COMMAND, *arguments(pairs, tmp_path), timeout_s=PATIENCE_S)
    assert finished.code == 0, finished
    assert_same_run(tmp_path, undisturbed)


def test_one_rank_gives_the_same_losses_to_rounding(alone, pairs, undisturbed, tmp_path):
    finished = alone(*COMMAND, *arguments(pairs, tmp_path), timeout_s=PATIENCE_S)
    assert finished.code == 0, finished
    assert losses_of(tmp_path) == pytest.approx(losses_of(undisturbed), rel=1e-3)


def test_killed_at_any_moment_it_goes_on_as_if_nothing_had_been(pairs, undisturbed, tmp_path):
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    for whom in rng.sample(("job", "rank", "mpirun"), 2):
        reached = max((record["update"] for record in log_of(tmp_path)), default=0)
        with started(pairs, tmp_path, "--resume") as process:
            wait_for_update(process, tmp_path, min(reached + rng.randint(1, 6), 29))
            ranks = ranks_of(process)
            assert len(ranks) == 2, (seed, ranks)
            for pid in {"job": [process.pid, *ranks], "rank": [rng.choice(ranks)],
                        "mpirun": [process.pid]}[whom]:
                kill(pid)
            # A lost rank ends the job, it does not wait for ever.
            assert process.wait(timeout=PATIENCE_S) != 0, (seed, whom)
        assert newest(tmp_path) is None or load_state(newest(tmp_path))["update"] < 30, seed
    with started(pairs, tmp_path, "--resume") as process:
        assert process.wait(timeout=PATIENCE_S) == 0, (seed, process.stderr.read())
    assert_same_run(tmp_path, undisturbed)


def test_signals_save_and_ask_for_requeueing(pairs, undisturbed, tmp_path):
    for number, wanted, options in ((signal.SIGUSR2, 4, []), (signal.SIGTERM, 10, ["--resume"])):
        with started(pairs, tmp_path, *options) as process:
            wait_for_update(process, tmp_path, wanted)
            # mpich's mpirun hands on TERM, but would itself die of USR2: that one goes
            # to the ranks, as from scancel.
            for pid in [process.pid] if number == signal.SIGTERM else ranks_of(process):
                os.kill(pid, number)
            _, told = process.communicate(timeout=PATIENCE_S)
        update = load_state(newest(tmp_path))["update"]
        line = f"swinmpi: stopped at update {update}, saved in {tmp_path}; go on with --resume\n"
        assert (process.returncode, told) == (75, line)
        assert log_of(tmp_path)[-1]["update"] == update < 30
    with started(pairs, tmp_path, "--resume") as process:
        assert process.wait(timeout=PATIENCE_S) == 0, process.stderr.read()
    assert_same_run(tmp_path, undisturbed)


@pytest.mark.parametrize(("overrides", "told"), [
    ([], "holds a training run already; go on with --resume"),
    (["model.scale=3"], "expected pairs of scale 3 (model.scale), got 2"),
    (["train.rate=1"], "unknown key train.rate"),
])
def test_what_is_wrong_is_told_once(mpirun, pairs, undisturbed, overrides, told):
    finished = mpirun(2, *COMMAND, *arguments(pairs, undisturbed, *overrides), timeout_s=PATIENCE_S)
    assert finished.code == 2 and finished.out == "", finished
    assert (finished.err.startswith("swinmpi: ") and told in finished.err
            and finished.err.count("\n") == 1), finished


@pytest.mark.parametrize(("fault", "code", "told"), [
    ("nan_on_rank_1", 1,
     "swinmpi: the loss is nan at update 3; resume from the last checkpoint with a lower "),
    ("damaged_on_rank_1", 2, "swinmpi: rank 1: pairs.h5: hr[3] is damaged\n"),
    ("small_disk", 2, "cannot write: File too large; make room"),
])
def test_ranks_fail_together(mpirun, pairs, tmp_path, fault, code, told):
    finished = mpirun(2, PROGRAMS / "training.py", fault, *arguments(pairs, tmp_path),
                      timeout_s=PATIENCE_S)
    assert finished.code == code, finished
    assert told in finished.err and finished.err.count("\n") == 1, finished.err
    assert newest(tmp_path) is None


def test_ranks_of_torchrun_fail_together(alone, pairs, tmp_path):
    finished = alone("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
                     PROGRAMS / "training.py", "nan_on_rank_1", *arguments(pairs, tmp_path),
                     timeout_s=PATIENCE_S)
    assert finished.code == 1, finished
    assert finished.err.count("swinmpi: the loss is nan at update 3") == 1, finished.err


def test_help_and_version_need_no_launcher(alone):
    for option, told in (("--help", "example:"), ("--version", "swinmpi 0.")):
        finished = alone(*COMMAND, option, timeout_s=PATIENCE_S, MPI4PY_LIBMPI="/nowhere/libmpi.so")
        assert finished.code == 0 and told in finished.out, finished
