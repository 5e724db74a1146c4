"""Classifiers of timm: their weights, their transforms, their construction."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import timm
from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from timm.data import resolve_model_data_config
from torch import nn

from ftexp.config import ModelConfig
from ftexp.errors import ConfigError, WeightsError, nearest
from ftexp.models.download import check_answers
from ftexp.models.heads import reset_head
from ftexp.models.weights import (
    Weights,
    hub_file,
    load_backbone,
    load_in_order,
    read_state_dict,
    unreachable,
    weights_from_hub,
)
from ftexp.preprocessing import Preprocessing

# What timm's repositories on the Hugging Face hub call their weights; the first one is preferred.
HUB_FILES = ("model.safetensors", "pytorch_model.bin")


def pretrained_cfg(config: ModelConfig) -> Any:
    """timm's description of the weights that ``model.name`` and ``model.weights`` mean.

    Raises:
        ConfigError: if timm has no such model.
        WeightsError: if the model has no published weights, or not under that tag.
    """
    architecture, _, tag = config.name.partition(".")
    if not timm.is_model(architecture):
        raise ConfigError(
            f"timm has no model '{config.name}' (model.name).{nearest(architecture, timm.list_models())} "
            "timm.list_models('*PATTERN*') lists its names."
        )
    tags = [name.partition(".")[2] for name in timm.list_pretrained(f"{architecture}.*")]
    if config.weights is not None and config.weights in tags:
        tag = config.weights
    elif config.weights is not None and config.weights != "default" and "." not in config.weights:
        raise WeightsError(
            f"model.weights={config.weights}: timm's {architecture} has no weights of that tag."
            f"{nearest(config.weights, tags)} Allowed: {', '.join(('default', 'null', *tags))}, or a file."
        )
    found = timm.get_pretrained_cfg(f"{architecture}.{tag}" if tag else architecture, allow_unregistered=False)
    if found is None:
        raise ConfigError(f"timm has no '{config.name}'. Its weights: {', '.join(tags) or 'none'}.")
    return found


def locate(config: ModelConfig) -> Weights:
    """timm's own weights: in torch.hub's or the Hugging Face cache, or downloaded."""
    cfg = pretrained_cfg(config)
    label = f"{cfg.architecture}.{cfg.tag} of timm" if cfg.tag else f"{cfg.architecture} of timm"
    if cfg.url and (not cfg.hf_hub_id or hub_file(cfg.url).is_file()):
        return weights_from_hub(cfg.url, config.name, label)
    if not cfg.hf_hub_id:
        raise WeightsError(
            f"timm publishes no weights for {config.name}: set model.weights=FILE, or model.weights=null (random)."
        )
    repository = cfg.hf_hub_id
    files = (cfg.hf_hub_filename,) if cfg.hf_hub_filename else HUB_FILES
    for file in files:
        cached = try_to_load_from_cache(repository, file)
        if isinstance(cached, str):
            return Weights(Path(cached), "library", label)
    try:
        check_answers(f"{constants.ENDPOINT}/{repository}/resolve/main/{files[0]}")
        return Weights(Path(hf_hub_download(repository, files[0])), "library", label)
    except (OSError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        folders = [Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"]
        if cfg.url:
            folders.append(hub_file(cfg.url).parent)
        name = f"{files[0]} of {repository}" + (f" (or {hub_file(cfg.url).name})" if cfg.url else "")
        raise unreachable(config.name, name, folders, str(error)) from error


def build(config: ModelConfig, weights: Weights | None, num_classes: int) -> nn.Module:
    """The network with a new head."""
    options: dict[str, Any] = {}
    if weights is not None and weights.origin == "package":
        module: nn.Module = timm.create_model(config.name, **options)
        load_in_order(module, read_state_dict(weights.path), weights.label)
        module.reset_classifier(num_classes)  # type: ignore[operator]
    elif weights is not None and weights.origin == "library":
        overlay = {"file": str(weights.path)}
        module = timm.create_model(
            config.name, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=num_classes, **options
        )
    else:
        module = timm.create_model(config.name, num_classes=num_classes, **options)
    reset_head(module, (config.head,))
    if weights is not None and weights.origin == "file":
        load_backbone(module, read_state_dict(weights.path), (config.head,), weights.label)
    return module


def preprocessing(module: nn.Module) -> Preprocessing:
    """The transforms that belong to the weights, from the description that timm keeps with the module."""
    data = resolve_model_data_config(module)
    image_size = int(data["input_size"][-1])
    interpolation = "bilinear" if data["interpolation"] == "bilinear" else "bicubic"
    return Preprocessing(
        image_size=image_size,
        resize_size=math.floor(image_size / data["crop_pct"]),
        interpolation=interpolation,
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
    )
