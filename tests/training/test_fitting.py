"""What training takes from its pairs, what it says where settings contradict them, and dry runs."""
import numpy as np
import pytest

from swinmpi.cli.train import main
from swinmpi.config import Config, load_config
from swinmpi.sampling.settings import is_only_shrunk
from swinmpi.storage.checkpoint import load_weights
from swinmpi.storage.pair_writing import PairWriter
from swinmpi.storage.pairs import TRAIN, VALIDATE, PairReader
from swinmpi.training.estimate import cost_of
from swinmpi.training.fitting import fitted
from tests.support.training import ALIGNED, SHORT, THESIS, as_arguments, write_pairs

NO_CROP = [text for text in SHORT if not text.startswith("train.crop_px")]


@pytest.fixture(scope="module")
def grey(tmp_path_factory):
    """Grey pairs of scale 3 and 48 px."""
    return write_pairs(tmp_path_factory.mktemp("pairs") / "grey.h5", 3, 1, 48)


def train(pairs, folder, *overrides, model=ALIGNED, options=()):
    return main([*as_arguments([*model, *NO_CROP, f"train.data={pairs}", f"train.output={folder}",
                                *overrides]), *options])


def test_scale_channels_and_crop_come_from_the_pairs(grey, tmp_path, capsys):
    assert train(grey, tmp_path / "run", options=["--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "48 px, scale 3, grey" in told and "crops of 48 px" in told
    assert train(grey, tmp_path / "run", "train.updates=1") == 0
    _, header = load_weights(tmp_path / "run" / "update-00000001" / "weights.safetensors")
    assert (header["model"]["scale"], header["model"]["channels"]) == (3, 1)
    assert header["train"]["crop_px"] == 48


@pytest.mark.parametrize(("size_px", "overrides", "crop_px"), [
    (192, [], 96), (96, [], 96), (64, [], 64), (192, ["train.crop_px=128"], 128),
    (80, ["sampler.shift.border=wrap", "model.window_px=32"], 64),
    (90, ["model.scale=4"], 88)])
def test_the_crop_is_the_default_one_or_what_there_is_room_for(tmp_path, size_px, overrides,
                                                               crop_px):
    pairs = write_pairs(tmp_path / "pairs.h5", 2, 3, size_px, num_train=1)
    with PairReader(pairs) as reader:
        settled = fitted(load_config(overrides=overrides), reader)
    assert settled.train.crop_px == crop_px


@pytest.mark.parametrize("options", [[], ["--dry-run"]], ids=["run", "dry-run"])
def test_all_that_does_not_fit_is_told_in_one_line(grey, tmp_path, capsys, options):
    assert train(grey, tmp_path / "run", "model.scale=2", "model.channels=3", "train.crop_px=65",
                 "train.accumulate=3", options=options) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    for part in ("scale 2 (model.scale), got 3", "3 channels (model.channels), got 1",
                 "at most the stored 48 px, got 65", "train.batch_images: expected a multiple"):
        assert part in said.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("size_px", "overrides", "part"), [
    (32, ["model.window_px=48"], "at least a window of 48 px (model.window_px), got 32"),
    (48, ["train.crop_px=96"], "at most the stored 48 px, got 96"),
    (48, ["train.crop_px=33"], "multiple of 2, at most the stored 48 px, got 33"),
    (48, ["sampler.shift.border=wrap", "train.crop_px=24"], "whole windows of 16 px"),
])
def test_crops_that_do_not_fit_are_refused_by_a_dry_run(tmp_path, capsys, size_px, overrides, part):
    pairs = write_pairs(tmp_path / "pairs.h5", 2, 3, size_px, num_train=2)
    assert train(pairs, tmp_path / "run", *overrides, options=["--dry-run"]) == 2
    assert part in capsys.readouterr().err


def test_pairs_of_another_scale_than_any_network(tmp_path, capsys):
    with PairWriter(tmp_path / "pairs.h5", {"scale": 1.5}) as writer:
        for split in (TRAIN, VALIDATE):
            writer.append(np.zeros((48, 48, 1), np.uint8), np.zeros((32, 32, 1), np.uint8), split,
                          "x")
    assert train(tmp_path / "pairs.h5", tmp_path / "run", options=["--dry-run"]) == 2
    assert "expected pairs of scale 2, 3 or 4 (model.scale), got 1.5" in capsys.readouterr().err


@pytest.fixture(scope="module")
def finished(grey, tmp_path_factory):
    """The folder of a run of one update."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    assert train(grey, folder, "train.updates=1") == 0
    return folder


def test_fp16_goes_on_with_fp32_on_a_cpu(grey, finished, capsys):
    assert train(grey, finished, "parallel.precision=fp16", options=["--resume", "--dry-run"]) == 0
    told = capsys.readouterr()
    assert "1 rank, fp32" in told.out and "fp16 is for GPUs" in told.err


@pytest.mark.parametrize(("overrides", "options", "part"), [
    ([], [], "go on with --resume"),
    (["model.residual_gain=8.0"], ["--resume"], "other `model` settings"),
    (["diffusion.steps=60"], ["--resume"], "other `diffusion` settings"),
    (["train.encoder_checkpoint=missing.safetensors", "train.output=other"], [],
     "found nothing there"),
    (["train.output=/dev/null/run"], [], "is no folder, or not writable"),
    (["train.data=missing.h5", "train.output=other"], [], "got nothing there"),
])
def test_a_dry_run_refuses_what_a_run_refuses(grey, finished, capsys, overrides, options, part):
    before = sorted(finished.rglob("*"))
    for dry in (["--dry-run"], []):
        assert train(grey, finished, *overrides, options=[*options, *dry]) == 2
        said = capsys.readouterr()
        assert part in said.err and said.err.count("\n") == 1 and said.out == ""
    assert sorted(finished.rglob("*")) == before


def test_a_dry_run_refuses_a_damaged_state(grey, finished, tmp_path, capsys):
    import shutil
    shutil.copytree(finished, tmp_path / "run")
    assert train(grey, tmp_path / "run", options=["--resume", "--dry-run"]) == 0
    assert "goes on from update-00000001" in capsys.readouterr().out
    state = tmp_path / "run" / "update-00000001" / "state.pt"
    state.write_bytes(state.read_bytes()[:-100])
    assert train(grey, tmp_path / "run", options=["--resume", "--dry-run"]) == 2
    assert "not a readable training state" in capsys.readouterr().err


def test_going_on_with_other_pairs_is_said(finished, tmp_path, capsys):
    with PairWriter(tmp_path / "other.h5", {"scale": 3.0, "value_range": [0.0, 9.0],
                                            "value_dtype": "uint8"}) as made:
        for split in (TRAIN, VALIDATE):
            made.append(np.zeros((48, 48, 1), np.uint8), np.zeros((16, 16, 1), np.uint8), split, "")
    assert train(tmp_path / "other.h5", finished, options=["--resume", "--dry-run"]) == 0
    said = capsys.readouterr().err
    assert "has value_range [0.0, 9.0], the run so far had none" in said


def test_a_dry_run_tells_range_device_memory_and_time(tmp_path, capsys):
    with PairWriter(tmp_path / "pairs.h5", {"scale": 2.0, "value_range": [10.0, 3000.0],
                                            "value_dtype": "uint16", "psf_px": [0.5, 1.5]}) as made:
        for split in (TRAIN, VALIDATE):
            made.append(np.zeros((32, 32, 1), np.uint16), np.zeros((16, 16, 1), np.uint16), split,
                        "x", {"psf_px": 1.0})
    assert train(tmp_path / "pairs.h5", tmp_path / "run", "parallel.device=cpu",
                 options=["--dry-run"]) == 0
    told = capsys.readouterr().out
    for part in ("LR made with PSF of sigma 0.5 to 1.5 HR px",
                 "range   10 to 3000 of uint16 become -1 to 1", "device  cpu, ", " MiB a rank",
                 "time    very roughly,", "assumed, not measured"):
        assert part in told, told


@pytest.mark.parametrize(("attributes", "drawn", "told"), [
    ({"photons": [50.0, 500.0]}, {"photons": 60.0}, {"degradation": {"photons": [50.0, 500.0]}}),
    ({"kernel": "bilinear"}, {}, {"lr_kernel": "bilinear"}),
    ({"kernel": "own LR images"}, {}, {"lr_kernel": "own LR images"}),
    ({"kernel": "bicubic"}, {}, {})])
def test_the_checkpoint_says_how_its_lr_images_were_made(tmp_path, attributes, drawn, told):
    with PairWriter(tmp_path / "pairs.h5", {"scale": 2.0, **attributes}) as made:
        for split in (TRAIN, VALIDATE):
            made.append(np.zeros((32, 32, 1), np.uint8), np.zeros((16, 16, 1), np.uint8), split,
                        "x", drawn)
    assert train(tmp_path / "pairs.h5", tmp_path / "run", "train.updates=1",
                 "train.batch_images=1") == 0
    for name in ("update-00000001/ema.safetensors", "best.safetensors"):
        _, header = load_weights(tmp_path / "run" / name)
        assert {name: header[name] for name in ("degradation", "lr_kernel")
                if name in header} == told
        assert is_only_shrunk(Config(), header) == (not told)


@pytest.mark.parametrize(("model", "overrides"), [
    (ALIGNED, []), (THESIS, []), (ALIGNED, ["train.target=encoder"]),
    (THESIS, ["model.encoder=none", "model.condition_on=x_t"])])
def test_operations_are_counted_without_computing(model, overrides):
    short = load_config(overrides=[*model, *SHORT, *overrides])
    cost = cost_of(short)
    assert cost.flop > 1e6 and cost.saved_bytes > 1e4
    larger = cost_of(short.replaced(train={"crop_px": 64, "windows_per_image": 8}))
    assert larger.flop > 1.5 * cost.flop and larger.saved_bytes > 1.5 * cost.saved_bytes


def test_the_count_is_that_of_the_computation():
    from torch.utils.flop_counter import FlopCounterMode

    from swinmpi.training.estimate import empty_batch
    from swinmpi.training.objective import make_training_module
    config = load_config(overrides=[*ALIGNED, *SHORT])
    module = make_training_module(config)
    batch = empty_batch(config, module, "cpu")
    with FlopCounterMode(display=False) as counter:
        module(batch)["loss"].backward()
    # The CPU's fused attention is counted in another way.
    assert counter.get_total_flops() == pytest.approx(cost_of(config).flop, rel=0.02)
