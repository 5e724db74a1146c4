"""From ``model=…`` to a network: find the weights, build, replace the head, name the blocks."""

from __future__ import annotations

import torch
from torch import nn

from ftexp.config import ModelConfig
from ftexp.errors import ConfigError
from ftexp.models import timm_models, torchvision_models
from ftexp.models.blocks import HEAD, Block, Network
from ftexp.models.weights import Weights, is_file_name, weights_from_file, weights_from_package


def block_names(config: ModelConfig) -> tuple[str, ...]:
    """The blocks of a model, stem first, ``head`` last, without memory for its weights.

    Raises:
        ConfigError: if the blocks are to be derived and cannot be.
    """
    if config.library == "timm":
        return (*timm_models.block_names(config), HEAD)
    return (*config.blocks, HEAD)


def locate_weights(config: ModelConfig) -> Weights | None:
    """Find the weights that the configuration asks for, downloading them where they are not on this machine.

    Returns:
        Where they lie; None for ``model.weights=null``, which asks for random ones.

    Raises:
        WeightsError: if they cannot be had, within seconds where there is no network.
        ConfigError: if the library has no such model.
    """
    if config.weights is None:
        return None
    if is_file_name(config.weights):
        return weights_from_file(config.weights)
    if config.weights == "default" and config.weights_package is not None:
        return weights_from_package(config.weights_package)
    if config.library == "torchvision":
        return torchvision_models.locate(config)
    return timm_models.locate(config)


def build_network(config: ModelConfig, weights: Weights | None, num_classes: int, image_size: int | None) -> Network:
    """Build the architecture, load the weights, and put a head of ``num_classes`` on it.

    Args:
        config: the model.
        weights: from ``locate_weights``; None for random ones.
        num_classes: classes in the data.
        image_size: side of the images that suits the data, in pixels; ``model.image_size`` wins over it, and where
            both are None it is the weights' own.

    Raises:
        WeightsError: if the weights do not fit.
        ConfigError: if the blocks or the head do not fit the network, or it takes no images of that size.
    """
    image_size = config.image_size or image_size
    if config.library == "torchvision":
        module = torchvision_models.build(config, weights, num_classes)
        preprocessing = torchvision_models.preprocessing(config)
        heads: tuple[str, ...] = (config.head or "",)
        blocks = tuple(Block(name, tuple(paths)) for name, paths in config.blocks.items())
    else:
        module = timm_models.build(config, weights, num_classes, image_size)
        preprocessing = timm_models.preprocessing(module)
        heads, blocks = timm_models.heads(config, module), timm_models.blocks(config, module)
    own_size = preprocessing.image_size
    preprocessing = preprocessing.at(image_size)
    _check_image_size(module, preprocessing.image_size, own_size, config.name)
    return Network(
        module,
        blocks,
        head=heads,
        preprocessing=preprocessing,
        name=config.name,
        num_classes=num_classes,
    )


@torch.inference_mode()
def _check_image_size(module: nn.Module, image_size: int, own_size: int, name: str) -> None:
    """Networks with a fixed input, and images too small for the strides, fail here and not in the first epoch."""
    training = module.training
    module.eval()
    try:
        module(torch.zeros(1, 3, image_size, image_size))
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"{name} takes no images of {image_size} x {image_size} pixels ({reason}). "
            f"Set model.image_size to a size it takes; its weights' own is {own_size}."
        ) from error
    finally:
        module.train(training)
