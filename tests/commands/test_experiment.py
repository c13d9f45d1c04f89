"""swinmpi-experiment: dry runs, stops, parts, ranks, and what it refuses."""
import json
import signal
import subprocess
import sys

import pytest

from swinmpi.cli.experiment import main
from swinmpi.experiments.data import prepared
from swinmpi.experiments.definition import load_experiment
from swinmpi.experiments.plan import Request, plan
from swinmpi.training.log import read_records
from tests.support.experiments import TINY, run_here, write_experiment

RUN = ("-m", "swinmpi.cli.experiment")


@pytest.fixture
def tiny(tmp_path):
    return write_experiment(tmp_path, TINY)


def figures_of(folder) -> list:
    report = json.loads((folder / "report.json").read_text())
    return [[one["mean"], one["standard_error"]] for arm in report["arms"]
            for one in arm["figures"].values()]


def test_a_dry_run_tells_the_cost_and_writes_nothing(tiny, tmp_path, capsys):
    assert main([str(tiny), "--output", str(tmp_path / "run"), "--dry-run"]) == 0
    said = capsys.readouterr().out
    for words in ("Two learning rates (thesis none), budget smoke", "arms    2 of 2, 2 test images",
                  "a, seed 0        6", " on 1 rank if the machine is free"):
        assert words in said, said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("words", "line"), [
    (["nothing"], "nothing: expected an experiment, one of encoder, iid_batch"),
    (["absent.yaml"], "absent.yaml: cannot read"),
    (["step_size", "--budget", "short"], "--data: expected photographs"),
    (["step_size", "--root", "there"], "--root: expected --data"),
    (["step_size", "--data", "absent"], "absent: expected a folder of images"),
    (["step_size", "--set", "train.nothing=1"], "unknown key train.nothing"),
    (["step_size", "--set", "sampler.steps=7"],
     "arm shift 0: sampler.steps: expected at most diffusion.steps = 5, got 7"),
    (["step_size", "--arm", "1/6"], "--arm: expected at most 5 parts"),
    (["step_size", "--report"], "expected every arm done, missing shift 0, seed 0, "),
    (["pictures", "--report"], "expected every arm done, missing figure 2.1, seed 0, figure 2.2"),
    (["step_size", "--lpips-backbone", "absent.pth"], "absent.pth: expected AlexNet's weights"),
])
def test_what_cannot_be_is_said_in_one_line(words, line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert line in said[-1] and said[-1].startswith("swinmpi: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("words", "line"), [
    (["step_size", "--arm", "3/2"], "expected I/N with I of 1..N, such as 2/4, got '3/2'"),
    (["step_size", "--arm", "one"], "got 'one'"),
    (["step_size", "--budget", "long"], "choose from 'smoke', 'short', 'full'"),
    ([], "the following arguments are required: NAME")])
def test_a_wrong_word_is_a_usage_error(words, line, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2 and line in capsys.readouterr().err


def test_an_output_that_cannot_be_made_is_refused(tiny, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main([str(tiny), "--output", str(tmp_path / "file" / "run")]) == 2
    assert "cannot make this folder" in capsys.readouterr().err


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run that one job made, undisturbed."""
    folder = tmp_path_factory.mktemp("whole")
    assert run_here(write_experiment(folder, TINY), "--output", folder / "run") == 0
    return folder / "run"


def test_processes_of_the_preparation_cannot_be_seen(tiny, tmp_path):
    files = []
    for cores in (1, 3):
        request = Request(str(tiny), tmp_path / str(cores), "smoke")
        made = plan(request, load_experiment(str(tiny)), 1)
        files.append(prepared(made, made.runs[0].config.data, cores).read_bytes())
    assert files[0] == files[1]


@pytest.mark.slow
def test_parts_join_and_are_what_one_job_makes(whole, tiny, tmp_path, capsys):
    def ended(*options) -> tuple[int, str, str]:
        code, said = run_here(tiny, "--output", parts, *options), capsys.readouterr()
        return code, said.out, said.err

    parts = tmp_path / "parts"
    code, out, _ = ended("--arm", "1/2")
    assert code == 0 and "arms of other jobs are not done" in out
    code, _, err = ended("--report")
    assert code == 2 and "missing b, seed 0" in err
    code, out, _ = ended("--arm", "2/2")
    assert code == 0 and "report.json" in out, "whichever is last writes the report"
    assert figures_of(parts) == figures_of(whole)
    code, out, _ = ended()
    assert code == 0 and "==" not in out, "what is done is kept"
    code, _, err = ended("--set", "train.learning_rate=0.1")
    assert code == 2 and "begun with other settings" in err


@pytest.mark.slow
def test_a_stopped_experiment_goes_on_to_the_same_figures(whole, tiny, tmp_path):
    """Stopped in the middle of a training, by the first line of its log."""
    stopped = tmp_path / "stopped"
    command = [sys.executable, *RUN, str(tiny), "--output", str(stopped), "--set",
               "parallel.threads=1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True) as process:
        assert process.stdout.readline().startswith("== a")
        process.send_signal(signal.SIGUSR2)
        _, said = process.communicate(timeout=300)
    assert process.returncode == 75, said
    assert not (stopped / "report.json").exists()
    assert run_here(tiny, "--output", stopped) == 0
    assert figures_of(stopped) == figures_of(whole)


@pytest.mark.slow
def test_ranks_share_every_arm(mpirun, tiny, tmp_path):
    finished = mpirun(2, *RUN, tiny, "--output", tmp_path / "run")
    assert finished.code == 0, finished.err
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert [arm["sampling"]["ranks"] for arm in report["arms"]] == [2, 2]
    assert finished.out.count("== a") == 1, "one rank speaks"
    odd = mpirun(3, *RUN, tiny, "--output", tmp_path / "odd")
    assert odd.code == 2 and odd.err.count("swinmpi:") == 1
    assert "expected a multiple of ranks x train.accumulate = 3 x 1" in odd.err


@pytest.mark.slow
def test_seconds_are_a_budget_too(tmp_path):
    """And arms of equal seconds; an encoder before its arm has its own share."""
    text = TINY.replace("updates: 6", "seconds: 2.0\n    pretrain: 0.5").replace(
        "- {name: a}", "- {name: a, settings: {train: {freeze_encoder: true}}, pretrain: {}}")
    path = write_experiment(tmp_path, text)
    assert run_here(path, "--output", tmp_path / "run") == 0
    first, second = json.loads((tmp_path / "run" / "report.json").read_text())["arms"]
    assert first["training"]["updates"] > 0 and second["training"]["updates"] > 0
    assert first["pretraining"]["updates"] > 0 and second["pretraining"] is None
    for log in (tmp_path / "run" / "trainings").glob("*/log.jsonl"):
        logged = [one["update"] for one in read_records(log) if "seconds" in one]
        assert len(logged) >= min(logged[-1], 100), "a curve has enough points to be one"
    for folder in (tmp_path / "run" / "trainings").glob("*.budget.json"):
        kept = json.loads(folder.read_text())
        assert kept["updates"] == max(1, round(kept["seconds"] * kept["per_second"]))
    assert list((tmp_path / "run" / "trainings").glob("*.probe*")) == []
