"""A tomogram's darks and flats in swinmpi-sample: left out, kept without the network, or through
it, for whatever exchange, ensemble, shard and number of ranks."""
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from swinmpi.cli import merge, prepare
from swinmpi.cli.sample import main
from swinmpi.images.imresize import imresize
from tests.support.sampling import arguments, smooth_stack, sr_of, write_checkpoint

KEY = [2, 1, 0, 0, 3, 0, 1]
OTHERS, PROJECTIONS = np.flatnonzero(KEY), np.flatnonzero(np.equal(KEY, 0))
KEEP = "data.calibration=bicubic"


@pytest.fixture(autouse=True)
def one_thread(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("model") / "aligned.safetensors",
                            "model.window_px=32")


def frames(dtype: str = "uint16") -> np.ndarray:
    """Projections, and around them darks and flats of other ranges; one hole in a flat."""
    data = smooth_stack(len(KEY), 20, 24, dtype=dtype) // 4
    data[0], data[1] = data[0] // 100, data[1] * 4
    return data


def write_tomogram(path: Path, data: np.ndarray, **attributes) -> Path:
    with h5py.File(path, "w") as file:
        file.attrs["default"] = "entry"
        for name, kind in (("entry", "NXentry"), ("entry/instrument", "NXinstrument"),
                           ("entry/instrument/detector", "NXdetector"), ("entry/data", "NXdata"),
                           ("entry/sample", "NXsample")):
            file.create_group(name).attrs["NX_class"] = kind
        entry, detector = file["entry"], file["entry/instrument/detector"]
        entry.attrs["default"], entry["definition"] = "data", "NXtomo"
        detector["data"], detector["image_key"] = data, KEY
        detector["data"].attrs.update(attributes)
        entry["sample/rotation_angle"] = np.arange(len(KEY)) * 0.5
        entry["data"].attrs.update(signal="data", axes=["../sample/rotation_angle", ".", "."])
        entry["data/data"] = detector["data"]
    return path


def sample(stack: Path, output: str, checkpoint: Path, *settings: str) -> int:
    return main(arguments(stack, output, checkpoint, "parallel.threads=1", *settings))


def pixels(path: str) -> dict[str, bytes]:
    with h5py.File(path) as file:
        return {name: item[()].tobytes() for name, item in file["entry/data"].items()
                if item.ndim == 3}


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32"])
def test_kept_frames_are_bicubic_and_projections_are_as_without_them(tmp_path, checkpoint, dtype):
    data = frames(dtype)
    stack = write_tomogram(tmp_path / "in.nxs", data)
    assert sample(stack, "skip.h5", checkpoint) == 0
    assert sample(stack, "keep.h5", checkpoint, KEEP) == 0
    assert sample(stack, "network.h5", checkpoint, "data.calibration=network") == 0
    kept = sr_of(Path("keep.h5"))
    assert kept.dtype == data.dtype and kept.shape == (len(KEY), 40, 48)
    assert np.array_equal(kept[PROJECTIONS], sr_of(Path("skip.h5")))
    for index in OTHERS:
        wanted = imresize(data[index], size=(40, 48))
        assert np.array_equal(kept[index], wanted)
        assert not np.array_equal(sr_of(Path("network.h5"))[index], wanted)
    with h5py.File("keep.h5") as file:
        entry = file["entry"]
        assert entry["definition"][()] == b"NXtomo"
        assert entry["instrument/detector/image_key"][:].tolist() == KEY
        assert entry["data/image_key"][:].tolist() == KEY
        assert entry["data/rotation_angle"][:].tolist() == [0.5 * k for k in range(len(KEY))]
        assert entry["per_image/done"][:].all()
        assert np.isfinite(entry["per_image/lr_psnr"][:]).tolist() == np.equal(KEY, 0).tolist()


@pytest.mark.parametrize("settings", [("parallel.exchange=torus",),
                                      ("parallel.images_per_step=1",)])
def test_how_a_run_is_laid_out_cannot_be_seen(tmp_path, checkpoint, settings):
    stack = write_tomogram(tmp_path / "in.nxs", frames())
    assert sample(stack, "plain.h5", checkpoint, KEEP) == 0
    assert sample(stack, "other.h5", checkpoint, KEEP, *settings) == 0
    assert pixels("other.h5") == pixels("plain.h5")


def test_an_ensemble_of_kept_frames_has_one_member(tmp_path, checkpoint):
    data = frames()
    stack = write_tomogram(tmp_path / "in.nxs", data)
    assert sample(stack, "out.h5", checkpoint, KEEP, "--ensemble=2", "output.regression=true") == 0
    with h5py.File("out.h5") as file:
        made = {name: file["entry/data"][name][()]
                for name in ("sr", "regression", "sr_mean", "sr_spread")}
    wanted = np.stack([imresize(image, size=(40, 48)) for image in data[OTHERS]])
    assert all(np.array_equal(made[name][OTHERS], wanted)
               for name in ("sr", "regression", "sr_mean"))
    assert not made["sr_spread"][OTHERS].any()
    assert made["sr_spread"][PROJECTIONS].any(axis=(1, 2)).all()


def test_holes_of_kept_frames_stay_where_they_are(tmp_path, checkpoint):
    data = frames("float32")
    data[1, 3:5, 6:9], data[6, 0, 0] = np.nan, -999
    stack = write_tomogram(tmp_path / "in.nxs", data, _FillValue=np.float32(-999))
    assert sample(stack, "out.h5", checkpoint, KEEP) == 0
    kept = sr_of(Path("out.h5"))
    holes = np.isnan(data).repeat(2, 1).repeat(2, 2)
    assert np.array_equal(np.isnan(kept), holes)
    assert (kept[6] == -999).sum() == 4 and (kept[6, :2, :2] == -999).all()


def test_shards_and_frames(tmp_path, checkpoint):
    stack = write_tomogram(tmp_path / "in.nxs", frames())
    assert sample(stack, "whole.h5", checkpoint, KEEP) == 0
    for number in (1, 2, 3):
        assert sample(stack, "part.h5", checkpoint, KEEP, f"--shard={number}/3") == 0
    parts = [f"part.shard-{number}-of-3.h5" for number in (1, 2, 3)]
    assert merge.main([*parts, "--output", "merged.h5"]) == 0
    assert pixels("merged.h5") == pixels("whole.h5")
    assert sample(stack, "few.h5", checkpoint, KEEP, "--frames=1,2", "output.value_range=[0,16000]"
                  ) == 0
    assert np.array_equal(sr_of(Path("few.h5"))[0], sr_of(Path("whole.h5"))[1])
    assert sample(stack, "dark.h5", checkpoint, KEEP, "--frames=0") == 0
    assert np.array_equal(sr_of(Path("dark.h5"))[0], sr_of(Path("whole.h5"))[0])


def test_it_is_said_and_decides_whether_a_run_goes_on(tmp_path, checkpoint, capsys):
    stack = write_tomogram(tmp_path / "in.nxs", frames())
    assert sample(stack, "out.h5", checkpoint, KEEP, "--dry-run") == 0
    assert "without the network, as asked" in capsys.readouterr().out
    (tmp_path / "out.h5.packing").symlink_to("nowhere/file")
    assert sample(stack, "out.h5", checkpoint, KEEP) == 2
    capsys.readouterr()
    assert sample(stack, "out.h5", checkpoint, "data.calibration=network") == 2
    assert "calibration" in capsys.readouterr().err
    assert sample(stack, "out.h5", checkpoint, KEEP) == 0
    assert "7 of them done before" in capsys.readouterr().out


def test_prepare_never_learns_from_them(tmp_path, capsys):
    stack = write_tomogram(tmp_path / "in.nxs", smooth_stack(len(KEY), 48, 48))
    for number, asked in enumerate(("skip", "bicubic", "network")):
        words = [str(stack), "--output", f"{number}.h5", "--set", f"data.calibration={asked}",
                 "--set", "data.size_px=32", "--set", "data.crops_per_image=2"]
        assert prepare.main(words) == 0
    with h5py.File("0.h5") as skipped, h5py.File("1.h5") as kept, h5py.File("2.h5") as asked:
        assert np.array_equal(skipped["hr"], kept["hr"])
        assert np.array_equal(skipped["hr"], asked["hr"])
    assert prepare.main([*words, "--dry-run", "--output", "3.h5"]) == 0
    assert "only projections are taken" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("num_ranks, settings", [(2, ()), (3, ("parallel.exchange=torus",)),
                                                 (3, ("--ranks-per-image=1",))])
def test_the_number_of_ranks_cannot_be_seen(mpirun, tmp_path, checkpoint, num_ranks, settings):
    stack = write_tomogram(tmp_path / "in.nxs", frames())
    assert sample(stack, "alone.h5", checkpoint, KEEP) == 0
    words = arguments(stack, tmp_path / "ranks.h5", checkpoint, KEEP, *settings)
    finished = mpirun(num_ranks, "-m", "swinmpi.cli.sample", *words)
    assert finished.code == 0, finished.err
    assert pixels("ranks.h5") == pixels("alone.h5")
