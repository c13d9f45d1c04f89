"""What a checkpoint says about itself, read without torch, which takes seconds to import."""
import json
from pathlib import Path

from safetensors import SafetensorError, safe_open

from swinmpi.config.model_sections import as_meant
from swinmpi.errors import CheckpointError

FORMAT = "swinmpi-1"


def read_header(path: Path | str) -> dict:
    """The header given to `save_weights`.

    CheckpointError when the file is missing, damaged, cut short or not ours.
    """
    path = Path(path)
    if path.is_dir():
        raise CheckpointError(f"{path}: expected a checkpoint file (.safetensors), got a folder"
                              f"{checkpoints_in(path)}")
    if not path.is_file():
        raise CheckpointError(f"{path}: expected a checkpoint file (.safetensors), "
                              "found nothing there")
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error}); "
                              "copy or download it again") from None
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path}: expected weights written by swinmpi-train (format "
                              f"{FORMAT}), got {metadata.get('format', 'none')}")
    try:
        header = json.loads(metadata["header"])
    except (KeyError, ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise CheckpointError(f"{path}: its header is damaged; copy or download it again")
    return header | {"model": as_meant(header["model"])} if "model" in header else header


def checkpoints_in(folder: Path) -> str:
    """What to name instead of a folder: the best of a training run first."""
    newest = sorted(folder.glob("update-*/ema.safetensors"))[-1:]
    names = [*folder.glob("best.safetensors"), *newest, *sorted(folder.glob("*.safetensors"))]
    listed = ", ".join(str(name) for name in list(dict.fromkeys(names))[:3])
    return f"; name a file in it: {listed}" if listed else " without any; name a file"
