"""The whole configuration, and the schema of each group."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

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
from ftexp.config.loss import LOSSES, LossConfig
from ftexp.config.machine import WITHOUT_GRAPHS, RuntimeConfig, TrackingConfig
from ftexp.config.model import ModelConfig
from ftexp.config.optim import OPTIMIZERS, OptimizerConfig, PlateauConfig, SchedulerConfig
from ftexp.config.probe import ProbeConfig
from ftexp.config.recipe import RecipeConfig
from ftexp.config.resume import ResumeConfig
from ftexp.config.stage import BatchNormPolicyConfig, StageConfig
from ftexp.config.sweep import SweepConfig
from ftexp.config.train import AnyAugmentConfig, AugmentConfig, AutoAugmentConfig, TrainConfig
from ftexp.errors import ConfigError
from ftexp.metric_names import METRICS


@dataclass(slots=True)
class Config:
    """The configuration of a run."""

    model: ModelConfig = MISSING
    data: DataConfig = MISSING
    stage: StageConfig = MISSING
    bn_policy: BatchNormPolicyConfig = MISSING
    optimizer: OptimizerConfig = MISSING
    scheduler: SchedulerConfig = MISSING
    augment: AnyAugmentConfig = MISSING
    loss: LossConfig = MISSING
    head: HeadConfig = MISSING
    train: TrainConfig = MISSING
    runtime: RuntimeConfig = MISSING
    tracking: TrackingConfig = MISSING
    audit: AuditConfig = MISSING
    test: TestConfig = MISSING
    sweep: SweepConfig = MISSING
    recipe: RecipeConfig = MISSING
    probe: ProbeConfig = MISSING
    resume: ResumeConfig = MISSING

    @property
    def asked_metrics(self) -> list[str]:
        """The metrics that the settings name; ``train.metric``, which decides the best epoch, comes first."""
        objectives = [name.removeprefix("val_") for name in self.sweep.objectives]
        return list(dict.fromkeys([self.train.metric, *(name for name in objectives if name in METRICS)]))

    def __post_init__(self) -> None:
        if isinstance(self.augment, AutoAugmentConfig):
            self.recipe.augment.check(self.augment.strengths)
        if self.train.accumulate > 1 and self.runtime.may_record_graphs:
            raise ConfigError(
                f"runtime.compile_mode={self.runtime.compile_mode} is not possible with "
                f"train.accumulate={self.train.accumulate}: it records CUDA graphs, and the graph of the next batch "
                "overwrites the gradients of the batch before. "
                f"Use {WITHOUT_GRAPHS}, or train.accumulate=1."
            )


# Group -> schema name -> dataclass. The YAML file of an option has the schema name first in its defaults list.
SCHEMA: dict[str, dict[str, type]] = {
    "model": {"_model": ModelConfig},
    "data": {
        "_digits": DataConfig,
        "_imagefolder": ImageFolderConfig,
        "_manifest": ManifestConfig,
        "_torchvision": TorchvisionDataConfig,
        "_huggingface": HuggingFaceDataConfig,
        "_webdataset": WebDatasetConfig,
    },
    "stage": {"_stage": StageConfig},
    "bn_policy": {"_bn_policy": BatchNormPolicyConfig},
    "optimizer": {f"_{name}": kind for name, kind in OPTIMIZERS.items()},
    "scheduler": {"_scheduler": SchedulerConfig, "_plateau": PlateauConfig},
    "augment": {"_augment": AugmentConfig, "_augment_auto": AutoAugmentConfig},
    "loss": {f"_{name}": kind for name, kind in LOSSES.items()},
    "runtime": {"_runtime": RuntimeConfig},
    "tracking": {"_tracking": TrackingConfig},
    "sweep": {"_sweep": SweepConfig},
    "recipe": {"_recipe": RecipeConfig},
}
