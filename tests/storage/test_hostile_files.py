"""Files that mean harm: no way out of the file without --allow-external, no memory bomb,
nothing for others to read."""
import json
import os
import stat
import struct
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest

from swinmpi.cli import evaluate, prepare, sample, train
from swinmpi.config.strict_yaml import parse_override, read_yaml
from swinmpi.errors import CheckpointError, ConfigError, StackError
from swinmpi.storage import probe
from swinmpi.storage.header import read_header
from swinmpi.storage.pairs import PairReader
from swinmpi.storage.probe import inspect_pairs, inspect_stacks
from swinmpi.storage.stack import Stack
from tests.support.sampling import arguments, smooth_stack, write_checkpoint, write_stack
from tests.support.training import as_arguments, settings, write_pairs

pytestmark = pytest.mark.slow

IMAGES = smooth_stack(2, 10, 12, 1, "uint8")


@pytest.fixture(scope="module")
def outside(tmp_path_factory):
    """A folder with the file that others point to."""
    folder = tmp_path_factory.mktemp("outside")
    with h5py.File(folder / "secret.h5", "w") as file:
        file["entry/data/images"] = IMAGES
        file["entry"].attrs["default"], file["entry/data"].attrs["signal"] = "data", "images"
        file["y"] = np.arange(10.0)
    IMAGES.tofile(folder / "secret.bin")
    return folder


def link_to(path: Path, name: str):
    return h5py.ExternalLink(str(path / "secret.h5"), name)


def virtual(file: h5py.File, name: str, source: Path | str, source_name: str) -> None:
    layout = h5py.VirtualLayout(IMAGES.shape, IMAGES.dtype)
    layout[...] = h5py.VirtualSource(str(source), source_name, IMAGES.shape)
    file.require_group(os.path.dirname(name) or "/")
    file.create_virtual_dataset(name, layout)


def soft_chain(file, outside):
    file["end"] = link_to(outside, "/entry/data/images")
    file["middle"] = h5py.SoftLink("/end")
    file["images"] = h5py.SoftLink("middle")


def group_behind(file, outside):
    file["entry"] = link_to(outside, "/entry")
    file["images"] = h5py.SoftLink("/entry/data/images")


def nexus_default(file, outside):
    file["entry"] = link_to(outside, "/entry")
    file.attrs["default"] = "entry"


def nexus_signal(file, outside):
    file["entry/data/images"] = link_to(outside, "/entry/data/images")
    file.attrs["default"], file["entry"].attrs["default"], file["entry/data"].attrs["signal"] = (
        "entry", "data", "images")


def nexus_axis(file, outside):
    file["images"] = IMAGES
    file["y"] = link_to(outside, "/y")
    file.attrs["axes"] = [".", "y", "."]


def nexus_axis_in_raw_storage(file, outside):
    file["images"] = IMAGES
    file.create_dataset("y", (10,), "u1", external=[(str(outside / "secret.bin"), 0, 10)])
    file.attrs["axes"] = [".", "y", "."]


def raw_storage(file, outside):
    file.create_dataset("images", IMAGES.shape, IMAGES.dtype,
                        external=[(str(outside / "secret.bin"), 0, IMAGES.nbytes)])


def virtual_source(file, outside):
    virtual(file, "images", outside / "secret.h5", "/entry/data/images")


def nested_virtual(file, outside):
    virtual(file, "inner", outside / "secret.h5", "/entry/data/images")
    virtual(file, "images", ".", "inner")


ESCAPES = [soft_chain, group_behind, nexus_default, nexus_signal, nexus_axis,
           nexus_axis_in_raw_storage, raw_storage, virtual_source, nested_virtual]


@pytest.mark.parametrize("escape", ESCAPES, ids=lambda escape: escape.__name__)
def test_no_way_out_of_the_file(tmp_path, outside, escape):
    with h5py.File(tmp_path / "in.h5", "w") as file:
        escape(file, outside)
    address = str(tmp_path / "in.h5") + ("" if escape.__name__.startswith("nexus") else "::/images")
    for read in (lambda: inspect_stacks([address]), lambda: Stack.open(address)):
        with pytest.raises(StackError, match="refused"):
            read()
    inspect_stacks([address], allow_external=True)
    with Stack.open(address, allow_external=True) as stack:
        assert np.array_equal(stack.read(1)[0], IMAGES[1])


@pytest.mark.parametrize("escape", [soft_chain, virtual_source], ids=lambda escape: escape.__name__)
def test_no_command_follows(tmp_path, outside, escape, capsys):
    """Each input of each command that has no --allow-external."""
    bad, good, out = (f"{tmp_path / 'in.h5'}::/images",
                      str(write_stack(tmp_path / "good.h5", IMAGES)), str(tmp_path / "out"))
    with h5py.File(tmp_path / "in.h5", "w") as file:
        escape(file, outside)
    with (h5py.File(tmp_path / "pairs.h5", "w") as pairs,
          h5py.File(write_pairs(tmp_path / "sound.h5")) as sound):
        pairs.attrs["scale"] = 2.0
        for name in ("lr", "split"):
            sound.copy(name, pairs)
        pairs["hr"] = h5py.ExternalLink(str(tmp_path / "sound.h5"), "/hr")
    for main, words in ((evaluate.main, [bad, "--reference", good, "--lr", good, "--output", out]),
                        (evaluate.main, [good, "--reference", bad, "--lr", good, "--output", out]),
                        (evaluate.main, [good, "--reference", good, "--lr", bad, "--output", out]),
                        (prepare.main, [bad, "--output", f"{out}.h5", "--set", "data.size_px=8"]),
                        (train.main,
                         [*as_arguments(settings(tmp_path / "pairs.h5", Path(out))), "--dry-run"])):
        code, said = main(words), capsys.readouterr().err
        assert code == 2 and "refused" in said and len(said.splitlines()) == 1, said
    assert not Path(out).exists() and not Path(f"{out}.h5").exists()


def test_our_own_results_lead_nowhere_else(tmp_path, outside):
    """swinmpi-evaluate reads more of an SR file than its stack."""
    with h5py.File(tmp_path / "sr.h5", "w") as file:
        file["entry/data/sr"] = IMAGES
        file["entry/data/regression"] = link_to(outside, "/entry/data/images")
    assert evaluate.main(
        [f"{tmp_path / 'sr.h5'}::/entry/data/sr", "--reference", str(outside / "secret.h5"),
         "--lr", str(outside / "secret.h5"), "--output", str(tmp_path / "out")]) == 2


def test_missing_and_endless_virtual_sources(tmp_path, outside):
    with h5py.File(tmp_path / "inner.h5", "w") as file:
        virtual(file, "gone", "nowhere.h5", "/images")
        virtual(file, "loop", tmp_path / "outer.h5", "/loop")
    with h5py.File(tmp_path / "outer.h5", "w") as file:
        virtual(file, "gone", "inner.h5", "/gone")
        virtual(file, "loop", "inner.h5", "/loop")
    for name, told in (("gone", "nowhere.h5 is missing"), ("loop", "leads back to itself")):
        with pytest.raises(StackError, match=told):
            inspect_stacks([f"{tmp_path / 'outer.h5'}::/{name}"], allow_external=True)


@pytest.mark.parametrize("shape, told",
                         [((10**12, 8, 8), "claims"), ((1, 10**6, 10**6), "GiB of memory"),
                          ((2**40, 1, 1), "claims")])
def test_a_shape_that_cannot_be_true(tmp_path, shape, told):
    for name, dtype in (("x", "u1"), ("y", "f4")):
        with h5py.File(tmp_path / "in.h5", "w") as file:
            file.create_dataset(name, shape, dtype,
                                chunks=(1, min(64, shape[1]), min(64, shape[2])))
        with pytest.raises(StackError, match=told):
            inspect_stacks([str(tmp_path / "in.h5")])
    with h5py.File(tmp_path / "pairs.h5", "w") as file:
        file.attrs["scale"] = 2.0
        for name in ("hr", "lr"):
            file.create_dataset(name, (*shape, 3), "u1",
                                chunks=(1, min(64, shape[1]), min(64, shape[2]), 3))
        file.create_dataset("split", shape[:1], "u1", chunks=(1,))
    for read in (inspect_pairs, PairReader):
        with pytest.raises(StackError, match=told):
            read(str(tmp_path / "pairs.h5"))


def test_a_filter_that_trusts_its_data(tmp_path):
    """A damaged chunk makes HDF5 read beyond it: some processes crash, others see
    what lies there."""
    write_stack(tmp_path / "in.h5", IMAGES, chunks=(1, 10, 12), scaleoffset=0)
    with pytest.raises(StackError, match="scaleoffset, .* h5repack"):
        Stack.open(str(tmp_path / "in.h5"))


def test_a_chunk_that_unpacks_to_gigabytes(tmp_path):
    """256 MiB of zeros as one gzip chunk: HDF5 unpacks until the stream ends."""
    packer = zlib.compressobj(9)
    block, packed = bytes(1 << 24), bytearray()
    for _ in range(16):
        packed += packer.compress(block)
    packed += packer.flush()
    with h5py.File(tmp_path / "in.h5", "w") as file:
        data = file.create_dataset("x", (2, 64, 64), "u1", chunks=(1, 64, 64), compression="gzip")
        data[1] = 7
        data.id.write_direct_chunk((0, 0, 0), bytes(packed))
    with pytest.raises(StackError, match="one chunk takes"):
        inspect_stacks([str(tmp_path / "in.h5")])


def test_a_chunk_that_needs_more_memory_than_it_should(tmp_path, monkeypatch):
    """1 MiB of pixels whose chunk unpacks to 256 MiB, while 64 are granted."""
    with h5py.File(tmp_path / "in.h5", "w") as file:
        data = file.create_dataset("x", (1, 1024, 1024), "u1", chunks=(1, 1024, 1024),
                                   compression="gzip")
        data.id.write_direct_chunk((0, 0, 0), zlib.compress(bytes(1 << 28), 9))
    monkeypatch.setattr(probe, "START", probe.START.replace("import child;", "import child; "
                                                            "from swinmpi.storage import probe; "
                                                            "probe.MEMORY_BYTES = 1 << 26;"))
    with pytest.raises(StackError, match="memory"):
        inspect_stacks([str(tmp_path / "in.h5")])


def test_yaml_bombs_are_one_line(tmp_path):
    doubling = [f"{b}: &{b} [*{a}, *{a}]" for a, b in zip("abcdefghijk", "bcdefghijkl",
                                                          strict=True)]
    bombs = {"aliases": "\n".join(["a: &a [x, x]", *doubling]),
             "merging": "a: &a {x: 1}\nb: {<<: *a}",
             "levels": "[" * 5000, "characters": "a: " + "x" * (1 << 18),
             "fit": "a: " + "1" * 5000, "python/object": "a: !!python/object/apply:os.system [id]"}
    for told, text in bombs.items():
        (tmp_path / "bomb.yaml").write_text(text)
        with pytest.raises(ConfigError, match="aliases" if told == "merging" else told) as error:
            read_yaml(tmp_path / "bomb.yaml")
        assert len(str(error.value).splitlines()) == 1 and len(str(error.value)) < 2500
    with pytest.raises(ConfigError, match="levels"):
        parse_override("sampler.steps=" + "[" * 100)


def test_a_lying_checkpoint_allocates_nothing(tmp_path, capsys):
    sound = write_checkpoint(tmp_path / "sound.safetensors")
    content = sound.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8:8 + length])
    model = json.loads(header["__metadata__"]["header"])
    stack = write_stack(tmp_path / "in.h5", IMAGES)
    for change, told in (
            ({"encoder_channels": 16384, "encoder_blocks": 64}, "memory"),
            ({"encoder_blocks": 10**9}, "settings"), ({"window_px": 10**6}, "settings"),
            ({"encoder_channels": 4096}, "does not fit"), ({"unet_channels": [[]]}, "settings")):
        lie = {**model, "model": {**model["model"], **change}}
        header["__metadata__"]["header"] = json.dumps(lie)
        text = json.dumps(header).encode()
        (tmp_path / "lie.safetensors").write_bytes(struct.pack("<Q", len(text)) + text
                                                   + content[8 + length:])
        assert sample.main([*arguments(stack, tmp_path / "out.h5", tmp_path / "lie.safetensors"),
                            "--dry-run"]) == 2
        said = capsys.readouterr().err
        assert told in said and len(said.splitlines()) == 1, said
    (tmp_path / "deep.safetensors").write_bytes(struct.pack("<Q", 10**15) + b"{" * 100)
    assert not (tmp_path / "out.h5").exists()
    with pytest.raises(CheckpointError, match="not a readable"):
        read_header(tmp_path / "deep.safetensors")


@pytest.mark.parametrize("umask", [0o027, 0o077])
def test_files_are_for_those_the_user_says(tmp_path, umask):
    before = os.umask(umask)
    try:
        stack, checkpoint = write_stack(tmp_path / "in.h5",
                                        IMAGES), write_checkpoint(tmp_path / "w.safetensors")
        out = tmp_path / "out.h5"
        assert sample.main(arguments(stack, out, checkpoint)) == 0
        write_stack(tmp_path / "hr.h5", smooth_stack(2, 20, 24, 1, "uint8"))
        assert evaluate.main([str(out), "--reference", str(tmp_path / "hr.h5"),
                              "--output", str(tmp_path / "figures")]) == 0
        assert prepare.main([str(tmp_path / "hr.h5"), "--output", str(tmp_path / "cut.h5"),
                             "--set", "data.size_px=8", "--set", "data.crops_per_image=1",
                             "--set", "data.flat_reject=0.0"]) == 0
        pairs = write_pairs(tmp_path / "pairs.h5", num_train=3, num_validate=1)
        assert train.main(as_arguments(settings(pairs, tmp_path / "run", "train.updates=1"))) == 0
    finally:
        os.umask(before)
    made = {path: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    assert {path.suffix for path in made} >= {".h5", ".json", ".png", ".safetensors", ".pt",
                                              ".jsonl"}
    assert not [path for path, mode in made.items() if mode & umask]
    assert all(
        mode == (0o777 if path.is_dir() else 0o666) & ~umask for path, mode in made.items()), made


def test_partial_output_has_the_users_mode(tmp_path):
    from swinmpi.storage.outputs.contents import OutputPlan
    from swinmpi.storage.outputs.output import StackOutput
    before = os.umask(0o027)
    try:
        with Stack.open(str(write_stack(tmp_path / "in.h5", IMAGES))) as stack, \
                StackOutput.open(tmp_path / "out.h5", stack, OutputPlan(2), {}):
            assert stat.S_IMODE((tmp_path / "out.h5.partial").stat().st_mode) == 0o640
    finally:
        os.umask(before)
