"""Tensors that layers compute from their weights and cache in eval mode, such as LeViT's attention biases in timm."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn


def drop_eval_caches(module: nn.Module) -> None:
    """Make every layer drop what it caches in eval mode; call this whenever weights have been changed in place.

    Such layers drop their cache when they are put into training mode, whatever they call it. So all modules are put
    into training mode, and then back into the mode that each had.
    """
    modes = [(child, child.training) for child in module.modules()]
    module.train()
    for child, mode in modes:
        child.training = mode


def load_weights(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load a complete state dict into a module that may have been used already."""
    module.load_state_dict(weights)
    drop_eval_caches(module)
