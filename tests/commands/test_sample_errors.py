"""Every bad request under mpirun -n 4: one line within 10 seconds, the right exit code,
and nothing left behind."""
import resource
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.support.sampling import arguments, smooth_stack, write_checkpoint, write_stack
from tests.support.training import THESIS

LIMIT_S = 10
NO_MPI = {"MPI4PY_LIBMPI": "/nowhere/libmpi.so"}
COMMAND = ("-m", "swinmpi.cli.sample")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A good stack and checkpoint, and all that is wrong with others."""
    folder = tmp_path_factory.mktemp("inputs")
    images = smooth_stack(2, 24, 24)
    write_stack(folder / "good.h5", images)
    (folder / "text.h5").write_text("not an HDF5 file\n" * 100)
    whole = (folder / "good.h5").read_bytes()
    (folder / "truncated.h5").write_bytes(whole[:len(whole) // 2])
    write_stack(folder / "flat.h5", images[0])
    write_stack(folder / "none.h5", images[:0])
    write_stack(folder / "complex.h5", images.astype(np.complex128))
    (folder / "typo.yaml").write_text("sampler:\n  stepz: 3\n")
    (folder / "type.yaml").write_text("sampler:\n  steps: many\n")
    write_checkpoint(folder / "good.safetensors")
    write_checkpoint(folder / "thesis.safetensors", model=THESIS)
    weights = (folder / "good.safetensors").read_bytes()
    (folder / "truncated.safetensors").write_bytes(weights[:len(weights) // 2])
    return folder


def request(inputs: Path, output: Path, *settings: str, stack: str = "good.h5",
            checkpoint: str = "good") -> list[str]:
    return arguments(inputs / stack, output, inputs / f"{checkpoint}.safetensors", *settings)


CASES = {
    "missing file": ({"stack": "absent.h5"}, (),
                     "absent.h5: expected an HDF5 file, got nothing there"),
    "text file named .h5": ({"stack": "text.h5"}, (), "text.h5: expected an HDF5 file"),
    "truncated HDF5": ({"stack": "truncated.h5"}, (), "truncated.h5: the HDF5 file is truncated"),
    "dataset missing": ({"stack": "good.h5::/entry/data"}, (), "/entry/data: no such dataset"),
    "wrong shape": ({"stack": "flat.h5::/images"}, (), "flat.h5::/images: expected (N, H, W)"),
    "wrong dtype": ({"stack": "complex.h5::/images"}, (), "got dtype complex128"),
    "zero images": ({"stack": "none.h5"}, (), "expected at least one image"),
    "unknown key in YAML": ({}, ("--config={}/typo.yaml",),
                            "unknown key sampler.stepz; did you mean sampler.steps?"),
    "wrong type in YAML": ({}, ("--config={}/type.yaml",),
                           "type.yaml: sampler.steps: expected integer, got 'many'"),
    "--set of an unknown key": ({}, ("sampler.stepz=3",), "--set sampler.stepz=3: unknown key"),
    "YAML missing": ({}, ("--config={}/absent.yaml",),
                     "absent.yaml: cannot read the configuration"),
    "checkpoint missing": ({"checkpoint": "absent"}, (),
                           "absent.safetensors: expected a checkpoint file"),
    "checkpoint truncated": ({"checkpoint": "truncated"}, (),
                             "truncated.safetensors: not a readable safetensors file"),
    "checkpoint of another scale": ({}, ("model.scale=4",), "expected a model with model.scale 4"),
    "more steps than the schedule": ({}, ("sampler.steps=51",),
                                     "sampler.steps: expected at most diffusion.steps = 50"),
}


def run_and_measure(run, *command, **environ):
    """(what became of it, seconds): wall time, or CPU time of all ranks where the machine was busy
    with other work."""
    before = cpu_seconds()
    finished = run(*command, **environ)
    return finished, min(finished.seconds, cpu_seconds() - before)


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def refused(run, tmp_path: Path, *command, limit_s: float = LIMIT_S) -> str:
    """The one line of a run that must end with 2 in time and leave nothing behind."""
    before = sorted(tmp_path.rglob("*"))
    finished, seconds = run_and_measure(run, *command)
    assert finished.code == 2 and finished.out == "", finished
    assert finished.err.startswith("swinmpi: ") and finished.err.count("\n") == 1, finished.err
    assert seconds < limit_s and sorted(tmp_path.rglob("*")) == before
    return finished.err


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_line(mpirun, inputs, tmp_path, name):
    wrong, settings, expected = CASES[name]
    settings = [setting.format(inputs) for setting in settings]
    assert expected in refused(mpirun, tmp_path, 4, *COMMAND,
                               *request(inputs, tmp_path / "out.h5", *settings, **wrong))


@pytest.mark.parametrize(
    "place, expected", [("out.h5", "exists already"), ("out.tif", "name it .h5"),
                        ("out.h5/deep/out.h5", "is no folder"),
                        ("/proc/out.h5", "choose another --output"), (".", "expected a file name")])
def test_an_output_that_cannot_be_written(mpirun, inputs, tmp_path, place, expected):
    """Root may write into /proc by its rights, and still nobody can."""
    (tmp_path / "out.h5").write_text("precious")
    assert expected in refused(mpirun, tmp_path, 4, *COMMAND, *request(inputs, tmp_path / place))
    assert (tmp_path / "out.h5").read_text() == "precious"


def test_a_run_begun_with_other_settings_is_not_continued(mpirun, alone, inputs, tmp_path):
    """The one check that takes longer: it has to read the stack."""
    output = tmp_path / "out.h5"
    write_stack(inputs / "other.h5", smooth_stack(2, 24, 24, seed=1))
    (tmp_path / "out.h5.packing").symlink_to("nowhere/file")
    begun = alone(*COMMAND, *request(inputs, output, stack="other.h5"))
    assert begun.code == 2 and "cannot be packed" in begun.err and "they are safe in" in begun.err
    line = refused(mpirun, tmp_path, 4, *COMMAND, *request(inputs, output), limit_s=60)
    assert ("out.h5.partial: was begun with other settings" in line
            and "input.sha256_of_some_images" in line)
    with h5py.File(tmp_path / "out.h5.partial") as file:
        assert file["entry/per_image/done"][()].all()


def test_dry_run_says_the_same_and_creates_nothing(alone, mpirun, inputs, tmp_path):
    """Without launcher and without MPI library as well."""
    (tmp_path / "exists.h5").write_text("precious")
    for place in ("exists.h5", "/proc/out.h5"):
        command = *COMMAND, *request(inputs, tmp_path / place), "--dry-run"
        assert "choose another --output" in refused(alone, tmp_path, *command)
    command = *COMMAND, *request(inputs, tmp_path / "out.h5"), "--dry-run"
    planned = alone(*command, **NO_MPI)
    assert planned.code == 0 and "2 images of 24 x 24 px, NHW, uint16" in planned.out, planned.err
    shared = mpirun(3, *command)
    assert shared.code == 0 and shared.out.count("\n") == planned.out.count("\n"), shared.err
    assert "ranks       3, all ranks on every image" in shared.out
    assert [path.name for path in tmp_path.iterdir()] == ["exists.h5"]


def test_help_and_version_need_neither_mpi_nor_torch(alone):
    for option in ("--help", "--version"):
        finished, seconds = run_and_measure(alone, "-X", "importtime", *COMMAND, option, **NO_MPI)
        assert finished.code == 0 and "swinmpi" in finished.out and seconds < 5
        assert not {"torch", "mpi4py", "h5py"} & {line.rpartition("|")[2].strip()
                                                  for line in finished.err.splitlines()}
