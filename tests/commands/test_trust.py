"""swinmpi-sample --trust: which pixels are marked, what is refused."""
import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from swinmpi.cli import calibrate, evaluate, merge, sample
from swinmpi.images.contact_sheet import trust_overlay
from swinmpi.storage.header import read_header
from tests.support.sampling import arguments, write_checkpoint
from tests.support.training import write_pairs

FEW = ["--set", "sampler.steps=2", "--set", "output.consistent=false"]
SETTINGS = ["output.consistent=false", "sampler.steps=2"]


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A folder with pairs of a uint8 stack and a checkpoint calibrated on 9 of them."""
    folder = tmp_path_factory.mktemp("learned")
    write_pairs(folder / "pairs.h5", size_px=32, num_train=2, num_validate=9)
    write_checkpoint(folder / "raw.safetensors", "model.window_px=32")
    assert calibrate.main([str(folder / "raw.safetensors"), "--pairs", str(folder / "pairs.h5"),
                           "--preset", "balanced", "--ensemble", "3", *FEW]) == 0
    write_half(folder)
    return folder


def write_half(folder: Path) -> None:
    """half.safetensors: as calibrated, but its masks mark about half of the pixels. The samples of
    an untrained network do not tell where they are wrong, so that without it all or none are."""
    (entry,) = read_header(folder / "raw-calibrated.safetensors")["error_bars"]
    table = entry["trust"]
    place = int(np.searchsorted(table["marked"], 0.3))
    assert 0.05 < table["marked"][place] < 0.95
    table["losses"] = [[float(k > place) for k in range(len(table["marked"]))]] * 16
    rewrite(folder / "raw-calibrated.safetensors", folder / "half.safetensors", [entry])


def rewrite(source: Path, target: Path, entries: list[dict]) -> None:
    """A checkpoint that says other things of its ensembles."""
    header = read_header(source) | {"error_bars": entries}
    save_file(load_file(source), target, {"format": "swinmpi-1", "header": json.dumps(header)})


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def words_of(learned, *options: str, checkpoint: str = "raw-calibrated") -> list[str]:
    return [*arguments(f"{learned / 'pairs.h5'}::/lr", "out.h5",
                       learned / f"{checkpoint}.safetensors", *SETTINGS, *options),
            "--frames", "2:", "--preset", "balanced"]


def made(learned, *options: str,
         checkpoint: str = "half") -> tuple[dict[str, np.ndarray], dict]:
    """(data sets by name, attributes of the mask) of a run."""
    words = words_of(learned, "--ensemble=3", *options, checkpoint=checkpoint)
    assert sample.main([*words, "--overwrite"]) == 0
    with h5py.File("out.h5") as file:
        data = file["entry/data"]
        told = dict(data["sr_trust"].attrs) if "sr_trust" in data else {}
        return {name: item[()] for name, item in data.items()}, told


def test_the_marked_pixels_are_those_of_small_spread_and_keep_the_promise(learned, capsys):
    without, _ = made(learned)
    found, _ = made(learned, "--trust=0.3", "--tolerance=20%", checkpoint="raw-calibrated")
    keeps_promise(learned, found)
    found, told = made(learned, "--trust=0.3", "--tolerance=20%")
    assert "sr_trust: of the pixels marked 1" in capsys.readouterr().out
    assert all(np.array_equal(found[name], without[name]) for name in without)
    trusted = found["sr_trust"]
    assert trusted.dtype == np.uint8 and trusted.shape == found["sr"].shape
    with h5py.File("out.h5") as file:
        factor, floor = (file["entry/data/sr_std"].attrs[name]
                         for name in ("factor", "floor_of_range"))
    spread = np.sqrt(np.maximum(found["sr_std"] ** 2 - (255 * floor) ** 2, 0)) / factor
    marked, worst = trusted.max(axis=-1), spread.max(axis=-1)
    assert (trusted.min(axis=-1) == marked).all(), "in all channels or in none"
    limit = 255 * told["threshold_of_range"]
    clear = np.abs(worst - limit) > 1e-2
    assert np.array_equal(marked[clear], (worst <= limit)[clear]) and 0.05 < marked.mean() < 0.95
    assert told["risk"] == 0.3 and told["tolerance_of_range"] == pytest.approx(0.2)


def keeps_promise(learned, found: dict[str, np.ndarray]) -> None:
    """On the images that it was learned on, with room for one more."""
    with h5py.File(learned / "pairs.h5") as file:
        truth = file["hr"][2:].astype(float)
    error, trusted = np.abs(truth - found["sr_mean"]), found["sr_trust"] > 0
    wrong = (error.max(axis=-1) > 51) & trusted[..., 0]
    assert (wrong.sum(axis=(1, 2)) / trusted[..., 0].sum(axis=(1, 2))).mean() <= 0.3


def test_a_tolerance_in_the_units_of_the_data_is_a_share_of_their_range(learned):
    by_share, _ = made(learned, "--trust=0.4", "--tolerance=20%")
    by_levels, told = made(learned, "--trust=0.4", "--tolerance=51")
    assert np.array_equal(by_share["sr_trust"], by_levels["sr_trust"])
    assert told["tolerance_of_range"] == pytest.approx(0.2)
    _, between = made(learned, "--trust=0.4", "--tolerance=53.5")
    assert between["tolerance_of_range"] == pytest.approx(0.2), "what was looked at, never more"
    more, _ = made(learned, "--trust=0.6", "--tolerance=51")
    assert (more["sr_trust"] >= by_levels["sr_trust"]).all()


def test_pixels_without_a_number_are_not_trusted_and_masks_have_no_missing_value(learned):
    with h5py.File(learned / "pairs.h5") as file:
        lr = file["lr"][2:5].astype(np.float32)
    lr[:, 4:6, 4:6] = np.nan
    with h5py.File("holes.h5", "w") as file:
        file["lr"] = lr
    words = arguments("holes.h5", "out.h5", learned / "raw-calibrated.safetensors", *SETTINGS,
                      "--ensemble=3", "--trust=0.4", "--tolerance=60%",
                      "output.value_range=[0,255]", "data.no_data=0")
    assert sample.main([*words, "--preset", "balanced"]) == 0
    with h5py.File("out.h5") as file:
        trust, mean = (file[f"entry/data/{name}"] for name in ("sr_trust", "sr_mean"))
        holes = ~np.isfinite(mean[()])
        assert holes.any() and not trust[()][holes].any() and trust[()].any()
        assert not {"_FillValue", "missing_value"} & set(trust.attrs)


@pytest.mark.parametrize("options, told", [
    (["--trust=0.1"], "--trust: expected an ensemble"),
    (["--trust=0.1", "--ensemble=2"], "expected at least 3 samples"),
    (["--trust=0.05", "--ensemble=3"], "calibrated on at least 19 images, got 9"),
    (["--trust=0.1001", "--ensemble=3", "--tolerance=1"], "ask for a larger share"),
    (["--trust=0.5", "--ensemble=3", "--tolerance=0.1"], "--tolerance 0.1: expected at least"),
    (["--trust=0.5", "--ensemble=3", "--tolerance=0.1%"], "--tolerance 0.1%: expected at least"),
    (["--trust=0.5", "--ensemble=3", "sampler.steps=3"], "calibrated for these settings"),
    (["--tolerance=5", "--ensemble=3"], "--tolerance: expected --trust"),
    (["--trust=0"], "a share between 0 and 1"), (["--trust=1"], "a share between 0 and 1"),
    (["--trust=nan"], "a share between 0 and 1"), (["--trust=ten"], "a share between 0 and 1"),
    (["--trust=0.5", "--tolerance=-1"], "an error above 0"),
    (["--trust=0.5", "--tolerance=inf"], "an error above 0"),
])
def test_what_cannot_be_promised_is_one_line(learned, tmp_path, capsys, options, told):
    for more in ([], ["--dry-run"]):
        assert sample.main([*words_of(learned, *options), *more]) == 2
        said = capsys.readouterr()
        assert told in said.err and said.err.count("\n") == 1 and not said.out
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_without_a_table_is_refused(learned, tmp_path, capsys):
    assert sample.main(words_of(learned, "--trust=0.5", "--ensemble=3", checkpoint="raw")) == 2
    assert "make one: swinmpi-calibrate" in capsys.readouterr().err
    header = read_header(learned / "raw-calibrated.safetensors")
    for name, spoil in (("older", lambda entry: entry.pop("trust")),
                        ("odd", lambda entry: entry["trust"].update(losses=[[0, 1]])),
                        ("flat", lambda entry: entry["trust"].update(tolerances=0.1)),
                        ("none", lambda entry: entry["trust"].update(images=float("inf"))),
                        ("falling", lambda entry: entry["trust"]["losses"][3].reverse())):
        (entry,) = changed = json.loads(json.dumps(header["error_bars"]))
        spoil(entry)
        rewrite(learned / "raw-calibrated.safetensors", tmp_path / f"{name}.safetensors", changed)
        words = arguments(f"{learned / 'pairs.h5'}::/lr", "out.h5", f"{name}.safetensors",
                          *SETTINGS, "--ensemble=3")
        assert sample.main([*words, "--preset", "balanced", "--trust=0.5"]) == 2
        assert "by a version that learned masks of trust" in capsys.readouterr().err


def test_an_output_begun_with_another_promise_is_not_continued(learned, tmp_path, capsys):
    begun = words_of(learned, "--ensemble=3", "--trust=0.4", "--tolerance=51", checkpoint="half")
    (tmp_path / "out.h5.packing").symlink_to("nowhere/file")
    assert sample.main(begun) == 2 and Path("out.h5.partial").exists()
    for other in (["--trust=0.5", "--tolerance=51"], ["--trust=0.4", "--tolerance=40"], []):
        assert sample.main(words_of(learned, "--ensemble=3", *other, checkpoint="half")) == 2
        assert "was begun with other settings" in capsys.readouterr().err
    assert sample.main(begun) == 0


def test_shards_merge_to_the_mask_of_the_whole(learned):
    whole, told = made(learned, "--trust=0.4", "--tolerance=51")
    for number in (1, 2):
        words = words_of(learned, "--ensemble=3", "--trust=0.4", "--tolerance=51",
                         f"--shard={number}/2", checkpoint="half")
        assert sample.main([*words, "--overwrite"]) == 0
    assert merge.main(["out.shard-1-of-2.h5", "out.shard-2-of-2.h5", "--output", "all.h5"]) == 0
    with h5py.File("all.h5") as file:
        data = file["entry/data"]
        assert all(np.array_equal(item[()], whole[name]) for name, item in data.items())
        assert set(data) == set(whole) and data["sr_trust"].attrs["promise"] == told["promise"]


@pytest.mark.parametrize("first, later", [([], ["--trust=0.4", "--tolerance=51"]),
                                          (["--trust=0.4", "--tolerance=51"], [])])
def test_members_added_later_are_trusted_as_if_made_at_once(learned, first, later):
    """Whether the mask was there before or is new, with all that there is beside them."""
    made(learned, "output.members=true", "output.lr=true", "output.regression=true", *first)
    words = words_of(learned, "--members=3:5", *later, checkpoint="half")
    assert sample.main(words) == 0
    with h5py.File("out.h5") as file:
        grown = {name: item[()] for name, item in file["entry/data"].items()}
        assert file["entry/lr/lr"].shape == (9, 16, 16, 3)
    words = words_of(learned, "--ensemble=5", "--trust=0.4", "--tolerance=51",
                     "output.members=true", "output.regression=true", checkpoint="half")
    assert sample.main([*words, "--overwrite"]) == 0
    with h5py.File("out.h5") as file:
        assert set(grown) == set(file["entry/data"])
        assert all(np.array_equal(item[()], grown[name])
                   for name, item in file["entry/data"].items())


def test_a_folder_made_without_is_made_again(learned, tmp_path, capsys):
    """A file of a folder that this command made before is left as it is."""
    (tmp_path / "scans").mkdir()
    with h5py.File(learned / "pairs.h5") as file, h5py.File("scans/a.h5", "w") as scan:
        scan["lr"] = file["lr"][2:4]
    words = ["scans", "--output", "made/", "--checkpoint", str(learned / "half.safetensors"),
             "--preset", "balanced", "--ensemble=3", *FEW]
    assert sample.main(words) == 0
    assert sample.main([*words, "--trust=0.4", "--tolerance=51"]) == 2
    assert "exists already" in capsys.readouterr().err
    again = [*words, "--trust=0.4", "--tolerance=51", "--overwrite"]
    assert sample.main(again) == 0 and sample.main(again[:-1]) == 0
    assert "was made by this command before" in capsys.readouterr().err
    assert sample.main([*words, "--members=3:4"]) == 2
    assert "--members: expected" in capsys.readouterr().err


@pytest.mark.parametrize("axes_first", [True, False], ids=["images first", "images last"])
def test_readers_of_nexus_find_the_error_bars_and_lr(learned, axes_first):
    nexus, silx = pytest.importorskip("nexusformat.nexus"), pytest.importorskip("silx.io")
    nxdata, xarray = pytest.importorskip("silx.io.nxdata"), pytest.importorskip("xarray")
    with h5py.File(learned / "pairs.h5") as file:
        lr = file["lr"][2:5, ..., 0]
    with h5py.File("in.h5", "w") as file:
        data = file.create_group("entry/data")
        data.attrs.update(NX_class="NXdata", signal="lr",
                          axes=["z", "y", "."] if axes_first else ["y", ".", "z"])
        data["lr"] = lr if axes_first else np.moveaxis(lr, 0, -1)
        data["z"], data["y"] = np.arange(3) * 0.5, np.arange(16) * 2.0
    words = arguments("in.h5", "out.h5", learned / "raw-calibrated.safetensors", *SETTINGS,
                      "--ensemble=3", "--trust=0.4", "--tolerance=60%", "output.lr=true",
                      *([] if axes_first else ["data.axes=yxz"]))
    assert sample.main([*words, "--preset", "balanced"]) == 0
    with h5py.File("out.h5") as file:
        std = file["entry/data/sr_std"][()]
        others = list(file["entry/data"].attrs["auxiliary_signals"])
        assert others == ["sr_mean", "sr_std", "sr_trust"]
        assert all(file["entry/data"][name].shape == std.shape for name in others)
    with silx.open("out.h5") as opened:
        default = nxdata.get_default(opened)
        assert default.is_valid and default.signal_dataset_name == "sr"
        assert np.array_equal(default.errors[()], std)
        small = nxdata.NXdata(opened["entry/lr"])
        assert small.is_valid and small.signal.shape == lr.shape
        assert np.array_equal(small.signal[()], lr)
    entry = nexus.nxload("out.h5")["entry"]
    assert np.array_equal(entry["data"].nxerrors.nxdata, std)
    assert np.array_equal(entry["data"]["sr_mean_errors"].nxdata, std)
    assert entry["lr"].nxsignal.shape == lr.shape
    for engine in ("h5netcdf", "netcdf4"):
        with xarray.open_dataset("out.h5", group="/entry/data", engine=engine) as opened:
            assert opened["sr_std"].shape == std.shape


def test_an_output_can_be_the_input_again(learned):
    made(learned, "--trust=0.4", "--tolerance=51", "output.lr=true")
    words = arguments("out.h5", "again.h5", learned / "raw-calibrated.safetensors", *SETTINGS,
                      "--ensemble=3", "--trust=0.4", "--tolerance=51", "output.lr=true",
                      "--frames=0")
    assert sample.main([*words, "--preset", "balanced"]) == 0
    with h5py.File("again.h5") as again, h5py.File("out.h5") as before:
        assert np.array_equal(again["entry/lr/lr"][0], before["entry/data/sr"][0])
        assert again["entry/data/sr_errors"] == again["entry/data/sr_std"]
        assert again["entry/data/sr_std"].shape == again["entry/data/sr"].shape


def test_an_evaluation_judges_the_mask_and_shows_it(learned, capsys):
    found, told = made(learned, "--trust=0.4", "--tolerance=51")
    words = ["out.h5", "--reference", f"{learned / 'pairs.h5'}::/hr", "--split", "validate"]
    assert evaluate.main([*words, "--output", "with"]) == 0
    assert "of it wrong" in capsys.readouterr().out
    figures = json.loads(Path("with/evaluate.json").read_text())["ensembles"]["sr"]["figures"]
    assert figures["trusted"]["mean"] == pytest.approx(found["sr_trust"].mean())
    assert 0.05 < figures["trusted"]["mean"] < 0.95 and 0 <= figures["wrong"]["mean"] <= 1
    assert told["risk"] == 0.4
    made(learned)
    assert evaluate.main([*words, "--output", "without"]) == 0
    assert "of it wrong" not in capsys.readouterr().out
    widths = [Image.open(f"{name}/evaluate.png").width for name in ("with", "without")]
    assert widths[0] > widths[1], "one column more"


def test_what_is_not_trusted_is_magenta():
    image, trusted = np.full((4, 4), 128, np.uint8), np.zeros((4, 4), bool)
    trusted[:2] = True
    shown = trust_overlay(image, trusted)
    assert (shown[:2] == 128).all()
    assert (shown[2:, :, 1] + 50 < shown[2:, :, [0, 2]].min(axis=-1)).all()
