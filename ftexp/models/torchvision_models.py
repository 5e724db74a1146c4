"""Classifiers of torchvision: their weights, their transforms, their construction."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights

from ftexp.config import ModelConfig
from ftexp.errors import ConfigError
from ftexp.models.heads import replace_head, set_drop_path_rate, set_drop_rate
from ftexp.models.loading import load_weights, reading, say_published
from ftexp.models.tensor_names import named_as
from ftexp.models.torchvision_positions import resample_file, take_image_size
from ftexp.models.weights import Weights, hub_file, is_file_name, no_such_weights, weights_from_hub
from ftexp.models.weights_file import WeightsFile
from ftexp.preprocessing import Preprocessing


def names_of_weights(config: ModelConfig) -> tuple[str, ...]:
    """The names of the weights that torchvision publishes for a model.

    Raises:
        ConfigError: if torchvision has no such model.
    """
    try:
        return tuple(get_model_weights(config.name).__members__)
    except ValueError:
        raise ConfigError(
            f"torchvision has no model '{config.name}' (model.name). If it is one of timm's, use model=timm "
            f"model.name={config.name}."
        ) from None


def published_weights(config: ModelConfig) -> Any:
    """The member of torchvision's weights enum that ``model.weights`` names; for files and null, the default.

    Raises:
        WeightsError: if the enum has no member of that name.
        ConfigError: if torchvision has no such model.
    """
    known, name = names_of_weights(config), config.weights
    enum = get_model_weights(config.name)
    if name in known:
        return enum[name]
    if name not in (None, "default") and not is_file_name(name):
        raise no_such_weights(config.name, name, known)
    return enum.DEFAULT


def cached(config: ModelConfig) -> Path | None:
    """The file of the published weights, if it is in the cache of torch.hub."""
    path = hub_file(published_weights(config).url)
    return path if path.is_file() else None


def locate(config: ModelConfig) -> Weights:
    """Find torchvision's published weights in the cache of torch.hub, or download them into it.

    Raises:
        WeightsError: if they cannot be downloaded.
    """
    member = published_weights(config)
    return weights_from_hub(member.url, config.name, f"{config.name} {member.name} of torchvision")


def build(
    config: ModelConfig,
    weights: Weights | None,
    classes: int | Sequence[str],
    image_size: int | None,
    file: WeightsFile | None = None,
) -> tuple[nn.Module, bool]:
    """Build the network with a new head, or with the rows that a file's head has for the same classes.

    Args:
        config: the settings of the model.
        weights: where the weights are; None: random weights.
        classes: the classes of the data, or their number.
        image_size: side of the images in pixels; None: the architecture's default.
        file: what was read from a file of weights; None: torchvision reads its own weights.

    Returns:
        The network, and whether its head keeps rows of the file.

    Raises:
        ConfigError: if there is no such architecture, it has no dropout or no stochastic depth to set, or it is a
            vision transformer that cannot take images of that size.
        WeightsError: if the weights do not fit.
    """
    assert config.head is not None
    names_of_weights(config)
    num_classes = classes if isinstance(classes, int) else len(classes)
    own = weights is not None and file is None
    # torchvision's own loading renames tensors where a family needs it; the file is already in its cache.
    with reading(weights):
        module: nn.Module = get_model(config.name, weights=published_weights(config) if own else None, progress=False)
    take_image_size(module, image_size, config.name)
    replace_head(module, config.head, num_classes)
    keeps_rows = False
    if file is not None:
        named = named_as(module, file.renamed(_current_names(file.tensors)))
        keeps_rows = load_weights(module, resample_file(module, named), (config.head,), classes)
    elif weights is not None:
        say_published(module, weights, (config.head,))
    if config.drop_rate is not None:
        set_drop_rate(module, config.head, config.drop_rate, config.name)
    if config.drop_path_rate is not None:
        set_drop_path_rate(module, config.drop_path_rate, config.name)
    return module, keeps_rows


def preprocessing(config: ModelConfig) -> Preprocessing:
    """The transforms of the weights; for files and random weights, those of the architecture's default weights."""
    transforms = published_weights(config).transforms()
    return Preprocessing(
        image_size=transforms.crop_size[0],
        resize_size=transforms.resize_size[0],
        interpolation=transforms.interpolation.value,
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
    )


def _current_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename tensors of torchvision's published DenseNets, where ``norm1`` still has its old name ``norm.1``."""
    pattern = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")
    return {pattern.sub(r"\1\2", name): tensor for name, tensor in state.items()}
