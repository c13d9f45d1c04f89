"""One contract for `output.backend` gather and mpio: the same calls on three ranks give the same finished files."""
from pathlib import Path

import h5py
import numpy as np
import pytest
from mpi_programs.delivering import CUT_OFF, DATASETS, GIVEN_UP, NUM_IMAGES, SERIES, SIDES, STACKS, expected_pixels, figures_of

from swinmpi.errors import ConfigError
from swinmpi.storage.mpio import check_backend

PROGRAM = Path(__file__).with_name("mpi_programs") / "delivering.py"
WITH_MPI = h5py.get_config().mpi
# Open MPI as root on a small machine; others do not look at these.
OPEN_MPI = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
            "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe", "HDF5_USE_FILE_LOCKING": "TRUE"}


@pytest.fixture(scope="module", params=[
    "gather", pytest.param("mpio", marks=pytest.mark.skipif(not WITH_MPI, reason="this h5py is built without MPI"))])
def delivered(request, mpirun, tmp_path_factory):
    """The folder with the finished files of all series of one backend, SERIES-STACK.h5."""
    folder = tmp_path_factory.mktemp(request.param)
    for name, (shape, dtype) in STACKS.items():
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file["images"] = np.zeros(shape, dtype)

    def run(*series):
        return mpirun(3, PROGRAM, request.param, folder, *series, **OPEN_MPI)

    killed = run("killed")
    assert killed.code not in (0, None) and not (folder / f"resumed-{CUT_OFF}.h5").exists(), killed.err
    with h5py.File(folder / f"resumed-{CUT_OFF}.h5.partial") as file:  # readable as it lies there
        assert file["entry/per_image/done"][:].sum() == 2
    finished = run("resumed", *SERIES)
    told = f"swinmpi: image {GIVEN_UP} cannot be made\n" * len(STACKS)
    assert (finished.code, finished.err) == (0, told), finished.err
    assert finished.out == f"{CUT_OFF}: {NUM_IMAGES - 2} to go\ndelivered\n"
    return folder


@pytest.mark.parametrize("series, stack_name", [(series, name) for series in SERIES for name in STACKS] + [("resumed", CUT_OFF)])
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
                expected = expected_pixels(number, channels)[position]
                as_stored = expected[0] if len(shape) == 3 else expected if stack_name == "first" else np.moveaxis(expected, 0, -1)
                assert np.array_equal(stored[number], as_stored), f"{name}, image {number}"
            if len(images) < NUM_IMAGES:
                empty = np.nan if stored.dtype.kind == "f" else 0
                assert np.array_equal(stored[GIVEN_UP], np.full(stored.shape[1:], empty), equal_nan=True)
    assert SIDES == tuple(2 * side for side in (26, 19))


def test_nothing_is_left_beside_the_finished_files(delivered):
    expected = {f"{series}-{name}.h5" for series in SERIES for name in STACKS} | {f"{name}.h5" for name in STACKS}
    assert {path.name for path in delivered.iterdir()} == expected | {f"resumed-{CUT_OFF}.h5"}


def test_mpio_without_an_hdf5_of_mpi_says_how_to_get_it():
    check_backend("gather")
    if WITH_MPI:
        check_backend("mpio")
        return
    with pytest.raises(ConfigError, match="^output.backend: mpio needs an h5py that is built with MPI.*HDF5_MPI=ON.*gather$"):
        check_backend("mpio")
