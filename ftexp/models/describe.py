"""A network in words and numbers: what a person looks at before choosing what to train."""

from __future__ import annotations

from collections import Counter

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ftexp.config import ModelConfig
from ftexp.models.blocks import HEAD, Network
from ftexp.models.catalogue import build_skeleton, weights_state

# Classes of the data are not known here; ImageNet's number makes parameter counts comparable with papers.
NUM_CLASSES = 1000

# crop_mode -> what becomes resize_size pixels long.
RESIZED = {"center": "short side", "squash": "both sides", "border": "long side"}

Row = dict[str, object]


def normalisation(module: nn.Module) -> str:
    """The kinds of norm layers, the most frequent first; ``none`` where there are none."""
    kinds = Counter(kind for layer in module.modules() if (kind := _norm_kind(layer)))
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
    """One line of the catalogue: what ``model=OPTION`` would give."""
    network = build_skeleton(config, NUM_CLASSES)
    return {
        "model": option,
        "parameters": _count(network.module),
        "pixels": config.image_size or network.preprocessing.image_size,
        "normalisation": normalisation(network.module),
        "blocks": f"{len(network.blocks)}: {network.names[0]} … {network.names[-2]}",
        "weights": weights_state(config),
    }


def block_rows(network: Network) -> list[Row]:
    """One line per block, the head last."""
    rows = []
    for name in network.names:
        parameters = network.parameters(name)
        kinds = {normalisation(module) for module in network.modules(name)} - {"none"}
        rows.append(
            {
                "block": name,
                "tensors": len(parameters),
                "parameters": sum(parameter.numel() for parameter in parameters.values()),
                "normalisation": ", ".join(sorted(kinds)) or "none",
                "modules": ", ".join(network.heads if name == HEAD else network.paths(name)),
            }
        )
    return rows


def head_lines(network: Network) -> list[str]:
    """The classifying layers, and the dropout that belongs to them."""
    lines = [f"{path}: {network.module.get_submodule(path)}" for path in network.heads]
    for path in network.paths(HEAD)[len(network.heads) :]:
        module = network.module.get_submodule(path)
        if isinstance(module, nn.Dropout):
            lines.append(f"{path}: {module}")
    return lines


def transforms_line(network: Network) -> str:
    """How an image becomes the network's input."""
    p = network.preprocessing
    mean, std = (", ".join(f"{value:.3f}" for value in values) for values in (p.mean, p.std))
    return (
        f"{RESIZED[p.crop_mode]} to {p.resize_size} px ({p.interpolation}), centre {p.image_size} x {p.image_size}, "
        f"minus mean ({mean}), over std ({std})"
    )


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
