"""What ships: models, the sample stack with its truth, and where they come from (PROVENANCE.md)."""
from importlib.resources import files
from pathlib import Path

MODELS = {name: f"{name}.safetensors"
          for name in ("photos_x2", "bicubic_x2", "bicubic_x3", "bicubic_x4", "bicubic_x8")}
DEMO_MODEL, DEMO_STACK, DEMO_SCALE = "photos_x2", "demo_x2.h5", 2


def shipped(name: str) -> Path:
    """A file of this folder."""
    return Path(str(files("swinmpi.demo") / name))
