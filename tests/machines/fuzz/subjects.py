"""The sound files that are damaged, and the commands that read them."""
import io
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch

from swinmpi.cli import sample, train
from tests.machines.fuzz.hostile import hostile_stack
from tests.machines.fuzz.mutate import (
    change_leaf,
    damage,
    damage_described,
    damage_hdf5,
    damage_png,
    damage_safetensors,
    damage_tiff,
    damage_yaml,
)
from tests.machines.fuzz.photos import DAMAGED_PHOTOS, PHOTOS, write_photos
from tests.support.sampling import smooth_stack, write_checkpoint, write_stack
from tests.support.training import as_arguments, settings, write_pairs

ROOT = Path(__file__).parents[3]
PREPARE = ["--set", "data.size_px=8", "--set", "data.scale=2", "--set", "data.crops_per_image=2"]


@dataclass(frozen=True)
class Subject:
    """A file below the base folder, how it is damaged, and the command lines that read it: words,
    in which {file} stands for the damaged file, {base} for the folder of sound ones, {run} for
    the case's own copy of the training run, {folder} for the folder in which it lies."""

    kind: str
    file: str
    damage: Callable[[bytes, random.Random], bytes]
    commands: tuple[tuple[str, ...], ...]


def make_files(base: Path) -> None:
    """Everything that is damaged or needed beside it, a few KiB each."""
    (base / "run").mkdir(parents=True)
    write_checkpoint(base / "tiny.safetensors", "model.window_px=16")
    shutil.copy(ROOT / "swinmpi/demo/demo_x2.h5", base / "demo.h5")
    grey, colour = smooth_stack(3, 12, 14), smooth_stack(2, 10, 12, 3, "uint8")
    write_stack(base / "plain.h5", grey)
    write_stack(base / "gzip.h5", colour, chunks=(1, 5, 12, 3), compression="gzip", shuffle=True,
                fletcher32=True)
    write_stack(base / "lzf.h5", smooth_stack(3, 12, 12, 1, "float32"), chunks=(2, 6, 6),
                compression="lzf")
    write_stack(base / "spanning.h5", grey.astype(">f4"), chunks=(3, 12, 7), compression="gzip")
    nexus(base / "nexus.h5", colour)
    with h5py.File(base / "latest.h5", "w", libver="latest") as file:
        for name, shape in (("fixed", None), ("extensible", (None, 10, 12, 3)),
                            ("tree", (None, None, None, 3))):
            file.create_dataset(f"{name}/images", data=colour, chunks=(1, 5, 6, 3), maxshape=shape,
                                compression="gzip")
    with h5py.File(base / "source.h5", "w") as file:
        file["images"] = grey
    with h5py.File(base / "virtual.h5", "w") as file:
        layout = h5py.VirtualLayout(grey.shape, grey.dtype)
        layout[...] = h5py.VirtualSource("source.h5", "images", grey.shape)
        file.create_virtual_dataset("images", layout)
    hr = smooth_stack(2, 24, 28)
    write_stack(base / "hr.h5", hr, chunks=(1, 24, 28), compression="gzip")
    write_stack(base / "lr.h5", hr[:, ::2, ::2])
    write_pairs(base / "pairs.h5", size_px=32, num_train=3, num_validate=1)
    ran = [sample.main([*map(str, (base / "lr.h5", "--output", base / "sr.h5",
                                   "--checkpoint", base / "tiny.safetensors"))]),
           train.main(as_arguments(run_settings(base, base / "run")))]
    if any(ran):
        raise RuntimeError(f"the sound files cannot be made: exit codes {ran}")
    for path in (ROOT / "configs/train").glob("*.yaml"):
        shutil.copy(path, base)
    write_photos(base / PHOTOS)


def nexus(path: Path, images: np.ndarray) -> None:
    """Groups, links, axes, scales and attributes of many types around the images."""
    with h5py.File(path, "w") as file:
        data = file.create_group("entry/instrument/detector")
        data["images"] = images
        file["entry/data/images"] = h5py.SoftLink("/entry/instrument/detector/images")
        file["entry/data/y"] = np.arange(images.shape[1] + 1, dtype="f8")
        file.attrs["default"], file["entry"].attrs["default"] = "entry", "data"
        file["entry/data"].attrs.update({"NX_class": "NXdata", "signal": "images",
                                         "axes": [".", "y", ".", "."]})
        attributes = file["entry/instrument/detector/images"].attrs
        attributes.update({"units": "counts", "long": "x" * 500,
                           "table": np.arange(40).reshape(5, 8), "nothing": h5py.Empty("f4"),
                           "records": np.array([(1, 2.5)], dtype=[("a", "i4"), ("b", "f8")]),
                           "words": np.array(["some", "words"], dtype=h5py.string_dtype())})
        attributes["pointer"] = file["entry"].ref
        file["scale"] = np.arange(images.shape[2], dtype="f4")
        file["scale"].make_scale("x")
        file["entry/instrument/detector/images"].dims[2].attach_scale(file["scale"])


def run_settings(base: Path, run: Path) -> list[str]:
    return settings(base / "pairs.h5", run, "train.updates=3", "train.validate_every=3",
                    "train.keep_last=1")


def subjects() -> list[Subject]:
    """In the order in which cases take them."""
    sampling = ("sample", "{file}", "--output", "out.h5",
                "--overwrite", "--checkpoint", "{base}/tiny.safetensors")
    plain = (sampling, ("prepare", "{file}", "--output", "out.h5", "--overwrite", *PREPARE),
             (*sampling, "--dry-run"))
    stacks = [Subject("HDF5 stack", f"{name}.h5", damage_hdf5, plain)
              for name in ("plain", "gzip", "lzf", "spanning", "nexus")]
    stacks += [Subject("HDF5 stack", "latest.h5", damage_hdf5,
                       tuple((command[0], f"{{file}}::/{name}", *command[2:])
                             for name in ("fixed", "extensible", "tree") for command in plain))]
    stacks += [Subject("HDF5 stack", "virtual.h5", damage_hdf5, ((*sampling, "--allow-external"),)),
               Subject("HDF5 stack", "demo.h5", damage_hdf5, ((*sampling, "--dry-run"),))]
    judged = {"sr": "{base}/sr.h5", "hr": "{base}/hr.h5", "lr": "{base}/lr.h5"}
    evaluated = [Subject("HDF5 evaluated", f"{name}.h5", damage_hdf5,
                         (evaluation(**{**judged, name: "{file}"}),)) for name in judged]
    tiny = as_arguments(run_settings(Path("{base}"), Path("{run}")))
    pairs = Subject("HDF5 pairs", "pairs.h5", damage_hdf5, (
        ("train", *tiny, "--set", "train.output=out", "--set", "train.data={file}"),
        ("train", *tiny, "--set", "train.output=out", "--set", "train.data={file}", "--dry-run")))
    weights = Subject("weights", "tiny.safetensors",
                      damage_safetensors, (("sample", "{base}/plain.h5", "--output", "out.h5",
                                            "--overwrite", "--checkpoint", "{file}"),
                                           ("sample", "{base}/plain.h5", "--output", "out.h5",
                                            "--overwrite", "--checkpoint", "{file}", "--dry-run")))
    resume = ("train", *tiny, "--set", "train.updates=4", "--resume")
    parts = {"state.pt": damage_state, "weights.safetensors": damage_safetensors,
             "ema.safetensors": damage_safetensors}
    states = [Subject("training state", f"run/update-00000003/{name}", how,
                      (resume,)) for name, how in parts.items()]
    settings_files = [Subject("YAML", path.name, damage_yaml, (
        ("train", "--config", "{file}", "--set", "train.data={base}/pairs.h5",
         "--set", "train.output=out", "--dry-run"),
        ("sample", "{base}/plain.h5", "--output", "out.h5", "--overwrite", "--config", "{file}",
         "--dry-run"),
        ("prepare", "{base}/plain.h5", "--output", "out.h5", "--overwrite", "--config", "{file}",
         "--dry-run"))) for path in sorted((ROOT / "configs/train").glob("*.yaml"))]
    # Taken in turn: half HDF5, a third pictures, a sixth each YAML and what training writes.
    hdf5, trained = [*stacks, *evaluated, pairs], [weights, states[0], weights, states[1], weights,
                                                   states[2]]
    hostile = Subject("HDF5 words", "plain.h5", hostile_stack, plain)
    photos = picture_subjects()
    turns = range(len(hdf5) * len(trained))
    return [choices[number % len(choices)] for number in turns
            for choices in (hdf5, photos, settings_files, [hostile], photos[::-1], trained)]


def picture_subjects() -> list[Subject]:
    """Pictures beside a sound one, and alone."""
    to_folder = ("--output", "out", "--overwrite", "--checkpoint", "{base}/tiny.safetensors")
    to_pairs = ("--output", "out.h5", "--overwrite", *PREPARE, "--set", "data.flat_reject=0.0")
    commands = (("sample", "{folder}", *to_folder), ("prepare", "{folder}", *to_pairs),
                ("sample", "{file}", *to_folder), ("sample", "{folder}", *to_folder, "--dry-run"),
                ("prepare", "{folder}", *to_pairs, "--lr-only"))
    ways = {"png": damage_png, "tif": damage_tiff, "jpg": damage, "webp": damage}
    described = {"imagej.tif": damage_described, "ome.tif": damage_described}
    return [Subject("pictures", f"{PHOTOS}/{name}",
                    described.get(name, ways[name.rpartition(".")[2]]), commands)
            for name in DAMAGED_PHOTOS]


def evaluation(sr: str, hr: str, lr: str) -> tuple[str, ...]:
    return ("evaluate", sr, "--reference", hr, "--lr", lr, "--output", "out",
            "--overwrite")


def damage_state(content: bytes, rng: random.Random) -> bytes:
    """Random bytes, or a state in which values do not belong."""
    if rng.random() < 0.5:
        return damage(content, rng)
    state = torch.load(io.BytesIO(content), weights_only=True)
    changed = io.BytesIO()
    torch.save(change_leaf(state, rng), changed)
    return changed.getvalue()
