"""Descriptions of a network, for a user who chooses what to train."""

from __future__ import annotations

from collections import Counter

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ftexp.config import ModelConfig
from ftexp.models.blocks import HEAD, Network
from ftexp.models.catalogue import build_skeleton, weights_state

# The classes of the data are not known here; with ImageNet's 1000, parameter counts can be compared with papers.
NUM_CLASSES = 1000

# crop_mode -> which side is resized to resize_size pixels.
RESIZED = {"center": "short side", "squash": "both sides", "border": "long side"}

Row = dict[str, object]


def normalisation(*modules: nn.Module) -> str:
    """The kinds of norm layers in some modules, each once, the most frequent first; ``none`` if there are none."""
    kinds = Counter(kind for module in modules for layer in module.modules() if (kind := _norm_kind(layer)))
    return ", ".join(kind for kind, _ in kinds.most_common()) or "none"


def _norm_kind(layer: nn.Module) -> str | None:
    if isinstance(layer, _BatchNorm):
        return "BatchNorm"
    for kind in (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm):
        if isinstance(layer, kind):
            return kind.__name__
    name = type(layer).__name__
    return name if "Norm" in name and not any(layer.children()) else None


def catalogue_row(option: str, config: ModelConfig) -> Row:
    """The row of the catalogue for ``model=OPTION``."""
    network = build_skeleton(config, NUM_CLASSES)
    return {
        "model": option,
        "parameters": _count(network.module),
        "pixels": network.preprocessing.image_size,
        "normalisation": normalisation(network.module),
        "blocks": f"{len(network.blocks)}: {network.names[0]} … {network.names[-2]}",
        "weights": weights_state(config),
    }


def block_rows(network: Network) -> list[Row]:
    """One row per block; the last is the head's."""
    rows = []
    for name in network.names:
        parameters = network.parameters(name)
        rows.append(
            {
                "block": name,
                "tensors": len(parameters),
                "parameters": sum(parameter.numel() for parameter in parameters.values()),
                "normalisation": normalisation(*network.modules(name)),
                "modules": ", ".join(network.heads if name == HEAD else network.paths(name)),
            }
        )
    return rows


def head_lines(network: Network) -> list[str]:
    """One line per classifying layer, and per dropout before them."""
    lines = [f"{path}: {network.module.get_submodule(path)}" for path in network.heads]
    for path in network.paths(HEAD)[len(network.heads) :]:
        module = network.module.get_submodule(path)
        if isinstance(module, nn.Dropout):
            lines.append(f"{path}: {module}")
    return lines


def transforms_line(network: Network) -> str:
    """The transforms that turn an image into the input of the network."""
    p = network.preprocessing
    mean, std = (", ".join(f"{value:.3f}" for value in values) for values in (p.mean, p.std))
    return (
        f"{RESIZED[p.crop_mode]} to {p.resize_size} px ({p.interpolation}), centre {p.image_size} x {p.image_size}, "
        f"normalised with mean ({mean}), std ({std})"
    )


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
