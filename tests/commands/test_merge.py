"""Shards of one run and their merging: the same bytes, stored the same way, as if one
job had made them."""
import resource
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from swinmpi.cli.merge import main as merge
from swinmpi.cli.sample import main as sample
from swinmpi.sampling.merge import common_process
from swinmpi.storage.axes import Axis
from swinmpi.storage.locking import open_locked
from swinmpi.storage.stack import Stack
from tests.support.sampling import arguments, smooth_stack, write_checkpoint, write_stack

pytestmark = pytest.mark.slow

NUM_IMAGES, NUM_SHARDS, DAMAGED = 5, 3, 3
SETTINGS = ("model.window_px=32", "parallel.threads=1", "sampler.steps=2", "--ensemble=2",
            "output.regression=true")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """in.h5 with axes and one damaged image, the model, one.h5 of one run, and
    out.shard-I-of-3.h5."""
    threads, folder = torch.get_num_threads(), tmp_path_factory.mktemp("merge")
    images = smooth_stack(NUM_IMAGES, 24, 28, dtype="float32")
    images[2, :4] = np.nan
    stack = write_stack(folder / "in.h5", images, "scan/images", chunks=(1, 24, 28),
                        compression="gzip")
    with h5py.File(stack, "a") as file:
        group = file["scan"]
        group.attrs.update(NX_class="NXdata", signal="images", axes=["angle", "y", "x"])
        group["images"].attrs["units"] = "photons"
        group["angle"], group["y"] = np.arange(NUM_IMAGES) * 0.5, np.arange(25.0)
        group["angle"].attrs["units"] = "deg"
    damage(stack, DAMAGED)
    write_checkpoint(folder / "model.safetensors", "model.window_px=32")
    for shard in (None, *range(1, NUM_SHARDS + 1)):
        assert sample_in(folder, shard) == (3 if shard in (None, 2) else 0)
    torch.set_num_threads(threads)
    return folder


def damage(stack: Path, image_index: int) -> None:
    with h5py.File(stack) as file:
        chunk = file["scan/images"].id.get_chunk_info(image_index)
    with open(stack, "r+b") as raw:
        raw.seek(chunk.byte_offset + chunk.size // 3)
        raw.write(b"\xff" * 40)


def command(folder: Path, shard: int | None, of: int = NUM_SHARDS,
            output: str = "out.h5") -> list[str]:
    options = () if shard is None else (f"--shard={shard}/{of}",)
    name = "one.h5" if shard is None else output
    return arguments(folder / "in.h5", folder / name, folder / "model.safetensors", *SETTINGS,
                     *options)


def sample_in(folder: Path, shard: int | None, of: int = NUM_SHARDS, output: str = "out.h5") -> int:
    return sample(command(folder, shard, of, output))


@pytest.fixture
def shards(folder):
    return [folder / f"out.shard-{number}-of-{NUM_SHARDS}.h5"
            for number in range(1, NUM_SHARDS + 1)]


def merged(shards, output: Path, *options: str) -> int:
    return merge([*map(str, shards), "--output", str(output), *options])


def contents(path: Path) -> dict[str, dict]:
    """Of every group and dataset but the process: attributes, values, and how they are stored."""
    found = {}

    def describe(name: str, item) -> None:
        if name.startswith("entry/process"):
            return
        facts = {key: np.asarray(value).tolist() for key, value in item.attrs.items()
                 if key not in ("DIMENSION_LIST", "REFERENCE_LIST")}
        if isinstance(item, h5py.Dataset):
            creation = item.id.get_create_plist()
            facts |= {"bytes": item[()].tobytes(), "shape": item.shape,
                      "dtype": item.dtype.str, "chunks": item.chunks,
                      "filters": [creation.get_filter(number)
                                  for number in range(creation.get_nfilters())],
                      "fill": str(item.fillvalue),
                      "stored": item.id.get_num_chunks() if item.chunks else None,
                      "scales": [[scale.name for scale in dimension.values()]
                                 for dimension in item.dims] if item.ndim else []}
        found[name] = facts

    with h5py.File(path) as file:
        file.visititems(describe)
    return found


def process_of(path: Path) -> dict:
    with h5py.File(path) as file:
        return {name: item[()] if isinstance(item, h5py.Dataset) else {
            key: value[()] for key, value in item.items() if isinstance(value, h5py.Dataset)}
                for name, item in file["entry/process"].items()}


# shards

def test_a_shard_is_the_part_of_one_run_under_mpirun(mpirun, folder, shards):
    """The bytes of two ranks, of which each takes one image at a time, are those
    of the one process."""
    finished = mpirun(2, "-m", "swinmpi.cli.sample", *command(folder, 1, output="ranks.h5"),
                      "--ranks-per-image=1")
    assert finished.code == 0, finished.err
    assert f"shard 1 of 3: images 0 to 1 of {NUM_IMAGES}" in finished.out
    assert contents(folder / "ranks.shard-1-of-3.h5") == contents(shards[0])
    with h5py.File(shards[0]) as part, h5py.File(folder / "one.h5") as one:
        assert part["entry/data/sr"].shape == (2, 48, 56)
        for name in ("data/sr", "data/sr_spread", "data/angle", "per_image/lr_psnr"):
            assert part["entry"][name][:].tobytes() == one["entry"][name][:2].tobytes()


def test_a_shard_goes_on_only_as_itself(folder, shards, capsys):
    """All is done but the packing, for which there is no place; then under another shard's
    name; then again."""
    begun, other, packing = (folder / f"stopped.shard-{name}-of-3.h5{suffix}" for name, suffix in
                             ((1, ".partial"), (3, ".partial"), (1, ".packing")))
    packing.symlink_to("nowhere/file")
    assert sample_in(folder, 1, output="stopped.h5") == 2 and begun.exists()
    packing.unlink(missing_ok=True)
    begun.rename(other)
    capsys.readouterr()
    assert sample_in(folder, 3, output="stopped.h5") == 2
    assert "was begun with other settings (input.images" in capsys.readouterr().err
    other.rename(begun)
    assert (sample_in(folder, 1, output="stopped.h5") == 0
            and "2 of them done before" in capsys.readouterr().out)
    assert contents(folder / "stopped.shard-1-of-3.h5") == contents(shards[0])


def test_a_narrowed_stack_counts_from_its_first_image(folder):
    with Stack.open(str(folder / "in.h5")) as stack:
        part = stack.narrowed(range(1, 3))
        assert (part.num_images, part.shape, part.first_image) == (2, (2, 24, 28), 1)
        assert np.array_equal(part.read(1), stack.read(2), equal_nan=True)
        assert part.axes[0].values.tolist() == [0.5, 1.0] and len(part.axes[1].values) == 25
        assert part.range() == stack.range() and part.whole.shape == stack.shape
        with pytest.raises(IndexError):
            part.read(2)


def test_the_edges_of_a_part_are_one_more_than_its_images():
    edges = Axis("angle", np.arange(8.0), None)
    assert edges.cut(range(3, 5), 7).values.tolist() == [3, 4, 5]
    assert edges.cut(range(7, 7), 7).values.tolist() == [7]


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "1/", "a/b", "1/3/5", "-1/3"])
def test_what_is_not_a_shard_is_refused(folder, capsys, text):
    with pytest.raises(SystemExit) as ended:
        sample([*command(folder, None), f"--shard={text}"])
    assert ended.value.code == 2 and "expected I/N with I of 1..N" in capsys.readouterr().err


def test_a_dry_run_shows_the_shard(folder, capsys):
    assert sample([*command(folder, 2, of=4), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "shard 2 of 4: images 2 to 2 of 5" in out and "out.shard-2-of-4.h5" in out


def test_the_demo_has_shards_too(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert sample(["--shard", "2/4", "--dry-run"]) == 0
    assert "swinmpi-out/sr.shard-2-of-4.h5" in capsys.readouterr().out


# merging

def test_merged_shards_are_one_run(folder, shards, tmp_path, capsys):
    output = tmp_path / "merged.h5"
    assert merged(reversed(shards), output) == 3
    assert f"{output}: written, but images {DAMAGED} could not be read" in capsys.readouterr().err
    assert contents(output) == contents(folder / "one.h5")
    assert [path.name for path in tmp_path.iterdir()] == ["merged.h5"]
    together, one = process_of(output), process_of(folder / "one.h5")
    assert set(together) == set(one) | {"merge"} and together["timings"]["images"] == NUM_IMAGES - 1
    for name in ("input", "checkpoint_sha256", "configuration", "seed", "program", "version",
                 "ranks"):
        assert together[name] == one[name]
    assert together["failed_images"].tolist() == one["failed_images"].tolist()
    parts = [process_of(shard)["timings"]["seconds"] for shard in shards]
    assert (together["timings"]["seconds"] == pytest.approx(sum(parts))
            and together["merge"]["shards"] == 3)


def test_what_shards_say_alike_is_said_once():
    timings = [{"seconds": 1.0, "images": 2, "share": {"unet": 0.5}},
               {"seconds": 3.0, "images": 1, "share": {"unet": 0.9}}]
    first, second = ({"seed": 0, "ranks": ranks, "command": f"--shard {ranks}/2",
                      "date": f"2026-01-0{ranks}",
                      "timings": timing} for ranks, timing in zip((1, 2), timings, strict=True))
    assert common_process([first | {"job_id": "7"}, second | {"failed_images": ["4: torn"]}]) == {
        "seed": 0, "ranks": [1, 2], "command": ["--shard 1/2", "--shard 2/2"],
        "date": "2026-01-02", "job_id": ["7", ""], "failed_images": ["4: torn"],
        "timings": {"seconds": 4.0, "images": 3, "share": {"unet": pytest.approx(0.8)}}}


def test_a_virtual_stack_refers_to_shards_that_moved_with_it(folder, shards, tmp_path, capsys):
    """Percent signs mean something to HDF5, and swinmpi itself follows only where
    it is allowed to."""
    home, away = tmp_path / "100 %b", tmp_path / "away"
    (home / "parts").mkdir(parents=True)
    copies = [shutil.copy(shard, home / "parts") for shard in shards]
    assert merged(copies, home / "merged.h5", "--virtual") == 3
    home.rename(away)
    one, virtual = contents(folder / "one.h5"), contents(away / "merged.h5")
    for name in ("entry/data/sr", "entry/data/sr_spread", "entry/data/regression",
                 "entry/per_image/done", "entry/data/angle"):
        assert virtual[name]["bytes"] == one[name]["bytes"]
    assert (virtual["entry/data/sr"]["chunks"] is None
            and (away / "merged.h5").stat().st_size < 2 * shards[0].stat().st_size)
    capsys.readouterr()
    next_run = [str(away / "merged.h5"), "--output", str(tmp_path / "x.h5"),
                "--checkpoint", str(folder / "model.safetensors"), "--dry-run"]
    assert sample(next_run) == 2 and "virtual" in capsys.readouterr().err
    assert sample([*next_run, "--allow-external"]) == 0


def test_more_shards_than_images(folder, tmp_path):
    """The files of those without images are accepted, and not missed."""
    of = NUM_IMAGES + 1
    for shard in range(1, of + 1):
        assert sample_in(folder, shard, of, output="many.h5") == (3 if shard == DAMAGED + 1 else 0)
    files = [folder / f"many.shard-{shard}-of-{of}.h5" for shard in range(1, of + 1)]
    assert (merged(files, tmp_path / "all.h5") == 3
            and merged(files[:NUM_IMAGES], tmp_path / "some.h5") == 3)
    for name in ("all.h5", "some.h5"):
        assert contents(tmp_path / name) == contents(folder / "one.h5")


def edited(shard: Path, to: Path, **entries) -> Path:
    """A copy whose entries of the shard's process are replaced."""
    shutil.copy(shard, to)
    with h5py.File(to, "a") as file:
        for name, value in entries.items():
            del file["entry/process/shard"][name]
            file["entry/process/shard"][name] = value
    return to


def test_what_does_not_belong_together_is_refused(folder, shards, tmp_path, capsys):
    first, second, third = shards
    with h5py.File(second) as file:
        fingerprint = file["entry/process/shard/fingerprint"].asstr()[()]
    other_seed = fingerprint.replace('"seed": 0', '"seed": 1')
    assert other_seed != fingerprint
    seeded = edited(second, tmp_path / "seed.h5", fingerprint=other_seed)
    moved = edited(second, tmp_path / "moved.h5", first_image=3)
    older = edited(second, tmp_path / "older.h5")
    with h5py.File(older, "a") as file:
        del file["entry/per_image/lr_misfit"]
    torn = tmp_path / "torn.h5"
    torn.write_bytes(second.read_bytes()[:5000])
    (tmp_path / "text.h5").write_text("not HDF5")
    refusals = {"shards missing of 3: 2, 3; ": [first], "is given twice": [*shards, first],
                "sampler.seed differ": [first, seeded, third],
                "the figures of images, so the versions of swinmpi differ": [first, older, third],
                "holds other images than shard 2 of 3": [first, moved, third],
                "truncated": [first, torn, third], "another kind of file": [tmp_path / "text.h5"],
                "expected a finished file of swinmpi-sample --shard I/N": [folder / "one.h5"],
                "nothing there": [tmp_path / "nowhere.h5"]}
    for expected, files in refusals.items():
        for mode in ((), ("--dry-run",), ("--virtual",)):
            assert merged(files, tmp_path / "merged.h5", *mode) == 2
            captured = capsys.readouterr()
            assert (expected in captured.err and captured.err.count("\n") == 1
                    and captured.out == ""), captured.err
    assert not list(tmp_path.glob("merged*"))


def test_an_existing_output_is_kept_replaced_or_locked(shards, tmp_path, capsys):
    output = tmp_path / "merged.h5"
    output.write_text("mine")
    assert merged(shards, output) == 2 and "exists already" in capsys.readouterr().err
    assert merged(shards, output, "--overwrite", "--dry-run") == 0
    assert ("all 3, 5 images, 1 of them could not be read" in capsys.readouterr().out
            and output.read_text() == "mine")
    before = shards[0].read_bytes()
    assert (merged(shards, shards[0], "--overwrite") == 2
            and "would overwrite the input" in capsys.readouterr().err)
    assert shards[0].read_bytes() == before
    assert merged(shards, output, "--overwrite") == 3 and h5py.is_hdf5(output)


def test_a_merging_that_was_killed_runs_or_meets_a_full_disk(shards, tmp_path, capsys):
    """What a kill leaves behind is in nobody's way; what is in use is; no half of a file gets
    the name of the whole."""
    output, unfinished = tmp_path / "merged.h5", tmp_path / "merged.h5.packing"
    unfinished.write_bytes(b"left behind" * 100_000)
    with open_locked(unfinished):
        assert (merged(shards, output) == 2
                and "another run is writing it" in capsys.readouterr().err)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (shards[0].stat().st_size, hard))
    try:
        assert merged(shards, output) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "cannot be merged" in capsys.readouterr().err and not list(tmp_path.iterdir())
    unfinished.write_bytes(b"left behind")
    assert (merged(shards, output) == 3
            and [path.name for path in tmp_path.iterdir()] == ["merged.h5"])


def test_one_process_merges_under_a_launcher(mpirun, shards, tmp_path):
    finished = mpirun(2, "-m", "swinmpi.cli.merge", *shards, "--output", tmp_path / "merged.h5")
    assert finished.code == 3 and finished.out == f"written: {tmp_path / 'merged.h5'}\n"
