"""The job scripts' own functions in a bash without Slurm: quoting, signals, binding, judging by
files; container, module."""
import importlib
import os
import re
import runpy
import shlex
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from swinmpi.parallel.shares import Shard
from swinmpi.sampling.request import shard_path
from tests.support.sampling import smooth_stack, write_stack
from tests.support.training import as_arguments

ROOT = Path(__file__).parents[2]
JOBS, DEFINITION, MODULE = (ROOT / "jobs", ROOT / "containers" / "swinmpi.def",
                            ROOT / "containers" / "modulefile")
FINISHED = runpy.run_path(str(JOBS / "finished.py"))
SCRIPTS = sorted(JOBS.glob("*.slurm"))
SHELL = [*SCRIPTS, *JOBS.glob("*.sh"), *(ROOT / "tests" / "slurm").glob("*.sh"),
         ROOT / ".ci" / "run"]
AWKWARD = ["it's", 'a "word"', "two  spaces", "$HOME", "`id`", "*", "a\\b", "", "new\nline",
           "--set", "a.b=[1, 2]"]
# A rank that saves when it is told to, as swinmpi does; prints when it is ready.
RANK = """import signal, sys
signal.signal(signal.Signals["SIG" + sys.argv[1]], lambda *_: sys.exit(75))
print("ready", flush=True)
signal.pause()"""


def in_site(script: str, *arguments: str, **environ: str) -> subprocess.CompletedProcess:
    """Run `script` where a job script has sourced site.sh; `$@` are the arguments."""
    return subprocess.run(bash(script, *arguments), env=outside_slurm(environ), capture_output=True,
                          text=True, timeout=60)


def bash(script: str, *arguments: str) -> list[str]:
    return ["bash", "-c", f'jobs=$0; . "$jobs/site.sh"\n{script}', str(JOBS), *arguments]


def outside_slurm(environ: dict[str, str]) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items()
             if not name.startswith(("SLURM_", "SWINMPI_", "OMPI_", "MPI_"))}
    return (clean | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
            | environ)


@pytest.mark.parametrize("script", SHELL, ids=lambda path: str(path.relative_to(ROOT)))
def test_bash_understands_it(script):
    checked = subprocess.run(["bash", "-n", script], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_every_job_script_finds_its_site_in_the_same_way():
    places = set()
    for script in SCRIPTS:
        start = script.read_text().partition("# Slurm runs a copy of this file")[2].partition(
            "\n\n")[0]
        places.add(start.replace(f"/{script.name}*", "/NAME*"))
    assert len(places) == 1 and "/NAME*" in places.pop() and len(SCRIPTS) == 6


@pytest.mark.parametrize("words, two", [
    (["in.h5", "out.h5", "--set", *AWKWARD], True), (["in.h5", "out.h5"], True), (["in.h5"], False),
    ([], False), (["in.h5", "--output", "out.h5"], False), (AWKWARD[:2], True),
    (["a.h5", "b.h5", "c.h5"], False), (["a.png", "b.tif", "--output", "sr/"], False),
    (["a.png", "b.tif", "--output=sr"], False)])
def test_arguments_arrive_as_they_were(words, two):
    told = in_site('take_output "$@"; printf "%s\\0" "${arguments[@]}"',
                   *words).stdout.split("\0")[:-1]
    assert told == ([words[0], "--output", *words[1:]] if two else words or [""])


@pytest.mark.parametrize(("words", "there"), [(["a", "--list"], 0), (["--list=x"], 0),
                                              (["--lists", "-list"], 1), ([], 1)])
def test_has(words, there):
    assert in_site('has --list "$@"', *words).returncode == there


@pytest.mark.parametrize("name", ["out.h5", "a.b/c d.nxs", "folder.x/out", ".h5", "it's.tar.h5"])
def test_an_array_knows_the_names_of_shards(name):
    function = re.search(r"^part_name\(\) \{.*?^\}", (JOBS / "sample_array.slurm").read_text(),
                         re.M | re.S).group()
    told = in_site(f'{function}\ntasks=7; part_name "$1" 3', name).stdout
    assert told == f"{shard_path(Path(name), Shard(3, 7))}\n"


@pytest.mark.parametrize("code", [0, 1, 2, 3, 75, 137])
def test_exit_codes_pass_through(code):
    assert in_site(f"run_until_over bash -c 'exit {code}'").returncode == code


@pytest.mark.parametrize(("sent", "passed_on"),
                         [("USR2", "USR2"), ("USR2", "TERM"), ("TERM", "TERM")])
def test_a_stop_is_passed_on_and_waited_for(sent, passed_on):
    script = (f'start_job; stop_signal={passed_on}; run_until_over python3 -c "$1" $stop_signal; '
              'echo "$? $cancelled"')
    with subprocess.Popen(bash(script, RANK), env=outside_slurm({}), stdout=subprocess.PIPE,
                          text=True) as process:
        assert process.stdout.readline() == "ready\n"
        subprocess.run(["kill", "-s", sent, str(process.pid)], check=True)
        told, _ = process.communicate(timeout=60)
    assert told == f"75 {'yes' if sent == 'TERM' else ''}\n"


def test_a_stop_that_comes_first_starts_nothing():
    assert in_site('start_job; kill -s USR2 $$; run_until_over echo started').stdout == ""


def test_a_stop_before_the_ranks_are_ready_for_it_loses_nothing():
    assert in_site('start_job; (sleep 0.2; kill -s USR2 $$) '
                   '& run_until_over sleep 60').returncode == 75


@pytest.mark.parametrize(("code", "after", "is_finished", "restarts", "seconds", "wanted"), [
    (0, 4, True, 0, 1, 0), (137, 4, True, 0, 1, 0), (3, 4, True, 0, 1, 3), (75, 4, True, 0, 1, 0),
    (0, 3, False, 0, 1, 75), (137, 3, False, 0, 1, 75), (0, 2, False, 0, 1, 1),
    (137, 2, False, 0, 1, 137), (1, 3, False, 0, 1, 1), (2, 2, False, 0, 1, 2),
    (75, 3, False, 5, 3600, 75), (75, 2, False, 0, 3600, 75), (75, 2, False, 5, 60, 75),
    (75, 2, False, 5, 3600, 1),
])
def test_files_and_progress_decide_what_becomes_of_a_run(code, after, is_finished, restarts,
                                                         seconds, wanted):
    """Two images were done before it."""
    script = f"""inside=()
        find_launcher() {{ launcher=(a launcher); }}
        run_until_over() {{ ran=yes; return {code}; }}
        finished() {{
            if [ -z "$ran" ]; then echo 2; return 1; fi
            echo {after}; return {int(not is_finished)}
        }}
        SECONDS={seconds}; compute sample"""
    assert in_site(script, SLURM_RESTART_COUNT=str(restarts)).returncode == wanted


def test_what_cannot_go_on_is_not_requeued():
    ended = in_site("start_job; run_until_over() { return 75; }; compute_alone merge")
    assert ended.returncode == 1 and "give it a longer --time" in ended.stderr


@pytest.mark.parametrize(("environ", "told"), [
    ({}, "goes back into the queue (restart 1)\n"),
    ({"SLURM_RESTART_COUNT": "7", "SWINMPI_MAX_RESTARTS": "7"},
     "ends unfinished after 7 restarts; the same sbatch command "),
])
def test_what_is_to_be_requeued(environ, told):
    ended = in_site("scontrol() { false; }; end_job 75", **environ)
    assert ended.returncode == 75 and told in ended.stderr


def test_the_launcher_beside_python_is_found():
    told = in_site('start_job; find_launcher; echo "$stop_signal ${launcher[*]}"', SLURM_NTASKS="6",
                   SWINMPI_BIND="no").stdout
    assert told == "TERM mpirun -n 6\n"


def test_an_environment_without_swinmpi_is_told():
    told = in_site("start_job", SWINMPI_VENV="/nowhere")
    assert (told.returncode == 2
            and "SWINMPI_VENV: expected a virtual environment, got /nowhere" in told.stderr)


def bound(rank: int | None, **environ: str) -> set[int]:
    """The CPUs that bind.sh gives to the rank of this number on its node."""
    own = {} if rank is None else {"MPI_LOCALRANKID": str(rank)}
    command = [JOBS / "bind.sh", sys.executable, "-c", "import os; print(*os.sched_getaffinity(0))"]
    return set(map(int, subprocess.run(command, env=outside_slurm(own | environ),
                                       capture_output=True, text=True, check=True).stdout.split()))


def test_ranks_get_cores_of_their_own():
    all_cpus = os.sched_getaffinity(0)
    confined = {"SLURM_CPUS_ON_NODE": str(len(all_cpus)), "OMP_NUM_THREADS": "1"}
    shares = [bound(rank, **confined) for rank in range(len(all_cpus))]
    assert set().union(*shares) == all_cpus and {len(share) for share in shares} == {1}
    assert bound(0, **confined | {"OMP_NUM_THREADS": str(len(all_cpus))}) == all_cpus


def test_ranks_are_left_alone_where_others_may_be():
    num_cpus = len(os.sched_getaffinity(0))
    for rank, on_node in ((num_cpus, num_cpus), (0, num_cpus + 1), (None, num_cpus), (0, "")):
        assert bound(rank, SLURM_CPUS_ON_NODE=str(on_node),
                     OMP_NUM_THREADS="1") == os.sched_getaffinity(0)


def judged(*arguments, job: str = "7", array: str = "7") -> tuple[int, str, str]:
    """Exit code, stdout and stderr that finished.py has, asked in this process."""
    command, *rest = map(str, arguments)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_JOB_ID", job)
        patch.setenv("SLURM_ARRAY_JOB_ID", array)
        count, told = FINISHED["main"](command, rest)
    return int(told is not None), str(count), told or ""


def test_the_program_that_judges_tells_by_its_exit_code(tmp_path):
    output = tmp_path / "out.h5"
    for done in ("not there, or not the output of a job", ""):
        ended = subprocess.run(
            [sys.executable, JOBS / "finished.py", "sample", "in.h5", "--output", output],
            capture_output=True, text=True, env=outside_slurm({"SLURM_JOB_ID": "7"}))
        told = f"{output}: {done}\n" if done else ""
        assert ((ended.returncode, ended.stdout, ended.stderr)
                == (int(bool(done)), "0\n" if done else "1\n", told))
        write_output(output, [1])


def write_output(path: Path, done: list[int], job: str = "7") -> None:
    with h5py.File(path, "w") as file:
        file["entry/per_image/done"] = np.array(done, np.uint8)
        file["entry/process/job_id"] = job


def test_an_array_knows_what_it_put_together(tmp_path):
    output = tmp_path / "out.h5"
    not_ours = (1, "0", f"{output}: not put together by this array")
    assert judged("merged", output) == not_ours
    write_output(output, [1, 1])
    assert judged("merged", output) == not_ours
    with h5py.File(output, "a") as file:
        file["entry/process/merge/array_job_id"] = "6"
    assert judged("merged", output, array="7") == not_ours
    assert judged("merged", output, array="6") == (0, "2", "")


def test_sampling_is_judged_by_its_file(tmp_path):
    output = tmp_path / "out.h5"
    command = ("sample", "in.h5", "--output", output)
    assert judged(*command) == (1, "0", f"{output}: not there, or not the output of a job")
    write_output(tmp_path / "out.h5.partial", [1, 1, 0])
    assert judged(*command) == (1, "2", f"{output}.partial: still there")
    write_output(output, [1, 1, 1], job="6")
    assert judged(*command) == (1, "2", f"{output}.partial: still there")
    assert judged(*command, job="6") == (0, "3", ""), "killed before OUT.partial was removed"
    (tmp_path / "out.h5.partial").unlink()
    assert judged(*command) == (1, "0", f"{output}: made by job 6, not by this one")
    assert judged(*command, job="6") == (0, "3", "")
    write_output(tmp_path / "out.shard-2-of-4.h5", [1])
    assert judged(*command, "--shard", "2/4") == (0, "1", "")
    write_output(tmp_path / "in_x2.h5", [1])
    assert judged("sample", "in.h5", "--output", tmp_path / "in_x2.h5")[0] == 0
    assert judged(*command, "--dry-run", job="8")[0] == 0


def test_a_folder_is_judged_by_its_journal_and_its_files(tmp_path):
    for name in ("in/deep/s.h5", "in/half.h5", "out/deep/s_x2.h5"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    write_stack(tmp_path / "in/deep/s.h5", smooth_stack(2, 8, 8))
    (tmp_path / "in/half.h5").write_bytes(b"half")
    command = ("sample", tmp_path / "in", "--output", tmp_path / "out")
    assert judged(*command) == (1, "0", f"{tmp_path}/out/deep/s_x2.h5: is not there")
    write_output(tmp_path / "out/deep/s_x2.h5.partial", [1, 0])
    assert judged(*command)[:2] == (1, "1")
    (tmp_path / "out/deep/s_x2.h5.partial").unlink()
    write_output(tmp_path / "out/deep/s_x2.h5", [1, 1])
    assert judged(*command) == (0, "2", ""), "one that cannot be read is none"
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "in/a.png")
    assert judged(*command) == (1, "2", f"{tmp_path}/out: not all pictures are there")
    (tmp_path / "out/swinmpi.jsonl").write_text('{"format": 1, "settings": {}}\n{"over": true}\n')
    assert judged(*command) == (0, "2", "")


def test_evaluation_is_judged_by_its_report(tmp_path):
    command = ("evaluate", "--checkpoint", "c", "--lr", "l", "--reference", "r",
               "--output", tmp_path)
    write_output(tmp_path / "sr.h5", [1])
    assert judged(*command) == (1, "1", f"{tmp_path}/evaluate.json: not written")
    (tmp_path / "evaluate.json").touch()
    assert judged(*command) == (0, "1", "")
    os.utime(tmp_path / "evaluate.json", (0, time.time() - 60))
    assert judged(*command)[0] == 1


def test_training_is_judged_by_its_newest_state(tmp_path):
    settings = ["train.data=p.h5", "train.updates=40", f"train.output={tmp_path}"]
    command = ("train", "--resume", *as_arguments(settings))
    assert judged(*command) == (1, "0", f"{tmp_path}: 0 of 40 updates")
    for update in (20, 40):
        (tmp_path / f"update-{update:08d}").mkdir()
    (tmp_path / ".filling-00000060").mkdir()
    assert judged(*command) == (0, "40", "")


def test_an_experiment_is_judged_by_the_results_of_its_arms(tmp_path):
    command = ("experiment", "shift_pattern", "--output", tmp_path)
    assert judged(*command) == (1, "0", f"{tmp_path}: 3 of 3 arms are not done")
    (tmp_path / "trainings" / "none-seed0" / "update-00000002").mkdir(parents=True)
    for arm in ("none", "random"):
        (tmp_path / "arms" / f"{arm}-seed0").mkdir(parents=True)
        (tmp_path / "arms" / f"{arm}-seed0" / "result.json").touch()
    assert judged(*command) == (1, "4", f"{tmp_path}: 1 of 3 arms are not done")
    assert judged(*command, "--arm", "1/3") == (0, "3", "")
    assert judged(*command, "--arm", "3/3")[0] == 1


def section(name: str) -> list[str]:
    return re.search(rf"^%{name}\n(.*?)(?=^%|\Z)", DEFINITION.read_text(),
                     re.M | re.S).group(1).splitlines()


def test_the_container_is_made_of_what_exists():
    for line in section("files"):
        if line.strip():
            source, target = line.split()
            assert (ROOT / source).exists() and target.startswith("/opt/swinmpi-source/"), line
    extras = re.search(r"swinmpi-source\[(.+?)\]", "\n".join(section("post"))).group(1).split(",")
    setup = (ROOT / "setup.py").read_text()
    assert all(f'"{extra}": [' in setup for extra in extras)


def test_the_commands_of_container_and_module_exist():
    lines = [*section("test"), *section("runscript"), *section("help"),
             *MODULE.read_text().splitlines()]
    called = [shlex.split(line.partition(": ")[2] or line) for line in lines
              if re.search(r"(^|\s)swinmpi-\w+ ?", line)]
    for words in called:
        name = next((word for word in words if re.fullmatch(r"swinmpi-\w+", word)), None)
        if name and "$@" not in words and "--version" not in words and "\"" not in "".join(words):
            parser = importlib.import_module(
                f"swinmpi.cli.{name.removeprefix('swinmpi-')}").parser()
            rest = words[words.index(name) + 1:]
            parser.parse_args(rest if rest[:1] != ["super-resolves"] else [])
    assert len(called) >= 4


def test_the_module_sets_what_the_job_scripts_read():
    names = set(re.findall(r"^setenv (\w+)", MODULE.read_text(), re.M))
    text = "".join(path.read_text() for path in [*SCRIPTS, JOBS / "site.sh"])
    assert names and all(f"${{{name}-" in text for name in names)
