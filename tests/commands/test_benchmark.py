"""swinmpi-benchmark: it measures what it says it measures, in one run, and prints all of it."""
import json

import pytest
import torch

from swinmpi.benchmarks.benchmark import as_text, run
from swinmpi.benchmarks.candidates import thesis_candidates
from swinmpi.benchmarks.comparison import timed
from swinmpi.benchmarks.program import smooth_images
from swinmpi.cli.benchmark import main, parser, plan_of, ready
from swinmpi.errors import OutputError
from swinmpi.models.blocks import SelfAttention
from swinmpi.parallel.comm import Group, World

pytestmark = pytest.mark.slow

SMALL = ["model.unet_channels=[16,16,16,16]", "model.bottleneck_channels=16",
         "model.rrdb_blocks=1", "model.rrdb_channels=8", "model.rrdb_growth=8"]
THESIS = ["thesis", *(word for setting in SMALL for word in ("--set", setting))]
SAMPLE = ["sample", "--size", "64", "--images", "3", "--repeats", "2"]


def planned(*words):
    return plan_of(parser().parse_args(words))


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def thesis_report():
    return run(planned(*THESIS, "--steps", "6", "--repeats", "2"), World())


def test_fast_and_plain_give_the_same_images(thesis_report):
    assert [one["name"] for one in thesis_report["settings"]] == ["fast", "plain"]
    difference = thesis_report["largest_difference"]
    assert len(difference["steps"]) == 6
    assert max(difference["images"], difference["any_step"]) < 1e-4
    assert difference["first_step"] <= difference["any_step"]


def test_every_repeat_is_kept(thesis_report):
    for one in thesis_report["settings"]:
        assert len(one["repeats"]) == 2
        steps = [len(repeat["step_ms"]) for repeat in one["repeats"]]
        assert steps == [5, 5], "every step but the first"
        seconds = sorted(repeat["seconds"] for repeat in one["repeats"])
        assert [one["seconds_per_image"][key] for key in ("min", "max")] == seconds
        assert sum(one["share"].values()) == pytest.approx(1)
    ratio = thesis_report["plain_over_fast"]["seconds"]
    assert ratio["min"] <= ratio["median"] <= ratio["max"]


def test_the_report_is_json_and_its_text_names_what_counts(thesis_report):
    assert json.loads(json.dumps(thesis_report)) == thesis_report
    text = as_text(thesis_report)
    for words in ("1 ranks x 1 threads", "plain / fast: ", "largest difference: ",
                  "peak memory by rank, MiB: ", "encoder"):
        assert words in text
    assert {"cpu", "cores", "torch", "mpi", "load"} <= set(thesis_report["machine"])


def test_the_two_settings_differ_in_nothing_but_their_switches():
    fast, plain = thesis_candidates(planned(*THESIS).config, "cpu", Group())
    fast_model, plain_model = (one.resolver.family.model for one in (fast, plain))
    for one, model, on in ((fast, fast_model, True), (plain, plain_model, False)):
        computing, parallel = one.resolver.computing, one.config.parallel
        switches = (computing.encoder_cache, parallel.fused_attention, parallel.channels_last)
        assert switches == (on, on, on)
        assert (computing.precision, computing.micro_batch) == ("fp32", "auto")
        attentions = [part for part in model.modules() if isinstance(part, SelfAttention)]
        assert {part.fused for part in attentions} == {on}
        memory_format = torch.channels_last if on else torch.contiguous_format
        assert model.encoder.project.first.weight.is_contiguous(memory_format=memory_format)
    weights = plain_model.state_dict()
    assert all(torch.equal(value, weights[name]) and value.any()
               for name, value in fast_model.state_dict().items())


def test_the_cache_runs_the_encoder_once_per_shift_and_without_it_in_every_step():
    plan = planned(*THESIS, "--steps", "6")
    images = smooth_images(plan.config.model, plan.request.size_px, plan.request.num_images)
    candidates = thesis_candidates(plan.config, "cpu", Group())
    for one, calls in zip(candidates, (16, 24), strict=True):
        seen = []
        encoder = one.resolver.family.model.encoder
        encoder.register_forward_hook(lambda *_, seen=seen: seen.append(1))
        timed(one, images, 1)
        assert len(seen) == calls, one.name


def test_sample_compares_micro_batches_and_precisions():
    report = run(planned(*SAMPLE, "--steps", "2", "--micro-batches", "1,4", "--precisions",
                         "fp32,bf16"), World())
    names = ["fp32, micro-batch 1", "fp32, micro-batch 4", "bf16, micro-batch 1",
             "bf16, micro-batch 4"]
    assert [one["name"] for one in report["settings"]] == names
    same, other_batch, *other_precision = (one["largest_difference"] for one in report["settings"])
    assert same == 0 and other_batch < 1e-4 < min(other_precision), "each samples as it says"
    assert "plain_over_fast" not in report and all(name in as_text(report) for name in names)


def test_sample_takes_the_balanced_preset_and_the_run_of_swinmpi_sample():
    config = planned(*SAMPLE).config
    sampler = config.sampler
    assert (config.model.family, sampler.method, sampler.steps) == ("aligned", "ddim", 10)


def test_on_two_ranks_and_into_a_file(mpirun, tmp_path):
    folder = tmp_path / "new" / "folder"
    finished = mpirun(2, "-m", "swinmpi.cli.benchmark", *SAMPLE, "--steps", "1", "--output", folder)
    assert finished.code == 0, finished.err
    report = json.loads((folder / "benchmark.json").read_text())
    assert report["machine"]["ranks"] == len(report["peak_memory_mib_of_rank"]) == 2
    assert report["settings"][0]["repeats"][0]["exchange"] > 0
    assert report["settings"][0]["step_ms"] is None, "a single step has none before it"
    assert finished.out.count("images/s") == 1


def test_a_dry_run_says_what_would_be_measured(capsys):
    assert main(["thesis", "--dry-run"]) == 0
    assert capsys.readouterr().out == ("thesis: 2 settings x 3 repeats x 1 images of 64 px, "
                                       "4 windows of 32 px, 100 steps (ddpm)\n")
    words = ["--micro-batches", "1,2,4,8", "--precisions", "fp32,bf16"]
    assert main(["sample", "--dry-run", *words]) == 0
    said = capsys.readouterr().out
    assert said.startswith("sample: 8 settings x 3 repeats x 8 images of 128 px, ")


@pytest.mark.parametrize("words, line", [
    (["sample", "--images", "0"], "--images: expected at least 1, got 0"),
    (["sample", "--micro-batches", "4,0"], "--micro-batches: expected at least 1, got 0"),
    (["sample", "--size", "65"], "--size: expected a multiple of the scale 2, got 65"),
    (["sample", "--set", "parallel.ranks_per_image=1"], "parallel.ranks_per_image: expected all"),
    (["sample", "--set", "parallel.ranks=1"], "unknown key parallel.ranks"),
    (["sample", "--checkpoint", "none.safetensors"], "none.safetensors"),
    (["thesis", "--steps", "101"], "--steps: expected at most diffusion.steps = 100, got 101"),
    (["thesis", "--set", "model.family=aligned"], "model.family: expected thesis"),
    (["thesis", "--precisions", "bf16"],
     "--micro-batches, --precisions: expected with `sample` only"),
    (["thesis", "--set", "parallel.exchange=torus"], "parallel.exchange: expected root, `scaling`"),
])
def test_what_cannot_be_measured_is_said_in_one_line(words, line, capsys):
    assert main([*words, "--dry-run"]) == 2
    err = capsys.readouterr().err
    assert line in err and err.count("\n") == 1


@pytest.mark.parametrize("words", [["sample", "--precisions", "fp64"],
                                   ["sample", "--micro-batches", "two"], ["speed"]])
def test_a_wrong_word_is_a_usage_error(words, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "expected" in said or "invalid choice" in said


def test_an_impossible_output_folder_is_said_before_measuring(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        ready(parser().parse_args(["thesis", "--output", str(tmp_path / "file")]))
