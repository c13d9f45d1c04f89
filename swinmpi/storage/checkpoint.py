"""Checkpoints, written whole: weights as safetensors with their configuration, training state."""
import io
import json
import os
import shutil
import warnings
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from swinmpi.errors import CheckpointError, OutputError
from swinmpi.storage.files import (
    Sink,
    as_output_error,
    existing_folder,
    is_writable,
    sync_folder,
    system_reason,
    write_atomically,
)
from swinmpi.storage.header import FORMAT, opened, read_header
from swinmpi.storage.locking import open_locked


def save_weights(path: Path, tensors: Mapping[str, Tensor], header: Mapping) -> None:
    """Write weights so that `path` either keeps its old content or holds all of the new.

    header: JSON-serialisable.
    """
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    write_atomically(path, save(plain, metadata={"format": FORMAT, "header": json.dumps(header)}))


def load_weights(path: Path | str) -> tuple[dict[str, Tensor], dict]:
    """(tensors on the CPU, header).

    CheckpointError when the file is missing, damaged or not ours.
    """
    header = read_header(path)
    try:
        with opened(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, header
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error}); "
                              "copy or download it again") from None


def load_state_dict(path: Path | str) -> dict[str, Tensor]:
    """The tensors of a foreign state dict: a `torch.save` of one, or of a dictionary that has it
    for its only such entry, or safetensors.

    Nothing is unpickled but tensors and plain values. CheckpointError where it is none.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: expected a file with a state dict, found "
                              f"{'a folder' if path.is_dir() else 'nothing there'}")
    try:
        with warnings.catch_warnings(action="ignore"):  # what is wrong is told below
            saved = (load_file(path) if path.suffix == ".safetensors"
                     else torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # noqa: BLE001 - torch raises many kinds, for pickles as well
        raise CheckpointError(f"{path}: expected a state dict of tensors alone, as torch.save("
                              "network.state_dict(), FILE) writes it, got something else "
                              f"({type(error).__name__}); save it so") from None
    nested = {"": saved} | (dict(saved) if isinstance(saved, Mapping) else {})
    found = {str(name): one for name, one in nested.items() if isinstance(one, Mapping) and one
             and all(isinstance(value, Tensor) for value in one.values())}
    if len(found) != 1:
        raise CheckpointError(f"{path}: expected one state dict, got "
                              f"{', '.join(sorted(found)) or 'none'}; save one alone, by "
                              "torch.save(network.state_dict(), FILE)")
    return {str(name): value for name, value in next(iter(found.values())).items()}


def load_into(module: torch.nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Strict load; CheckpointError names the first difference instead of listing hundreds."""
    check_shapes(module.state_dict(), tensors, source)
    module.load_state_dict(dict(tensors))


def check_shapes(wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor], source: str) -> None:
    """CheckpointError unless `tensors` has the names and shapes that are wanted."""
    own = {name: tuple(value.shape) for name, value in wanted.items()}
    came = {name: tuple(value.shape) for name, value in tensors.items()}
    for name in sorted(own.keys() | came.keys()):
        if own.get(name) != came.get(name):
            raise CheckpointError(
                f"{source}: does not fit the configured model: {name} should be "
                f"{own.get(name, 'absent')}, is {came.get(name, 'absent')}; remove `model` "
                "settings to use the checkpoint's own")


def file_sha256(path: Path | str) -> str:
    """Hexadecimal digest of a file, for provenance and fingerprints."""
    digest = sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


class CheckpointFolder:
    """A training run's folder.

    `update-00001000/` holds one complete state, newest last; `best.safetensors` the best EMA. One
    process writes. A folder under its final name is complete: it is filled, and emptied, under a
    hidden name. As a context manager it releases the lock that `create` took.
    """

    def __init__(self, root: Path, keep_last: int):
        self.root, self.keep_last = root, keep_last
        self.lock: Sink | None = None

    def __enter__(self) -> "CheckpointFolder":
        return self

    def __exit__(self, *error) -> None:
        if self.lock is not None:
            self.lock.close()

    def check(self) -> None:
        """OutputError where `create` would raise it, as far as can be told; makes nothing."""
        above = existing_folder(self.root / ".lock")
        if not os.path.isdir(above) or not is_writable(above):
            raise OutputError(f"{self.root}: cannot write: {above} is no folder, or not writable; "
                              "choose --set train.output=FOLDER")
        if above == self.root and (self.root / ".lock").exists():
            self._open_lock().close()

    def _open_lock(self) -> Sink:
        try:
            return open_locked(self.root / ".lock", create=True)
        except OutputError:
            raise OutputError(f"{self.root}: another run is training here; wait for its end, "
                              "or choose another --set train.output=FOLDER") from None

    def create(self) -> None:
        """Make the folder, lock out other runs, remove what a killed one left; OutputError."""
        with as_output_error(self.root, "cannot write: {reason}",
                             "choose --set train.output=FOLDER", reason=system_reason):
            self.root.mkdir(parents=True, exist_ok=True)
            self.lock = self._open_lock()
            for leftover in (*self.root.glob(".filling-*"), *self.root.glob(".emptying-*")):
                shutil.rmtree(leftover)
            for leftover in (*self.root.glob(".best.safetensors.*"),
                             *self.root.glob(".steps-*.safetensors.*"),
                             *self.root.glob(".log.jsonl.*")):
                leftover.unlink()

    def states(self) -> list[Path]:
        """The complete states, oldest first."""
        return sorted(self.root.glob("update-*"))

    def latest(self) -> Path | None:
        """The newest complete state, or None."""
        return self.states()[-1] if self.states() else None

    def save(self, update: int, weights: Mapping[str, Tensor], ema: Mapping[str, Tensor],
             state: dict, header: dict) -> None:
        """Write everything a resume needs, then forget states older than the last `keep_last`.

        OutputError when that cannot be written.
        """
        final = self.root / f"update-{update:08d}"
        filling = self.root / f".filling-{update:08d}"
        packed = io.BytesIO()
        torch.save(state, packed)
        try:
            with as_output_error(final, "cannot write: {reason}",
                                 "make room or choose another folder", reason=system_reason):
                shutil.rmtree(filling, ignore_errors=True)
                filling.mkdir()
                save_weights(filling / "weights.safetensors", weights, header)
                save_weights(filling / "ema.safetensors", ema, header)
                write_atomically(filling / "state.pt", packed.getvalue())
                if final.exists():
                    self.forget(final)
                os.replace(filling, final)
                sync_folder(self.root)
                for old in self.states()[:-self.keep_last]:
                    self.forget(old)
        except OutputError:
            shutil.rmtree(filling, ignore_errors=True)
            raise

    def save_best(self, ema: Mapping[str, Tensor], header: dict) -> None:
        save_weights(self.root / "best.safetensors", ema, header)

    def forget(self, state: Path) -> None:
        """Remove a state; being killed meanwhile leaves no half of it under its name."""
        emptying = state.with_name(f".emptying-{state.name}")
        shutil.rmtree(emptying, ignore_errors=True)
        os.replace(state, emptying)
        shutil.rmtree(emptying)


def load_state(folder: Path) -> dict:
    """The training state of one `update-*` folder.

    Nothing is unpickled but tensors and plain values.
    """
    try:
        return torch.load(folder / "state.pt", map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - torch raises many kinds for a damaged file
        raise CheckpointError(
            f"{folder / 'state.pt'}: not a readable training state ({type(error).__name__}); "
            "remove this folder to resume from the one before") from None
