"""What ships: models, the sample stack with its truth, and where they come from (PROVENANCE.md).

To ship a model: its file here, a line in SHIPPED, a section in PROVENANCE.md.
"""
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path


@dataclass(frozen=True)
class Shipped:
    """A model under a name, with what its file does not say itself.

    trained_on: in a few words; licence: of the weights; gains: dB over bicubic by preset, on images
    called judged_on; presets: files of their own, such as students, by preset.
    """

    file: str
    trained_on: str
    licence: str
    gains: Mapping[str, float] = field(default_factory=dict)
    judged_on: str = ""
    presets: Mapping[str, str] = field(default_factory=dict)

    @property
    def files(self) -> tuple[str, ...]:
        """Its own and those of presets, each once."""
        return tuple(dict.fromkeys((self.file, *self.presets.values())))

    def file_of(self, preset: str | None) -> str:
        """The file that a preset is sampled with; None for no preset."""
        return self.presets.get(preset or "", self.file)


def bicubic(scale: int) -> Shipped:
    """The baseline under the name of a model."""
    return Shipped(f"bicubic_x{scale}.safetensors", "nothing", "Apache-2.0")


HR_IMAGES = "the HR images of demo_x2.h5, shrunk"
PHOTOGRAPHS = "16 photographs of Debian packages"
SHIPPED = {
    "photos_x2": Shipped("photos_x2.safetensors", PHOTOGRAPHS, "Apache-2.0",
                         {"regression": 2.82, "faithful": 2.82, "fast": 1.96, "balanced": 1.97,
                          "detailed": 1.57}, "demo_x2.h5",
                         {preset: "photos_x2_one_step.safetensors"
                          for preset in ("fast", "balanced")}),
    "photos_x4": Shipped("photos_x4.safetensors", PHOTOGRAPHS, "Apache-2.0",
                         {"regression": 1.68, "faithful": 1.67, "fast": 1.62, "balanced": 1.50,
                        "detailed": 0.79}, HR_IMAGES),
    "grey_x2": Shipped("grey_x2.safetensors", PHOTOGRAPHS, "Apache-2.0",
                       {"regression": 2.79, "faithful": 2.79, "fast": 2.62, "balanced": 2.27,
                        "detailed": 1.22}, HR_IMAGES),
    "grey_x4": Shipped("grey_x4.safetensors", PHOTOGRAPHS, "Apache-2.0",
                       {"regression": 1.52, "faithful": 1.52, "fast": 1.41, "balanced": 1.41,
                        "detailed": 0.34}, HR_IMAGES),
    **{f"bicubic_x{scale}": bicubic(scale) for scale in (2, 3, 4, 8)}}
MODELS = {name: model.file for name, model in SHIPPED.items()}
FILES = tuple(file for model in SHIPPED.values() for file in model.files)
DEFAULT_PRESET = "balanced"
DEMO_MODEL, DEMO_STACK, DEMO_SCALE = "photos_x2", "demo_x2.h5", 2


def shipped(name: str) -> Path:
    """A file of this folder."""
    return Path(str(files("swinmpi.demo") / name))
