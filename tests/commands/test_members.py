"""swinmpi-sample --members: an ensemble grows, what is there stays."""
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from swinmpi.cli import sample
from tests.commands.test_sample_mpi import LAUNCH_TIMEOUT_S, PROGRAMS
from tests.support.sampling import arguments, smooth_stack, write_checkpoint, write_stack

KEPT = "output.members=true"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A stack, a checkpoint, an ensemble of two and one of four."""
    folder = tmp_path_factory.mktemp("members")
    write_stack(folder / "in.h5", smooth_stack(2, 24, 24, 3, "uint8"))
    write_stack(folder / "other.h5", smooth_stack(2, 24, 24, 3, "uint8", seed=1))
    write_checkpoint(folder / "model.safetensors", "model.window_px=16")
    write_checkpoint(folder / "wider.safetensors", "model.window_px=32")
    for count in (2, 4):
        assert sample.main(words(folder, f"{count}.h5", f"--ensemble={count}", KEPT)) == 0
    return folder


def words(folder: Path, output: str, *options: str, stack: str = "in.h5",
          checkpoint: str = "model.safetensors") -> list[str]:
    return arguments(folder / stack, folder / output, folder / checkpoint, *options)


def grown(folder: Path, name: str) -> str:
    shutil.copy(folder / "2.h5", folder / name)
    return name


def data_of(path: Path) -> dict[str, np.ndarray]:
    with h5py.File(path) as file:
        return {f"{group}/{name}": item[()] for group in ("data", "per_image")
                for name, item in file[f"entry/{group}"].items()}


def check_same(one: Path, other: Path) -> None:
    first, second = map(data_of, (one, other))
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[name], second[name], equal_nan=True) for name in first)


def test_a_grown_ensemble_is_the_one_made_at_once(folder, capsys):
    before = data_of(folder / "2.h5")
    assert sample.main(words(folder, grown(folder, "grown.h5"), "--members=2:4", "--dry-run")) == 0
    assert "members     2 to 3 are added" in capsys.readouterr().out
    assert sample.main(words(folder, "grown.h5", "--members=2:3")) == 0
    assert sample.main(words(folder, "grown.h5", "--members=3:4")) == 0
    check_same(folder / "grown.h5", folder / "4.h5")
    after = data_of(folder / "grown.h5")
    assert all(np.array_equal(before[f"data/{name}"], after[f"data/{name}"])
               for name in ("sr", "member_1"))
    assert not np.array_equal(before["data/sr_mean"], after["data/sr_mean"])
    with h5py.File(folder / "grown.h5") as file:
        assert file["entry/process/ensemble"][()] == 4


@pytest.mark.parametrize("options, told", [
    (["--members=3:5"], "expected 3 members before 3:5, got 2; ask for --members 2:5"),
    (["--members=4:8"], "expected 4 members before 4:8, got 2; ask for --members 2:8"),
    (["--members=2:4", "--ensemble=4"], "--members: expected no --ensemble"),
    (["--members=2"], "expected FIRST:END"), (["--members=4:2"], "expected FIRST:END"),
    (["--members=0:4"], "expected FIRST:END"), (["--members=a:b"], "expected FIRST:END"),
    (["--members=2:2000"], "expected 1 to 1000 samples"),
    (["--members=2:4", "sampler.seed=1"], "other settings (sampler.seed differ)"),
    (["--members=2:4", "sampler.steps=2"], "other settings (sampler.steps differ)"),
    (["--members=2:4", "output.value_range=[0,200]"], "other settings (value_range differ)"),
    (["--members=2:4", "--frames=0"], "other settings (input."),
])
def test_what_does_not_fit_is_one_line_and_leaves_the_output(folder, capsys, options, told):
    before = (folder / grown(folder, "kept.h5")).read_bytes()
    for more in ([], ["--dry-run"]):
        assert sample.main([*words(folder, "kept.h5", *options), *more]) == 2
        said = capsys.readouterr()
        assert told in said.err and said.err.count("\n") == 1 and not said.out
    assert (folder / "kept.h5").read_bytes() == before
    assert not (folder / "kept.h5.partial").exists()


def test_another_input_checkpoint_or_output_is_refused(folder, capsys):
    grown(folder, "kept.h5")
    assert sample.main(words(folder, "without.h5", "--ensemble=2")) == 0
    assert sample.main(words(folder, "single.h5")) == 0
    (folder / "text.h5").write_text("no HDF5")
    capsys.readouterr()
    for told, given in {
            "(input.sha256_of_some_images differ)": words(folder, "kept.h5", stack="other.h5"),
            "(checkpoint": words(folder, "kept.h5", checkpoint="wider.safetensors"),
            "expected an ensemble that kept its members": words(folder, "without.h5"),
            "got a single sample": words(folder, "single.h5"),
            "got another file": words(folder, "other.h5"),
            "absent.h5: expected an HDF5 file": words(folder, "absent.h5"),
            "text.h5: expected an HDF5 file": words(folder, "text.h5")}.items():
        assert sample.main([*given, "--members", "2:4"]) == 2
        said = capsys.readouterr()
        assert told in said.err and said.err.count("\n") == 1 and not said.out
    assert sample.main(words(folder, "4.h5", "--members=2:4")) == 2
    assert "got 4 members already" in capsys.readouterr().err


def test_members_that_come_out_otherwise_are_not_mixed(folder, capsys):
    grown(folder, "spoiled.h5")
    with h5py.File(folder / "spoiled.h5", "r+") as file:
        file["entry/data/member_1"][1, 5, 5] += 1
    before = (folder / "spoiled.h5").read_bytes()
    assert sample.main(words(folder, "spoiled.h5", "--members=2:3")) != 0
    assert "member_1 of image 1 comes out otherwise" in capsys.readouterr().err
    assert (folder / "spoiled.h5").read_bytes() == before


def test_members_that_cannot_be_read_are_told_in_a_line(folder, capsys):
    grown(folder, "damaged.h5")
    with h5py.File(folder / "damaged.h5") as file:
        chunk = file["entry/data/member_1"].id.get_chunk_info(0)
    with open(folder / "damaged.h5", "r+b") as file:
        file.seek(chunk.byte_offset)
        file.write(b"damage" * 20)
    assert sample.main(words(folder, "damaged.h5", "--members=2:3")) != 0
    said = capsys.readouterr().err
    assert "members of image 0 cannot be read" in said and said.count("\n") == 1


@pytest.mark.slow
def test_a_kill_leaves_the_smaller_ensemble_and_two_ranks_go_on(mpirun, folder):
    given = words(folder, grown(folder, "killed.h5"), "--members=2:4",
                  "parallel.images_per_step=1")
    finished = mpirun(1, PROGRAMS / "sample_killed.py", "SIGKILL", 1, *given,
                      timeout_s=LAUNCH_TIMEOUT_S)
    assert finished.code != 0
    check_same(folder / "killed.h5", folder / "2.h5")
    assert (folder / "killed.h5.partial").exists()
    finished = mpirun(2, "-m", "swinmpi.cli.sample", *given, "--set", "parallel.exchange=torus",
                      timeout_s=LAUNCH_TIMEOUT_S)
    assert finished.code == 0, finished.err
    check_same(folder / "killed.h5", folder / "4.h5")


@pytest.mark.parametrize("dtype, extra", [("uint8", ()), ("float32", ("parallel.exchange=torus",))])
def test_members_that_were_kept_exactly_are_not_made_again(folder, tmp_path, capsys, dtype, extra):
    """Known by the spoiled rounded ones: what is compared comes from the unrounded."""
    write_stack(tmp_path / "in.h5", smooth_stack(2, 24, 20, 1, dtype))

    def given(output, *options):
        return arguments(tmp_path / "in.h5", tmp_path / output, folder / "model.safetensors",
                         *extra, *options)

    for output, *options in (("once.h5", "--ensemble=4", "output.members=exact"),
                             ("plain.h5", "--ensemble=4", KEPT),
                             ("grown.h5", "--ensemble=2", "output.members=exact")):
        assert sample.main(given(output, *options)) == 0
    capsys.readouterr()
    assert sample.main(given("grown.h5", "--members=2:4", "--dry-run")) == 0
    assert "2 to 3 are added; the output has those before" in capsys.readouterr().out
    assert sample.main(given("grown.h5", "--members=2:3")) == 0
    assert sample.main(given("grown.h5", "--members=3:4")) == 0
    check_same(tmp_path / "grown.h5", tmp_path / "once.h5")
    once, plain = data_of(tmp_path / "once.h5"), data_of(tmp_path / "plain.h5")
    assert once.keys() - plain.keys() == {f"data/exact_{k}" for k in range(4)}
    assert all(np.array_equal(once[name], plain[name], equal_nan=True) for name in plain)
    with h5py.File(tmp_path / "grown.h5", "r+") as file:
        assert not any("exact" in name for name in file["entry/data"].attrs["auxiliary_signals"])
        file["entry/data/exact_2"][...] = 0.25
    assert sample.main(given("grown.h5", "--members=4:5")) != 0
    assert "member_2 of image 0 comes out otherwise" in capsys.readouterr().err


def test_images_that_do_not_come_first_and_pixels_without_a_number_grow_too(folder, tmp_path):
    images = np.moveaxis(smooth_stack(3, 24, 20, 1, "float32"), 0, -1)
    images[3:5, 7, 2] = np.nan
    write_stack(tmp_path / "in.h5", images)

    def made(output, *options):
        words = arguments(tmp_path / "in.h5", tmp_path / output, folder / "model.safetensors",
                          "data.axes=yxz", *options)
        assert sample.main([*words, "--frames", "2,0"]) == 0

    for kept in ("exact", "true"):
        made(f"{kept}.h5", "--ensemble=2", f"output.members={kept}")
        made(f"{kept}.h5", "--members=2:3")
        made(f"{kept}3.h5", "--ensemble=3", f"output.members={kept}")
        check_same(tmp_path / f"{kept}.h5", tmp_path / f"{kept}3.h5")
    assert np.isnan(data_of(tmp_path / "exact.h5")["data/sr_mean"]).any()
