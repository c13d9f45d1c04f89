"""Distillation as a run: rounds, resumed at any moment to the same bits, what its students say of
themselves, and what is refused."""
import os
import subprocess
import sys
import warnings

import pytest
import torch

from swinmpi.cli.sample import main as sample
from swinmpi.cli.train import main
from swinmpi.config import load_config
from swinmpi.errors import Stopped
from swinmpi.sampling.request import SampleRequest
from swinmpi.sampling.validation import GivenSettings, resolved
from swinmpi.storage.checkpoint import CheckpointFolder, load_state, load_weights
from swinmpi.storage.header import read_header
from swinmpi.training.distilling import rounds_of
from swinmpi.training.origin import settings_beneath
from swinmpi.training.plan import plan
from swinmpi.training.rate import rate_factor
from swinmpi.training.train import Trainer
from swinmpi.training.train import run as train
from tests.support.sampling import arguments, smooth_stack, write_checkpoint, write_stack
from tests.support.training import (
    ALIGNED,
    ALONE,
    SHORT,
    THESIS,
    as_arguments,
    log_of,
    losses_of,
    write_pairs,
)

pytestmark = pytest.mark.slow

ROUNDS = ["train.target=distill", "train.student_steps=[4, 2, 1]", "train.loss=l2",
          "train.annealing=linear", "train.ema_decay=0.0", "train.ema_ramp=false"]
LASTS = ["train.updates=12", "train.warmup_updates=0", "train.checkpoint_every=2",
         "train.keep_last=100", "train.validate_every=100"]
NO_MODEL = [setting for setting in SHORT if not setting.startswith(("diffusion", "sampler"))]
NEVER = lambda: False  # noqa: E731


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("pairs") / "pairs.h5")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("teacher") / "teacher.safetensors")


def settings(pairs, teacher, folder, *overrides):
    return [*NO_MODEL, *LASTS, *ROUNDS, f"train.data={pairs}", f"train.output={folder}",
            f"train.teacher={teacher}", *overrides]


def config_of(overrides, resume=False):
    """As the command line settles it."""
    return load_config(overrides=overrides,
                       base=settings_beneath(load_config(overrides=overrides), resume))


def run(pairs, teacher, folder, *overrides, resume=False, stop_requested=NEVER):
    config = config_of(settings(pairs, teacher, folder, *overrides), resume)
    train(plan(config, 1, resume), ALONE, stop_requested)
    return log_of(folder)


@pytest.fixture(scope="module")
def undisturbed(pairs, teacher, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    run(pairs, teacher, folder)
    torch.set_num_threads(threads)
    return folder


def newest(folder):
    return CheckpointFolder(folder, 1).latest()


def assert_same_weights(path, other):
    mine, others = load_weights(path)[0], load_weights(other)[0]
    assert mine.keys() == others.keys()
    assert all(torch.equal(mine[name], others[name]) for name in mine)


def test_students_say_which_steps_they_are_for(undisturbed, teacher):
    for steps in (4, 2, 1):
        header = read_header(undisturbed / f"steps-{steps}.safetensors")
        assert (header["distilled_steps"], header["sampler"]["steps"]) == (steps, steps)
        assert (header["target"], header["teacher"]["name"]) == ("diffuser", teacher.name)
        assert header["teacher"]["steps"] == 8
    assert read_header(undisturbed / "best.safetensors")["distilled_steps"] == 1
    assert_same_weights(undisturbed / "steps-1.safetensors",
                        newest(undisturbed) / "ema.safetensors")


def test_the_encoder_stays_and_the_rest_learns(undisturbed, teacher):
    first, (last, _) = load_weights(teacher)[0], load_weights(undisturbed / "steps-1.safetensors")
    changed = {name for name in first if not torch.equal(first[name], last[name])}
    assert changed == {name for name in first if name.startswith("unet.")}


def test_every_round_begins_with_the_student_of_the_last(pairs, teacher, undisturbed):
    """Its first loss is that of weights just loaded, and its rate falls from the peak to 0."""
    rates = [record["learning_rate"] for record in log_of(undisturbed) if "loss" in record]
    assert rates == pytest.approx([1e-3, 7.5e-4, 5e-4, 2.5e-4] * 3)
    trainer = Trainer(plan(config_of(settings(pairs, teacher, undisturbed), resume=True), 1,
                           resume=True).config, ALONE, 12, undisturbed / "update-00000004")
    trainer.start_round()
    student = load_weights(undisturbed / "steps-4.safetensors")[0]
    for model in (trainer.model, trainer.teacher.model):
        assert all(torch.equal(value, student[name]) for name, value in model.state_dict().items())
    assert trainer.config.sampler.steps == 2 and not trainer.optimizer.state


def test_students_learn(pairs, teacher, tmp_path):
    run(pairs, teacher, tmp_path, "train.student_steps=[2]", "train.updates=60",
        "train.checkpoint_every=60", "train.learning_rate=3e-3")
    losses = losses_of(tmp_path)
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])


@pytest.mark.parametrize("stop_at", [2, 4, 6, 8])
def test_stopped_in_a_round_or_between_two_it_goes_on_to_the_same_bits(pairs, teacher, undisturbed,
                                                                      tmp_path, stop_at):
    asked = []

    def stop_requested():
        asked.append(True)
        return len(asked) == stop_at

    with pytest.raises(Stopped):
        run(pairs, teacher, tmp_path, stop_requested=stop_requested)
    run(pairs, teacher, tmp_path, resume=True)
    assert log_of(tmp_path) == log_of(undisturbed)
    for name in ("weights", "ema"):
        assert_same_weights(newest(tmp_path) / f"{name}.safetensors",
                            newest(undisturbed) / f"{name}.safetensors")
    assert load_state(newest(tmp_path))["best"] == load_state(newest(undisturbed))["best"]
    for steps in (4, 2, 1):
        name = f"steps-{steps}.safetensors"
        assert_same_weights(tmp_path / name, undisturbed / name)


def test_only_the_first_round_needs_the_first_teacher_again(pairs, teacher, undisturbed, tmp_path):
    own = tmp_path / "teacher.safetensors"
    own.write_bytes(teacher.read_bytes())
    asked = iter(range(100))
    with pytest.raises(Stopped):
        run(pairs, own, tmp_path / "run", stop_requested=lambda: next(asked) == 5)
    own.unlink()
    run(pairs, own, tmp_path / "run", resume=True)
    assert losses_of(tmp_path / "run") == losses_of(undisturbed)


@pytest.mark.parametrize("launcher", ["mpirun"])
def test_two_ranks_give_the_same_run_to_rounding(launcher, mpirun, pairs, teacher, undisturbed,
                                                 tmp_path):
    finished = mpirun(2, "-m", "swinmpi.cli.train", *as_arguments(
        settings(pairs, teacher, tmp_path)), timeout_s=600)
    assert (finished.code, finished.err) == (0, ""), finished
    assert f"students: {tmp_path}/steps-4.safetensors, " in finished.out
    assert losses_of(tmp_path) == pytest.approx(losses_of(undisturbed), rel=1e-2)


def test_a_straight_teacher_can_be_distilled(pairs, tmp_path):
    straight = write_checkpoint(tmp_path / "straight.safetensors", "diffusion.path=straight")
    run(pairs, straight, tmp_path / "run", "train.student_steps=[2, 1]", "train.updates=4")
    header = read_header(tmp_path / "run" / "steps-1.safetensors")
    assert (header["sampler"]["method"], header["diffusion"]["path"]) == ("euler", "straight")


def test_a_student_is_sampled_in_its_steps(undisturbed, tmp_path):
    def settled(steps, *overrides, preset=None):
        request = SampleRequest("", None, undisturbed / f"steps-{steps}.safetensors")
        return resolved(request, GivenSettings((), overrides, preset))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert settled(2).sampler.steps == 2
        for preset in ("faithful", "balanced", "detailed"):
            assert settled(4, preset=preset).sampler.steps == 4
    with pytest.warns(UserWarning, match="was distilled for 2 steps, with 5 its results"):
        assert settled(2, "sampler.steps=5").sampler.steps == 5
    with pytest.warns(UserWarning, match="was distilled for 1 step, with 2 its results"):
        settled(1, "sampler.steps=2")
    stack = write_stack(tmp_path / "lr.h5", smooth_stack(1, 16, 16, 3, "uint8"))
    words = arguments(stack, tmp_path / "sr.h5", undisturbed / "steps-1.safetensors")
    assert sample(words) == 0 and (tmp_path / "sr.h5").exists()


def test_students_of_students_go_on(pairs, undisturbed, tmp_path):
    four = undisturbed / "steps-4.safetensors"
    run(pairs, four, tmp_path / "run", "train.student_steps=[2, 1]")
    assert read_header(tmp_path / "run" / "steps-1.safetensors")["teacher"]["steps"] == 4


def told(capsys, words):
    """The one line that a command line ends with."""
    assert main(as_arguments(words)) == 2
    line, = [one for one in capsys.readouterr().err.splitlines() if one]
    return line


@pytest.mark.parametrize("overrides, expected", [
    (["train.teacher=null"], "train.teacher: expected the checkpoint to distil, got nothing"),
    (["train.teacher=gone.safetensors"], "gone.safetensors: expected a checkpoint file"),
    (["train.target=diffuser"], "train.teacher: expected none with train.target diffuser"),
    (["train.student_steps=[4, 1]"], "expected each half of the one before"),
    (["train.student_steps=[5, 2]"], "expected each half of the one before"),
    (["train.student_steps=[32, 16]"], "at most half of diffusion.steps = 50, got 32"),
    (["train.student_steps=[]"], "train.student_steps: expected"),
    (["train.updates=10"], "train.updates: expected a multiple of 3"),
    (["train.init=photos_x2"], "whose student starts as its teacher"),
    (["model.unet_channels=[16, 32]"], "expected model.unet_channels [8, 16] as in"),
    (["diffusion.schedule=linear"], "expected diffusion.schedule cosine as in"),
    (["diffusion.prediction=x_0"], "expected diffusion.prediction v as in"),
    (["sampler.method=heun"], "expected ddim, with sampler.eta 0"),
    (["sampler.eta=1"], "expected ddim, with sampler.eta 0"),
])
def test_what_cannot_be_distilled_is_told(pairs, teacher, tmp_path, capsys, overrides, expected):
    words = settings(pairs, teacher, tmp_path / "run", *overrides)
    assert expected in told(capsys, words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("model, overrides, expected", [
    (THESIS, ["sampler.method=ddim"], "expected a teacher of family aligned, got thesis"),
    (ALIGNED, ["diffusion.prediction=eps"], "expected a teacher that predicts v or x_0"),
])
def test_teachers_that_cannot_teach(pairs, tmp_path, capsys, model, overrides, expected):
    teacher = write_checkpoint(tmp_path / "teacher.safetensors", *overrides, model=model)
    assert expected in told(capsys, settings(pairs, teacher, tmp_path / "run"))


def test_an_encoder_alone_teaches_nobody(pairs, tmp_path, capsys):
    teacher = write_checkpoint(tmp_path / "teacher.safetensors", target="encoder")
    assert "got an encoder trained alone" in told(capsys,
                                                  settings(pairs, teacher, tmp_path / "run"))


def test_a_student_is_not_asked_for_more_than_it_was_taught(pairs, undisturbed, tmp_path, capsys):
    words = settings(pairs, undisturbed / "steps-2.safetensors", tmp_path / "run")
    assert "expected 1 first, since" in told(capsys, words)


def test_other_rounds_or_another_teacher_are_no_resume(pairs, teacher, tmp_path, capsys):
    asked = iter(range(100))
    with pytest.raises(Stopped):
        run(pairs, teacher, tmp_path / "run", stop_requested=lambda: next(asked) == 1)
    other = write_checkpoint(tmp_path / "other.safetensors", "sampler.steps=4")
    for overrides, expected in ((["train.updates=24"], "was distilled with train.updates 12"),
                                ([f"train.teacher={other}"], "got another file"),
                                (["train.student_steps=[8, 4, 2]"], "train.student_steps [4, 2, 1]")
                                ):
        words = as_arguments(settings(pairs, teacher, tmp_path / "run", *overrides))
        assert main([*words, "--resume"]) == 2
        assert expected in capsys.readouterr().err


def test_rounds_share_out_updates():
    config = load_config(overrides=["train.target=distill", "train.updates=12",
                                    "train.student_steps=[4, 2, 1]"])
    rounds = rounds_of(config)
    assert [update for update in range(13) if rounds.begins_at(update)] == [0, 4, 8]
    assert [update for update in range(13) if rounds.ends_at(update)] == [4, 8, 12]
    assert [rounds.number(update) for update in (0, 1, 4, 5, 8, 9, 12)] == [0, 0, 0, 1, 1, 2, 2]
    other = rounds_of(load_config(overrides=["train.updates=12"]))
    assert not any(other.begins_at(update) for update in range(13))
    assert [update for update in range(13) if other.ends_at(update)] == [12]
    halves = load_config(overrides=["train.annealing=linear", "train.warmup_updates=0"]).train
    assert [rate_factor(halves, update, 0, 4) for update in range(4)] == [1, 0.75, 0.5, 0.25]


def test_a_dry_run_tells_the_rounds(pairs, teacher, tmp_path):
    words = as_arguments(settings(pairs, teacher, tmp_path / "run"))
    done = subprocess.run([sys.executable, "-m", "swinmpi.cli.train", *words, "--dry-run"],
                          capture_output=True, text=True, check=False, env=os.environ)
    assert (done.returncode, done.stderr) == (0, "")
    assert "rounds  8 -> 4 -> 2 -> 1 steps, 4 updates each" in done.stdout
    assert not (tmp_path / "run").exists()
