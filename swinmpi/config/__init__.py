"""What can be set: sections of typed keys, read from YAML and the command line."""
from swinmpi.config.baseline_sections import SrdiffModel, VanillaModel
from swinmpi.config.families import ModelConfig
from swinmpi.config.latent_section import LatentModel
from swinmpi.config.loading import PRESETS, dump_yaml, load_config
from swinmpi.config.model_sections import AlignedModel, ThesisModel
from swinmpi.config.sections import (
    Config,
    DataConfig,
    DiffusionConfig,
    ParallelConfig,
    SamplerConfig,
    ShiftConfig,
)
from swinmpi.config.train_section import TrainConfig
from swinmpi.config.wavelet_section import WaveletModel

__all__ = ["PRESETS", "AlignedModel", "Config", "DataConfig", "DiffusionConfig", "LatentModel",
           "ModelConfig", "ParallelConfig", "SamplerConfig", "ShiftConfig", "SrdiffModel",
           "ThesisModel", "TrainConfig", "VanillaModel", "WaveletModel", "dump_yaml", "load_config"]
