"""The schema: one dataclass per config group, with a comment on the meaning of each field.

The values are in ``conf/*.yaml``; names, types and rules are here. ``slots=True`` is needed: without it,
``+group.misspelt=1`` would pass the schema. Nothing here imports torch.
"""

from ftexp.config.compose import as_data, parse, register_schema, with_changes
from ftexp.config.data import (
    AuditConfig,
    DataConfig,
    HuggingFaceDataConfig,
    ImageFolderConfig,
    ManifestConfig,
    TestConfig,
    TorchvisionDataConfig,
    WebDatasetConfig,
)
from ftexp.config.head import HeadConfig
from ftexp.config.loss import LossConfig
from ftexp.config.machine import RuntimeConfig, TrackingConfig
from ftexp.config.model import ModelConfig
from ftexp.config.optim import OptimizerConfig, PlateauConfig, SchedulerConfig
from ftexp.config.probe import ProbeConfig
from ftexp.config.root import SCHEMA, Config
from ftexp.config.stage import BatchNormPolicyConfig, PhaseConfig, StageConfig
from ftexp.config.sweep import SweepConfig
from ftexp.config.train import AugmentConfig, TrainConfig

__all__ = [
    "SCHEMA",
    "AuditConfig",
    "AugmentConfig",
    "BatchNormPolicyConfig",
    "Config",
    "DataConfig",
    "HeadConfig",
    "HuggingFaceDataConfig",
    "ImageFolderConfig",
    "LossConfig",
    "ManifestConfig",
    "ModelConfig",
    "OptimizerConfig",
    "PhaseConfig",
    "PlateauConfig",
    "ProbeConfig",
    "RuntimeConfig",
    "SchedulerConfig",
    "StageConfig",
    "SweepConfig",
    "TestConfig",
    "TorchvisionDataConfig",
    "TrackingConfig",
    "TrainConfig",
    "WebDatasetConfig",
    "as_data",
    "parse",
    "register_schema",
    "with_changes",
]
