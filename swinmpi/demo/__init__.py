"""What ships: models, the sample stack with its truth, and where they come from (PROVENANCE.md)."""
from importlib.resources import files
from pathlib import Path

MODELS = {"photos_x2": "photos_x2.safetensors"}
DEMO_MODEL, DEMO_STACK, DEMO_SCALE = "photos_x2", "demo_x2.h5", 2


def shipped(name: str) -> Path:
    """A file of this folder."""
    return Path(str(files("swinmpi.demo") / name))
