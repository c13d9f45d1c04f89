"""The job scripts on a real Slurm of three nodes: they run, scale, are stopped, requeued and lose
a node; same bytes always."""
import os
from pathlib import Path

import h5py
import pytest
import torch
from PIL import Image

from swinmpi.cli.sample import main
from swinmpi.storage.checkpoint import CheckpointFolder, load_weights
from tests.machines.slurm.cluster import JOBS, Cluster, why_not
from tests.support.sampling import arguments, smooth_stack, sr_of, write_checkpoint, write_stack
from tests.support.training import as_arguments, log_of, settings, write_pairs

pytestmark = pytest.mark.skipif(why_not() is not None, reason=f"no Slurm: {why_not()}")
long_form = pytest.mark.skipif("SWINMPI_LONG_TESTS" not in os.environ,
                               reason="takes minutes; SWINMPI_LONG_TESTS=1 runs it")

TWO_NODES = ["--nodes=2", "--ntasks=2"]
SAMPLE, ARRAY, TRAIN = JOBS / "sample.slurm", JOBS / "sample_array.slurm", JOBS / "train.slurm"
EXPERIMENT = JOBS / "experiment.slurm"
SLOWLY = ["parallel.images_per_step=1", "sampler.steps=6"]
NUM_IMAGES = 8


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with Cluster(tmp_path_factory.mktemp("slurm")) as running:
        yield running


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A folder with a stack, a checkpoint, and what one process without Slurm makes of them."""
    folder = tmp_path_factory.mktemp("inputs")
    write_stack(folder / "in.h5", smooth_stack(NUM_IMAGES, 60, 60))
    write_checkpoint(folder / "model.safetensors", "model.window_px=32")
    threads = torch.get_num_threads()
    assert main(arguments(folder / "in.h5", folder / "wanted.h5", folder / "model.safetensors",
                          "parallel.threads=1", *SLOWLY)) == 0
    torch.set_num_threads(threads)
    return folder


def sampling(inputs: Path, output: str = "out.h5", *options: str) -> list[str]:
    """Arguments of jobs/sample.slurm that give `wanted.h5`."""
    return [inputs / "in.h5", output, "--checkpoint", inputs / "model.safetensors",
            *as_arguments(SLOWLY), *options]


def assert_wanted(output: Path, inputs: Path) -> None:
    assert sr_of(output).tobytes() == sr_of(inputs / "wanted.h5").tobytes()


def process_entry(output: Path, name: str):
    with h5py.File(output) as file:
        return file["entry/process"][name][()]


def num_done(output: Path) -> int:
    """Images done in OUT.partial, while another process writes it."""
    try:
        with h5py.File(f"{output}.partial", locking=False) as file:
            return int(file["entry/per_image/done"][()].sum())
    except OSError:
        return 0


@pytest.mark.parametrize("launcher, options, ranks",
                         [("auto", [], 4), ("srun --mpi=pmi2", TWO_NODES, 2)])
def test_the_demo_runs_over_two_nodes(cluster, tmp_path, launcher, options, ranks):
    job = cluster.submit(tmp_path, *options, SAMPLE, SWINMPI_LAUNCHER=launcher).wait()
    job.assert_completed()
    assert f"by {'srun' if 'srun' in launcher else 'mpirun'}" in job.said
    assert job.fields("NumNodes") == ["2"] and job.fields("Requeue") == ["1"]
    assert f"{ranks} ranks x 1 threads" in job.said and "above bicubic" in job.said
    assert ({path.name for path in (tmp_path / "swinmpi-out").iterdir()}
            == {"sr.h5", "contact_sheet.png", "report.json"})


def test_any_launcher_and_any_path(cluster, inputs, tmp_path):
    folder = tmp_path / "it's a \"folder\" with $x; `and` *"
    (folder / "jobs of 'mine'").mkdir(parents=True)
    for file in JOBS.iterdir():
        (folder / "jobs of 'mine'" / file.name).write_bytes(file.read_bytes())
    for name in ("in.h5", "model.safetensors"):
        os.link(inputs / name, folder / f"my {name}")

    def submit(launcher):
        return cluster.submit(folder, *TWO_NODES, "jobs of 'mine'/sample.slurm",
                              "my in.h5::/images", f"out of '{launcher}'.h5", "--checkpoint", "my "
                              "model.safetensors", *as_arguments(SLOWLY), SWINMPI_LAUNCHER=launcher)

    launchers = ("auto", "srun --mpi=pmi2")
    for launcher, job in zip(launchers, [submit(launcher) for launcher in launchers], strict=True):
        job.wait().assert_completed()
        assert_wanted(folder / f"out of '{launcher}'.h5", inputs)
        assert process_entry(folder / f"out of '{launcher}'.h5", "ranks") == 2


def test_pictures_and_stacks_are_inputs_up_to_output(cluster, inputs, tmp_path):
    (tmp_path / "photos").mkdir()
    for name in ("photos/a.png", "b.tif"):
        Image.fromarray(smooth_stack(1, 20, 24, 3, "uint8")[0]).save(tmp_path / name)
    model = ["--checkpoint", inputs / "model.safetensors"]
    cluster.submit(tmp_path, SAMPLE, "photos", "b.tif", inputs / "in.h5", "--output", "sr/", *model,
                   *as_arguments(SLOWLY)).wait().assert_completed()
    assert_wanted(tmp_path / "sr/in_x2.h5", inputs)
    assert {path.name for path in (tmp_path / "sr").iterdir()} == {
        "a.png", "b.tif", "in_x2.h5", "in_x2.png", "swinmpi.jsonl", "swinmpi.png"}


def test_an_array_of_four_is_merged_into_the_same_bytes(cluster, inputs, tmp_path):
    cluster.submit(tmp_path, "--ntasks=1", "--array=1-4", ARRAY,
                   *sampling(inputs)).wait().assert_completed()
    assert_wanted(tmp_path / "out.h5", inputs)
    assert {path.name for path in tmp_path.iterdir()} == {"out.h5", "out.png", "job.log"}
    again = cluster.submit(tmp_path, "--ntasks=1", "--array=1,3", ARRAY,
                           *sampling(inputs, "other.h5")).wait()
    assert (set(again.fields("ExitCode")) == {"2:0"}
            and "task numbers that follow each other" in again.said)
    again = cluster.submit(tmp_path, "--ntasks=1", "--array=1-1", ARRAY, *sampling(inputs)).wait()
    assert set(again.fields("ExitCode")) == {"2:0"} and "exists already" in again.said


def test_an_experiment_is_a_job_or_an_array_whose_last_task_reports(cluster, tmp_path):
    cluster.submit(tmp_path, "--ntasks=1", "--array=3-4", EXPERIMENT, "pictures",
                   "--output", "drawn").wait().assert_completed()
    assert (tmp_path / "drawn/report.md").stat().st_size
    results = sorted((tmp_path / "drawn/arms").rglob("result.json"))
    assert len(results) == 4
    made = [path.stat().st_mtime_ns for path in results]
    job = cluster.submit(tmp_path, *TWO_NODES, EXPERIMENT, "pictures", "--output", "drawn").wait()
    job.assert_completed()
    assert [path.stat().st_mtime_ns for path in results] == made
    again = cluster.submit(tmp_path, EXPERIMENT, "no_such", "--output", "none").wait()
    assert set(again.fields("ExitCode")) == {"2:0"} and not (tmp_path / "none").exists()


def test_a_list_is_dealt_out_over_an_array(cluster, inputs, tmp_path):
    for number in range(3):
        write_stack(tmp_path / f"stack {number}.h5", smooth_stack(1, 40, 36, seed=number))
    write_stack(tmp_path / "unusable.h5", smooth_stack(1, 40, 36)[0, 0])
    (tmp_path / "list").write_text("stack 0.h5\nunusable.h5\n\nstack 1.h5::/images\nstack 2.h5\n")
    job = cluster.submit(tmp_path, "--ntasks=1", "--array=5-6",
                         ARRAY, "--list", "list", "made of these",
                         "--checkpoint", inputs / "model.safetensors", *as_arguments(SLOWLY)).wait()
    assert (sorted(zip(job.fields("ArrayTaskId"), job.fields("ExitCode"), strict=True))
            == [("5", "0:0"), ("6", "2:0")])
    assert "unusable.h5: ended with code 2" in job.said
    for number in range(3):
        assert sr_of(tmp_path / f"made of these/stack {number}_sr.h5").shape == (1, 80, 72)


def test_what_is_stopped_requeues_itself_until_it_is_finished(cluster, inputs, tmp_path):
    """A job, and at the same time an array, of which only the stopped task may be requeued: the one
    with the array's number."""
    job = cluster.submit(tmp_path, *TWO_NODES, SAMPLE, *sampling(inputs))
    (tmp_path / "array").mkdir()
    array = cluster.submit(tmp_path / "array", "--ntasks=1", "--array=1-2", ARRAY,
                           *sampling(inputs))
    array.until(lambda: "shard 2 of 2: " in array.said)
    assert array.fields("JobId")[array.fields("ArrayTaskId").index("2")] == str(array.number)
    cluster.run("scancel", "--batch", "--signal=USR2", f"{array.number}_2")
    already = 0
    for restart in range(2):
        job.until_running(restart, lambda before=already: num_done(tmp_path / "out.h5") > before)
        job.signal()
        job.until(lambda wanted=restart + 1: job.said.count("back into the queue") == wanted)
        already = num_done(tmp_path / "out.h5")
    for stopped in (job, array):
        stopped.wait().assert_completed()
        assert_wanted(stopped.log.with_name("out.h5"), inputs)
    assert job.fields("Restarts") == ["2"] and job.said.count("back into the queue") == 2, job.said
    assert dict(zip(array.fields("ArrayTaskId"), array.fields("Restarts"),
                    strict=True)) == {"1": "0", "2": "1"}, array.said


def test_training_on_two_nodes_is_requeued_and_goes_on(cluster, tmp_path):
    pairs = write_pairs(tmp_path / "pairs.h5")
    overrides = ["train.updates=40", "train.checkpoint_every=4", "train.validate_every=40"]

    def submit(folder):
        folder.mkdir()
        return cluster.submit(folder, *TWO_NODES, TRAIN,
                              *as_arguments(settings(pairs, folder / "run", *overrides)))

    stopped, undisturbed = submit(tmp_path / "stopped"), submit(tmp_path / "undisturbed")
    stopped.until_running(0, lambda: len(log_of(stopped.log.parent / "run")) >= 10)
    stopped.signal()
    for job in (stopped, undisturbed):
        job.wait().assert_completed()
    assert (stopped.fields("Restarts") == ["1"]
            and undisturbed.fields("Restarts") == ["0"]), stopped.said
    mine, wanted = (job.log.parent / "run" for job in (stopped, undisturbed))
    assert log_of(mine) == log_of(wanted)
    mine, wanted = (load_weights(CheckpointFolder(run, 1).latest() / "weights.safetensors")[0]
                    for run in (mine, wanted))
    assert all(torch.equal(mine[name], wanted[name]) for name in mine | wanted)


def test_a_cancelled_job_saves_and_stays_out_of_the_queue(cluster, inputs, tmp_path):
    job = cluster.submit(tmp_path, *TWO_NODES, SAMPLE, *sampling(inputs))
    job.until_running(0, lambda: num_done(tmp_path / "out.h5") >= 1)
    cluster.run("scancel", job.number)
    job.wait()
    assert job.fields("JobState") == ["CANCELLED"] and job.fields("Restarts") == ["0"], job.said
    assert "is asked to stop" in job.said and 0 < num_done(tmp_path / "out.h5") < NUM_IMAGES


@pytest.mark.parametrize("launcher", ["auto", pytest.param("srun --mpi=pmi2", marks=long_form)])
def test_a_lost_node_costs_nothing_but_time(cluster, inputs, tmp_path, launcher):
    job = cluster.submit(tmp_path, *TWO_NODES, SAMPLE, *sampling(inputs), SWINMPI_LAUNCHER=launcher)
    job.until_running(0, lambda: num_done(tmp_path / "out.h5") >= 1)
    lost = job.nodes()[-1]
    cluster.lose(lost)
    job.wait().assert_completed()
    assert job.fields("Restarts") != ["0"] and lost not in job.nodes(), job.said
    assert_wanted(tmp_path / "out.h5", inputs)
    cluster.bring_back(lost)


@long_form
def test_the_real_time_limit(cluster, inputs, tmp_path):
    stack = write_stack(tmp_path / "many.h5", smooth_stack(60, 60, 60))
    checkpoint = inputs / "model.safetensors"
    job = cluster.submit(tmp_path, *TWO_NODES, "--time=2", "--signal=B:USR2@60", SAMPLE,
                         stack, "out.h5", "--checkpoint", checkpoint, *as_arguments(SLOWLY),
                         "--ensemble", "20").wait(patience_s=3600)
    job.assert_completed()
    assert job.fields("Restarts") != ["0"], job.said
    assert main(arguments(stack, tmp_path / "alone.h5", checkpoint, *SLOWLY)) == 0
    assert sr_of(tmp_path / "out.h5").tobytes() == sr_of(tmp_path / "alone.h5").tobytes()
