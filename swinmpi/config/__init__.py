"""What can be set: sections of typed keys, read from YAML and the command line."""
from swinmpi.config.loading import PRESETS, dump_yaml, load_config
from swinmpi.config.sections import (
    AlignedModel,
    Config,
    DataConfig,
    DiffusionConfig,
    ModelConfig,
    ParallelConfig,
    SamplerConfig,
    ShiftConfig,
    ThesisModel,
    TrainConfig,
)

__all__ = ["PRESETS", "AlignedModel", "Config", "DataConfig", "DiffusionConfig", "ModelConfig", "ParallelConfig",
           "SamplerConfig", "ShiftConfig", "ThesisModel", "TrainConfig", "dump_yaml", "load_config"]
