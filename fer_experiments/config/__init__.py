"""What an experiment is made of: its schema, what its values may be, and the folders that it names."""

from fer_experiments.config.checks import check, check_data
from fer_experiments.config.folders import config_dir, options, project_root, read_yaml, sweeps_dir, yaml_of
from fer_experiments.config.parts import cache_dir, decides_results, experiment, is_place, mlruns_dir
from fer_experiments.config.plain import close, flatten, from_dict, to_dict, to_yaml, with_values
from fer_experiments.config.schema import (
    BackboneConfig,
    ComputeConfig,
    Config,
    DataConfig,
    FeaturesConfig,
    GateConfig,
    HeadConfig,
    PathsConfig,
    PretrainConfig,
    PromoteConfig,
    SweepConfig,
    TrackingConfig,
    TrainingConfig,
)

__all__ = [
    "BackboneConfig",
    "ComputeConfig",
    "Config",
    "DataConfig",
    "FeaturesConfig",
    "GateConfig",
    "HeadConfig",
    "PathsConfig",
    "PretrainConfig",
    "PromoteConfig",
    "SweepConfig",
    "TrackingConfig",
    "TrainingConfig",
    "cache_dir",
    "check",
    "check_data",
    "close",
    "config_dir",
    "decides_results",
    "experiment",
    "flatten",
    "from_dict",
    "is_place",
    "mlruns_dir",
    "options",
    "project_root",
    "read_yaml",
    "sweeps_dir",
    "to_dict",
    "to_yaml",
    "with_values",
    "yaml_of",
]
