"""From ``model=…`` to a network: find the weights, build, replace the head, name the blocks."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from ftexp.config import ModelConfig
from ftexp.errors import ConfigError
from ftexp.models import timm_models, torchvision_models
from ftexp.models.blocks import HEAD, Block, Network
from ftexp.models.timm_blocks import derive_blocks
from ftexp.models.weights import Weights, is_file_name, is_installed, weights_from_file, weights_from_package
from ftexp.models.weights_file import read_weights

logger = logging.getLogger(__name__)


def block_names(config: ModelConfig) -> tuple[str, ...]:
    """The blocks of a model, stem first, ``head`` last, without memory for its weights.

    Raises:
        ConfigError: if the blocks are to be derived and cannot be.
    """
    return (*config.blocks, HEAD) if config.blocks else build_skeleton(config, num_classes=2).names


def locate_weights(config: ModelConfig) -> Weights | None:
    """Find the weights that the configuration asks for, downloading them where they are not on this machine.

    Returns:
        Where they lie; None for ``model.weights=null``, which asks for random ones.

    Raises:
        WeightsError: if they cannot be had, within seconds where there is no network.
        ConfigError: if the library has no such model.
    """
    if config.weights is None:
        logger.info("weights null: the network starts from random numbers.")
        return None
    if _means_a_file(config):
        return weights_from_file(config.weights)
    if config.weights == "default" and config.weights_package is not None:
        return weights_from_package(config.weights_package)
    if config.library == "torchvision":
        return torchvision_models.locate(config)
    return timm_models.locate(config)


def _means_a_file(config: ModelConfig) -> bool:
    """Names of published weights come first: whoever has a file of that name writes ``./NAME``."""
    given = config.weights
    if given is None or given == "default" or not is_file_name(given):
        return False
    of = torchvision_models if config.library == "torchvision" else timm_models
    return given not in of.names_of_weights(config)


def weights_state(config: ModelConfig) -> str:
    """Whether the weights are here: ``bundled``, ``cached``, ``file``, ``none`` (random), or what it takes."""
    if config.weights is None:
        return "none"
    if _means_a_file(config):
        return "file" if Path(config.weights).expanduser().exists() else "missing file"
    if config.weights == "default" and config.weights_package is not None:
        return "bundled" if is_installed(config.weights_package) else "to install"
    cached = torchvision_models.cached if config.library == "torchvision" else timm_models.cached
    return "cached" if cached(config) is not None else "to download"


def build_network(
    config: ModelConfig, weights: Weights | None, classes: int | Sequence[str], image_size: int | None
) -> Network:
    """Build the architecture, load the weights, and put a head for the data's classes on it.

    Args:
        config: the model.
        weights: from ``locate_weights``; None for random ones.
        classes: of the data, in the order of their numbers; a file's head keeps its rows for those that it has, too.
            Where only their number is given, the head starts anew.
        image_size: side of the images that suits the data, in pixels; ``model.image_size`` wins over it, and where
            both are None it is the weights' own.

    Raises:
        WeightsError: if the weights do not fit.
        ConfigError: if the blocks or the head do not fit the network, or it takes no images of that size.
    """
    file = read_weights(weights.path, weights.label) if weights and weights.origin != "library" else None
    own = file.preprocessing if file else None
    image_size = config.image_size or image_size or (own.image_size if own else None)
    if config.library == "torchvision":
        module = torchvision_models.build(config, weights, classes, file)
    else:
        module = timm_models.build(config, weights, classes, image_size, file)
        if image_size is None:
            timm_models.check_square(module, config.name)
    network = _network(config, module, classes if isinstance(classes, int) else len(classes))
    network.preprocessing = own or network.preprocessing
    own_size = network.preprocessing.image_size
    network.preprocessing = network.preprocessing.at(image_size)
    _check_image_size(module, network.preprocessing.image_size, own_size, config.name)
    return network


def build_skeleton(config: ModelConfig, num_classes: int) -> Network:
    """The network without its weights and, for nearly all architectures, without memory for them (device meta)."""
    config = replace(config, weights=None)

    def module() -> nn.Module:
        if config.library == "torchvision":
            return torchvision_models.build(config, None, num_classes)
        return timm_models.build(config, None, num_classes, config.image_size)

    try:
        with torch.device("meta"):
            return _network(config, module(), num_classes)
    except (NotImplementedError, RuntimeError):
        # A few, RegNet among them, compute with tensors while they are built; what is really wrong is raised again.
        return _network(config, module(), num_classes)


def _network(config: ModelConfig, module: nn.Module, num_classes: int) -> Network:
    heads: tuple[str, ...] = (config.head or "",)
    blocks = tuple(Block(name, tuple(paths)) for name, paths in config.blocks.items())
    if config.library == "timm":
        heads = timm_models.heads(config, module)
        blocks = blocks or derive_blocks(module, heads, config.name)
        preprocessing = timm_models.preprocessing(timm_models.pretrained_cfg_of(module))
    else:
        preprocessing = torchvision_models.preprocessing(config)
    return Network(module, blocks, head=heads, preprocessing=preprocessing, name=config.name, num_classes=num_classes)


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
