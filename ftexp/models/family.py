"""The family of a network, by which the recipe chooses rates and budgets."""

from __future__ import annotations

from typing import Literal

from torch import nn

Family = Literal["cnn", "convnext", "vit"]

# Parts of the names of parameters that queries, keys and values have in torch, torchvision and timm.
_OF_ATTENTION = {"qkv", "to_qkv", "in_proj_weight", "q_proj", "q", "query"}


def family_of(module: nn.Module) -> Family:
    """``vit`` if the network has attention, ``convnext`` if it has LayerNorm but no attention, else ``cnn``.

    Args:
        module: the network, also one on the meta device.
    """
    parts = {part for name, _ in module.named_parameters() for part in name.split(".")}
    if parts & _OF_ATTENTION:
        return "vit"
    return "convnext" if any(isinstance(layer, nn.LayerNorm) for layer in module.modules()) else "cnn"
