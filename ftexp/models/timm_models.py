"""Classifiers of timm: their weights, their transforms, their construction."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from timm.data import resolve_data_config
from torch import nn

from ftexp.config import ModelConfig
from ftexp.errors import ConfigError, WeightsError, nearest
from ftexp.models.download import check_answers
from ftexp.models.heads import reset_head
from ftexp.models.loading import load_in_order, load_weights, reading, say_published
from ftexp.models.positions import resample_positions
from ftexp.models.tensor_names import named_as
from ftexp.models.weights import Weights, hub_file, is_file_name, no_such_weights, unreachable, weights_from_hub
from ftexp.models.weights_file import WeightsFile
from ftexp.preprocessing import Preprocessing

# What timm's repositories on the Hugging Face hub call their weights; the first one is preferred.
HUB_FILES = ("model.safetensors", "pytorch_model.bin")


def names_of_weights(config: ModelConfig) -> tuple[str, ...]:
    """The tags of the weights that timm publishes for a model.

    Raises:
        ConfigError: if timm has no such model.
    """
    architecture = config.name.partition(".")[0]
    if not timm.is_model(architecture):
        raise ConfigError(
            f"timm has no model '{config.name}' (model.name).{nearest(architecture, timm.list_models())} "
            "timm.list_models('*PATTERN*') lists timm's names."
        )
    return tuple(name.partition(".")[2] for name in timm.list_pretrained(f"{architecture}.*"))


def pretrained_cfg(config: ModelConfig) -> Any:
    """timm's description of the weights that ``model.name`` and ``model.weights`` mean.

    Raises:
        ConfigError: if timm has no such model.
        WeightsError: if the model has no published weights with that tag.
    """
    architecture, _, tag = config.name.partition(".")
    tags = names_of_weights(config)
    if config.weights in tags:
        tag = str(config.weights)
    elif config.weights not in (None, "default") and not is_file_name(str(config.weights)):
        raise no_such_weights(f"timm's {architecture}", str(config.weights), tags)
    if tag and tag not in tags:
        raise ConfigError(f"timm has no '{config.name}'. Its weights: {', '.join(tags) or 'none'}.")
    found = timm.get_pretrained_cfg(f"{architecture}.{tag}" if tag else architecture)
    if found is None:
        raise ConfigError(f"timm has no description of weights and input for '{config.name}'; choose another model.")
    return found


def cached(config: ModelConfig) -> Path | None:
    """The file of the published weights, if it is in the cache of torch.hub or of the Hugging Face hub."""
    cfg = pretrained_cfg(config)
    if cfg.url and hub_file(cfg.url).is_file():
        return hub_file(cfg.url)
    for file in _hub_files(cfg) if cfg.hf_hub_id else ():
        found = try_to_load_from_cache(cfg.hf_hub_id, file)
        if isinstance(found, str):
            return Path(found)
    return None


def locate(config: ModelConfig) -> Weights:
    """Find timm's published weights in the cache of torch.hub or the Hugging Face hub, or download them.

    Raises:
        WeightsError: if there are none, or they cannot be downloaded.
    """
    cfg = pretrained_cfg(config)
    label = f"{cfg.architecture}.{cfg.tag} of timm" if cfg.tag else f"{cfg.architecture} of timm"
    path = cached(config)
    if path is not None:
        return Weights(path, "library", label)
    if not cfg.hf_hub_id and not cfg.url:
        raise WeightsError(
            f"timm publishes no weights for {config.name}: set model.weights=FILE, or model.weights=null (random)."
        )
    if not cfg.hf_hub_id:
        return weights_from_hub(cfg.url, config.name, label)
    repository, file = cfg.hf_hub_id, _hub_files(cfg)[0]
    try:
        check_answers(f"{constants.ENDPOINT}/{repository}/resolve/main/{file}")
        return Weights(Path(hf_hub_download(repository, file)), "library", label)
    except (OSError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        folders = [Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"]
        name, remedy = f"{file} of {repository}", "copy that folder"
        if cfg.url:
            folders.append(hub_file(cfg.url).parent)
            name += f" (or {hub_file(cfg.url).name})"
            remedy = "copy the first folder, or put the file in the second"
        raise unreachable(config.name, name, folders, str(error), remedy) from error


def _hub_files(cfg: Any) -> tuple[str, ...]:
    return (cfg.hf_hub_filename,) if cfg.hf_hub_filename else HUB_FILES


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
        file: what was read from a file of weights; None: timm reads its own weights.

    Returns:
        The network, and whether its head keeps rows of the file.

    Raises:
        ConfigError: if the architecture does not have an option that is set (``model.drop_rate``, ...).
        WeightsError: if the weights do not fit.
    """
    num_classes = classes if isinstance(classes, int) else len(classes)
    cfg = pretrained_cfg(config)
    options = _options(config, cfg, image_size)
    name = f"{cfg.architecture}.{cfg.tag}" if cfg.tag else cfg.architecture
    if weights is not None and weights.origin == "library":
        # timm's own loading renames tensors where a family needs it, and resamples position embeddings.
        # Its readers of other formats (custom_load) are for .npz files only, not for files of the hub.
        overlay = {"file": str(weights.path), "custom_load": cfg.custom_load and weights.path.suffix == ".npz"}
        options |= {"pretrained": True, "pretrained_cfg_overlay": overlay}
    try:
        with reading(weights):
            module: nn.Module = timm.create_model(name, num_classes=num_classes, **options)
    except TypeError as error:
        raise ConfigError(
            f"timm's {config.name} does not have an option that is set (one of "
            f"{', '.join(f'model.{key}' for key in _given(config))}): {error}."
        ) from error
    paths = heads(config, module)
    reset_head(module, paths)
    if weights is None:
        return module, False
    if file is not None and not file.in_order:
        named = resample_positions(module, named_as(module, file), paths, cfg.architecture)
        return module, load_weights(module, named, paths, classes)
    if file is not None:
        load_in_order(module, file, paths)
    say_published(module, weights, paths)
    return module, False


def _options(config: ModelConfig, cfg: Any, image_size: int | None) -> dict[str, Any]:
    options = {key: getattr(config, key) for key in _given(config) if key != "image_size"}
    # Only networks whose input size is fixed by the shapes of their weights need it when they are built.
    if cfg.fixed_input_size and image_size is not None and image_size != cfg.input_size[-1]:
        options["img_size"] = image_size
    return options


def _given(config: ModelConfig) -> list[str]:
    return [key for key in ("drop_rate", "drop_path_rate", "image_size") if getattr(config, key) is not None]


def heads(config: ModelConfig, module: nn.Module) -> tuple[str, ...]:
    """Paths of the classifying layers: ``model.head``, else those that timm names (two in a distilled transformer).

    Raises:
        ConfigError: if timm names none, or the network does not have one of them.
    """
    named = config.head or pretrained_cfg_of(module).get("classifier")
    if not named:
        raise ConfigError(f"timm names no classifier for {config.name}: give its module path as model.head.")
    paths = (named,) if isinstance(named, str) else tuple(named)
    modules = {path for path, _ in module.named_modules()}
    for path in paths:
        if path not in modules:
            children = ", ".join(name for name, _ in module.named_children())
            other = f" For another network of timm, write model=timm model.name={config.name}." if config.head else ""
            raise ConfigError(
                f"{config.name} has no classifier '{path}' ({'model.head' if config.head else 'named by timm'}). "
                f"Its top-level modules: {children}. Choose another model, or set model.head to its classifier's path."
                f"{other}"
            )
    return paths


def pretrained_cfg_of(module: nn.Module) -> dict[str, Any]:
    """timm's description of the weights, which it stores with the module."""
    found: dict[str, Any] = module.pretrained_cfg  # type: ignore[assignment]
    return found


def preprocessing(description: Mapping[str, Any]) -> Preprocessing:
    """The transforms that belong to weights, from timm's description of them."""
    data = resolve_data_config(pretrained_cfg=description)
    image_size = int(data["input_size"][-1])
    return Preprocessing(
        image_size=image_size,
        resize_size=math.floor(image_size / data["crop_pct"]),
        interpolation=data["interpolation"],
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
        crop_mode=data["crop_mode"],
        crop_pct=data["crop_pct"],
    )


def check_square(module: nn.Module, name: str) -> None:
    """Refuse weights for images that are not square; used when no image size is set.

    Raises:
        ConfigError: if they are; the message names the setting to use.
    """
    height, width = pretrained_cfg_of(module)["input_size"][-2:]
    if height != width:
        raise ConfigError(
            f"{name} is made for images of {height} x {width} pixels, and ftexp trains on "
            f"square images only. Choose a size with model.image_size, for example {min(height, width)}."
        )
