"""Classifiers of torchvision: their weights, their transforms, their construction."""

from __future__ import annotations

from typing import Any

from torch import nn
from torchvision.models import get_model, get_model_weights

from ftexp.config import ModelConfig
from ftexp.errors import ConfigError, WeightsError, nearest
from ftexp.models.heads import replace_head
from ftexp.models.weights import Weights, load_backbone, read_state_dict, weights_from_hub
from ftexp.preprocessing import Preprocessing


def published_weights(config: ModelConfig) -> Any:
    """The member of torchvision's weights enum that ``model.weights`` means; for files and null the default one.

    Raises:
        WeightsError: if the name is not one of the enum's.
        ConfigError: if torchvision has no such model.
    """
    try:
        enum = get_model_weights(config.name)
    except ValueError:
        raise ConfigError(f"torchvision has no model '{config.name}' (model.name).") from None
    known = enum.__members__
    name = config.weights or ""
    if name in known:
        return known[name]
    if name not in ("", "default") and "." not in name and "/" not in name:
        raise WeightsError(
            f"model.weights={name}: {config.name} has no such weights.{nearest(name, known)} "
            f"Allowed: default, null, {', '.join(known)}, or a file."
        )
    return enum.DEFAULT


def locate(config: ModelConfig) -> Weights:
    """Torchvision's own weights, in torch.hub's cache or downloaded into it."""
    member = published_weights(config)
    return weights_from_hub(member.url, config.name, f"{config.name} {member.name} of torchvision")


def build(config: ModelConfig, weights: Weights | None, num_classes: int) -> nn.Module:
    """The network with a new head."""
    if weights is not None and weights.origin == "library":
        # torchvision's own loading renames where a family needs it; the file is in its cache by now.
        module: nn.Module = get_model(config.name, weights=published_weights(config), progress=False)
        replace_head(module, config.head, num_classes)
        return module
    module = get_model(config.name, weights=None)
    replace_head(module, config.head, num_classes)
    if weights is not None:
        load_backbone(module, read_state_dict(weights.path), (config.head,), weights.label)
    return module


def preprocessing(config: ModelConfig) -> Preprocessing:
    """The transforms that belong to the weights; for files and random weights those of the architecture's default."""
    transforms = published_weights(config).transforms()
    return Preprocessing(
        image_size=transforms.crop_size[0],
        resize_size=transforms.resize_size[0],
        interpolation=transforms.interpolation.value,
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
    )
