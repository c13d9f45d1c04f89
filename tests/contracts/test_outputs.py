"""One contract for `output.backend` gather and mpio: the same calls on three ranks give the same
finished files."""
from itertools import product
from pathlib import Path

import h5py
import numpy as np
import pytest

from swinmpi.cli.sample import main
from swinmpi.storage.layout import decide_layout, to_chw
from tests.programs.mpi.delivering import (
    CUT_OFF,
    DATASETS,
    GIVEN_UP,
    NUM_IMAGES,
    SERIES,
    STACKS,
    expected_pixels,
    figures_of,
)
from tests.support.sampling import arguments, smooth_stack, sr_of, write_checkpoint, write_stack

PROGRAM = Path(__file__).parents[1] / "programs" / "mpi" / "delivering.py"
WITH_MPI = h5py.get_config().mpi
# Open MPI as root on a small machine; others do not look at these.
OPEN_MPI = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
            "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
            "HDF5_USE_FILE_LOCKING": "TRUE"}


needs_mpi = pytest.mark.skipif(
    not WITH_MPI, reason="this h5py is built without MPI; .ci/parallel_hdf5 builds one")


@pytest.fixture(scope="module", params=["gather", pytest.param("mpio", marks=needs_mpi)])
def delivered(request, mpirun, tmp_path_factory):
    """The folder with the finished files of all series of one backend, SERIES-STACK.h5."""
    folder = tmp_path_factory.mktemp(request.param)
    for name, (shape, dtype) in STACKS.items():
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file["images"] = np.zeros(shape, dtype)

    def run(*series):
        return mpirun(3, PROGRAM, request.param, folder, *series, **OPEN_MPI)

    killed = run("killed")
    assert (killed.code not in (0, None)
            and not (folder / f"resumed-{CUT_OFF}.h5").exists()), killed.err
    with h5py.File(folder / f"resumed-{CUT_OFF}.h5.partial") as file:  # readable as it lies there
        assert file["entry/per_image/done"][:].sum() == 2
    finished = run("resumed", *SERIES)
    told = f"swinmpi: image {GIVEN_UP} cannot be made\n" * len(STACKS)
    assert (finished.code, finished.err) == (0, told), finished.err
    assert finished.out == f"{CUT_OFF}: {NUM_IMAGES - 2} to go\ndelivered\n"
    return folder


@pytest.mark.parametrize("series, stack_name", [*product(SERIES, STACKS), ("resumed", CUT_OFF)])
def test_every_series_of_calls_gives_the_same_file(delivered, series, stack_name):
    shape, dtype = STACKS[stack_name]
    images = [number for number in range(NUM_IMAGES) if (series, number) != ("given up", GIVEN_UP)]
    channels = {3: 1, 4: 3}[len(shape)]
    with h5py.File(delivered / f"{series}-{stack_name}.h5") as file:
        per_image = {name: values[:].tolist() for name, values in file["entry/per_image"].items()}
        assert per_image["done"] == [number in images for number in range(NUM_IMAGES)]
        for name in ("lr_psnr", "seam_score"):
            assert [per_image[name][number] for number in images] == \
                [np.float32(figures_of(number)[name]) for number in images]
        for position, name in enumerate(DATASETS):
            stored = file["entry/data"][name]
            assert stored.dtype == (dtype if name in ("sr", "regression") else "f4")
            for number in images:
                image = to_chw(stored[number], decide_layout(stored))
                assert np.array_equal(image, expected_pixels(number, channels)[position]), (
                    f"{name}, image {number}")
            if len(images) < NUM_IMAGES:
                empty = np.nan if stored.dtype.kind == "f" else 0
                assert np.array_equal(stored[GIVEN_UP], np.full(stored.shape[1:], empty),
                                      equal_nan=True)


def test_nothing_is_left_beside_the_finished_files(delivered):
    expected = ({f"{series}-{name}.h5" for series in SERIES for name in STACKS}
                | {f"{name}.h5" for name in STACKS})
    assert {path.name for path in delivered.iterdir()} == expected | {f"resumed-{CUT_OFF}.h5"}


@needs_mpi
@pytest.mark.parametrize("exchange", ["root", "torus"])
def test_the_command_writes_the_same_pixels_with_mpio(mpirun, tmp_path, exchange):
    stack = write_stack(tmp_path / "in.h5", smooth_stack(3, 40, 36))
    checkpoint = write_checkpoint(tmp_path / "model.safetensors", "model.window_px=32")
    command = arguments(stack, tmp_path / "gather.h5", checkpoint, "parallel.threads=1")
    assert main(command) == 0
    command = arguments(stack, tmp_path / "mpio.h5", checkpoint, "parallel.threads=1",
                        "output.backend=mpio", f"parallel.exchange={exchange}",
                        "parallel.images_per_step=1", "--ranks-per-image=2")
    finished = mpirun(4, "-m", "swinmpi.cli.sample", *command, **OPEN_MPI)
    assert (finished.code, finished.err) == (0, ""), finished.err
    assert np.array_equal(sr_of(tmp_path / "mpio.h5"), sr_of(tmp_path / "gather.h5"))


@pytest.mark.skipif(WITH_MPI, reason="this h5py is built with MPI")
@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_mpio_without_an_hdf5_of_mpi_is_refused_before_anything_is_made(tmp_path, capsys, more):
    stack = write_stack(tmp_path / "in.h5", smooth_stack(1, 20, 20))
    checkpoint = write_checkpoint(tmp_path / "model.safetensors")
    assert main([*arguments(stack, tmp_path / "out.h5", checkpoint, "output.backend=mpio"),
                 *more]) == 2
    said = capsys.readouterr().err
    assert (said.startswith("swinmpi: output.backend: mpio needs an h5py that is built with MPI")
            and said.count("\n") == 1)
    assert "HDF5_MPI=ON" in said and "output.backend=gather" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.h5", "model.safetensors"]
