"""The sections of all model families, by their names."""
from typing import get_args

from swinmpi.config.baseline_sections import BicubicModel, SrdiffModel, VanillaModel
from swinmpi.config.latent_section import LatentModel
from swinmpi.config.model_sections import AlignedModel, ModelSection, ThesisModel
from swinmpi.config.wavelet_section import WaveletModel

ModelConfig = (AlignedModel | ThesisModel | SrdiffModel | VanillaModel | BicubicModel | LatentModel
               | WaveletModel)
FAMILIES: dict[str, type[ModelSection]] = {section.model_fields["family"].default: section
                                           for section in get_args(ModelConfig)}
DEFAULT_FAMILY = next(iter(FAMILIES))
