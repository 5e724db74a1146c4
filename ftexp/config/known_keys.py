"""Every key that a command can set, and suggestions for keys that do not exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from typing import get_type_hints

from ftexp.config.moved import moved_to
from ftexp.config.root import SCHEMA, Config
from ftexp.errors import ConfigError, closest

# Settings that name a file or a folder; a "~" at their beginning means the home folder.
PATHS = (
    "data.root",
    "data.file",
    "data.groups",
    "audit.cache",
    "audit.write_groups",
    "runtime.cache_folder",
    "model.weights",
)
HYDRA_PATHS = ("hydra.run.dir", "hydra.sweep.dir")
HYDRA_STRINGS = (*HYDRA_PATHS, "hydra.sweep.subdir", "hydra.sweeper.storage", "hydra.sweeper.study_name")

# Setting of ftexp -> its names in timm, torchvision, fastai, Lightning, transformers and Ultralytics, in lower case and
# with "_" for "-".
_ELSEWHERE = {
    "optimizer.head_lr, and optimizer.backbone_lr for the blocks below the head": (
        "lr learning_rate learningrate base_lr initial_lr lr0 lr_max max_lr blr"
    ),
    "train.batch_size": "batch bs batchsize train_batch_size per_device_train_batch_size total_batch_size",
    "stage.epochs": "epoch num_epochs n_epochs nepochs max_epochs num_train_epochs n_epoch",
    "runtime.seed (data.seed is for the split)": "seed random_state random_seed manual_seed",
    "runtime.workers": "num_workers n_workers nw dataloader_num_workers",
    "runtime.device": "gpu gpus cuda device_id devices accelerator no_cuda",
    "runtime.precision": "amp fp16 bf16 half mixed_precision amp_dtype use_amp",
    "model.weights: default, null (random) or a file": (
        "pretrained checkpoint initial_checkpoint ckpt ckpt_path checkpoint_path pretrained_path pretrained_weights"
    ),
    "data.image_size, or model.image_size": "image_size img_size imgsz img input_size resolution crop_size size",
    "optimizer.weight_decay": "wd weightdecay l2",
    "model=NAME": "arch architecture backbone model_name net network",
    "optimizer=NAME": "opt optim solver",
    "scheduler=NAME": "sched lr_scheduler lr_schedule lr_scheduler_type cos_lr schedule",
    "data=imagefolder data.root=FOLDER": (
        "data_dir data_path dataset dataset_dir data_root path folder dir "
        "root_dir image_dir images_dir img_dir train_dir"
    ),
    "data=manifest data.file=FILE": "csv csv_file manifest train_csv df",
    "data.val_fraction": "val_split valid_pct validation_split val_size valid_size",
    "data.test_fraction": "test_split test_size",
    "hydra.run.dir=FOLDER": "output output_dir out_dir out save_dir logdir log_dir workdir default_root_dir",
    "tracking.experiment": "project experiment_name exp_name run_name wandb wandb_project",
    "tracking.uri": "tracking_uri mlflow_uri mlflow_tracking_uri",
    "stage=head, partial or full": "freeze freeze_backbone freeze_layers unfreeze linear_probe freeze_epochs",
    "resume=FOLDER or resume=auto": (
        "from resume_from resume_path resume_from_checkpoint resume_checkpoint resume_training auto_resume"
    ),
    "model.drop_rate": "dropout drop",
    "model.drop_path_rate": "drop_path stochastic_depth",
    "loss.label_smoothing": "smoothing",
    "loss=NAME": "criterion loss_fn loss_func loss_function",
    "train.patience": "early_stopping early_stopping_patience",
    "train.accumulate": "grad_accum grad_accum_steps gradient_accumulation_steps accumulate_grad_batches",
    "train.clip_norm": "clip clip_grad clip_grad_norm grad_clip max_grad_norm max_norm gradient_clip_val",
    "train.ema": "model_ema model_ema_decay ema_decay",
    "loss.class_weights": "class_weight pos_weight",
    "loss.gamma, of loss=focal": "focal_gamma fl_gamma",
    "train.metric": "monitor eval_metric metric_for_best_model",
    "optimizer.block_decay": "layer_decay llrd",
    "augment.policy": "aa auto_augment autoaugment randaugment ra_magnitude trivial_augment",
    "augment.erasing": "reprob random_erase random_erasing",
    "augment.horizontal_flip": "hflip fliplr flip",
    "hydra.sweeper.n_trials": "trials num_trials n_iter",
}
_CLASSES = ("num_classes", "nc", "n_classes", "nb_classes", "n_out")


def refuse_unknown(full_key: str) -> None:
    """Raise a ConfigError for a setting that no configuration has, whatever options are chosen.

    Of a group whose options have settings of their own, only the composed configuration tells what is allowed.
    """
    group, _, below = full_key.partition(".")
    key = below.partition(".")[0]
    if group not in _schemas():
        raise ConfigError(unknown_setting(group, list(_schemas())))
    schema, *others = _schemas()[group]
    allowed = [field.name for field in fields(schema)]
    if key and key not in allowed and not others:
        raise ConfigError(unknown_setting(f"{group}.{key}", allowed))


def unknown_setting(full_key: str, allowed: list[str], belongs: str = "") -> str:
    """The message for a setting that does not exist.

    Args:
        full_key: the setting as given, with the names of its groups.
        allowed: the keys that exist in its group.
        belongs: a sentence that says which option has the setting, if one does.
    """
    if moved := moved_to(full_key):
        return moved
    prefix = full_key.rpartition(".")[0]
    where = f"{prefix}." if prefix else ""
    listing = f" Allowed here: {', '.join(where + name for name in allowed)}." if allowed else ""
    listing += explained(prefix) if allowed else ""
    return f"There is no setting {full_key}.{belongs or hint(full_key, allowed)}{listing}"


def explained(group: str) -> str:
    """A sentence, with a leading space, that names the command that explains a group of settings; "" for others."""
    return f" python -m ftexp.settings {group} explains them." if group in get_type_hints(Config) else ""


def hint(full_key: str, allowed: list[str]) -> str:
    """Suggest what was meant by a setting that does not exist.

    It tries in turn: a key of the same group with almost the same spelling, a name that another library uses, the same
    name in another group, and a key with a similar spelling: in the same group or, if none was given, in any.

    Returns:
        A sentence with a leading space; "" without a suggestion.
    """
    prefix, _, key = full_key.rpartition(".")
    plain = re.sub(r"(?<=[a-z])(?=[A-Z])|-", "_", key).lower()
    if plain in _CLASSES:
        return " It need not be set: the classes are those of the data."
    where = f"{prefix}." if prefix else ""
    if spelt := closest(key, allowed, at_least=0.85):
        return f" Did you mean '{where}{spelt}'?"
    for ours, theirs in _ELSEWHERE.items():
        if plain in theirs.split():
            return f" Did you mean {ours}?"
    same = [_with_options(known) for known in known_keys() if known.rpartition(".")[2] == plain]
    if same:
        return f" Did you mean {' or '.join(same)}?"
    if prefix:
        beside = closest(key, allowed)
        return f" Did you mean '{where}{beside}'?" if beside else ""
    names = {known.rpartition(".")[2] for known in known_keys()}
    anywhere = closest(plain, [*allowed, *sorted(names)], at_least=0.76)
    return hint(anywhere, allowed) if anywhere in names else f" Did you mean '{anywhere}'?" if anywhere else ""


def _with_options(full_key: str) -> str:
    """A key, followed by the options that have it if not all options of its group do."""
    group, _, key = full_key.partition(".")
    nodes = SCHEMA.get(group, {})
    having = [name.lstrip("_") for name, node in nodes.items() if key in get_type_hints(node)]
    rest = f" (of {group}={' or '.join(having)})" if len(having) < len(nodes) else ""
    return f"{full_key}{rest}"


@cache
def known_keys() -> tuple[str, ...]:
    """The full names of all settings of all options, without the groups themselves."""
    return tuple(_types())


@cache
def string_keys() -> frozenset[str]:
    """The full names of the settings that take any text."""
    return frozenset((key for key, kind in _types().items() if kind in (str, str | None))) | frozenset(HYDRA_STRINGS)


@cache
def _types() -> dict[str, object]:
    groups = ((group, node) for group, nodes in _schemas().items() for node in nodes)
    return {f"{group}.{key}": kind for group, node in groups for key, kind in _leaves(node)}


@cache
def _schemas() -> dict[str, tuple[type, ...]]:
    """Group -> the schemas of its options; of a group without options, its only one."""
    return {group: tuple(SCHEMA.get(group, {"": node}).values()) for group, node in get_type_hints(Config).items()}


def _leaves(node: type) -> Iterator[tuple[str, object]]:
    assert is_dataclass(node)
    hints = get_type_hints(node)
    return ((field.name, hints[field.name]) for field in fields(node))
